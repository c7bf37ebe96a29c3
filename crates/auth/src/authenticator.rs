//! From what a request presents to an identity: a bearer token if there is one, else the client certificate, else
//! nobody, who may only ask for the server's health and version.

use apimachinery::Status;
use jiff::Timestamp;

use crate::certificate;
use crate::serviceaccount::{self, Issuer};
use crate::user::{AUTHENTICATED, UserInfo};

/// What nobody in particular may ask for. Everything else needs a credential.
const ANONYMOUS_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

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
}

/// What a request has to show.
#[derive(Clone, Copy, Debug, Default)]
pub struct Presented<'a> {
    /// The client certificate in DER; its chain has been verified by TLS.
    pub certificate: Option<&'a [u8]>,
    /// The Authorization header.
    pub authorization: Option<&'a str>,
    pub path: &'a str,
}

pub struct Authenticator {
    issuer: Issuer,
}

impl Authenticator {
    pub fn new(issuer: Issuer) -> Self {
        Authenticator { issuer }
    }

    /// Signs tokens for TokenRequests.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The identity behind a request, or 401. A bad credential is refused even where none is needed.
    pub fn authenticate(
        &self,
        presented: &Presented<'_>,
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Result<UserInfo, Status> {
        if let Some(certificate) = presented.certificate {
            return certificate::user(certificate).map_err(|error| {
                tracing::warn!(%error, "client certificate refused");
                Status::unauthorized()
            });
        }
        if let Some(token) = presented.authorization.and_then(bearer) {
            return self.review(token, &[], objects, now).map(|(user, _)| user).map_err(|error| {
                tracing::warn!(%error, "bearer token refused");
                Status::unauthorized()
            });
        }
        let open = |path: &str| {
            presented.path.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if presented.authorization.is_none() && ANONYMOUS_PATHS.iter().any(|path| open(path)) {
            return Ok(UserInfo::anonymous());
        }
        Err(Status::unauthorized())
    }

    /// Reads a token for a TokenReview: the identity, and for which of the audiences it holds.
    pub fn review(
        &self,
        token: &str,
        audiences: &[String],
        objects: &dyn Objects,
        now: Timestamp,
    ) -> Result<(UserInfo, Vec<String>), serviceaccount::Error> {
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
    }

    fn check(authorization: Option<&str>, path: &str, expect: Option<&str>) {
        let pem = SigningKey::generate_pem().expect("a key");
        let key = SigningKey::from_pem(pem.as_bytes()).expect("reads back");
        let authenticator = Authenticator::new(Issuer::new("iss", Vec::new(), key));
        let now = Timestamp::UNIX_EPOCH;
        let spec = TokenSpec {
            namespace: "ns".to_owned(),
            account: Reference::new("sa", "u"),
            ..Default::default()
        };
        let token = authenticator.issuer().issue(&spec, String::new(), now).expect("issues").token;
        let authorization = authorization.map(|header| header.replace("TOKEN", &token));
        let presented = Presented { certificate: None, authorization: authorization.as_deref(), path };
        let found = authenticator.authenticate(&presented, &One, now);
        assert_eq!(found.map(|user| user.name).ok().as_deref(), expect, "{authorization:?} {path}");
    }

    #[test]
    fn tokens_identify_and_nobody_sees_only_health() {
        let account = Some("system:serviceaccount:ns:sa");
        check(Some("Bearer TOKEN"), "/api", account);
        check(Some("bearer  TOKEN"), "/livez", account);
        check(Some("Bearer nonsense"), "/livez", None);
        check(Some("Basic dTpw"), "/livez", None);
        check(None, "/livez", Some("system:anonymous"));
        check(None, "/readyz/ping", Some("system:anonymous"));
        check(None, "/version", Some("system:anonymous"));
        check(None, "/versions", None);
        check(None, "/api/v1/pods", None);
    }
}
