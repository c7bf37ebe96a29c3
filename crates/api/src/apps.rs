//! The group `apps`: workloads, and what they share: replicas, a selector, a pod template.

pub mod controllerrevision;
pub mod daemonset;
pub mod deployment;
pub mod replicaset;
pub mod statefulset;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::{LabelSelector, StringMap};

use crate::columns::{count, items};
use crate::core::pod;
use crate::core::pod::validation::validate_template;
use crate::defaults::{Fill, fill, object};
use crate::validation::{At, label_selector};

/// `spec.replicas` and the template of any workload.
fn default_workload(spec: &mut Value) {
    fill(spec, &[("replicas", Fill::Int(1)), ("template", Fill::Empty)]);
    if let Some(template) = object(spec, "template") {
        pod::defaults::pod_template(template);
    }
}

/// What a workload's spec has in common with others: a selector, and a template that it selects.
struct Template {
    /// As the complaint about an empty selector names it.
    kind: &'static str,
    /// As the complaint about a deadline names it.
    set: &'static str,
}

const DAEMON_SET: Template = Template { kind: "daemonset", set: "DaemonSet" };

impl Template {
    /// Follows `ValidateDeploymentSpec`, `ValidateStatefulSetSpec`, `ValidateDaemonSetSpec` and
    /// `ValidatePodTemplateSpecForReplicaSet`.
    fn validate(&self, spec: &At, template: &At, errors: &mut ErrorList) {
        let selector = spec.get("selector");
        let before = errors.len();
        if selector.is_set() {
            label_selector(&selector, errors);
            if selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty() {
                errors.push(selector.invalid(format!("empty selector is invalid for {}", self.kind)));
            }
            if errors.len() == before {
                template_matches(&selector, template, errors);
            }
        } else {
            if self.kind != DAEMON_SET.kind {
                errors.push(selector.required(""));
            }
            template_matches(&selector, template, errors);
        }
        validate_template(template, errors);
        let pod = template.get("spec");
        let restart_policy = pod.get("restartPolicy");
        if restart_policy.text() != "Always" {
            errors.push(Error::not_supported(&restart_policy.path, restart_policy.text(), &["Always"]));
        }
        if let Some(deadline) = pod.field("activeDeadlineSeconds") {
            errors
                .push(deadline.forbidden(format!("activeDeadlineSeconds in {} is not Supported", self.set)));
        }
    }
}

/// A selector selects the pods of its own template; one that is missing selects nothing.
pub(crate) fn template_matches(selector: &At, template: &At, errors: &mut ErrorList) {
    let labels = template.at(&["metadata", "labels"]);
    let typed: StringMap = apimachinery::from_value(labels.value.clone()).unwrap_or_default();
    let parsed: LabelSelector = apimachinery::from_value(selector.value.clone()).unwrap_or_default();
    if !selector.is_set() || !parsed.matches(&typed) {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
}

/// The counts of ReplicaSets and ReplicationControllers.
pub(crate) const REPLICA_COUNTS: [&str; 6] = [
    "replicas",
    "fullyLabeledReplicas",
    "readyReplicas",
    "availableReplicas",
    "observedGeneration",
    "terminatingReplicas",
];
pub(crate) const REPLICA_PARTS: [&str; 3] = ["fullyLabeledReplicas", "readyReplicas", "availableReplicas"];

/// Counts in a status: none negative, none more than there are (follows `ValidateDeploymentStatus`). `ready` is what
/// the complaint about more available than ready pods calls the latter.
pub(crate) fn status_counts(
    status: &At,
    counts: &[&str],
    parts: &[&str],
    ready: &str,
    errors: &mut ErrorList,
) {
    for count in counts {
        status.get(count).check_nonnegative(errors);
    }
    let replicas = status.get("replicas").int();
    for part in parts {
        let at = status.get(part);
        if at.int() > replicas {
            errors.push(Error::invalid(&at.path, at.int(), "cannot be greater than status.replicas"));
        }
    }
    let available = status.get("availableReplicas");
    if available.int() > status.get("readyReplicas").int() {
        let detail = format!("cannot be greater than {ready}");
        errors.push(Error::invalid(&available.path, available.int(), detail));
    }
}

/// `status.collisionCount` (follows `IsDecremented`).
fn collisions_only_grow(status: &At, old: &Value, errors: &mut ErrorList) {
    let collisions = status.get("collisionCount");
    if collisions.int() < count(old, &["status", "collisionCount"]) {
        errors.push(Error::invalid(&collisions.path, collisions.int(), "cannot be decremented"));
    }
}

/// The wide cells of a workload: containers and images of its template.
pub(crate) fn workload_cells(obj: &Value) -> [Value; 2] {
    let (containers, images) = pod::container_cells(items(obj, &["spec", "template", "spec", "containers"]));
    [containers.into(), images.into()]
}

/// Warnings about a workload's name and template; on updates only when the template's object changed generation.
pub(crate) fn workload_warnings(obj: &Value, old: Option<&Value>) -> Vec<String> {
    let generation = |obj: &Value| obj.pointer("/metadata/generation").cloned();
    let mut warnings = Vec::new();
    match old {
        Some(old) if generation(old) == generation(obj) => return warnings,
        Some(_) => {}
        None => {
            let name = apimachinery::meta::str_at(obj, &["metadata", "name"]);
            warnings.extend(pod::hostname_warning(name, "Pod names and hostnames"));
        }
    }
    warnings.extend(pod::template_warnings(&At::root(obj).at(&["spec", "template"])));
    warnings
}
