//! MutatingAdmissionWebhook: webhooks are asked one after another, each about what those before it have made.
//! Follows `mutatingDispatcher`.

use admission::rounds::Rounds;
use admission::webhook::Webhook;
use apimachinery::patch::json_patch;
use apimachinery::{Status, Value, json};

use super::call::{Failure, ask};
use crate::admission_review::Review;

const ANNOTATIONS: &str = "mutation.webhook.admission.k8s.io";
const FAILED_OPEN: &str = "failed-open.mutation.webhook.admission.k8s.io";
const PATCHES: &str = "patch.webhook.admission.k8s.io";

/// One round. Returns whether the object has been changed.
pub async fn admit(review: &Review<'_>, object: &mut Value, rounds: &mut Rounds) -> Result<bool, Status> {
    if review.attributes.configures_admission() {
        return Ok(false);
    }
    rounds.begin(object);
    let mut changed_any = false;
    let configurations = review.core.webhooks.mutating(&review.core.store);
    for (index, hook) in configurations.iter().flat_map(|hooks| hooks.iter()).enumerate() {
        let Some(matched) = super::wants(review, hook, object)? else { continue };
        let id = format!("{}/{index}/{}", hook.configuration, hook.name);
        if !rounds.includes(&id) {
            continue;
        }
        let place = format!("round_{}_index_{index}", rounds.number());
        let note = |changed: bool| {
            let text = json!({"configuration": hook.configuration, "webhook": hook.name, "mutated": changed});
            review.notes.annotate(ANNOTATIONS, &place, text.to_string());
        };
        match ask_and_patch(review, hook, &matched, object, &place).await {
            Ok(changed) => {
                note(changed);
                if changed {
                    changed_any = true;
                    rounds.somebody_changed();
                }
            }
            Err(Failure::Calling { why, .. }) if hook.ignores_failures() => {
                note(false);
                tracing::warn!(webhook = %hook.name, %why, "failed calling webhook, failing open");
                review.notes.annotate(FAILED_OPEN, &place, hook.name.clone());
            }
            Err(failure) => return Err(failure.status(hook)),
        }
        if hook.reinvokes() {
            rounds.may_ask_again(id);
        }
    }
    rounds.end(object);
    Ok(changed_any)
}

/// Whether the webhook has changed the object.
async fn ask_and_patch(
    review: &Review<'_>,
    hook: &Webhook,
    matched: &admission::rules::Matched,
    object: &mut Value,
    place: &str,
) -> Result<bool, Failure> {
    let refused = |status: Status| Failure::Refused(Box::new(status));
    let shown = review.shown(&matched.kind, object).map_err(refused)?;
    let answer = ask(review, hook, matched, true, &shown).await?;
    if answer.patch.is_empty() {
        return Ok(false);
    }
    let patch: Value = serde_json::from_slice(&answer.patch).map_err(|error| Failure::Calling {
        why: format!("received undecodable patch in webhook response: {error}"),
        code: 503,
    })?;
    if patch.as_array().is_some_and(Vec::is_empty) {
        return Ok(false);
    }
    if shown.is_null() {
        let why = format!(
            "admission webhook {:?} attempted to modify the object, which is not supported for this operation",
            hook.name
        );
        return Err(refused(Status::internal(why)));
    }
    if answer.patch_type != "JSONPatch" {
        let why = format!("unsupported patch type {:?}", answer.patch_type);
        return Err(Failure::Calling { why, code: 400 });
    }
    let internal = |status: Status| refused(Status::internal(status.message));
    let patched = json_patch(shown, &answer.patch).map_err(internal)?;
    let next = review.taken(&matched.kind, patched, object).map_err(internal)?;
    let text = json!({"configuration": hook.configuration, "webhook": hook.name, "patch": patch, "patchType": "JSONPatch"});
    review.notes.annotate(PATCHES, place, text.to_string());
    let changed = next != *object;
    *object = next;
    Ok(changed)
}
