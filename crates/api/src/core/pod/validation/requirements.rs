//! Resource requests and limits of containers and pods (follows `validateResourceRequirements`).

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::names;

use crate::core::pod::resources::aggregate_requests;
use crate::validation::{
    At, HUGE_PAGES, dns1123_label, dns1123_subdomain, is_extended_resource, is_huge_page_resource,
    is_native_resource, resource_quantity,
};

/// Resource names without a domain that mean something anywhere.
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];
const FOR_CONTAINERS: [&str; 3] = ["cpu", "ephemeral-storage", "memory"];
const FOR_PODS: [&str; 3] = ["cpu", HUGE_PAGES, "memory"];

/// Requests and limits of one container.
pub fn container(resources: &At, spec: &Value, errors: &mut ErrorList) {
    requirements(resources, container_resource_name, errors);
    claims(resources, spec, errors);
}

/// `overhead` is checked as if it were a container's limits.
pub fn overhead(overhead: &At, errors: &mut ErrorList) {
    let limits = overhead.under(&overhead.path.child("limits"));
    for (name, quantity) in limits.entries() {
        container_resource_name(name, &quantity, errors);
        amount(name, &quantity, errors);
    }
}

/// Requests and limits of the pod as a whole (follows `validatePodResources`).
pub fn pod_level(spec: &At, errors: &mut ErrorList) {
    let Some(resources) = spec.field("resources") else { return };
    if spec.at(&["os", "name"]).text() == "windows" {
        errors.push(resources.forbidden("may not be set for a windows pod"));
        return;
    }
    if resources.get("claims").is_set() {
        errors.push(resources.get("claims").forbidden("claims may not be set for Resources at pod-level"));
    }
    requirements(&resources, pod_resource_name, errors);
    let requests = resources.get("requests");
    for (name, sum) in aggregate_requests(spec.value) {
        let Some(request) = requests.get(&name).quantity() else { continue };
        if sum > request {
            let detail = format!("must be greater than or equal to aggregate container requests of {sum}");
            errors.push(Error::invalid(&requests.path.key(&name), request.to_string(), detail));
        }
    }
    let limits = resources.get("limits");
    for (index, container) in spec.get("containers").items().enumerate() {
        for (name, limit) in container.at(&["resources", "limits"]).entries() {
            let (Some(limit), Some(most)) = (limit.quantity(), limits.get(name).quantity()) else { continue };
            if limit > most {
                let path = resources.path.child("containers").index(index).key(name).child("limits");
                let detail = format!("must be less than or equal to pod limits of {most}");
                errors.push(Error::invalid(&path, limit.to_string(), detail));
            }
        }
    }
}

fn requirements(resources: &At, name_rule: fn(&str, &At, &mut ErrorList), errors: &mut ErrorList) {
    let (limits, requests) = (resources.get("limits"), resources.get("requests"));
    let mut names = BTreeSet::new();
    for (name, quantity) in limits.entries() {
        name_rule(name, &quantity, errors);
        amount(name, &quantity, errors);
        names.insert(name);
    }
    for (name, quantity) in requests.entries() {
        name_rule(name, &quantity, errors);
        resource_quantity(name, &quantity, errors);
        request_within_limit(name, &quantity, &limits, &requests, errors);
        huge_page_amount(name, &quantity, errors);
        names.insert(name);
    }
    let has_huge_pages = names.iter().any(|name| is_huge_page_resource(name));
    if has_huge_pages && !names.contains("cpu") && !names.contains("memory") {
        errors.push(resources.forbidden("HugePages require cpu or memory"));
    }
}

fn request_within_limit(name: &str, request: &At, limits: &At, requests: &At, errors: &mut ErrorList) {
    let overcommit = is_native_resource(name) && !is_huge_page_resource(name);
    let Some(amount) = request.quantity() else { return };
    match limits.get(name).quantity() {
        Some(limit) if amount != limit && !overcommit => {
            let detail = format!("must be equal to {name} limit of {limit}");
            errors.push(Error::invalid(&requests.path, amount.to_string(), detail));
        }
        Some(limit) if amount > limit => {
            let detail = format!("must be less than or equal to {name} limit of {limit}");
            errors.push(Error::invalid(&requests.path, amount.to_string(), detail));
        }
        None if !overcommit => {
            errors.push(limits.required("Limit must be set for non overcommitable resources"));
        }
        _ => {}
    }
}

fn amount(name: &str, quantity: &At, errors: &mut ErrorList) {
    resource_quantity(name, quantity, errors);
    huge_page_amount(name, quantity, errors);
}

/// Huge pages come whole.
fn huge_page_amount(name: &str, quantity: &At, errors: &mut ErrorList) {
    let Some(size) = name.strip_prefix(HUGE_PAGES) else { return };
    let Some(amount) = quantity.quantity() else { return };
    let page = size.parse::<apimachinery::quantity::Quantity>().map_or(0, |size| size.value());
    if page <= 0 || amount.value() % page != 0 {
        let detail = format!("{amount} is not positive integer multiple of {name}");
        errors.push(Error::invalid(&quantity.path, amount.to_string(), detail));
    }
}

pub fn resource_name(name: &str, at: &At, errors: &mut ErrorList) {
    let complaints = names::is_qualified_name(name);
    let is_huge_page = is_huge_page_resource(name.strip_prefix("requests.").unwrap_or(name));
    let standard = name.contains('/') || STANDARD.contains(&name) || is_huge_page;
    if complaints.is_empty() && !standard {
        errors.push(Error::invalid(&at.path, name, "must be a standard resource type or fully qualified"));
    }
    for complaint in complaints {
        errors.push(Error::invalid(&at.path, name, complaint));
    }
}

pub fn container_resource_name(name: &str, at: &At, errors: &mut ErrorList) {
    resource_name(name, at, errors);
    if !name.contains('/') {
        if !FOR_CONTAINERS.contains(&name) && !is_huge_page_resource(name) {
            errors.push(Error::invalid(&at.path, name, "must be a standard resource for containers"));
        }
    } else if !is_native_resource(name) && !is_extended_resource(name) {
        errors.push(Error::invalid(&at.path, name, "doesn't follow extended resource name standard"));
    }
}

fn pod_resource_name(name: &str, at: &At, errors: &mut ErrorList) {
    let before = errors.len();
    resource_name(name, at, errors);
    let supported = matches!(name, "cpu" | "memory") || is_huge_page_resource(name);
    if errors.len() == before && !supported {
        errors.push(Error::not_supported(&at.path, name, &FOR_PODS));
    }
}

/// Claims a container refers to must be the pod's.
fn claims(resources: &At, spec: &Value, errors: &mut ErrorList) {
    let pod_claims: BTreeSet<&str> = crate::columns::items(spec, &["resourceClaims"])
        .iter()
        .filter_map(|claim| claim.get("name").and_then(Value::as_str))
        .collect();
    let mut seen: BTreeSet<(&str, &str)> = BTreeSet::new();
    for claim in resources.get("claims").items() {
        let (name, request) = (claim.get("name").text(), claim.get("request"));
        if name.is_empty() {
            errors.push(claim.required(""));
            continue;
        }
        if !request.is_empty() {
            dns1123_label(&request, errors);
        }
        let overlaps = |&(other, part): &(&str, &str)| {
            other == name && (part == request.text() || part.is_empty() || request.is_empty())
        };
        if seen.iter().any(overlaps) {
            errors.push(Error::duplicate(&claim.path, name));
        }
        seen.insert((name, request.text()));
        if !pod_claims.contains(name) {
            let mut error = Error::not_found(&claim.path, name);
            error.detail = "must be one of the names in pod.spec.resourceClaims".to_owned();
            error.detail += &if pod_claims.is_empty() {
                " which is empty".to_owned()
            } else {
                format!(": {}", pod_claims.iter().copied().collect::<Vec<_>>().join(", "))
            };
            errors.push(error);
        }
    }
}

/// The pod's own claims (follows `validatePodResourceClaims`).
pub fn resource_claims(claims: &At, errors: &mut ErrorList) {
    let mut names = BTreeSet::new();
    for claim in claims.items() {
        let name = claim.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if !names.insert(name.text()) {
            errors.push(name.duplicate());
        } else {
            dns1123_label(&name, errors);
        }
        let sources = ["resourceClaimName", "resourceClaimTemplateName"].map(|field| claim.get(field));
        match sources.iter().filter(|source| source.is_set()).count() {
            0 => errors
                .push(claim.invalid("must specify one of: `resourceClaimName`, `resourceClaimTemplateName`")),
            1 => {}
            _ => errors.push(claim.invalid(
                "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified",
            )),
        }
        for source in sources.iter().filter(|source| source.is_set()) {
            dns1123_subdomain(source, errors);
        }
    }
}
