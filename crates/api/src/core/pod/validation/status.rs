//! What a kubelet may write into a pod's status (follows `ValidatePodStatusUpdate`).

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};

use super::annotations;
use crate::columns::items;
use crate::validation::{At, dns1123_label, dns1123_subdomain, ip, qualified_name};

const SYSTEM_CONDITIONS: [&str; 3] = ["Initialized", "PodScheduled", "Ready"];
const NOT_NEGATIVE: &str = "must be a non-negative integer";

pub fn validate_status_update(pod: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let (root, old_root) = (At::root(pod), At::root(old));
    let path = ["metadata", "annotations"];
    annotations::validate_update(&root.at(&path), &old_root.at(&path), &mut errors);
    let (status, old_status) = (root.get("status"), old_root.get("status"));
    conditions(&status.get("conditions"), &mut errors);
    nominated_node(pod, old, &status, &old_status, &mut errors);
    if status.get("observedGeneration").int() < 0 {
        errors.push(status.get("observedGeneration").invalid(NOT_NEGATIVE));
    }
    status.get("qosClass").check_unchanged(&old_status.get("qosClass"), &mut errors);
    for (field, containers) in [
        ("containerStatuses", Some("containers")),
        ("initContainerStatuses", Some("initContainers")),
        ("ephemeralContainerStatuses", None),
    ] {
        let restartable =
            |name: &str, code: i64| containers.is_some_and(|list| restarts(old, list, name, code));
        transitions(&status.get(field), &old_status.get(field), restartable, &mut errors);
    }
    addresses(&status, &old_status, "podIPs", &mut errors);
    let host_ips = status.get("hostIPs");
    if let Some(first) = host_ips.items().next()
        && first.get("ip").text() != status.get("hostIP").text()
    {
        errors.push(first.get("ip").invalid("must be equal to `hostIP`"));
    }
    addresses(&status, &old_status, "hostIPs", &mut errors);
    extended_resource_claim(&status.get("extendedResourceClaimStatus"), &root.get("spec"), &mut errors);
    errors
}

/// Follows `validatePodExtendedResourceClaimStatus`.
fn extended_resource_claim(claim: &At, spec: &At, errors: &mut ErrorList) {
    if !claim.is_set() {
        return;
    }
    let mappings = claim.get("requestMappings");
    if mappings.items().next().is_none() {
        errors.push(Error::required(&mappings.path, "at least one request mapping is required"));
    }
    let mut seen = BTreeSet::new();
    for mapping in mappings.items() {
        let fields = ["containerName", "resourceName", "requestName"].map(|field| mapping.get(field));
        let [container, resource, request] = &fields;
        let lists = ["initContainers", "containers"].map(|list| spec.get(list));
        let mut containers = lists.iter().flat_map(At::items);
        match containers.find(|found| found.get("name").text() == container.text()) {
            None => errors.push(container.invalid(
                "must match the name of an entry in spec.initContainers.name or spec.containers.name",
            )),
            Some(found) if !found.at(&["resources", "requests", resource.text()]).is_set() => {
                errors.push(resource.invalid("must match the extended resource name of an entry in spec.initContainers.resources.requests or spec.containers.resources.requests"));
            }
            Some(_) => {}
        }
        dns1123_label(&request.under(&claim.path.child("requestName")), errors);
        if !seen.insert(fields.clone().map(|field| field.text().to_owned())) {
            errors.extend(fields.iter().map(|field| Error::duplicate(&field.path, field.text())));
        }
    }
    let name = claim.get("resourceClaimName");
    if name.is_empty() {
        errors.push(Error::required(&name.path, ""));
    } else {
        dns1123_subdomain(&name, errors);
    }
}

fn conditions(conditions: &At, errors: &mut ErrorList) {
    for condition in conditions.items() {
        let generation = condition.get("observedGeneration");
        if generation.int() < 0 {
            errors.push(generation.invalid(NOT_NEGATIVE));
        }
        let kind = condition.get("type").under(&condition.path.child("Type"));
        if !SYSTEM_CONDITIONS.contains(&kind.text()) {
            qualified_name(&kind, errors);
        }
    }
}

fn nominated_node(pod: &Value, old: &Value, status: &At, old_status: &At, errors: &mut ErrorList) {
    let node_name = |pod: &Value| pod.pointer("/spec/nodeName").cloned().unwrap_or_default();
    if node_name(pod) != node_name(old) {
        errors.push(status.get("nodeName").forbidden("may not be changed directly"));
    }
    let nominated = status.get("nominatedNodeName");
    if nominated.is_empty() || nominated.text() == old_status.get("nominatedNodeName").text() {
        return;
    }
    dns1123_subdomain(&nominated, errors);
    if !node_name(old).is_null() {
        errors.push(nominated.forbidden("may not be set on pods that are already bound to a node"));
    }
}

/// A container that has ended stays ended unless its restart policy lets it run again.
fn transitions(new: &At, old: &At, restarts: impl Fn(&str, i64) -> bool, errors: &mut ErrorList) {
    for (index, old) in old.items().enumerate() {
        let Some(terminated) = old.at(&["state", "terminated"]).set() else { continue };
        let name = old.get("name").text();
        let revived = new
            .items()
            .any(|new| new.get("name").text() == name && !new.at(&["state", "terminated"]).is_set());
        if revived && !restarts(name, terminated.get("exitCode").int()) {
            let path = new.path.index(index).child("state");
            errors.push(Error::forbidden(&path, "may not be transitioned to non-terminated state"));
        }
    }
}

/// Whether a container with this exit code runs again (follows `podutil.ContainerShouldRestart`).
fn restarts(pod: &Value, list: &str, name: &str, exit_code: i64) -> bool {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let restarts_all = ["containers", "initContainers"].iter().any(|list| {
        items(spec, &[list])
            .iter()
            .flat_map(|c| items(c, &["restartPolicyRules"]))
            .any(|rule| rule.get("action").and_then(Value::as_str) == Some("RestartAllContainers"))
    });
    if restarts_all {
        return true;
    }
    let named = |container: &&Value| container.get("name").and_then(Value::as_str) == Some(name);
    let Some(container) = items(spec, &[list]).iter().find(named) else { return false };
    let own = container.get("restartPolicy").and_then(Value::as_str);
    if own.is_some()
        && items(container, &["restartPolicyRules"]).iter().any(|rule| rule_matches(rule, exit_code))
    {
        return true;
    }
    match own.or_else(|| spec.get("restartPolicy").and_then(Value::as_str)) {
        Some("Never") => false,
        Some("OnFailure") => exit_code != 0,
        _ => true,
    }
}

fn rule_matches(rule: &Value, exit_code: i64) -> bool {
    let listed = items(rule, &["exitCodes", "values"]).iter().any(|code| code.as_i64() == Some(exit_code));
    match rule.pointer("/exitCodes/operator").and_then(Value::as_str) {
        Some("In") => listed,
        Some("NotIn") => !listed,
        _ => false,
    }
}

/// `podIPs` or `hostIPs`: valid, and at most one of each family.
fn addresses(status: &At, old_status: &At, field: &str, errors: &mut ErrorList) {
    let list = status.get(field);
    let texts =
        |list: &At<'_>| -> Vec<String> { list.items().map(|a| a.get("ip").text().to_owned()).collect() };
    let old = texts(&old_status.get(field));
    let old: Vec<&str> = old.iter().map(String::as_str).collect();
    for address in list.items() {
        ip::legacy(&address.get("ip").under(&address.path), &old, errors);
    }
    let new = texts(&list);
    let new: Vec<&str> = new.iter().map(String::as_str).collect();
    if new.len() > 2 || (new.len() == 2 && !ip::is_dual_stack(&new)) {
        let path = Path::new("status").child(field);
        let detail = "may specify no more than one IP for each IP family";
        errors.push(Error::invalid(&path, list.value.clone(), detail));
    }
}
