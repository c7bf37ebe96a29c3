//! Who asks the kubelet: client certificates, and tokens that the API server knows
//! (follows upstream's delegating authenticator).

use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;
use std::time::Instant;

use api::resource::TOKEN_REVIEWS;
use apimachinery::{Value, json};
use http::{HeaderMap, header};
use rustls_pki_types::CertificateDer;
use serde::Deserialize;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::worker::Shared;

/// Tokens remembered at most; then all are forgotten.
const REVIEWS_MAX: usize = 1024;

/// As a client certificate or a TokenReview names them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub struct User {
    #[serde(rename = "username")]
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

impl User {
    /// The subject's common name and organisations; TLS has verified the chain.
    pub fn of_certificate(chain: Option<&[CertificateDer<'_>]>) -> Option<User> {
        let (_, certificate) = X509Certificate::from_der(chain?.first()?).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        Some(User { name, groups, ..User::default() })
    }

    /// Who says nothing of itself.
    fn anonymous() -> User {
        let groups = vec!["system:unauthenticated".to_owned()];
        User { name: "system:anonymous".to_owned(), groups, ..User::default() }
    }
}

/// The token of `Authorization: Bearer TOKEN`.
fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.trim().split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// What the API server said of tokens.
#[derive(Default)]
pub struct Reviews {
    known: Mutex<HashMap<String, (Option<User>, Instant)>>,
}

impl Reviews {
    /// Whose token the request carries, by the API server's word, or by what it said a moment ago. Nobody is anonymous
    /// who shows a token.
    pub async fn user_of(&self, shared: &Shared, headers: &HeaderMap) -> Option<User> {
        let authentication = &shared.config.kubelet.authentication;
        let Some(token) = bearer(headers) else {
            return authentication.anonymous.enabled.then(User::anonymous);
        };
        if !authentication.webhook.enabled {
            return None;
        }
        if let Some((user, until)) = self.known.lock().expect("no one panics while holding it").get(token)
            && *until > Instant::now()
        {
            return user.clone();
        }
        let review = json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "spec": {"token": token}});
        let user = match shared.client.create(TOKEN_REVIEWS, "", &review).await {
            Ok(answer) => reviewed(&answer),
            Err(error) => {
                tracing::warn!(%error, "a token could not be reviewed");
                return None;
            }
        };
        let mut known = self.known.lock().expect("no one panics while holding it");
        if known.len() >= REVIEWS_MAX {
            known.clear();
        }
        known.insert(
            token.to_owned(),
            (user.clone(), Instant::now() + authentication.webhook.cache_ttl.to_std()),
        );
        user
    }
}

fn reviewed(review: &Value) -> Option<User> {
    let status = review.get("status")?;
    let is_authenticated = status.get("authenticated").and_then(Value::as_bool).unwrap_or(false);
    let user = is_authenticated.then(|| status.get("user")).flatten()?;
    apimachinery::from_value(user.clone()).ok().filter(|user: &User| !user.name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_from_its_header() {
        let check = |value: &str, expect: Option<&str>| {
            let headers = HeaderMap::from_iter([(header::AUTHORIZATION, value.parse().expect("a value"))]);
            assert_eq!(bearer(&headers), expect, "{value}");
        };
        check("Bearer abc", Some("abc"));
        check("bearer  abc ", Some("abc"));
        check("Basic abc", None);
        check("Bearer ", None);
        check("Bearer", None);
    }

    #[test]
    fn only_who_is_authenticated_is_somebody() {
        let check = |status: Value, expect: Option<&str>| {
            let user = reviewed(&json!({"status": status}));
            assert_eq!(user.map(|user| user.name).as_deref(), expect, "{status}");
        };
        check(json!({"authenticated": true, "user": {"username": "a", "groups": ["g"]}}), Some("a"));
        check(json!({"authenticated": false, "user": {"username": "a"}}), None);
        check(json!({"authenticated": true, "user": {}}), None);
        check(json!({"user": {"username": "a"}}), None);
    }
}
