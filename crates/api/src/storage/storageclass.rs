//! StorageClass (follows `pkg/registry/storage/storageclass`).

use std::collections::{BTreeMap, BTreeSet};

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use jiff::Timestamp;

use super::{parameters, provisioner};
use crate::columns::{AGE, NAME, age, column};
use crate::defaults::{Fill, fill};
use crate::objectmeta::validate_label_name;
use crate::strategy::{Column, Strategy};
use crate::validation::{At, node_labels};

/// Marks the class of claims that name none.
pub const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const IS_DEFAULT_BETA: &str = "storageclass.beta.kubernetes.io/is-default-class";
const RECLAIM_POLICIES: [&str; 2] = ["Delete", "Retain"];
const BINDING_MODES: [&str; 2] = ["Immediate", "WaitForFirstConsumer"];

const DEFAULTS: &[(&str, Fill)] =
    &[("reclaimPolicy", Fill::Text("Delete")), ("volumeBindingMode", Fill::Text("Immediate"))];

const COLUMNS: [Column; 6] = [
    NAME,
    column("Provisioner", "string", "Who makes its volumes."),
    column("ReclaimPolicy", "string", "What happens to a volume when its claim goes."),
    column("VolumeBindingMode", "string", "When a claim gets its volume."),
    column("AllowVolumeExpansion", "string", "Whether its volumes can grow."),
    AGE,
];

pub struct StorageClass;

impl Strategy for StorageClass {
    fn default(&self, obj: &mut Value) {
        fill(obj, DEFAULTS);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = At::root(obj);
        provisioner(&root.get("provisioner"), &mut errors);
        parameters(&root.get("parameters"), &mut errors);
        if !root.get("reclaimPolicy").is_empty() {
            root.get("reclaimPolicy").check_optional_enum(&RECLAIM_POLICIES, &mut errors);
        }
        let mode = root.get("volumeBindingMode");
        if mode.is_set() {
            mode.check_optional_enum(&BINDING_MODES, &mut errors);
        } else {
            errors.push(mode.required(""));
        }
        topologies(&root.get("allowedTopologies"), &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for field in ["parameters", "provisioner", "reclaimPolicy", "volumeBindingMode"] {
            At::root(obj).get(field).check_unchanged(&At::root(old).get(field), &mut errors);
        }
        errors
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        let requirements = At::root(obj)
            .get("allowedTopologies")
            .items()
            .flat_map(|term| term.get("matchLabelExpressions").items().collect::<Vec<_>>());
        let warn = |requirement: At| {
            let key = requirement.get("key");
            node_labels::deprecation(key.text()).map(|message| format!("{}: {message}", key.path))
        };
        requirements.filter_map(warn).collect()
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let text = |field: &str, default: &'static str| match str_at(obj, &[field]) {
            "" => Value::from(default),
            text => text.into(),
        };
        let suffix = if is_default(obj) { " (default)" } else { "" };
        vec![
            format!("{}{suffix}", str_at(obj, &["metadata", "name"])).into(),
            str_at(obj, &["provisioner"]).into(),
            text("reclaimPolicy", "Delete"),
            text("volumeBindingMode", "Immediate"),
            At::root(obj).get("allowVolumeExpansion").is_true().into(),
            age(obj, now),
        ]
    }
}

/// Whether claims without a class get this one.
pub fn is_default(class: &Value) -> bool {
    [IS_DEFAULT, IS_DEFAULT_BETA].iter().any(|key| str_at(class, &["metadata", "annotations", key]) == "true")
}

fn topologies(terms: &At, errors: &mut ErrorList) {
    let mut seen: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
    for term in terms.items() {
        let requirements = topology(&term, errors);
        if seen.contains(&requirements) {
            errors.push(Error::duplicate(&term.path.child("matchLabelExpressions"), ""));
        }
        seen.push(requirements);
    }
}

/// Checks a `v1.TopologySelectorTerm`; returns the values it allows for each label.
fn topology<'a>(term: &At<'a>, errors: &mut ErrorList) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut allowed = BTreeMap::new();
    for requirement in term.get("matchLabelExpressions").items() {
        let (key, values) = (requirement.get("key"), requirement.get("values"));
        if values.is_empty() {
            errors.push(values.required(""));
        }
        let mut seen = BTreeSet::new();
        for value in values.items() {
            if !seen.insert(value.text()) {
                errors.push(value.duplicate());
            }
        }
        validate_label_name(key.text(), &key.path, errors);
        if allowed.insert(key.text(), seen).is_some() {
            errors.push(key.duplicate());
        }
    }
    allowed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn class(change: Value) -> Value {
        let mut obj = json!({"metadata": {"name": "c"}, "provisioner": "e.com/p"});
        for (key, value) in change.as_object().into_iter().flatten() {
            obj[key] = value.clone();
        }
        StorageClass.default(&mut obj);
        obj
    }

    #[test]
    fn classes_are_checked_field_by_field() {
        let term = |values: Value| json!({"matchLabelExpressions": [{"key": "zone", "values": values}]});
        let table: Vec<(Value, &[&str])> = vec![
            (json!({}), &[]),
            (json!({"provisioner": ""}), &["provisioner: Required value"]),
            (json!({"provisioner": "a/b/c"}), &["provisioner: Invalid value: \"a/b/c\""]),
            (json!({"parameters": {"": "x"}}), &["parameters: Invalid value: \"\": field can not be empty."]),
            (
                json!({"parameters": {"k": "x".repeat(256 * 1024)}}),
                &["parameters: Too long: may not be more than 262144 bytes"],
            ),
            (json!({"reclaimPolicy": "Recycle"}), &["reclaimPolicy: Unsupported value: \"Recycle\""]),
            (json!({"volumeBindingMode": "Later"}), &["volumeBindingMode: Unsupported value: \"Later\""]),
            (json!({"allowedTopologies": [term(json!(["a"])), term(json!(["b"]))]}), &[]),
            (
                json!({"allowedTopologies": [term(json!([])), term(json!(["a", "a"])), term(json!(["a"]))]}),
                &[
                    "allowedTopologies[0].matchLabelExpressions[0].values: Required value",
                    "allowedTopologies[1].matchLabelExpressions[0].values[1]: Duplicate value: \"a\"",
                    "allowedTopologies[2].matchLabelExpressions: Duplicate value: \"\"",
                ],
            ),
        ];
        for (change, expect) in table {
            expect_errors(&StorageClass.validate(&class(change)), expect);
        }
    }

    #[test]
    fn a_class_makes_the_same_volumes_for_ever() {
        let old = class(json!({}));
        expect_errors(
            &StorageClass.validate_update(&class(json!({"allowVolumeExpansion": true})), &old),
            &[],
        );
        expect_errors(
            &StorageClass
                .validate_update(&class(json!({"parameters": {"a": "b"}, "reclaimPolicy": "Retain"})), &old),
            &[
                "parameters: Invalid value: {\"a\":\"b\"}: field is immutable",
                "reclaimPolicy: Invalid value: \"Retain\"",
            ],
        );
    }

    #[test]
    fn the_default_class_is_marked() {
        let obj = class(json!({"metadata": {"name": "c", "annotations": {IS_DEFAULT: "true"}}}));
        let cells = StorageClass.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(
            cells[..5],
            [json!("c (default)"), json!("e.com/p"), json!("Delete"), json!("Immediate"), json!(false)]
        );
    }
}
