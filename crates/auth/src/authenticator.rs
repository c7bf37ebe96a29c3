//! From what a request presents to an identity: a front proxy's word, a client certificate, a bearer token, or nobody in
//! particular, who may do what RBAC lets them: by default, ask for the server's health and version.

use api::bootstraptoken::{NAMESPACE, SECRET_PREFIX};
use apimachinery::{Status, Value};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use jiff::Timestamp;

use crate::certificate::{self, Subject};
use crate::requestheader::RequestHeader;
use crate::serviceaccount::{self, Issuer};
use crate::tokenfile::TokenFile;
use crate::user::{AUTHENTICATED, UserInfo};
use crate::{bootstraptoken, requestheader};

/// Which object stands under a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub uid: String,
    pub deleted_at: Option<Timestamp>,
}

/// The objects that tokens are bound to.
pub trait Objects {
    /// `resource` is one of `serviceaccounts`, `pods`, `secrets`, `nodes`.
    fn identity(&self, resource: &str, namespace: &str, name: &str) -> Option<Identity>;

    /// A Secret, for the tokens that are kept in one.
    fn secret(&self, namespace: &str, name: &str) -> Option<Value>;
}

/// A client certificate that a connection has shown.
#[derive(Clone, Copy, Debug)]
pub enum Certificate<'a> {
    /// Its chain leads to an authority of clients.
    Verified(&'a Subject),
    /// Its chain leads nowhere, or it is out of date.
    Unverified,
}

/// What a request has to show.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    pub certificate: Option<Certificate<'a>>,
    /// The certificate again, if its chain leads to an authority of front proxies.
    pub front_proxy: Option<&'a Subject>,
    pub headers: &'a HeaderMap,
}

impl<'a> Presented<'a> {
    /// Whom the connection itself speaks for: a front proxy's word first, then a client certificate. Beside it whether one
    /// of them was bad.
    pub fn holder(&self, request_header: Option<&RequestHeader>) -> (Option<UserInfo>, bool) {
        let mut refused = false;
        let mut accept = |found: Result<Option<UserInfo>, Refusal>| {
            found.unwrap_or_else(|error| {
                tracing::warn!(%error, "unable to authenticate the request");
                refused = true;
                None
            })
        };
        let by_proxy = request_header.zip(self.front_proxy);
        let by_proxy =
            by_proxy.map(|(believed, proxy)| believed.user(proxy, self.headers).map_err(Refusal::from));
        if let Some(user) = by_proxy.and_then(&mut accept) {
            return (Some(user), refused);
        }
        let by_certificate = self.certificate.map(|certificate| match certificate {
            Certificate::Verified(subject) => subject.user().cloned().map(Some).map_err(Refusal::from),
            // The authorities of clients need not know a front proxy.
            Certificate::Unverified if self.front_proxy.is_some() => Ok(None),
            Certificate::Unverified => Err(Refusal::Unverified),
        });
        (by_certificate.and_then(accept), refused)
    }

    /// The token in `Authorization: Bearer TOKEN`.
    pub fn token(&self) -> Option<&'a str> {
        self.headers.get(AUTHORIZATION)?.to_str().ok().and_then(bearer)
    }
}

/// Who may come without credentials, as `system:anonymous` (upstream: `--anonymous-auth` and `AnonymousAuthConfig`).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Anonymous {
    pub enabled: bool,
    /// The only paths they may ask for; none means all.
    pub paths: Vec<String>,
}

impl Anonymous {
    fn admits(&self, path: &str) -> bool {
        self.enabled && (self.paths.is_empty() || self.paths.iter().any(|admitted| admitted == path))
    }
}

/// What is found out about a request's author from what is at hand.
#[derive(Debug)]
pub enum Identified<'a> {
    User(UserInfo),
    /// Nobody known here.
    Unknown {
        /// Somebody else may know whose token this is.
        token: Option<&'a str>,
        /// Some other credential was bad.
        refused: bool,
    },
}

/// Why a credential gives no identity.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("client certificate: {0}")]
    Certificate(#[from] certificate::Error),
    #[error("the client certificate is signed by unknown authority, or not valid now")]
    Unverified,
    #[error("service account token: {0}")]
    ServiceAccount(#[from] serviceaccount::Error),
    #[error("bootstrap token: {0}")]
    BootstrapToken(#[from] bootstraptoken::Error),
    #[error(transparent)]
    RequestHeader(#[from] requestheader::Error),
}

pub struct Authenticator {
    issuer: Issuer,
    tokens: TokenFile,
    request_header: Option<RequestHeader>,
    anonymous: Anonymous,
}

impl Authenticator {
    pub fn new(
        issuer: Issuer,
        tokens: TokenFile,
        request_header: Option<RequestHeader>,
        anonymous: Anonymous,
    ) -> Self {
        Authenticator { issuer, tokens, request_header, anonymous }
    }

    /// Signs tokens for TokenRequests.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Believes a front proxy first, then a client certificate, then a token of the cluster's own; one good credential is
    /// enough.
    pub fn identify<'a>(
        &self,
        presented: &Presented<'a>,
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Identified<'a> {
        let (user, refused) = presented.holder(self.request_header.as_ref());
        if let Some(user) = user {
            return Identified::User(user);
        }
        let token = presented.token();
        if let Some(Ok((user, _))) = token.map(|token| self.review(token, &[], objects, now)) {
            return Identified::User(user);
        }
        Identified::Unknown { token, refused }
    }

    /// Whoever has no credentials may be nobody in particular; where one was refused the request is refused with it, even if
    /// it needed none.
    pub fn anonymous(&self, refused: bool, path: &str) -> Result<UserInfo, Status> {
        let admitted = !refused && self.anonymous.admits(path);
        admitted.then(UserInfo::anonymous).ok_or_else(Status::unauthorized)
    }

    /// Reads a token for a TokenReview: the identity, and for which of the audiences it holds.
    pub fn review(
        &self,
        token: &str,
        audiences: &[String],
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Result<(UserInfo, Vec<String>), Refusal> {
        if let Some(user) = self.tokens.user(token) {
            return Ok((user.clone(), audiences.to_vec()));
        }
        if let Some((id, secret)) = bootstraptoken::parse(token) {
            let name = format!("{}{id}", SECRET_PREFIX);
            let found = objects.secret(NAMESPACE, &name);
            let user = bootstraptoken::user(id, secret, found.as_ref(), now)?;
            return Ok((user, audiences.to_vec()));
        }
        let (user, audiences) = self.issuer.read(token, audiences, objects, now)?;
        assert!(user.is_in(AUTHENTICATED), "whoever shows a valid token is authenticated");
        Ok((user, audiences))
    }
}

/// The token in `Bearer TOKEN`; the scheme's case does not matter.
fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jwt::SigningKey;
    use crate::serviceaccount::{Reference, TokenSpec};

    struct One;

    impl Objects for One {
        fn identity(&self, resource: &str, namespace: &str, name: &str) -> Option<Identity> {
            let known = (resource, namespace, name) == ("serviceaccounts", "ns", "sa");
            known.then(|| Identity { uid: "u".to_owned(), deleted_at: None })
        }

        fn secret(&self, _: &str, _: &str) -> Option<Value> {
            None
        }
    }

    fn authenticator(anonymous: Anonymous) -> Authenticator {
        let pem = SigningKey::generate_pem().expect("a key");
        let key = SigningKey::from_pem(pem.as_bytes()).expect("reads back");
        let tokens = TokenFile::parse("from-file,ann,1", "f").expect("parses");
        Authenticator::new(Issuer::new("iss", Vec::new(), key), tokens, None, anonymous)
    }

    fn check(certificate: Option<Certificate<'_>>, authorization: Option<&str>, expect: Option<&str>) {
        let authenticator = authenticator(Anonymous { enabled: true, paths: vec!["/livez".to_owned()] });
        let now = Timestamp::UNIX_EPOCH;
        let spec = TokenSpec {
            namespace: "ns".to_owned(),
            account: Reference::new("sa", "u"),
            ..Default::default()
        };
        let token = authenticator.issuer().issue(&spec, String::new(), now).expect("issues").token;
        let mut headers = HeaderMap::new();
        if let Some(header) = authorization {
            headers.insert(AUTHORIZATION, header.replace("TOKEN", &token).parse().expect("a value"));
        }
        let presented = Presented { certificate, front_proxy: None, headers: &headers };
        let name = |path: &str| match authenticator.identify(&presented, &One, now) {
            Identified::User(user) => Some(user.name),
            Identified::Unknown { token: Some(_), .. } => None,
            Identified::Unknown { refused, .. } => {
                authenticator.anonymous(refused, path).map(|user| user.name).ok()
            }
        };
        assert_eq!(name("/livez").as_deref(), expect, "{certificate:?} {authorization:?}");
        assert_eq!(name("/api").as_deref(), expect.filter(|name| *name != "system:anonymous"));
    }

    #[test]
    fn nobody_in_particular_may_be_shut_out() {
        assert!(authenticator(Anonymous::default()).anonymous(false, "/livez").is_err());
        assert!(authenticator(Anonymous { enabled: true, paths: Vec::new() }).anonymous(false, "/x").is_ok());
    }

    #[test]
    fn one_good_credential_identifies_and_a_bad_one_alone_is_refused() {
        let account = Some("system:serviceaccount:ns:sa");
        check(None, Some("Bearer TOKEN"), account);
        check(None, Some("bearer  TOKEN"), account);
        check(None, Some("Bearer from-file"), Some("ann"));
        check(None, Some("Bearer nonsense"), None);
        check(None, Some("Bearer abcdef.0123456789abcdef"), None);
        check(Some(Certificate::Unverified), None, None);
        check(Some(Certificate::Verified(&Subject::of(b"garbage"))), None, None);
        check(Some(Certificate::Unverified), Some("Bearer TOKEN"), account);
        check(None, Some("Basic dTpw"), Some("system:anonymous"));
        check(None, None, Some("system:anonymous"));
    }
}
