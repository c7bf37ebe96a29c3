//! Bootstrap tokens, `ID.SECRET`: what a new machine shows before it has a certificate. Each is a Secret in kube-system.
//! Follows `plugin/pkg/auth/authenticator/token/bootstrap`.

use api::bootstraptoken::{
    DESCRIPTION, EXPIRATION, EXTRA_GROUPS, ID_BYTES, LETTERS, NAMESPACE, SECRET_BYTES, SECRET_PREFIX,
    SECRET_TYPE, TOKEN_ID, TOKEN_SECRET, USAGE_AUTHENTICATION, USAGE_SIGNING, is_id, is_secret,
};
use apimachinery::time::parse_time;
use apimachinery::{Value, json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use ring::error::Unspecified;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::user::UserInfo;

const USER_PREFIX: &str = "system:bootstrap:";
const GROUP: &str = "system:bootstrappers";
const GROUP_PREFIX: &str = "system:bootstrappers:";
/// What follows the prefix in the name of a further group.
const GROUP_SUFFIX_BYTES_MAX: usize = 256;

/// Why a Secret does not vouch for the token that names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the bootstrap token is unknown")]
    Unknown,
    #[error("the bootstrap token's secret does not match")]
    Mismatch,
    #[error("the bootstrap token has expired")]
    Expired,
    #[error("the bootstrap token is not for authentication")]
    NotForAuthentication,
    #[error("the bootstrap token names groups outside {GROUP_PREFIX}")]
    Groups,
}

/// A token's two halves, if it has the form of one.
pub fn parse(token: &str) -> Option<(&str, &str)> {
    token.split_once('.').filter(|(id, secret)| is_id(id) && is_secret(secret))
}

/// A new token; fails where the system has no random numbers.
pub fn generate() -> Result<String, Unspecified> {
    let random = SystemRandom::new();
    let alphabet: Vec<u8> = LETTERS.into_iter().flatten().collect();
    let word = |length: usize| -> Result<String, Unspecified> {
        let mut word = String::new();
        while word.len() < length {
            let mut byte = [0];
            random.fill(&mut byte)?;
            // Bytes beyond the last whole round of the alphabet would favour its first letters.
            let place = usize::from(byte[0]);
            if place < alphabet.len() * (256 / alphabet.len()) {
                word.push(char::from(alphabet[place % alphabet.len()]));
            }
        }
        Ok(word)
    };
    Ok(format!("{}.{}", word(ID_BYTES)?, word(SECRET_BYTES)?))
}

/// The Secret that vouches for a token until `expiration`, or for ever; its bearer is in `group` too. It signs as well,
/// so that the bearer can tell whether what the cluster says of itself is the cluster's.
pub fn secret(token: (&str, &str), group: &str, description: &str, expiration: Option<Timestamp>) -> Value {
    let (id, secret) = token;
    let mut data = json!({TOKEN_ID: id, TOKEN_SECRET: secret, USAGE_AUTHENTICATION: "true", USAGE_SIGNING: "true",
        EXTRA_GROUPS: group});
    if !description.is_empty() {
        data[DESCRIPTION] = description.into();
    }
    if let Some(expiration) = expiration {
        data[EXPIRATION] = format!("{expiration:.0}").into();
    }
    json!({"apiVersion": "v1", "kind": "Secret", "type": SECRET_TYPE, "stringData": data,
        "metadata": {"namespace": NAMESPACE, "name": format!("{SECRET_PREFIX}{id}")}})
}

/// The identity of whoever shows the token, given the Secret named after its id.
pub fn user(id: &str, token_secret: &str, secret: Option<&Value>, now: Timestamp) -> Result<UserInfo, Error> {
    let secret = secret.ok_or(Error::Unknown)?;
    if !secret["metadata"]["deletionTimestamp"].is_null() || secret["type"].as_str() != Some(SECRET_TYPE) {
        return Err(Error::Unknown);
    }
    let data = |key: &str| field(secret, key);
    if data(TOKEN_ID) != id {
        return Err(Error::Unknown);
    }
    if !is_same(data(TOKEN_SECRET).as_bytes(), token_secret.as_bytes()) {
        return Err(Error::Mismatch);
    }
    let expiration = data(EXPIRATION);
    if !expiration.is_empty() && parse_time(&expiration).is_none_or(|until| until <= now) {
        return Err(Error::Expired);
    }
    if data(USAGE_AUTHENTICATION) != "true" {
        return Err(Error::NotForAuthentication);
    }
    let further = data(EXTRA_GROUPS);
    let further: Vec<&str> = further.split(',').map(str::trim).filter(|group| !group.is_empty()).collect();
    if !further.iter().all(|group| is_group(group)) {
        return Err(Error::Groups);
    }
    let groups = std::iter::once(GROUP).chain(further).map(str::to_owned);
    Ok(UserInfo::new(format!("{USER_PREFIX}{id}"), groups))
}

/// What a token's Secret says under a key; empty if nothing.
pub fn field(secret: &Value, key: &str) -> String {
    let bytes = STANDARD.decode(secret["data"][key].as_str().unwrap_or_default()).unwrap_or_default();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Compares without telling by the time it takes where the difference is.
fn is_same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

fn is_group(name: &str) -> bool {
    let Some(suffix) = name.strip_prefix(GROUP_PREFIX) else { return false };
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    suffix.len() <= GROUP_SUFFIX_BYTES_MAX
        && suffix.bytes().all(|b| word(b) || b == b':' || b == b'-')
        && suffix.bytes().last().is_some_and(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `change` is `key=value`, replacing or adding to the data of a good Secret.
    fn check(change: &str, expect: Result<&[&str], Error>) {
        let mut secret = json!({"type": SECRET_TYPE, "metadata": {}, "data": {}});
        let (key, value) = change.split_once('=').expect("a change");
        let good = [
            ("token-id", "abcdef"),
            ("token-secret", "0123456789abcdef"),
            ("usage-bootstrap-authentication", "true"),
            ("expiration", "2030-01-01T00:00:00Z"),
            (key, value),
        ];
        for (key, value) in good {
            secret["data"][key] = STANDARD.encode(value).into();
        }
        let now = "2026-01-01T00:00:00Z".parse().expect("a time");
        let found = user("abcdef", "0123456789abcdef", Some(&secret), now);
        let expect = expect.map(|groups| groups.iter().map(|g| (*g).to_owned()).collect::<Vec<_>>());
        assert_eq!(found.map(|user| user.groups), expect, "{change}");
    }

    #[test]
    fn a_good_secret_vouches_for_its_token_only() {
        check("description=x", Ok(&["system:bootstrappers", "system:authenticated"]));
        check(
            "auth-extra-groups=system:bootstrappers:a:b",
            Ok(&["system:bootstrappers", "system:bootstrappers:a:b", "system:authenticated"]),
        );
        check("token-secret=0123456789abcdeX", Err(Error::Mismatch));
        check("token-id=abcdeg", Err(Error::Unknown));
        check("expiration=2025-01-01T00:00:00Z", Err(Error::Expired));
        check("expiration=soon", Err(Error::Expired));
        check("usage-bootstrap-authentication=false", Err(Error::NotForAuthentication));
        check("auth-extra-groups=system:masters", Err(Error::Groups));
        check("auth-extra-groups=system:bootstrappers:A", Err(Error::Groups));
        assert_eq!(user("abcdef", "x", None, Timestamp::UNIX_EPOCH), Err(Error::Unknown));
    }

    #[test]
    fn only_the_form_of_upstream_is_a_bootstrap_token() {
        assert_eq!(parse("abcdef.0123456789abcdef"), Some(("abcdef", "0123456789abcdef")));
        for other in
            ["abcdef", "abcde.0123456789abcdef", "ABCDEF.0123456789abcdef", "abcdef.0123456789abcde."]
        {
            assert_eq!(parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_new_token_is_vouched_for_by_its_secret() {
        let token = generate().expect("is random");
        let (id, word) = parse(&token).expect("has the form");
        let until = parse_time("2026-01-02T00:00:00Z");
        let made = secret((id, word), "system:bootstrappers:nodes", "a node", until);
        let data = made["stringData"].as_object().expect("has data").iter();
        let encoded: apimachinery::Map = data
            .map(|(key, text)| (key.clone(), STANDARD.encode(text.as_str().expect("is text")).into()))
            .collect();
        let stored = json!({"metadata": made["metadata"], "type": made["type"], "data": encoded});
        let at = |time| parse_time(time).expect("a time");
        let user = user(id, word, Some(&stored), at("2026-01-01T00:00:00Z")).expect("is believed");
        assert_eq!(user.name, format!("system:bootstrap:{id}"));
        assert!(user.groups.iter().any(|group| group == "system:bootstrappers:nodes"));
        assert_eq!(made["stringData"][USAGE_SIGNING], "true", "as kubeadm's do");
        assert_eq!(super::user(id, word, Some(&stored), at("2026-01-02T00:00:01Z")), Err(Error::Expired));
    }
}
