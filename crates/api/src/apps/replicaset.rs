//! ReplicaSet (follows `pkg/registry/apps/replicaset`).

use apimachinery::Value;
use apimachinery::field::ErrorList;
use jiff::Timestamp;

use super::{REPLICA_COUNTS, REPLICA_PARTS, Template, default_workload, status_counts, workload_cells};
use crate::columns::{AGE, NAME, age, column, count, format_label_selector, name, wide};
use crate::defaults::{Fill, fill, object};
use crate::strategy::{Column, Strategy, advance_generation, keep, set_first_generation};
use crate::validation::{At, same_field};

const COLUMNS: [Column; 8] = [
    NAME,
    column("Desired", "integer", "Pods wanted."),
    column("Current", "integer", "Pods there are."),
    column("Ready", "integer", "Pods that are ready."),
    AGE,
    wide("Containers", "string", "Names of the template's containers."),
    wide("Images", "string", "Images of the template's containers."),
    wide("Selector", "string", "Which pods belong to it."),
];

pub struct ReplicaSet;

impl Strategy for ReplicaSet {
    fn default(&self, obj: &mut Value) {
        // Upstream always writes the count, even where there is none yet.
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
        if let Some(status) = object(obj, "status") {
            fill(status, &[("replicas", Fill::Int(0))]);
        }
        if let Some(spec) = object(obj, "spec") {
            default_workload(spec);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = apimachinery::json!({"replicas": 0});
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        let changed = !same_field(obj, old, "spec");
        advance_generation(obj, old, changed);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        spec.get("replicas").check_nonnegative(&mut errors);
        spec.get("minReadySeconds").check_nonnegative(&mut errors);
        Template { kind: "deployment", set: "ReplicaSet" }.validate(
            &spec,
            &spec.get("template"),
            &mut errors,
        );
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        let path = ["spec", "selector"];
        At::root(obj).at(&path).check_unchanged(&At::root(old).at(&path), &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let status = At::root(obj).get("status");
        status_counts(&status, &REPLICA_COUNTS, &REPLICA_PARTS, "readyReplicas", &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        super::workload_warnings(obj, old)
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let mut row = vec![
            name(obj),
            count(obj, &["spec", "replicas"]).into(),
            count(obj, &["status", "replicas"]).into(),
            count(obj, &["status", "readyReplicas"]).into(),
            age(obj, now),
        ];
        row.extend(workload_cells(obj));
        row.push(format_label_selector(obj.pointer("/spec/selector")).into());
        row
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn a_new_set_wants_one_pod_and_has_none() {
        let mut obj = json!({"metadata": {"name": "r"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        ReplicaSet.default(&mut obj);
        ReplicaSet.prepare_for_create(&mut obj);
        assert_eq!((&obj["spec"]["replicas"], &obj["status"]), (&json!(1), &json!({"replicas": 0})));
        assert_eq!(obj["metadata"]["generation"], 1);
        expect_errors(&ReplicaSet.validate(&obj), &[]);
    }

    #[test]
    fn parts_are_not_more_than_the_whole() {
        let obj = json!({"status": {"replicas": 1, "readyReplicas": 2, "availableReplicas": 3}});
        expect_errors(
            &ReplicaSet.validate_status_update(&obj, &obj),
            &[
                "status.readyReplicas: Invalid value: 2: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than status.replicas",
                "status.availableReplicas: Invalid value: 3: cannot be greater than readyReplicas",
            ],
        );
    }
}
