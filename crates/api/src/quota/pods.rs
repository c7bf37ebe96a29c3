//! How pods are counted. Follows `podEvaluator`.

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::meta::{str_at, value_at};
use apimachinery::{Value, time};
use jiff::{SignedDuration, Timestamp};

use super::evaluator::one;
use super::{ResourceList, Scope};
use crate::columns::items;
use crate::core::pod::resources::{self, Counted};
use crate::validation::is_huge_page_resource;
use crate::view::dynamicresource::DEVICE_CLASS_RESOURCES;

pub(super) const REQUESTS: &str = "requests.";
const LIMITS: &str = "limits.";
/// What is counted by its bare name, with `requests.` and with `limits.`.
const COMPUTE: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];
/// Upstream once decided that under a quota for these each container must state them. It stays with these.
const MANDATORY: [&str; 6] =
    ["cpu", "limits.cpu", "limits.memory", "memory", "requests.cpu", "requests.memory"];

pub(super) fn counts(name: &str) -> bool {
    let base = name.strip_prefix(REQUESTS).or_else(|| name.strip_prefix(LIMITS)).unwrap_or(name);
    let requested = name.strip_prefix(REQUESTS);
    name == "pods"
        || COMPUTE.contains(&base)
        || is_huge_page_resource(name)
        || requested.is_some_and(is_huge_page_resource)
        || extended_resource(name).is_some()
}

/// The extended resource that a limit names; they can be limited by their requests only.
pub(super) fn extended_resource(name: &str) -> Option<&str> {
    let resource = name.strip_prefix(REQUESTS)?;
    (resource.starts_with(DEVICE_CLASS_RESOURCES) || !is_native(name)).then_some(resource)
}

/// Without a domain, or in the project's own.
fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

pub(super) fn usage(pod: &Value, now: Timestamp) -> ResourceList {
    if !is_charged(pod, now) {
        return ResourceList::new();
    }
    compute(&resources::pod_requests(pod, Counted::Status), &resources::pod_limits(pod, Counted::Status))
}

/// A pod that has ended, or should have, is charged for being there only.
fn is_charged(pod: &Value, now: Timestamp) -> bool {
    if matches!(str_at(pod, &["status", "phase"]), "Failed" | "Succeeded") {
        return false;
    }
    let deleted = time::parse_time(str_at(pod, &["metadata", "deletionTimestamp"]));
    let grace = value_at(pod, &["metadata", "deletionGracePeriodSeconds"]).and_then(Value::as_i64);
    match (deleted, grace) {
        (Some(deleted), Some(grace)) => {
            let end = deleted.saturating_add(SignedDuration::from_secs(grace)).unwrap_or(Timestamp::MAX);
            now <= end
        }
        _ => true,
    }
}

fn compute(requests: &ResourceList, limits: &ResourceList) -> ResourceList {
    let mut usage = ResourceList::from([("pods".to_owned(), one())]);
    for (name, amount) in requests {
        let huge = is_huge_page_resource(name);
        let is_compute = COMPUTE.contains(&name.as_str());
        let extended =
            (!is_native(name) && !name.starts_with(REQUESTS)) || name.starts_with(DEVICE_CLASS_RESOURCES);
        if huge || is_compute {
            usage.insert(name.clone(), *amount);
        }
        if huge || is_compute || extended {
            usage.insert(format!("{REQUESTS}{name}"), *amount);
        }
    }
    for (name, amount) in limits.iter().filter(|(name, _)| COMPUTE.contains(&name.as_str())) {
        usage.insert(format!("{LIMITS}{name}"), *amount);
    }
    usage
}

pub(super) fn constraints(required: &[&str], pod: &Value) -> Result<(), String> {
    if resources::has_pod_level_resources(pod) {
        return Ok(());
    }
    let required: BTreeSet<&str> = required.iter().copied().filter(|n| MANDATORY.contains(n)).collect();
    let mut missing: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for field in ["containers", "initContainers"] {
        for container in items(pod, &["spec", field]) {
            let stated =
                compute(&resources::list(container, "requests"), &resources::list(container, "limits"));
            for name in required.iter().filter(|name| !stated.contains_key(**name)) {
                missing.entry(name).or_default().insert(str_at(container, &["name"]));
            }
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let joined = |names: &BTreeSet<&str>| names.iter().copied().collect::<Vec<_>>().join(",");
    let parts: Vec<String> =
        missing.iter().map(|(name, containers)| format!("{name} for: {}", joined(containers))).collect();
    Err(format!("must specify {}", parts.join("; ")))
}

pub(super) fn matches_scope(scope: &Scope, pod: &Value) -> bool {
    let best_effort = || resources::qos_class(pod) == "BestEffort";
    match scope.name.as_str() {
        "Terminating" => is_terminating(pod),
        "NotTerminating" => !is_terminating(pod),
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => {
            let class = str_at(pod, &["spec", "priorityClassName"]);
            scope.selects((!class.is_empty()).then_some(class))
        }
        "CrossNamespacePodAffinity" => reaches_other_namespaces(pod),
        _ => false,
    }
}

/// Whether the pod is meant to end by itself.
pub fn is_terminating(pod: &Value) -> bool {
    value_at(pod, &["spec", "activeDeadlineSeconds"]).and_then(Value::as_i64).is_some_and(|s| s >= 0)
}

fn reaches_other_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| {
        term.get("namespaces").and_then(Value::as_array).is_some_and(|names| !names.is_empty())
            || term.get("namespaceSelector").is_some_and(|selector| !selector.is_null())
    };
    ["podAffinity", "podAntiAffinity"].into_iter().any(|affinity| {
        let terms = |rule: &'static str| items(pod, &["spec", "affinity", affinity, rule]);
        terms("requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || terms("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| weighted.get("podAffinityTerm").is_some_and(crosses))
    })
}
