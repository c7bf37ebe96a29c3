//! Who asks the kubelet, and whether they may: client certificates, and the API server's word
//! (follows the kubelet's webhook authorization with its five minutes of cache).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use api::resource::SUBJECT_ACCESS_REVIEWS;
use apimachinery::{Value, json};
use http::Method;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::worker::Shared;

/// Upstream's `cacheAuthorizedTTL` and `cacheUnauthorizedTTL`.
const ALLOWED_FOR: Duration = Duration::from_secs(300);
const DENIED_FOR: Duration = Duration::from_secs(30);
/// Decisions remembered at most; then all are forgotten.
const DECISIONS_MAX: usize = 1024;

/// The subject of a client certificate: common name and organisations.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct User {
    pub name: String,
    pub groups: Vec<String>,
}

impl User {
    /// TLS has verified the chain; nobody without a certificate is known here.
    pub fn of_certificate(chain: Option<&[CertificateDer<'_>]>) -> Option<User> {
        let (_, certificate) = X509Certificate::from_der(chain?.first()?).ok()?;
        let subject = certificate.subject();
        let name = subject.iter_common_name().next()?.as_str().ok()?.to_owned();
        let groups = subject.iter_organization().filter_map(|o| o.as_str().ok()).map(str::to_owned).collect();
        Some(User { name, groups })
    }
}

pub fn verb(method: &Method) -> &'static str {
    match *method {
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    }
}

type Question = (User, &'static str, &'static str);

#[derive(Default)]
pub struct Decisions {
    known: Mutex<HashMap<Question, (bool, Instant)>>,
}

impl Decisions {
    /// Asks the API server, or remembers. Without an answer nobody may.
    pub async fn allowed(
        &self,
        shared: &Shared,
        user: &User,
        method: &Method,
        subresource: &'static str,
    ) -> bool {
        let question = (user.clone(), verb(method), subresource);
        if let Some((allowed, until)) =
            self.known.lock().expect("no one panics while holding it").get(&question)
            && *until > Instant::now()
        {
            return *allowed;
        }
        let review = json!({
            "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "spec": {"user": user.name, "groups": user.groups, "resourceAttributes": {
                "verb": question.1, "version": "v1", "resource": "nodes", "subresource": subresource, "name": shared.config.node_name}},
        });
        let allowed = match shared.client.create(SUBJECT_ACCESS_REVIEWS, "", &review).await {
            Ok(answer) => answer.pointer("/status/allowed").and_then(Value::as_bool).unwrap_or(false),
            Err(error) => {
                tracing::warn!(%error, "access to the kubelet could not be reviewed");
                return false;
            }
        };
        let mut known = self.known.lock().expect("no one panics while holding it");
        if known.len() >= DECISIONS_MAX {
            known.clear();
        }
        known.insert(question, (allowed, Instant::now() + if allowed { ALLOWED_FOR } else { DENIED_FOR }));
        allowed
    }
}
