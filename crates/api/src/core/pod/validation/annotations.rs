//! Annotations that mean something to pods: mirror pods, deletion cost, and the older forms of security profiles
//! (follows `ValidatePodSpecificAnnotations` and `ValidatePodSpecificAnnotationUpdates`).

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Map, Value};

use super::{MIRROR_POD, all_containers, has_container};
use crate::core::pod::apparmor;
use crate::validation::At;

const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";
pub const SECCOMP_POD: &str = "seccomp.security.alpha.kubernetes.io/pod";
pub const SECCOMP_CONTAINER: &str = "container.seccomp.security.alpha.kubernetes.io/";

pub fn validate(annotations: &At, spec: &At, errors: &mut ErrorList) {
    for (key, value) in annotations.entries() {
        let text = value.text();
        match key {
            MIRROR_POD if spec.get("nodeName").is_empty() => {
                errors.push(value.invalid("must set spec.nodeName if mirror pod annotation is set"));
            }
            DELETION_COST if !is_deletion_cost(text) => errors.push(value.invalid("must be a 32bit integer")),
            _ if key == SECCOMP_POD || key.starts_with(SECCOMP_CONTAINER) => {
                seccomp(text, &annotations.path.child(key), errors);
            }
            _ => {}
        }
        if let Some(container) = key.strip_prefix(apparmor::ANNOTATION_PREFIX) {
            app_armor(container, &value, spec, errors);
        }
    }
}

/// A 32-bit integer without a leading plus or zeros.
fn is_deletion_cost(text: &str) -> bool {
    let canonical = text == "0" || !text.trim_start_matches('-').starts_with(['0', '+']);
    canonical && !text.starts_with('+') && text.parse::<i32>().is_ok()
}

fn seccomp(profile: &str, path: &Path, errors: &mut ErrorList) {
    if matches!(profile, "runtime/default" | "docker/default" | "unconfined") {
        return;
    }
    match profile.strip_prefix("localhost/") {
        Some(file) => {
            let value = Value::from(file);
            super::volume::relative_path(&At::new(&value, path.clone()), errors);
        }
        None => errors.push(Error::invalid(path, profile, "must be a valid seccomp profile")),
    }
}

fn app_armor(container: &str, value: &At, spec: &At, errors: &mut ErrorList) {
    if !has_container(spec, container) {
        errors.push(Error::invalid(&value.path, container, "container not found"));
    }
    let profile = value.text();
    if !matches!(profile, "" | "runtime/default" | "unconfined") && !profile.starts_with("localhost/") {
        errors.push(value.invalid(format!("invalid AppArmor profile name: {profile:?}")));
    }
}

/// Where both an annotation and a field give a security profile, they must agree.
pub fn profiles_match(metadata: &At, spec: &At, errors: &mut ErrorList) {
    let Some(annotations) = metadata.get("annotations").map() else { return };
    let pod = spec.get("securityContext");
    matches(annotations, SECCOMP_POD, &pod.get("seccompProfile"), "seccomp", errors);
    for container in all_containers(spec) {
        let name = container.get("name").text();
        let security = container.get("securityContext");
        let key = format!("{SECCOMP_CONTAINER}{name}");
        matches(annotations, &key, &security.get("seccompProfile"), "seccomp", errors);
        let key = apparmor::annotation_key(name);
        let own = security.get("appArmorProfile");
        let profile = if own.is_set() { own } else { pod.get("appArmorProfile").under(&own.path) };
        matches(annotations, &key, &profile, "apparmor", errors);
    }
}

fn matches(annotations: &Map, key: &str, profile: &At, what: &str, errors: &mut ErrorList) {
    let Some(annotation) = annotations.get(key).and_then(Value::as_str).filter(|_| profile.is_set()) else {
        return;
    };
    let same_type = match profile.get("type").text() {
        "Unconfined" => annotation == "unconfined",
        "RuntimeDefault" => {
            annotation == "runtime/default" || (what == "seccomp" && annotation == "docker/default")
        }
        "Localhost" => annotation.starts_with("localhost/"),
        _ => true,
    };
    if !same_type {
        let detail = format!("{what} type in annotation and field must match");
        errors.push(profile.get("type").forbidden(detail));
    } else if profile.get("type").text() == "Localhost"
        && annotation.strip_prefix("localhost/") != Some(profile.get("localhostProfile").text())
    {
        let detail = format!("{what} profile in annotation and field must match");
        errors.push(profile.get("localhostProfile").forbidden(detail));
    }
}

/// Annotations that are fixed once the pod exists.
pub fn validate_update(annotations: &At, old: &At, errors: &mut ErrorList) {
    let fixed = |key: &str| match key {
        MIRROR_POD => Some("mirror pod annotation"),
        _ if key.starts_with(apparmor::ANNOTATION_PREFIX) => Some("AppArmor annotations"),
        _ => None,
    };
    for (key, value) in old.entries() {
        if annotations.value.get(key) != Some(value.value)
            && let Some(what) = fixed(key)
        {
            let detail = format!("may not remove or update {what}");
            errors.push(Error::forbidden(&annotations.path.key(key), detail));
        }
    }
    for (key, value) in annotations.entries() {
        if old.value.get(key).is_none()
            && let Some(what) = fixed(key)
        {
            errors.push(value.forbidden(format!("may not add {what}")));
        }
    }
}
