//! Conditions that controllers write into pods' status.

use api::resource::PODS;
use api::view::core::Pod;
use apimachinery::meta::Condition;
use apimachinery::{Value, json};
use client::PatchType;

use crate::plan::Action;

/// Says that something other than the pod's own end is ending it.
pub const DISRUPTION_TARGET: &str = "DisruptionTarget";

/// Sets one condition and further fields of this very pod's status; the other conditions stay as they are.
pub fn patch(pod: &Pod, condition: Option<&Condition>, mut status: Value) -> Action {
    if let Some(condition) = condition {
        status["conditions"] = json!([condition]);
    }
    let meta = &pod.metadata;
    Action::Patch {
        resource: PODS,
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        subresource: Some("status"),
        // Conditions merge by type.
        kind: PatchType::Strategic,
        patch: json!({"metadata": {"uid": meta.uid}, "status": status}),
    }
}

/// The condition that a pod gets before a controller evicts it.
pub fn disruption(pod: &Pod, reason: &str, message: &str, now: jiff::Timestamp) -> Option<Condition> {
    let is_set = pod.condition(DISRUPTION_TARGET).is_some_and(|c| c.is_true() && c.reason == reason);
    (!is_set).then(|| Condition {
        kind: DISRUPTION_TARGET.into(),
        status: "True".into(),
        reason: reason.into(),
        message: message.into(),
        last_transition_time: Some(now),
        ..Condition::default()
    })
}
