//! Validation of pods and pod templates, in upstream's order (follows `ValidatePodCreate`, `ValidatePodUpdate`,
//! `ValidatePodStatusUpdate`, `ValidatePodTemplateSpec`). One module per part of the spec.

pub mod affinity;
pub(super) mod annotations;
mod container;
mod dns;
mod env;
mod handler;
pub mod requirements;
pub mod scheduling;
pub(super) mod security;
mod status;
pub mod update;
pub mod volume;

pub use scheduling::{PREEMPTION_POLICIES, TAINT_EFFECTS};
pub use status::validate_status_update;
pub use update::{validate_ephemeral_containers_update, validate_resize, validate_update};

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, names};

use crate::objectmeta::{validate_annotations, validate_labels};
use crate::validation::{At, dns1123_label, dns1123_subdomain, inclusive_range, ip};

/// Annotation of the API's copy of a pod that a kubelet runs on its own.
pub const MIRROR_POD: &str = "kubernetes.io/config.mirror";

const RESTART_POLICIES: [&str; 3] = ["Always", "OnFailure", "Never"];
/// The longest hostname the kernel takes.
const HOSTNAME_MAX: usize = 64;

/// Whether the spec is a pod's own or a template's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    Pod,
    Template,
}

/// What checks of one part need to know of the rest of the spec.
pub struct Context<'a> {
    pub scope: Scope,
    pub spec: &'a Value,
    /// Names of the volumes that passed their own checks.
    pub volumes: BTreeSet<&'a str>,
    pub restart_policy: &'a str,
    pub grace_period: Option<i64>,
    /// The pod shares the host's user namespace.
    pub host_users: bool,
}

/// A new pod.
pub fn validate_create(pod: &Value) -> ErrorList {
    let mut errors = validate_pod(pod);
    let spec = At::new(&pod["spec"], Path::new("spec"));
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(ephemeral.forbidden("cannot be set on create"));
    }
    if !spec.get("nodeName").is_empty() && !spec.get("schedulingGates").is_empty() {
        errors.push(
            spec.get("nodeName").forbidden("cannot be set until all schedulingGates have been cleared"),
        );
    }
    annotations::profiles_match(&At::root(pod).get("metadata"), &spec, &mut errors);
    errors
}

/// What holds for a pod at any time (follows `validatePodMetadataAndSpec` without the metadata).
fn validate_pod(pod: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let root = At::root(pod);
    let spec = root.get("spec");
    annotations::validate(&root.at(&["metadata", "annotations"]), &spec, &mut errors);
    validate_spec(&spec, Scope::Pod, &mut errors);
    if spec.get("serviceAccountName").is_empty() {
        volume::no_service_account_token(&spec.get("volumes"), &mut errors);
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get(list).items() {
            container::image_without_spaces(&container, &mut errors);
        }
    }
    errors
}

/// A pod template, at its place in a workload (follows `ValidatePodTemplateSpec`).
pub fn validate_template(template: &At, errors: &mut ErrorList) {
    let metadata = template.get("metadata");
    // Upstream speaks of the template's labels and annotations without `metadata` between.
    let annotations = metadata.get("annotations").under(&template.path.child("annotations"));
    validate_labels(metadata.value.get("labels"), &template.path.child("labels"), errors);
    validate_annotations(metadata.value.get("annotations"), &annotations.path, errors);
    let spec = template.get("spec");
    annotations::validate(&annotations, &spec, errors);
    validate_spec(&spec, Scope::Template, errors);
    annotations::profiles_match(&metadata, &spec, errors);
    let ephemeral = spec.get("ephemeralContainers");
    if !ephemeral.is_empty() {
        errors.push(ephemeral.forbidden("ephemeral containers not allowed in pod template"));
    }
}

fn validate_spec(spec: &At, scope: Scope, errors: &mut ErrorList) {
    let grace_period = spec.get("terminationGracePeriodSeconds");
    if !grace_period.is_set() {
        errors.push(grace_period.required(""));
    }
    let context = Context {
        scope,
        spec: spec.value,
        volumes: volume::validate_all(&spec.get("volumes"), scope, errors),
        restart_policy: spec.get("restartPolicy").text(),
        grace_period: grace_period.value.as_i64(),
        host_users: spec.get("hostUsers").value != &Value::Bool(false),
    };
    requirements::resource_claims(&spec.get("resourceClaims"), errors);
    container::validate_all(spec, &context, errors);
    requirements::pod_level(spec, errors);
    host_network_ports(spec, scope, errors);
    spec.get("restartPolicy").check_enum_of(&RESTART_POLICIES, errors);
    spec.get("dnsPolicy").check_enum_of(&dns::POLICIES, errors);
    let node_selector = spec.get("nodeSelector");
    validate_labels(node_selector.map().map(|_| node_selector.value), &node_selector.path, errors);
    security::pod(spec, errors);
    image_pull_secrets(spec, errors);
    affinity::validate(&spec.get("affinity"), errors);
    dns::config(spec, errors);
    scheduling::readiness_gates(&spec.get("readinessGates"), errors);
    scheduling::gates(&spec.get("schedulingGates"), errors);
    scheduling::topology_spread_constraints(&spec.get("topologySpreadConstraints"), errors);
    security::user_namespace(spec, errors);
    hostname_override(spec, errors);
    validate_names(spec, errors);
    scheduling::tolerations(&spec.get("tolerations"), errors);
    host_aliases(spec, errors);
    validate_classes(spec, errors);
    requirements::overhead(&spec.get("overhead"), errors);
    security::operating_system(spec, errors);
    env::file_key_volumes(spec, errors);
}

fn validate_names(spec: &At, errors: &mut ErrorList) {
    for field in ["serviceAccountName", "nodeName"] {
        if !spec.get(field).is_empty() {
            dns1123_subdomain(&spec.get(field), errors);
        }
    }
    let deadline = spec.get("activeDeadlineSeconds");
    if deadline.is_set() && !(1..=i64::from(i32::MAX)).contains(&deadline.int()) {
        errors.push(deadline.invalid(inclusive_range(1, i64::from(i32::MAX))));
    }
    for field in ["hostname", "subdomain"] {
        if !spec.get(field).is_empty() {
            dns1123_label(&spec.get(field), errors);
        }
    }
}

fn validate_classes(spec: &At, errors: &mut ErrorList) {
    if !spec.get("priorityClassName").is_empty() {
        dns1123_subdomain(&spec.get("priorityClassName"), errors);
    }
    if let Some(class) = spec.field("runtimeClassName") {
        dns1123_subdomain(&class, errors);
    }
    if let Some(policy) = spec.field("preemptionPolicy") {
        policy.check_enum_of(&PREEMPTION_POLICIES, errors);
    }
}

/// On the host's network a host port is the container's own; a template may leave it open.
fn host_network_ports(spec: &At, scope: Scope, errors: &mut ErrorList) {
    if !spec.get("hostNetwork").is_true() {
        return;
    }
    for container in spec.get("containers").items() {
        for port in container.get("ports").items() {
            let host_port = port.get("hostPort");
            let open = scope == Scope::Template && host_port.int() == 0;
            if !open && host_port.int() != port.get("containerPort").int() {
                let detail = "must match `containerPort` when `hostNetwork` is true";
                errors.push(Error::invalid(&host_port.path, host_port.int(), detail));
            }
        }
    }
}

fn image_pull_secrets(spec: &At, errors: &mut ErrorList) {
    for secret in spec.get("imagePullSecrets").items() {
        if secret.map().is_some_and(|map| map.keys().any(|key| key != "name")) {
            errors.push(secret.invalid("only name may be set"));
        }
    }
}

fn host_aliases(spec: &At, errors: &mut ErrorList) {
    for alias in spec.get("hostAliases").items() {
        ip::legacy(&alias.get("ip"), &[], errors);
        for hostname in alias.get("hostnames").items() {
            dns1123_subdomain(&hostname, errors);
        }
    }
}

fn hostname_override(spec: &At, errors: &mut ErrorList) {
    let Some(name) = spec.field("hostnameOverride") else { return };
    if spec.get("setHostnameAsFQDN").is_true() {
        errors.push(name.forbidden("may not be specified when setHostnameAsFQDN is true"));
    }
    if spec.get("hostNetwork").is_true() {
        errors.push(name.forbidden("may not be specified when hostNetwork is true"));
    }
    if name.text().len() > HOSTNAME_MAX {
        errors.push(Error::too_long(&name.path, HOSTNAME_MAX));
    }
    dns1123_subdomain(&name, errors);
}

/// The body of `pods/binding`.
pub fn validate_binding(binding: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let target = At::root(binding).get("target");
    let kind = target.get("kind");
    if !matches!(kind.text(), "" | "Node") {
        errors.push(kind.not_supported(&["Node", "<empty>"]));
    }
    if target.get("name").is_empty() {
        errors.push(target.get("name").required(""));
    } else {
        target.get("name").check(names::is_dns1123_subdomain, &mut errors);
    }
    errors
}

fn is_mirror_pod(pod: &Value) -> bool {
    pod.pointer("/metadata/annotations").and_then(|a| a.get(MIRROR_POD)).is_some()
}

/// Every container of the spec, with its place.
pub const CONTAINER_LISTS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];

pub(super) fn all_containers<'a>(spec: &At<'a>) -> impl Iterator<Item = At<'a>> + use<'a> {
    let lists = CONTAINER_LISTS.map(|list| spec.get(list));
    lists.into_iter().flat_map(|list| list.items())
}

fn has_container(spec: &At, name: &str) -> bool {
    all_containers(spec).any(|container| str_at(container.value, &["name"]) == name)
}

#[cfg(test)]
mod tests;
