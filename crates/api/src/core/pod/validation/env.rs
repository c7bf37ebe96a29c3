//! Environment variables and where their values come from (follows `ValidateEnv`, `ValidateEnvFrom`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::names;

use super::{all_containers, volume};
use crate::validation::{At, dns1123_label, dns1123_subdomain, env_var_name, is_huge_page_resource};

const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];
/// Fields the downward API knows anywhere, in environment or volume.
const CONVERTIBLE_FIELDS: [&str; 6] = [
    "metadata.annotations",
    "metadata.labels",
    "spec.restartPolicy",
    "spec.schedulerName",
    "status.phase",
    "spec.host",
];
const RESOURCES: [&str; 6] = [
    "limits.cpu",
    "limits.ephemeral-storage",
    "limits.memory",
    "requests.cpu",
    "requests.ephemeral-storage",
    "requests.memory",
];
const CPU_DIVISORS: [&str; 2] = ["1m", "1"];
const BYTE_DIVISORS: [&str; 13] =
    ["1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"];

pub fn variables(env: &At, errors: &mut ErrorList) {
    for variable in env.items() {
        let name = variable.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            name.check(env_var_name, errors);
        }
        if let Some(from) = variable.field("valueFrom") {
            value_from(&from, &variable.get("value"), errors);
        }
    }
}

fn value_from(from: &At, value: &At, errors: &mut ErrorList) {
    let mut sources = 0;
    let mut source = |field: &str, check: &dyn Fn(&At, &mut ErrorList)| {
        if let Some(at) = from.field(field) {
            sources += 1;
            check(&at, errors);
        }
    };
    source("fieldRef", &|at, errors| field_selector(at, &FIELDS, errors));
    source("resourceFieldRef", &|at, errors| resource_selector(at, false, errors));
    source("configMapKeyRef", &key_selector);
    source("secretKeyRef", &key_selector);
    source("fileKeyRef", &file_key_selector);
    let detail = match sources {
        0 => {
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        }
        _ if !value.is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    errors.push(Error::invalid(&from.path, "", detail));
}

/// A field of the pod itself (follows `validateObjectFieldSelector`).
pub fn field_selector(selector: &At, supported: &[&str], errors: &mut ErrorList) {
    for field in ["apiVersion", "fieldPath"] {
        if selector.get(field).is_empty() {
            errors.push(selector.get(field).required(""));
            return;
        }
    }
    let field_path = selector.get("fieldPath");
    let api_version = selector.get("apiVersion").text();
    if api_version != "v1" {
        let detail = format!("error converting fieldPath: unsupported pod version: {api_version}");
        errors.push(field_path.invalid(detail));
        return;
    }
    match subscript(field_path.text()) {
        Some((path, key)) => subscripted(selector, path, key, errors),
        None if supported.contains(&field_path.text()) => {}
        None if FIELDS.contains(&field_path.text()) || CONVERTIBLE_FIELDS.contains(&field_path.text()) => {
            errors.push(field_path.not_supported(supported));
        }
        None => {
            let detail =
                format!("error converting fieldPath: field label not supported: {}", field_path.text());
            errors.push(field_path.invalid(detail));
        }
    }
}

fn subscripted(selector: &At, path: &str, key: &str, errors: &mut ErrorList) {
    let lower = key.to_lowercase();
    let (key, complaints) = match path {
        "metadata.annotations" => (lower.as_str(), names::is_qualified_name(&lower)),
        "metadata.labels" => (key, names::is_qualified_name(key)),
        _ => {
            let detail = format!(
                "error converting fieldPath: field label does not support subscript: {path}['{key}']"
            );
            errors.push(selector.get("fieldPath").invalid(detail));
            return;
        }
    };
    for complaint in complaints {
        errors.push(Error::invalid(&selector.path, key, complaint));
    }
}

/// Splits `metadata.labels['app']`.
fn subscript(path: &str) -> Option<(&str, &str)> {
    path.strip_suffix("']").and_then(|p| p.split_once("['")).filter(|(field, _)| !field.is_empty())
}

/// A container's request or limit (follows `validateContainerResourceFieldSelector`).
pub fn resource_selector(selector: &At, in_volume: bool, errors: &mut ErrorList) {
    let resource = selector.get("resource");
    if in_volume && selector.get("containerName").is_empty() {
        errors.push(selector.get("containerName").required(""));
    } else if resource.is_empty() {
        errors.push(resource.required(""));
    } else if !RESOURCES.contains(&resource.text()) && !is_huge_pages(resource.text()) {
        errors.push(resource.not_supported(&RESOURCES));
    }
    divisor(selector, resource.text(), errors);
}

fn is_huge_pages(resource: &str) -> bool {
    let named = resource.strip_prefix("limits.").or_else(|| resource.strip_prefix("requests."));
    named.is_some_and(is_huge_page_resource)
}

fn divisor(selector: &At, resource: &str, errors: &mut ErrorList) {
    let Some(amount) = selector.get("divisor").quantity().filter(|q| !q.is_zero()) else { return };
    let (allowed, what): (&[&str], &str) = match resource {
        "limits.cpu" | "requests.cpu" => (&CPU_DIVISORS, "1m and 1 are supported with the cpu resource"),
        "limits.memory" | "requests.memory" => (&BYTE_DIVISORS, "the memory resource"),
        "limits.ephemeral-storage" | "requests.ephemeral-storage" => {
            (&BYTE_DIVISORS, "the local ephemeral storage resource")
        }
        other if is_huge_pages(other) => (&BYTE_DIVISORS, "the hugepages resource"),
        _ => return,
    };
    if allowed.contains(&amount.to_string().as_str()) {
        return;
    }
    let detail = if allowed.len() == CPU_DIVISORS.len() {
        format!("only divisor's values {what}")
    } else {
        format!("only divisor's values {} are supported with {what}", BYTE_DIVISORS.join(", "))
    };
    errors.push(Error::invalid(&selector.get("divisor").path, resource, detail));
}

/// A key of a ConfigMap or Secret.
fn key_selector(selector: &At, errors: &mut ErrorList) {
    dns1123_subdomain(&selector.get("name"), errors);
    let key = selector.get("key");
    if key.is_empty() {
        errors.push(key.required(""));
    } else {
        key.check(names::is_config_map_key, errors);
    }
}

fn file_key_selector(selector: &At, errors: &mut ErrorList) {
    let check = |field: &str, rule: &dyn Fn(&At, &mut ErrorList), errors: &mut ErrorList| {
        let at = selector.get(field);
        if at.is_empty() {
            errors.push(at.required(""));
        } else {
            rule(&at, errors);
        }
    };
    check("key", &|at, errors| at.check(env_var_name, errors), errors);
    check("volumeName", &dns1123_label, errors);
    check("path", &volume::no_backsteps, errors);
}

pub fn sources(env_from: &At, errors: &mut ErrorList) {
    for source in env_from.items() {
        let prefix = source.get("prefix");
        if !prefix.is_empty() {
            prefix.check(env_var_name, errors);
        }
        let mut count = 0;
        for field in ["configMapRef", "secretRef"] {
            let Some(reference) = source.field(field) else { continue };
            count += 1;
            let name = reference.get("name");
            if name.is_empty() {
                errors.push(name.required(""));
            } else {
                dns1123_subdomain(&name, errors);
            }
        }
        let detail = match count {
            0 => "must specify one of: `configMapRef` or `secretRef`",
            1 => continue,
            _ => "may not have more than one field specified at a time",
        };
        errors.push(Error::invalid(&env_from.path, "", detail));
    }
}

/// Variables read from a file need it in an emptyDir of the pod (follows `validateFileKeyRefVolumes`).
pub fn file_key_volumes(spec: &At, errors: &mut ErrorList) {
    let volumes = spec.get("volumes");
    for container in all_containers(spec) {
        for variable in container.get("env").items() {
            let Some(reference) = variable.at(&["valueFrom", "fileKeyRef"]).set() else { continue };
            let name = reference.get("volumeName");
            match volumes.items().find(|v| v.get("name").text() == name.text()) {
                None => errors.push(Error::not_found(&name.path, name.text())),
                Some(volume) if volume.value.get("emptyDir").is_none_or(Value::is_null) => {
                    errors.push(name.invalid("referenced volume must be of type emptyDir"));
                }
                Some(_) => {}
            }
        }
    }
}
