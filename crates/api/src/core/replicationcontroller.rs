//! ReplicationController, the ReplicaSet's ancestor (follows `pkg/registry/core/replicationcontroller`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Value, names};
use jiff::Timestamp;

use super::pod;
use super::pod::validation::validate_template;
use crate::apps::{REPLICA_COUNTS, REPLICA_PARTS, status_counts, workload_cells, workload_warnings};
use crate::columns::{AGE, NAME, age, column, count, format_labels, name, wide};
use crate::defaults::{Fill, fill, object};
use crate::strategy::{Column, NameRule, Strategy, advance_generation, keep, set_first_generation};
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

pub struct ReplicationController;

impl Strategy for ReplicationController {
    /// Selector and labels come from the template where they are not given.
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
        if let Some(status) = object(obj, "status") {
            fill(status, &[("replicas", Fill::Int(0))]);
        }
        let Some(spec) = object(obj, "spec") else { return };
        fill(spec, &[("replicas", Fill::Int(1))]);
        if spec["minReadySeconds"] == 0 {
            crate::strategy::drop_field(spec, "minReadySeconds");
        }
        if let Some(template) = object(spec, "template") {
            pod::defaults::pod_template(template);
        }
        let labels = spec["template"]["metadata"]["labels"].clone();
        if !labels.is_object() {
            return;
        }
        if At::root(spec).get("selector").is_empty() {
            spec["selector"] = labels.clone();
        }
        if At::root(obj).at(&["metadata", "labels"]).is_empty() {
            obj["metadata"]["labels"] = labels;
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
        spec.get("minReadySeconds").check_nonnegative(&mut errors);
        let selector = spec.get("selector");
        if selector.is_empty() {
            errors.push(selector.required(""));
        }
        spec.get("replicas").check_nonnegative(&mut errors);
        validate_pods(&selector, &spec.get("template"), &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let status = At::root(obj).get("status");
        status_counts(&status, &REPLICA_COUNTS, &REPLICA_PARTS, "readyReplicas", &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        workload_warnings(obj, old)
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        vec![("status.replicas", count(obj, &["status", "replicas"]).to_string())]
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["status.replicas"]
    }

    fn name_rule(&self) -> NameRule {
        names::is_long_name
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
        row.push(format_labels(obj.pointer("/spec/selector")).into());
        row
    }

    fn default_garbage_policy(&self) -> crate::strategy::GarbagePolicy {
        crate::strategy::GarbagePolicy::Orphan
    }
}

fn validate_pods(selector: &At, template: &At, errors: &mut ErrorList) {
    if !template.is_set() {
        errors.push(template.required(""));
        return;
    }
    let labels = template.at(&["metadata", "labels"]);
    let matches = selector.entries().all(|(key, value)| labels.value.get(key) == Some(value.value));
    if !matches {
        errors.push(labels.invalid("`selector` does not match template `labels`"));
    }
    validate_template(template, errors);
    let restart_policy = template.at(&["spec", "restartPolicy"]);
    if restart_policy.text() != "Always" {
        errors.push(Error::not_supported(&restart_policy.path, restart_policy.text(), &["Always"]));
    }
    let deadline = template.at(&["spec", "activeDeadlineSeconds"]);
    if deadline.is_set() {
        errors.push(deadline.forbidden("activeDeadlineSeconds in ReplicationController is not Supported"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn selector_and_labels_come_from_the_template() {
        let mut obj = json!({"metadata": {"name": "r"}, "spec": {
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
        ReplicationController.default(&mut obj);
        assert_eq!(obj["spec"]["selector"], json!({"a": "b"}));
        assert_eq!(obj["metadata"]["labels"], json!({"a": "b"}));
        assert_eq!(obj["spec"]["replicas"], 1);
        expect_errors(&ReplicationController.validate(&obj), &[]);
        obj["spec"]["selector"] = json!({"a": "c"});
        expect_errors(
            &ReplicationController.validate(&obj),
            &[
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        );
        obj["spec"]["selector"] = json!({"a": "b", "missing": ""});
        expect_errors(
            &ReplicationController.validate(&obj),
            &["spec.template.metadata.labels: Invalid value"],
        );
        expect_errors(
            &ReplicationController.validate(&json!({"spec": {"replicas": 1}})),
            &["spec.selector: Required value", "spec.template: Required value"],
        );
    }
}
