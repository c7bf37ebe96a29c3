//! Users whom a front proxy names in headers, such as an API server that aggregates this one. Who may name users shows by a
//! certificate. Follows `headerrequest.NewDynamicVerifyOptionsSecure`.

use std::collections::BTreeMap;

use apimachinery::percent;
use http::{HeaderMap, HeaderName};

use crate::certificate::{self, Subject};
use crate::user::UserInfo;

/// Why a proxy's word is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("front proxy: {0}")]
    Certificate(#[from] certificate::Error),
    #[error("x509: subject with cn={0} is not in the allowed list")]
    NotAllowed(String),
}

/// Which proxies are believed, and where they put what they know of a user. Names of headers are as the operator wrote
/// them; their case does not matter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestHeader {
    /// Common names of proxies; when there are none, every certificate of the authority will do.
    pub allowed_names: Vec<String>,
    /// The first of these that is there is the user's name; it must be there for the headers to count.
    pub username_headers: Vec<String>,
    pub uid_headers: Vec<String>,
    pub group_headers: Vec<String>,
    /// What follows one of these in a header's name is the key of an extra, percent-encoded.
    pub extra_headers_prefix: Vec<String>,
}

impl RequestHeader {
    /// The user named in these headers by whoever holds this certificate, which leads to the authority of front proxies.
    /// None when nobody is named.
    pub fn user(&self, proxy: &Subject, headers: &HeaderMap) -> Result<Option<UserInfo>, Error> {
        if !self.allowed_names.is_empty() {
            let name = &proxy.user()?.name;
            if !self.allowed_names.contains(name) {
                return Err(Error::NotAllowed(name.clone()));
            }
        }
        let first = |names: &[String]| names.iter().find_map(|name| texts(headers, name).next());
        let Some(name) = first(&self.username_headers) else { return Ok(None) };
        let groups = self.group_headers.iter().flat_map(|name| texts(headers, name));
        let mut user = UserInfo::new(name, groups);
        user.uid = first(&self.uid_headers).unwrap_or_default();
        user.extra = self.extra(headers);
        Ok(Some(user))
    }

    fn extra(&self, headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for prefix in &self.extra_headers_prefix {
            for (name, value) in headers {
                let Some(key) = key(name, prefix) else { continue };
                let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
                extra.entry(percent::decode(key, false)).or_default().push(value);
            }
        }
        extra
    }

    /// Takes out what has been believed, so that nobody behind this server takes it for the client's own word.
    pub fn clear(&self, headers: &mut HeaderMap) {
        for name in self.username_headers.iter().chain(&self.uid_headers).chain(&self.group_headers) {
            headers.remove(name.as_str());
        }
        let of_extra =
            |name: &&HeaderName| self.extra_headers_prefix.iter().any(|prefix| key(name, prefix).is_some());
        let names: Vec<HeaderName> = headers.keys().filter(of_extra).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// The values of a header that are not empty.
fn texts<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = String> + use<'h> {
    let values = HeaderName::try_from(name).ok().map(|name| headers.get_all(name).into_iter());
    let texts =
        values.into_iter().flatten().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    texts.filter(|text| !text.is_empty())
}

/// What follows the prefix in a header's name, which is always in lower case.
fn key<'n>(name: &'n HeaderName, prefix: &str) -> Option<&'n str> {
    let (head, key) = name.as_str().split_at_checked(prefix.len())?;
    head.eq_ignore_ascii_case(prefix).then_some(key)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn usual() -> RequestHeader {
        let one = |name: &str| vec![name.to_owned()];
        RequestHeader {
            allowed_names: Vec::new(),
            username_headers: one("X-Remote-User"),
            uid_headers: one("X-Remote-Uid"),
            group_headers: one("X-Remote-Group"),
            extra_headers_prefix: one("X-Remote-Extra-"),
        }
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().expect("a value"))
        };
        pairs.iter().map(pair).collect()
    }

    fn unreadable() -> Subject {
        Subject::of(b"garbage")
    }

    fn proxy(name: &str) -> Subject {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        Subject::of(params.self_signed(&key).expect("a certificate").der())
    }

    #[test]
    fn a_proxy_names_the_user() {
        let mut named = headers(&[
            ("x-remote-user", "jane"),
            ("x-remote-uid", "7"),
            ("x-remote-group", "dev"),
            ("x-remote-group", "ops"),
            ("x-remote-extra-example.com%2fscope", "a"),
            ("accept", "*/*"),
        ]);
        let user = usual().user(&unreadable(), &named).expect("is believed").expect("is named");
        assert_eq!((user.name.as_str(), user.uid.as_str()), ("jane", "7"));
        assert_eq!(user.groups, ["dev", "ops", "system:authenticated"]);
        assert_eq!(user.extra["example.com/scope"], ["a"]);
        usual().clear(&mut named);
        assert_eq!(named.keys().collect::<Vec<_>>(), ["accept"]);
    }

    #[test]
    fn nobody_is_named_without_a_name() {
        let unnamed = headers(&[("x-remote-user", ""), ("x-remote-group", "system:masters")]);
        assert_eq!(usual().user(&unreadable(), &unnamed), Ok(None));
    }

    #[test]
    fn only_proxies_of_an_allowed_name_are_believed() {
        let chosen = RequestHeader { allowed_names: vec!["front-proxy-client".to_owned()], ..usual() };
        let named = headers(&[("x-remote-user", "jane")]);
        assert!(chosen.user(&proxy("front-proxy-client"), &named).expect("is believed").is_some());
        assert_eq!(chosen.user(&proxy("other"), &named), Err(Error::NotAllowed("other".to_owned())));
        assert!(chosen.user(&unreadable(), &named).is_err());
    }

    proptest! {
        #[test]
        fn any_headers_are_read(name in "[a-z%-]{1,30}", value in "[ -~]{0,20}") {
            let mut headers = HeaderMap::new();
            headers.insert("x-remote-user", "u".parse().expect("a value"));
            let name = HeaderName::try_from(format!("x-remote-extra-{name}")).expect("a name");
            headers.insert(name, value.parse().expect("a value"));
            let user = usual().user(&unreadable(), &headers).expect("is believed").expect("is named");
            prop_assert_eq!(user.extra.values().flatten().collect::<Vec<_>>(), vec![&value]);
        }
    }
}
