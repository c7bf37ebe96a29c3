//! The group `apps`: workloads, and what they share: replicas, a selector, a pod template.

pub mod deployment;
pub mod replicaset;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::{LabelSelector, StringMap};

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

/// The selector, and that the template matches it (follows `ValidateDeploymentSpec` and
/// `ValidatePodTemplateSpecForReplicaSet`).
fn selector_and_template(spec: &At, errors: &mut ErrorList) {
    let selector = spec.get("selector");
    let before = errors.len();
    if selector.is_set() {
        label_selector(&selector, errors);
        if selector.get("matchLabels").is_empty() && selector.get("matchExpressions").is_empty() {
            errors.push(selector.invalid("empty selector is invalid for deployment"));
        }
    } else {
        errors.push(selector.required(""));
    }
    let template = spec.get("template");
    if errors.len() == before {
        template_matches(&selector, &template, errors);
    }
    validate_template(&template, errors);
    let pod = template.get("spec");
    let restart_policy = pod.get("restartPolicy");
    if restart_policy.text() != "Always" {
        errors.push(Error::not_supported(&restart_policy.path, restart_policy.text(), &["Always"]));
    }
    if pod.get("activeDeadlineSeconds").is_set() {
        let at = pod.get("activeDeadlineSeconds");
        errors.push(at.forbidden("activeDeadlineSeconds in ReplicaSet is not Supported"));
    }
}

fn template_matches(selector: &At, template: &At, errors: &mut ErrorList) {
    let labels = template.at(&["metadata", "labels"]);
    let typed: StringMap = serde_json::from_value(labels.value.clone()).unwrap_or_default();
    let parsed: LabelSelector = serde_json::from_value(selector.value.clone()).unwrap_or_default();
    if !parsed.matches(&typed) {
        let value = if labels.is_set() { labels.value.clone() } else { Value::Null };
        errors.push(Error::invalid(&labels.path, value, "`selector` does not match template `labels`"));
    }
}

/// Counts in a status: none negative, none more than there are (follows `ValidateDeploymentStatus`).
fn status_counts(status: &At, counts: &[&str], parts: &[&str], errors: &mut ErrorList) {
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
        errors.push(Error::invalid(&available.path, available.int(), "cannot be greater than readyReplicas"));
    }
}

/// Warnings about a workload's name and template; on updates only when the template's object changed generation.
fn warnings(obj: &Value, old: Option<&Value>) -> Vec<String> {
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
