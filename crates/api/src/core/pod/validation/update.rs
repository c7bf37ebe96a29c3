//! What may change in a pod: images, the deadline, added tolerations, removed gates; and through their subresources
//! ephemeral containers and resources (follows `ValidatePodUpdate`, `ValidatePodEphemeralContainersUpdate`,
//! `ValidatePodResize`).

use std::fmt::Write as _;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::{annotations, is_mirror_pod, scheduling, validate_pod};
use crate::columns::items;
use crate::core::pod::resources::{is_sidecar, qos_class};
use crate::defaults::each;
use crate::strategy::keep;
use crate::validation::{At, inclusive_range, same, same_field};

const UPDATABLE: &str = "`spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
const CONTAINER_LISTS: [&str; 2] = ["containers", "initContainers"];
/// Fields that have rules of their own, or none, when the rest is compared.
const COMPARED_ELSEWHERE: [&str; 3] = ["activeDeadlineSeconds", "schedulingGates", "tolerations"];
const NODE_TERMS: &str =
    "/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms";
/// Lines of difference shown to the user.
const DIFF_LINES_MAX: usize = 40;

pub fn validate_update(pod: &Value, old: &Value) -> ErrorList {
    let mut errors = validate_pod(pod);
    let (new_annotations, old_annotations) =
        (At::root(pod).at(&["metadata", "annotations"]), At::root(old).at(&["metadata", "annotations"]));
    annotations::validate_update(&new_annotations, &old_annotations, &mut errors);
    let spec = At::new(&pod["spec"], Path::new("spec"));
    let old_spec = At::new(&old["spec"], Path::new("spec"));
    for list in CONTAINER_LISTS {
        if !images(&spec.get(list), &old_spec.get(list), &mut errors) {
            return errors;
        }
    }
    if !deadline(&spec, &old_spec, &mut errors) {
        return errors;
    }
    only_added_tolerations(&spec, &old_spec, &mut errors);
    only_removed_gates(&spec, &old_spec, &mut errors);
    let mut munged = without_updatable(spec.value, old_spec.value);
    if !old_spec.get("schedulingGates").is_empty() {
        gated(&mut munged, old_spec.value, &mut errors);
    }
    if !same(&munged, old_spec.value) {
        let detail = format!(
            "pod updates may not change fields other than {UPDATABLE}\n{}",
            difference(old_spec.value, &munged)
        );
        errors.push(spec.forbidden(detail));
    }
    errors
}

/// Whether the lists are comparable container by container.
fn images(containers: &At, old: &At, errors: &mut ErrorList) -> bool {
    if containers.len() != old.len() {
        errors.push(containers.forbidden("pod updates may not add or remove containers"));
        return false;
    }
    for container in containers.items() {
        let image = container.get("image");
        if image.is_empty() {
            errors.push(image.required(""));
        }
        super::container::image_without_spaces(&container, errors);
    }
    true
}

/// The deadline may be set, and shortened. Returns whether it makes sense to go on.
fn deadline(spec: &At, old: &At, errors: &mut ErrorList) -> bool {
    let (new, old) = (spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds"));
    match (new.is_set(), old.is_set()) {
        (true, _) if !(0..=i64::from(i32::MAX)).contains(&new.int()) => {
            errors.push(new.invalid(inclusive_range(0, i64::from(i32::MAX))));
            false
        }
        (true, true) if old.int() < new.int() => {
            errors.push(new.invalid("must be less than or equal to previous value"));
            false
        }
        (false, true) => {
            errors.push(new.invalid("must not update from a positive integer to nil value"));
            true
        }
        _ => true,
    }
}

fn only_added_tolerations(spec: &At, old: &At, errors: &mut ErrorList) {
    let tolerations = spec.get("tolerations");
    let same_but_seconds = |a: &Value, b: &Value| {
        let mut a = a.clone();
        keep(&mut a, b, "tolerationSeconds");
        same(&a, b)
    };
    let lost = |old: &At| !tolerations.items().any(|new| same_but_seconds(old.value, new.value));
    if old.get("tolerations").items().any(|old| lost(&old)) {
        let detail = "existing toleration can not be modified except its tolerationSeconds";
        errors.push(tolerations.forbidden(detail));
        return;
    }
    scheduling::tolerations(&tolerations, errors);
}

fn only_removed_gates(spec: &At, old: &At, errors: &mut ErrorList) {
    let had = |name: &str| old.get("schedulingGates").items().any(|gate| gate.get("name").text() == name);
    for gate in spec.get("schedulingGates").items() {
        let name = gate.get("name");
        if !had(name.text()) {
            let detail = format!("only deletion is allowed, but found new scheduling gate '{}'", name.text());
            errors.push(name.forbidden(detail));
        }
    }
}

/// The new spec with everything that may change put back.
fn without_updatable(spec: &Value, old: &Value) -> Value {
    let mut munged = spec.clone();
    for list in CONTAINER_LISTS {
        for (container, old) in each(&mut munged, list).zip(items(old, &[list])) {
            keep(container, old, "image");
        }
    }
    for field in COMPARED_ELSEWHERE {
        keep(&mut munged, old, field);
    }
    let grace = |spec: &Value| spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64);
    if grace(old).is_some_and(|seconds| seconds < 0) && grace(spec) == Some(1) {
        keep(&mut munged, old, "terminationGracePeriodSeconds");
    }
    munged
}

/// While a pod is gated, what narrows its choice of nodes may be added.
fn gated(munged: &mut Value, old: &Value, errors: &mut ErrorList) {
    let path = Path::new("spec").child("nodeSelector");
    let kept = |munged: &Value| {
        old.get("nodeSelector").and_then(Value::as_object).is_none_or(|old| {
            old.iter().all(|(k, v)| munged.pointer("/nodeSelector").and_then(|n| n.get(k)) == Some(v))
        })
    };
    if !kept(munged) {
        let value = munged.get("nodeSelector").cloned().unwrap_or_default();
        let detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)";
        errors.push(Error::invalid(&path, value, detail));
    }
    keep(munged, old, "nodeSelector");
    node_affinity_additions(munged, old, errors);
    let old_affinity = old.get("affinity").unwrap_or(&Value::Null);
    match munged.get_mut("affinity") {
        Some(affinity) => keep(affinity, old_affinity, "nodeAffinity"),
        None => keep(munged, old, "affinity"),
    }
}

fn node_affinity_additions(munged: &Value, old: &Value, errors: &mut ErrorList) {
    let terms =
        |spec: &Value| spec.pointer(NODE_TERMS).and_then(Value::as_array).cloned().unwrap_or_default();
    let (new_terms, old_terms) = (terms(munged), terms(old));
    if old_terms.is_empty() {
        return;
    }
    let path = NODE_TERMS[1..].split('/').fold(Path::new("spec"), |path, field| path.child(field));
    if new_terms.len() != old_terms.len() {
        let detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed";
        errors.push(Error::invalid(&path, new_terms, detail));
        return;
    }
    for (index, (new, old)) in new_terms.iter().zip(&old_terms).enumerate() {
        let extends = |field: &str| items(new, &[field]).starts_with(items(old, &[field]));
        let was_empty =
            items(old, &["matchExpressions"]).is_empty() && items(old, &["matchFields"]).is_empty();
        if !extends("matchExpressions") || !extends("matchFields") || (was_empty && !same(new, old)) {
            let detail = "only additions are allowed (no mutations or deletions)";
            errors.push(Error::invalid(&path.index(index), new.clone(), detail));
        }
    }
}

/// The body of `pods/ephemeralcontainers`: containers may be added, never changed.
pub fn validate_ephemeral_containers_update(pod: &Value, old: &Value) -> ErrorList {
    if is_mirror_pod(old) {
        return vec![Error::forbidden(&Path::new(""), "static pods do not support ephemeral containers")];
    }
    let mut errors = validate_pod(pod);
    let path = Path::new("spec").child("ephemeralContainers");
    let list = At::root(pod).at(&["spec", "ephemeralContainers"]);
    for old in items(old, &["spec", "ephemeralContainers"]) {
        let name = old.get("name").and_then(Value::as_str).unwrap_or_default();
        match list.items().find(|container| container.get("name").text() == name) {
            None => {
                let detail = format!("existing ephemeral containers {name:?} may not be removed\n");
                errors.push(Error::forbidden(&path, detail));
            }
            Some(new) if !same(new.value, old) => {
                let detail = format!(
                    "existing ephemeral containers {name:?} may not be changed\n{}",
                    difference(old, new.value)
                );
                errors.push(Error::forbidden(&path, detail));
            }
            Some(_) => {}
        }
    }
    errors
}

/// The body of `pods/resize`: CPU and memory of containers may change, the quality of service may not.
pub fn validate_resize(pod: &Value, old: &Value) -> ErrorList {
    if is_mirror_pod(old) {
        return vec![Error::forbidden(&Path::new(""), "static pods cannot be resized")];
    }
    let mut errors = validate_pod(pod);
    let spec = At::new(&pod["spec"], Path::new("spec"));
    if qos_class(pod) != qos_class(old) {
        let class = old.pointer("/status/qosClass").cloned().unwrap_or_default();
        errors.push(Error::invalid(
            &spec.path,
            class,
            "Pod QOS Class may not change as a result of resizing",
        ));
    }
    resized_pod(&spec, &old["spec"]["resources"], &mut errors);
    for list in CONTAINER_LISTS {
        let (new, old) = (spec.get(list), items(&old["spec"], &[list]));
        if new.len() != old.len() {
            errors.push(new.forbidden("containers may not be added or removed on resize"));
            return errors;
        }
        for (new, old) in new.items().zip(old) {
            resized_container(&new, old, list == "initContainers", &mut errors);
        }
    }
    errors
}

/// What the pod states as a whole.
fn resized_pod(spec: &At, old: &Value, errors: &mut ErrorList) {
    let resources = spec.get("resources");
    if !old.is_null() && resources.value.is_null() {
        errors.push(resources.forbidden("pod-level resources cannot be removed"));
        return;
    }
    for field in ["requests", "limits"] {
        let (new, path) = (resources.get(field), resources.path.child(field));
        let none = apimachinery::Map::new();
        let old = old.get(field).and_then(Value::as_object).unwrap_or(&none);
        if old.keys().any(|name| new.value.get(name).is_none()) {
            errors.push(Error::forbidden(&path, format!("pod-level resource {field} cannot be removed")));
        }
        if changes_fixed_amount(&new, old) {
            let detail = "only cpu and memory resources are mutable at pod-level";
            errors.push(Error::forbidden(&spec.path, detail));
        }
    }
}

/// Whether something else than CPU and memory is asked for differently.
fn changes_fixed_amount(new: &At, old: &apimachinery::Map) -> bool {
    let fixed = |name: &str| !matches!(name, "cpu" | "memory");
    new.entries().any(|(name, value)| fixed(name) && old.get(name) != Some(value.value))
}

fn resized_container(container: &At, old: &Value, init: bool, errors: &mut ErrorList) {
    if !same_field(container.value, old, "name") {
        errors.push(container.get("name").forbidden("containers may not be renamed or reordered on resize"));
        return;
    }
    let restarts = |policy: At| policy.get("restartPolicy").text() == "RestartContainer";
    if init
        && !is_sidecar(container.value)
        && !same_field(container.value, old, "resources")
        && container.get("resizePolicy").items().any(restarts)
    {
        let detail = "non-sidecar init containers with a resize policy of RestartContainer cannot be resized";
        errors.push(container.forbidden(detail));
    }
    for field in ["requests", "limits"] {
        let (new, path) = (container.at(&["resources", field]), container.get("resources").path.child(field));
        let Some(old) = old.pointer(&format!("/resources/{field}")).and_then(Value::as_object) else {
            continue;
        };
        if old.keys().any(|name| new.value.get(name).is_none()) {
            errors.push(Error::forbidden(&path, format!("resource {field} cannot be removed")));
        }
        match (changes_fixed_amount(&new, old), init) {
            (false, _) => {}
            (true, true) => errors.push(
                container
                    .forbidden("only cpu and memory resources for init or sidecar containers are mutable"),
            ),
            (true, false) => {
                errors
                    .push(Error::forbidden(&Path::new("spec"), "only cpu and memory resources are mutable"));
            }
        }
    }
}

/// The leaves in which two values differ, one line each.
pub fn difference(old: &Value, new: &Value) -> String {
    let mut lines = Vec::new();
    differ("spec", old, new, &mut lines);
    lines.truncate(DIFF_LINES_MAX);
    let mut text = String::new();
    for line in lines {
        writeln!(text, "{line}").expect("writing to a String does not fail");
    }
    text
}

fn differ(path: &str, old: &Value, new: &Value, lines: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: std::collections::BTreeSet<&apimachinery::Text> = a.keys().chain(b.keys()).collect();
            for key in keys {
                let side = |map: &apimachinery::Map| map.get(key).cloned().unwrap_or_default();
                differ(&format!("{path}.{key}"), &side(a), &side(b), lines);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                differ(&format!("{path}[{index}]"), a, b, lines);
            }
        }
        _ if same(old, new) => {}
        _ => {
            lines.push(format!("- {path}: {old}"));
            lines.push(format!("+ {path}: {new}"));
        }
    }
}
