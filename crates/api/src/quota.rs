//! What a ResourceQuota counts: how much each object uses, which quota it falls under, and the sum over a namespace.
//! Shared by admission, which reserves, and the controller, which recounts. Follows `k8s.io/apiserver/pkg/quota/v1`
//! and `pkg/quota/v1/evaluator/core`.

pub mod claims;
mod devices;
mod evaluator;
mod list;
pub mod pods;
mod scope;

use std::sync::Arc;

use apimachinery::Value;
use jiff::Timestamp;

pub use crate::core::pod::resources::{ResourceList, add, amounts};
pub use evaluator::{Evaluator, count_name};
pub use list::{exceeded, mask, negative, remove_zeros, subtract_to_zero, to_value};
pub use scope::{Scope, scopes_of};

/// What counting goes by beside the counted object.
#[derive(Clone, Copy)]
pub struct Counting<'a> {
    pub now: Timestamp,
    /// The objects of a resource, named with its group (`pods`, `deployments.apps`), in the counted namespace.
    pub list: &'a dyn Fn(&str) -> Vec<Arc<Value>>,
    pub device_classes: &'a dyn Fn() -> Vec<Arc<Value>>,
}

/// What the objects of the quota's namespace use of what it limits. Follows `CalculateUsage`.
pub fn calculate_usage(quota: &Value, counting: &Counting) -> ResourceList {
    let hard = amounts(quota.get("spec"), "hard");
    let scopes = scopes_of(quota);
    let mut used = ResourceList::new();
    for evaluator in evaluators(&hard) {
        let tracked = evaluator.matching_resources(hard.keys().map(String::as_str), counting);
        if tracked.is_empty() {
            continue;
        }
        for name in &tracked {
            used.entry((*name).to_owned()).or_default();
        }
        for object in (counting.list)(evaluator.resource()) {
            if scopes.iter().all(|scope| evaluator.matches_scope(scope, &object)) {
                add(&mut used, &mask(&evaluator.usage(&object, counting), tracked.iter().copied()));
            }
        }
    }
    used
}

/// The resources whose objects change what is used of these limits.
pub fn tracked_resources(hard: &ResourceList) -> Vec<String> {
    evaluators(hard).iter().map(|evaluator| evaluator.resource().to_owned()).collect()
}

/// Those who may count what these limits name, one for each resource.
fn evaluators(hard: &ResourceList) -> Vec<Evaluator> {
    let counted = hard.keys().filter_map(|name| {
        let (resource, group) = name
            .strip_prefix(evaluator::COUNT_PREFIX)?
            .split_once('.')
            .unwrap_or((name.strip_prefix(evaluator::COUNT_PREFIX)?, ""));
        Evaluator::of(group, resource)
    });
    let mut found: Vec<Evaluator> = Vec::new();
    for evaluator in Evaluator::well_known().chain(counted) {
        let tracks = hard.keys().any(|name| evaluator.may_count(name));
        if tracks && !found.contains(&evaluator) {
            found.push(evaluator);
        }
    }
    found
}

#[cfg(test)]
mod tests;
