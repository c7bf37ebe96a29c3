//! The group `flowcontrol.apiserver.k8s.io` (follows `pkg/registry/flowcontrol` and `pkg/apis/flowcontrol`).

pub mod bootstrap;
pub mod flowschema;
pub mod prioritylevel;

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;

use crate::validation::{At, same_field};

/// Conditions by their types, each once.
fn conditions(obj: &Value, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for condition in At::root(obj).at(&["status", "conditions"]).items() {
        let of_type = condition.get("type");
        if !seen.insert(of_type.text()) {
            errors.push(of_type.duplicate());
        }
        if of_type.is_empty() {
            errors.push(of_type.required(""));
        }
    }
}

/// What every cluster must have stays as it is, but for one field if `free` names it.
fn mandatory(obj: &Value, kind: &str, free: Option<&str>, errors: &mut ErrorList) {
    let name = str_at(obj, &["metadata", "name"]);
    let Some(fixed) = bootstrap::mandatory(kind, name) else { return };
    let without = |obj: &Value| {
        let mut spec = obj.get("spec").cloned().unwrap_or_default();
        if let Some(field) = free {
            crate::strategy::drop_field(&mut spec, field);
        }
        apimachinery::json!({"spec": spec})
    };
    if !same_field(&without(obj), &without(fixed), "spec") {
        let except = free.map(|field| format!(" except the 'spec.{field}' field")).unwrap_or_default();
        let spec = At::root(obj).get("spec");
        let detail = format!("spec of '{name}'{except} must equal the fixed value");
        errors.push(Error::invalid(&spec.path, spec.value.clone(), detail));
    }
}
