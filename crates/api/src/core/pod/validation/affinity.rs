//! Node and pod affinity (follows `validateAffinity`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::names;

use super::scheduling::label_keys;
use crate::objectmeta::validate_label_name;
use crate::validation::{At, dns1123_label, label_selector};

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

pub fn validate(affinity: &At, errors: &mut ErrorList) {
    node_affinity(&affinity.get("nodeAffinity"), errors);
    for field in ["podAffinity", "podAntiAffinity"] {
        let terms = affinity.get(field);
        for term in terms.get(REQUIRED).items() {
            pod_affinity_term(&term, errors);
        }
        for weighted in terms.get(PREFERRED).items() {
            weight(&weighted, errors);
            pod_affinity_term(&weighted.get("podAffinityTerm"), errors);
        }
    }
}

fn weight(weighted: &At, errors: &mut ErrorList) {
    let weight = weighted.get("weight");
    if !(1..=100).contains(&weight.int()) {
        errors.push(Error::invalid(&weight.path, weight.int(), "must be in the range 1-100"));
    }
}

fn node_affinity(affinity: &At, errors: &mut ErrorList) {
    if let Some(selector) = affinity.field(REQUIRED) {
        node_selector(&selector, true, errors);
    }
    for preferred in affinity.get(PREFERRED).items() {
        weight(&preferred, errors);
        // A preference may name values no node can have: it is only a wish.
        node_selector_term(&preferred.get("preference"), false, errors);
    }
}

/// A `v1.NodeSelector`; what a label cannot hold is looked for only when `check_values` (follows `ValidateNodeSelector`).
pub fn node_selector(selector: &At, check_values: bool, errors: &mut ErrorList) {
    let terms = selector.get("nodeSelectorTerms");
    if terms.is_empty() {
        errors.push(terms.required("must have at least one node selector term"));
    }
    for term in terms.items() {
        node_selector_term(&term, check_values, errors);
    }
}

fn node_selector_term(term: &At, check_values: bool, errors: &mut ErrorList) {
    for requirement in term.get("matchExpressions").items() {
        node_selector_requirement(&requirement, check_values, errors);
    }
    for requirement in term.get("matchFields").items() {
        node_field_requirement(&requirement, errors);
    }
}

fn node_selector_requirement(requirement: &At, check_values: bool, errors: &mut ErrorList) {
    let (operator, values) = (requirement.get("operator"), requirement.get("values"));
    match operator.text() {
        "In" | "NotIn" if values.is_empty() => {
            errors.push(values.required("must be specified when `operator` is 'In' or 'NotIn'"));
        }
        "Exists" | "DoesNotExist" if !values.is_empty() => {
            errors
                .push(values.forbidden("may not be specified when `operator` is 'Exists' or 'DoesNotExist'"));
        }
        "Gt" | "Lt" if values.len() != 1 => {
            errors.push(values.required("must be specified single value when `operator` is 'Lt' or 'Gt'"));
        }
        "In" | "NotIn" | "Exists" | "DoesNotExist" | "Gt" | "Lt" => {}
        other => errors.push(Error::invalid(&operator.path, other, "not a valid selector operator")),
    }
    let key = requirement.get("key");
    validate_label_name(key.text(), &key.path, errors);
    if check_values {
        for value in values.items() {
            value.check(names::is_label_value, errors);
        }
    }
}

fn node_field_requirement(requirement: &At, errors: &mut ErrorList) {
    let (operator, values, key) =
        (requirement.get("operator"), requirement.get("values"), requirement.get("key"));
    match operator.text() {
        "In" | "NotIn" if values.len() != 1 => {
            errors.push(values.required(
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ))
        }
        "In" | "NotIn" => {}
        other => errors.push(Error::invalid(&operator.path, other, "not a valid selector operator")),
    }
    if key.text() != "metadata.name" {
        errors.push(Error::invalid(&key.path, key.text(), "not a valid field selector key"));
        return;
    }
    for value in values.items() {
        value.check(names::is_dns1123_subdomain, errors);
    }
}

fn pod_affinity_term(term: &At, errors: &mut ErrorList) {
    label_selector(&term.get("labelSelector"), errors);
    label_selector(&term.get("namespaceSelector"), errors);
    for namespace in term.get("namespaces").items() {
        dns1123_label(&namespace.under(&term.path.child("namespace")), errors);
    }
    label_keys(term, errors);
    let topology_key = term.get("topologyKey");
    if topology_key.is_empty() {
        errors.push(topology_key.required("can not be empty"));
    }
    validate_label_name(topology_key.text(), &topology_key.path, errors);
}
