//! Whether somebody may ask the kubelet for something: the API server's word
//! (follows the kubelet's webhook authorization).

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Instant;

use api::resource::SUBJECT_ACCESS_REVIEWS;
use apimachinery::{Value, json};
use http::Method;

use super::authentication::User;
use crate::kubeletconfig::AuthorizationMode;
use crate::worker::Shared;

/// Decisions remembered at most; then all are forgotten.
const DECISIONS_MAX: usize = 1024;

pub fn verb(method: &Method) -> &'static str {
    match *method {
        Method::GET => "get",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "",
    }
}

type Question = (User, &'static str, &'static str);

#[derive(Default)]
pub struct Decisions {
    known: Mutex<HashMap<Question, (bool, Instant)>>,
}

impl Decisions {
    /// Whether the user may do this with one of the node's `subresources`.
    pub async fn allowed(
        &self,
        shared: &Shared,
        user: &User,
        method: &Method,
        subresources: &[&'static str],
    ) -> bool {
        if shared.config.kubelet.authorization.mode == AuthorizationMode::AlwaysAllow {
            return true;
        }
        for subresource in subresources {
            if self.decide(shared, (user.clone(), verb(method), subresource)).await {
                return true;
            }
        }
        false
    }

    /// Asks the API server, or remembers. Without an answer nobody may.
    async fn decide(&self, shared: &Shared, question: Question) -> bool {
        if let Some((allowed, until)) =
            self.known.lock().expect("no one panics while holding it").get(&question)
            && *until > Instant::now()
        {
            return *allowed;
        }
        let (user, verb, subresource) = &question;
        let review = json!({
            "kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1",
            "spec": {"user": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra, "resourceAttributes": {
                "verb": verb, "version": "v1", "resource": "nodes", "subresource": subresource, "name": shared.config.node_name}},
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
        let webhook = &shared.config.kubelet.authorization.webhook;
        let kept = if allowed { webhook.cache_authorized_ttl } else { webhook.cache_unauthorized_ttl };
        known.insert(question, (allowed, Instant::now() + kept.to_std()));
        allowed
    }
}
