//! ValidatingAdmissionWebhook: all webhooks are asked at once. Follows `validatingDispatcher`.

use apimachinery::{Status, Value};
use futures_util::future::join_all;

use super::call::{Failure, ask};
use crate::admission_review::Review;

const FAILED_OPEN: &str = "failed-open.validating.webhook.admission.k8s.io";

pub async fn validate(review: &Review<'_>, object: &Value) -> Result<(), Status> {
    if review.attributes.configures_admission() {
        return Ok(());
    }
    let configurations = review.core.webhooks.validating(&review.core.store);
    let mut asking = Vec::new();
    for hook in configurations.iter().flat_map(|hooks| hooks.iter()) {
        let Some(matched) = super::wants(review, hook, object)? else { continue };
        let shown = review.shown(&matched.kind, object)?;
        asking.push(async move { (hook, ask(review, hook, &matched, false, &shown).await) });
    }
    for (index, (hook, answer)) in join_all(asking).await.into_iter().enumerate() {
        match answer {
            Ok(_) => {}
            Err(Failure::Calling { why, .. }) if hook.ignores_failures() => {
                tracing::warn!(webhook = %hook.name, %why, "failed calling webhook, failing open");
                review.notes.annotate(FAILED_OPEN, &format!("round_0_index_{index}"), hook.name.clone());
            }
            Err(failure) => return Err(failure.status(hook)),
        }
    }
    Ok(())
}
