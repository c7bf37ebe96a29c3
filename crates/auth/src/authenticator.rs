//! From what a request presents to an identity: a client certificate, a bearer token, or nobody in particular, who
//! may do what RBAC lets them: by default, ask for the server's health and version.

use apimachinery::{Status, Value};
use jiff::Timestamp;

use crate::serviceaccount::{self, Issuer};
use crate::tokenfile::TokenFile;
use crate::user::{AUTHENTICATED, UserInfo};
use crate::{bootstraptoken, certificate};

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
    /// In DER; its chain leads to an authority of clients.
    Verified(&'a [u8]),
    /// Its chain leads nowhere, or it is out of date.
    Unverified,
}

/// What a request has to show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    pub certificate: Option<Certificate<'a>>,
    /// The Authorization header.
    pub authorization: Option<&'a str>,
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
}

pub struct Authenticator {
    issuer: Issuer,
    tokens: TokenFile,
    /// Whether a request without credentials is `system:anonymous` (upstream: `--anonymous-auth`).
    anonymous: bool,
}

impl Authenticator {
    pub fn new(issuer: Issuer, tokens: TokenFile, anonymous: bool) -> Self {
        Authenticator { issuer, tokens, anonymous }
    }

    /// Signs tokens for TokenRequests.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The identity behind a request, or 401. One good credential is enough; where none is good and one is bad, the
    /// request is refused, even if it needed none.
    pub fn authenticate(
        &self,
        presented: &Presented<'_>,
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Result<UserInfo, Status> {
        let mut refused = false;
        let mut accept = |found: Result<UserInfo, Refusal>| {
            found
                .inspect_err(|error| {
                    tracing::warn!(%error, "unable to authenticate the request");
                    refused = true;
                })
                .ok()
        };
        let by_certificate = presented.certificate.map(|certificate| match certificate {
            Certificate::Verified(der) => certificate::user(der).map_err(Refusal::from),
            Certificate::Unverified => Err(Refusal::Unverified),
        });
        if let Some(user) = by_certificate.and_then(&mut accept) {
            return Ok(user);
        }
        let token = presented.authorization.and_then(bearer);
        let by_token = token.map(|token| self.review(token, &[], objects, now).map(|(user, _)| user));
        if let Some(user) = by_token.and_then(&mut accept) {
            return Ok(user);
        }
        if self.anonymous && !refused { Ok(UserInfo::anonymous()) } else { Err(Status::unauthorized()) }
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
            let name = format!("{}{id}", bootstraptoken::SECRET_PREFIX);
            let found = objects.secret(bootstraptoken::NAMESPACE, &name);
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

    fn check(certificate: Option<Certificate<'_>>, authorization: Option<&str>, expect: Option<&str>) {
        let pem = SigningKey::generate_pem().expect("a key");
        let key = SigningKey::from_pem(pem.as_bytes()).expect("reads back");
        let tokens = TokenFile::parse("from-file,ann,1", "f").expect("parses");
        let authenticator = Authenticator::new(Issuer::new("iss", Vec::new(), key), tokens, true);
        let now = Timestamp::UNIX_EPOCH;
        let spec = TokenSpec {
            namespace: "ns".to_owned(),
            account: Reference::new("sa", "u"),
            ..Default::default()
        };
        let token = authenticator.issuer().issue(&spec, String::new(), now).expect("issues").token;
        let authorization = authorization.map(|header| header.replace("TOKEN", &token));
        let presented = Presented { certificate, authorization: authorization.as_deref() };
        let found = authenticator.authenticate(&presented, &One, now);
        assert_eq!(found.map(|user| user.name).ok().as_deref(), expect, "{certificate:?} {authorization:?}");
        let strict = Authenticator { anonymous: false, ..authenticator };
        let found = strict.authenticate(&presented, &One, now).map(|user| user.name).ok();
        assert_eq!(found.as_deref(), expect.filter(|name| *name != "system:anonymous"));
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
        check(Some(Certificate::Verified(b"garbage")), None, None);
        check(Some(Certificate::Unverified), Some("Bearer TOKEN"), account);
        check(None, Some("Basic dTpw"), Some("system:anonymous"));
        check(None, None, Some("system:anonymous"));
    }
}
