//! `policy/v1`.

use std::collections::BTreeMap;

use apimachinery::intstr::IntOrString;
use apimachinery::meta::{Condition, LabelSelector, ObjectMeta};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::condition;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PodDisruptionBudget {
    pub metadata: ObjectMeta,
    pub spec: PodDisruptionBudgetSpec,
    pub status: PodDisruptionBudgetStatus,
}

impl PodDisruptionBudget {
    /// Without a selector it is about no pod.
    pub fn selects(&self, pod: &ObjectMeta) -> bool {
        let matches = |selector: &LabelSelector| selector.matches(&pod.labels);
        pod.namespace == self.metadata.namespace && self.spec.selector.as_ref().is_some_and(matches)
    }
}

/// At most one of `min_available` and `max_unavailable` is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudgetSpec {
    pub min_available: Option<IntOrString>,
    pub max_unavailable: Option<IntOrString>,
    pub selector: Option<LabelSelector>,
    /// `IfHealthyBudget` (also when missing) or `AlwaysAllow`.
    pub unhealthy_pod_eviction_policy: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodDisruptionBudgetStatus {
    #[serde(skip_serializing_if = "is_zero")]
    pub observed_generation: i64,
    /// Pods whose eviction was granted and has not begun, and since when. Written by the eviction subresource.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub disrupted_pods: BTreeMap<String, Timestamp>,
    pub disruptions_allowed: i32,
    pub current_healthy: i32,
    pub desired_healthy: i32,
    pub expected_pods: i32,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}

/// Says whether pods may be evicted, and why not.
pub const DISRUPTION_ALLOWED: &str = "DisruptionAllowed";

impl PodDisruptionBudgetStatus {
    /// Brings the condition in line with the number (upstream: `UpdateDisruptionAllowedCondition`).
    pub fn note_disruptions_allowed(&mut self, now: Timestamp) {
        let (status, reason) = if self.disruptions_allowed > 0 {
            ("True", "SufficientPods")
        } else {
            ("False", "InsufficientPods")
        };
        self.note(status, reason, "", now);
    }

    pub fn note(&mut self, status: &str, reason: &str, message: &str, now: Timestamp) {
        let noted = Condition {
            kind: DISRUPTION_ALLOWED.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            observed_generation: Some(self.observed_generation).filter(|generation| *generation != 0),
            ..Condition::default()
        };
        condition::set(&mut self.conditions, noted, now);
    }
}

fn is_zero(n: &i64) -> bool {
    *n == 0
}

super::view! {
    PodDisruptionBudget => POD_DISRUPTION_BUDGETS;
}
