//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding (follow
//! `pkg/registry/admissionregistration/validatingadmissionpolicybinding` and `mutatingadmissionpolicybinding`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use apimachinery::{Value, names};
use jiff::Timestamp;

use super::{Phase, matching, static_suffix_warning};
use crate::columns::{AGE, NAME, age, column, format_label_selector, name};
use crate::core::persistentvolume::UNSET;
use crate::defaults::{object, object_or_new};
use crate::strategy::{Column, Strategy, bump_generation, set_first_generation};
use crate::validation::{At, dns1123_subdomain, label_selector};

const ACTIONS: [&str; 3] = ["Audit", "Deny", "Warn"];
const NOT_FOUND_ACTIONS: [&str; 2] = ["Deny", "Allow"];
const EXCLUSIVE: &str = "name and selector are mutually exclusive";

const COLUMNS: [Column; 4] = [
    NAME,
    column("PolicyName", "string", "Policy it puts to use."),
    column("ParamRef", "string", "Object with the policy's parameters."),
    AGE,
];

/// What puts a policy of this phase to use.
pub struct AdmissionPolicyBinding(pub Phase);

impl Strategy for AdmissionPolicyBinding {
    fn default(&self, obj: &mut Value) {
        let Some(spec) = object_or_new(obj, "spec") else { return };
        if let Some(resources) = object(spec, "matchResources") {
            matching::default(resources);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        common(&spec, &mut errors);
        match self.0 {
            Phase::Mutating => matching::mutating_operations(&spec.get("matchResources"), &mut errors),
            Phase::Validating => actions(&spec.get("validationActions"), &mut errors),
        }
        errors
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        static_suffix_warning(obj).into_iter().collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        row(obj, now)
    }
}

fn row(obj: &Value, now: Timestamp) -> Vec<Value> {
    // Whether the object has a namespace cannot be told from here.
    let reference = obj.pointer("/spec/paramRef").map(|reference| {
        let part = |field: &str| str_at(reference, &[field]);
        match (part("namespace"), part("name")) {
            (_, "") => format_label_selector(reference.get("selector")),
            ("", name) => format!("*/{name}"),
            (namespace, name) => format!("{namespace}/{name}"),
        }
    });
    vec![
        name(obj),
        str_at(obj, &["spec", "policyName"]).into(),
        reference.unwrap_or_else(|| UNSET.to_owned()).into(),
        age(obj, now),
    ]
}

fn common(spec: &At, errors: &mut ErrorList) {
    let policy = spec.get("policyName");
    if policy.is_empty() {
        errors.push(policy.required(""));
    } else {
        dns1123_subdomain(&policy, errors);
    }
    if let Some(reference) = spec.field("paramRef") {
        param_ref(&reference, errors);
    }
    if let Some(resources) = spec.field("matchResources") {
        matching::resources(&resources, errors);
    }
}

fn param_ref(reference: &At, errors: &mut ErrorList) {
    let (name, selector) = (reference.get("name"), reference.field("selector"));
    if !name.is_empty() {
        name.check(names::is_path_segment_name, errors);
        if selector.is_some() {
            errors.push(name.forbidden(EXCLUSIVE));
        }
    }
    match &selector {
        Some(selector) => {
            label_selector(selector, errors);
            if !name.is_empty() {
                errors.push(selector.forbidden(EXCLUSIVE));
            }
        }
        None if name.is_empty() => {
            errors.push(reference.required("one of name or selector must be specified"));
        }
        None => {}
    }
    reference.get("parameterNotFoundAction").check_enum_of(&NOT_FOUND_ACTIONS, errors);
}

fn actions(list: &At, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for action in list.items() {
        if !ACTIONS.contains(&action.text()) {
            errors.push(Error::not_supported(&action.path, action.text(), &ACTIONS));
        }
        if !seen.insert(action.text()) {
            errors.push(action.duplicate());
        }
    }
    if seen.contains("Deny") && seen.contains("Warn") {
        errors.push(list.invalid("must not contain both Deny and Warn (repeating the same validation failure information in the API response and headers serves no purpose)"));
    }
    if seen.is_empty() {
        errors.push(list.required("at least one validation action is required"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn bindings_are_checked_field_by_field() {
        let check = |spec: Value, expect: &[&str]| {
            let mut obj = json!({"metadata": {"name": "b"}, "spec": {"policyName": "p", "validationActions": ["Deny"]}});
            for (key, value) in spec.as_object().into_iter().flatten() {
                obj["spec"][key] = value.clone();
            }
            AdmissionPolicyBinding(Phase::Validating).default(&mut obj);
            expect_errors(&AdmissionPolicyBinding(Phase::Validating).validate(&obj), expect);
        };
        check(json!({}), &[]);
        check(json!({"policyName": ""}), &["spec.policyName: Required value"]);
        check(
            json!({"validationActions": []}),
            &["spec.validationActions: Required value: at least one validation"],
        );
        check(
            json!({"validationActions": ["Deny", "Warn", "x", "x"]}),
            &[
                "spec.validationActions[2]: Unsupported value: \"x\"",
                "spec.validationActions[3]: Unsupported value: \"x\"",
                "spec.validationActions[3]: Duplicate value: \"x\"",
                "spec.validationActions: Invalid value: [\"Deny\",\"Warn\",\"x\",\"x\"]: must not contain both Deny and Warn",
            ],
        );
        check(
            json!({"paramRef": {}}),
            &[
                "spec.paramRef: Required value: one of name or selector must be specified",
                "spec.paramRef.parameterNotFoundAction: Required value",
            ],
        );
        check(
            json!({"paramRef": {"name": "x", "parameterNotFoundAction": "Allow"}, "matchResources": {}}),
            &[],
        );
    }

    #[test]
    fn nothing_is_left_to_change_in_what_is_deleted() {
        let mut obj = json!({"spec": {"policyName": "p", "matchResources": {"resourceRules": [{"operations": ["DELETE"],
            "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]}}});
        AdmissionPolicyBinding(Phase::Mutating).default(&mut obj);
        expect_errors(
            &AdmissionPolicyBinding(Phase::Mutating).validate(&obj),
            &[
                "spec.matchResources.resourceRules.operations: Unsupported value: \"DELETE\": supported values: \"*\"",
            ],
        );
    }
}
