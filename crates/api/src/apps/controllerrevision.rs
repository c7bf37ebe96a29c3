//! ControllerRevision: one state that a StatefulSet or DaemonSet was in (follows `pkg/registry/apps/controllerrevision`).

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, NONE, age, column, count, items, name};
use crate::defaults::{Fill, fill};
use crate::objectmeta::FIELD_IMMUTABLE;
use crate::strategy::{Column, Strategy};
use crate::validation::At;

const COLUMNS: [Column; 4] = [
    NAME,
    column("Controller", "string", "Controller of the object"),
    column("Revision", "string", "Which of its controller's states it is, in their order."),
    AGE,
];

pub struct ControllerRevision;

impl Strategy for ControllerRevision {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("revision", Fill::Int(0))]);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = At::root(obj);
        root.get("revision").check_nonnegative(&mut errors);
        let data = root.get("data");
        if !data.is_set() {
            errors.push(data.required("data is mandatory"));
        } else if data.map().is_none() {
            errors.push(data.required("data must be a valid JSON object"));
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = At::root(obj);
        root.get("revision").check_nonnegative(&mut errors);
        // What only the controller understands is the same only if nothing of it differs.
        let data = root.get("data");
        if data.value != At::root(old).get("data").value {
            errors.push(data.invalid(FIELD_IMMUTABLE));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), controller(obj).into(), count(obj, &["revision"]).into(), age(obj, now)]
    }
}

/// `statefulset.apps/web`, or `<none>`.
fn controller(obj: &Value) -> String {
    let owners = items(obj, &["metadata", "ownerReferences"]);
    let Some(owner) = owners.iter().find(|owner| owner["controller"] == true) else {
        return NONE.to_owned();
    };
    let kind = str_at(owner, &["kind"]).to_lowercase();
    match str_at(owner, &["apiVersion"]).split_once('/') {
        Some((group, _)) => format!("{kind}.{group}/{}", str_at(owner, &["name"])),
        None => format!("{kind}/{}", str_at(owner, &["name"])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn a_revision_is_an_object_that_never_changes() {
        let old = json!({"data": {"spec": 1}, "revision": 1});
        expect_errors(&ControllerRevision.validate(&old), &[]);
        expect_errors(
            &ControllerRevision.validate(&json!({"revision": -1})),
            &["revision: Invalid value: -1", "data: Required value: data is mandatory"],
        );
        expect_errors(
            &ControllerRevision.validate(&json!({"data": 7})),
            &["data: Required value: data must be a valid JSON object"],
        );
        let new = json!({"data": {"spec": 2}, "revision": 2});
        expect_errors(
            &ControllerRevision.validate_update(&new, &old),
            &["data: Invalid value: {\"spec\":2}: field is immutable"],
        );
        let empty = json!({"data": {}});
        expect_errors(
            &ControllerRevision.validate_update(&json!({}), &empty),
            &["data: Invalid value: null: field is immutable"],
        );
    }

    #[test]
    fn a_row_names_the_controller_with_its_group() {
        let obj = json!({"metadata": {"name": "r", "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]}, "revision": 3});
        let row = ControllerRevision.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(row[..3], [json!("r"), json!("statefulset.apps/web"), json!(3)]);
    }
}
