//! Namespace (follows `pkg/registry/core/namespace`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use apimachinery::{Value, json, names};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, name};
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::objectmeta::{UNQUALIFIED_FINALIZER, is_standard_or_qualified};
use crate::strategy::{Column, NameRule, Strategy, keep};
use crate::validation::{At, qualified_name};

/// The label every namespace has: its own name.
const METADATA_NAME: &str = "kubernetes.io/metadata.name";
/// The finalizer of the namespace controller, in `spec.finalizers`.
const FINALIZER: &str = "kubernetes";

const COLUMNS: [Column; 3] =
    [NAME, column("Status", "string", "Whether the namespace is active or going."), AGE];

pub struct Namespace;

impl Strategy for Namespace {
    fn default(&self, obj: &mut Value) {
        for field in ["spec", "status"] {
            fill(obj, &[(field, Fill::Empty)]);
        }
        if let Some(status) = object(obj, "status") {
            fill(status, &[("phase", Fill::Text("Active"))]);
        }
        label_with_name(obj);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({"phase": "Active"});
        let Some(spec) = object_or_new(obj, "spec") else { return };
        match spec.get_mut("finalizers").and_then(Value::as_array_mut) {
            Some(list) if list.contains(&Value::from(FINALIZER)) => {}
            Some(list) => list.push(FINALIZER.into()),
            None => spec["finalizers"] = json!([FINALIZER]),
        }
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        if let Some(spec) = object_or_new(obj, "spec") {
            keep(spec, old.get("spec").unwrap_or(&Value::Null), "finalizers");
        }
        keep(obj, old, "status");
    }

    fn prepare_for_subresource_update(&self, _finalize: &str, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let list = At::root(obj).at(&["spec", "finalizers"]);
        for item in list.items() {
            finalizer(&item.under(&list.path), &mut errors);
        }
        errors
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        let phase = At::root(obj).at(&["status", "phase"]);
        let phase = phase.under(&At::root(obj).at(&["status", "Phase"]).path);
        let dying = obj.pointer("/metadata/deletionTimestamp").is_some();
        let (expect, detail) = if dying {
            ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
        } else {
            ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
        };
        if phase.text() == expect { ErrorList::new() } else { vec![phase.invalid(detail)] }
    }

    fn validate_subresource_update(&self, _finalize: &str, obj: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for item in At::root(obj).at(&["spec", "finalizers"]).items() {
            finalizer(&item, &mut errors);
        }
        errors
    }

    /// A generated name is known only now.
    fn canonicalize(&self, obj: &mut Value) {
        label_with_name(obj);
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        vec![
            ("status.phase", str_at(obj, &["status", "phase"]).to_owned()),
            // A field that does not exist, kept for clients of old.
            ("name", str_at(obj, &["metadata", "name"]).to_owned()),
        ]
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.phase", "name"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), str_at(obj, &["status", "phase"]).into(), age(obj, now)]
    }

    fn name_rule(&self) -> NameRule {
        names::is_dns1123_label
    }
}

fn label_with_name(obj: &mut Value) {
    let name = str_at(obj, &["metadata", "name"]).to_owned();
    if name.is_empty() {
        return;
    }
    if let Some(labels) = object(obj, "metadata").and_then(|metadata| object_or_new(metadata, "labels")) {
        labels[METADATA_NAME] = name.into();
    }
}

fn finalizer(at: &At, errors: &mut ErrorList) {
    qualified_name(at, errors);
    if !is_standard_or_qualified(at.text()) {
        errors.push(Error::invalid(&at.path, at.text(), UNQUALIFIED_FINALIZER));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    #[test]
    fn a_new_namespace_is_active_labelled_and_finalized() {
        let mut obj = json!({"metadata": {"name": "n"}, "spec": {"finalizers": ["a.b/c"]}});
        Namespace.default(&mut obj);
        Namespace.prepare_for_create(&mut obj);
        assert_eq!(
            obj,
            json!({"metadata": {"name": "n", "labels": {METADATA_NAME: "n"}},
                "spec": {"finalizers": ["a.b/c", "kubernetes"]}, "status": {"phase": "Active"}})
        );
    }

    #[test]
    fn only_finalize_changes_finalizers() {
        let old = json!({"metadata": {}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Terminating"}});
        let new = json!({"metadata": {}, "spec": {"finalizers": []}, "status": {"phase": "Active"}});
        let mut updated = new.clone();
        Namespace.prepare_for_update(&mut updated, &old);
        assert_eq!(updated, old);
        let mut finalized = new;
        Namespace.prepare_for_subresource_update("finalize", &mut finalized, &old);
        assert_eq!(finalized["spec"]["finalizers"], json!([]));
    }

    #[test]
    fn finalizers_are_qualified_and_the_phase_follows_deletion() {
        let obj = json!({"spec": {"finalizers": ["mine"]}});
        expect_errors(
            &Namespace.validate(&obj),
            &["spec.finalizers: Invalid value: \"mine\": name is neither"],
        );
        let obj = json!({"metadata": {}, "status": {"phase": "Terminating"}});
        expect_errors(
            &Namespace.validate_status_update(&obj, &obj),
            &["status.Phase: Invalid value: \"Terminating\": may only be 'Active'"],
        );
    }
}
