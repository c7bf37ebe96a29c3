//! Asks one webhook.

use std::time::{Duration, Instant};

use admission::rules::Matched;
use admission::webhook::review::{self, Answer, Version};
use admission::webhook::{Webhook, denial};
use apimachinery::{Status, Value};

use super::client::CallError;
use super::metrics::{Asked, Outcome};
use crate::admission_review::Review;
use crate::metadata;

const SERVICE_UNAVAILABLE: u16 = 503;
const BAD_REQUEST: u16 = 400;

/// Why a webhook did not let a request pass.
#[derive(Debug)]
pub enum Failure {
    /// It could not be asked, or its answer is none; its failure policy decides. With the code that counts it.
    Calling { why: String, code: u16 },
    /// It said no.
    Rejected(Box<Status>),
    /// The request cannot be put to it.
    Refused(Box<Status>),
}

impl Failure {
    fn calling(why: impl Into<String>, code: u16) -> Failure {
        Failure::Calling { why: why.into(), code }
    }

    /// The answer to the client, unless the webhook's failures are ignored.
    pub fn status(self, hook: &Webhook) -> Status {
        match self {
            Failure::Calling { why, .. } => {
                Status::internal(format!("failed calling webhook {:?}: {why}", hook.name))
            }
            Failure::Rejected(status) | Failure::Refused(status) => *status,
        }
    }

    fn outcome(&self, hook: &Webhook) -> Outcome {
        match self {
            Failure::Calling { code, .. } if hook.ignores_failures() => Outcome::FailedOpen(*code),
            Failure::Calling { code, .. } => Outcome::Failed(*code),
            Failure::Rejected(status) => Outcome::Rejected(status.code),
            Failure::Refused(status) => Outcome::Refused(status.code),
        }
    }
}

/// What the webhook says to the object and its former state, both as it wants to see them.
pub async fn ask(
    review: &Review<'_>,
    hook: &Webhook,
    matched: &Matched,
    mutating: bool,
    object: &Value,
) -> Result<Answer, Failure> {
    let started = Instant::now();
    let answer = exchange(review, hook, matched, mutating, object).await;
    let outcome = answer.as_ref().err().map_or(Outcome::Allowed, |failure| failure.outcome(hook));
    let asked = Asked { webhook: &hook.name, mutating, operation: review.attributes.operation.name() };
    review.core.admission_metrics.webhook(asked, outcome, started.elapsed());
    answer
}

async fn exchange(
    review: &Review<'_>,
    hook: &Webhook,
    matched: &Matched,
    mutating: bool,
    object: &Value,
) -> Result<Answer, Failure> {
    hook.check_dry_run(review.attributes.dry_run).map_err(|status| Failure::Refused(Box::new(status)))?;
    let version =
        Version::choose(&hook.admission_review_versions).map_err(|why| Failure::calling(why, BAD_REQUEST))?;
    let uid = metadata::new_uid(&review.core.config.random);
    let old = review.shown(&matched.kind, review.old.unwrap_or(&Value::Null));
    let old = old.map_err(|status| Failure::Refused(Box::new(status)))?;
    let question = review::question(version, &uid, &review.attributes, matched, object, &old);
    let within = Duration::from_secs(hook.timeout_seconds());
    let said = review.core.webhook_clients.post(&hook.client_config, &question, within).await;
    let said = said.map_err(|error: CallError| {
        let code = error.code();
        Failure::calling(format!("failed to call webhook: {error}"), code)
    })?;
    let answer = review::answer(version, &uid, mutating, &said).map_err(|why| {
        Failure::calling(format!("received invalid webhook response: {why}"), SERVICE_UNAVAILABLE)
    })?;
    for (key, text) in &answer.audit_annotations {
        review.notes.annotate(&hook.name, key, text.clone());
    }
    for warning in &answer.warnings {
        review.notes.warn(warning.as_str());
    }
    if answer.allowed {
        Ok(answer)
    } else {
        Err(Failure::Rejected(Box::new(denial(&hook.name, answer.result.as_ref()))))
    }
}
