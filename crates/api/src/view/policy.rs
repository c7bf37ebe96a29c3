//! `policy/v1`.

use std::collections::BTreeMap;

use apimachinery::intstr::IntOrString;
use apimachinery::meta::{Condition, LabelSelector, ObjectMeta};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

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

fn is_zero(n: &i64) -> bool {
    *n == 0
}

super::view! {
    PodDisruptionBudget => POD_DISRUPTION_BUDGETS;
}
