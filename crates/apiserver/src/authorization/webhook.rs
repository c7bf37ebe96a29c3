//! Asks another server whether a request may be done, by SubjectAccessReviews. Follows `plugin/pkg/authorizer/webhook`.

use std::path::Path;

use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use auth::authorizationconfiguration as configured;
use auth::{Attributes, Decision, subjectaccessreview};
use jiff::Timestamp;

use crate::review_client::ReviewClient;
use crate::ttl_cache::TtlCache;

/// Answers remembered at most (upstream: the size of its LRUExpireCache).
const ANSWERS_MAX: usize = 8192;
/// Questions longer than this are asked each time, so that nobody fills memory with them (upstream:
/// maxControlledAttrCacheSize).
const QUESTION_BYTES_MAX: usize = 10_000;

pub struct Webhook {
    configured: configured::Webhook,
    client: ReviewClient,
    /// The `status` of reviews by their `spec`.
    answers: TtlCache<String, Value>,
}

impl Webhook {
    pub fn new(configured: configured::Webhook) -> Result<Webhook, client::Error> {
        let client = ReviewClient::from_kubeconfig(Path::new(&configured.kube_config_file))?;
        Ok(Webhook::asking(configured, client))
    }

    /// Asks over this way, whatever file is configured.
    pub fn asking(configured: configured::Webhook, client: ReviewClient) -> Webhook {
        Webhook { configured, client, answers: TtlCache::new(ANSWERS_MAX) }
    }

    pub async fn authorize(&self, wanted: &Attributes<'_>, now: Timestamp) -> Decision {
        match self.configured.conditions.hold(wanted) {
            Ok(true) => {}
            Ok(false) => return Decision::NoOpinion(String::new()),
            Err(error) => return self.failed(&error),
        }
        match self.ask(subjectaccessreview::spec(wanted), now).await {
            Ok(status) => decision(&status),
            Err(error) => self.failed(&error),
        }
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Decision {
        tracing::warn!(%error, name = self.configured.name, "Failed to make webhook authorizer request");
        if self.configured.denies_on_failure {
            Decision::Deny(String::new())
        } else {
            Decision::NoOpinion(String::new())
        }
    }

    async fn ask(&self, spec: Value, now: Timestamp) -> Result<Value, crate::review_client::ReviewError> {
        let question = spec.to_string();
        if let Some(status) = self.answers.get(&question, now) {
            return Ok(status);
        }
        let review = review(&self.configured.version, spec);
        let answer = self.client.post(&review, self.configured.timeout).await?;
        let status = answer["status"].clone();
        let configured::Webhook { authorized_ttl, unauthorized_ttl, .. } = &self.configured;
        let ttl = if status["allowed"] == true { *authorized_ttl } else { *unauthorized_ttl };
        if question.len() <= QUESTION_BYTES_MAX {
            self.answers.put(question, status.clone(), ttl, now);
        }
        Ok(status)
    }
}

/// Version v1beta1 calls a user's groups by another name.
fn review(version: &str, mut spec: Value) -> Value {
    if version == "v1beta1"
        && let Some(fields) = spec.as_object_mut()
        && let Some(groups) = fields.remove("groups")
    {
        fields.insert("group", groups);
    }
    json!({"kind": "SubjectAccessReview", "apiVersion": format!("authorization.k8s.io/{version}"),
        "metadata": {}, "spec": spec, "status": {"allowed": false}})
}

fn decision(status: &Value) -> Decision {
    let reason = str_at(status, &["reason"]).to_owned();
    match (status["denied"] == true, status["allowed"] == true) {
        (true, _) => Decision::Deny(reason),
        (false, true) => Decision::Allow(reason),
        (false, false) => Decision::NoOpinion(reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_denies_decides_though_it_allows_as_well() {
        let of = |status: Value| decision(&status);
        assert_eq!(
            of(json!({"allowed": true, "denied": true, "reason": "r"})),
            Decision::Deny("r".to_owned())
        );
        assert_eq!(of(json!({"allowed": true})), Decision::Allow(String::new()));
        assert_eq!(of(json!({"allowed": false, "reason": "r"})), Decision::NoOpinion("r".to_owned()));
    }

    #[test]
    fn the_older_version_names_groups_otherwise() {
        let spec = json!({"user": "u", "groups": ["g"]});
        assert_eq!(review("v1beta1", spec.clone())["spec"], json!({"user": "u", "group": ["g"]}));
        assert_eq!(review("v1", spec.clone())["spec"], spec);
    }
}
