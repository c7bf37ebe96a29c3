//! Deployment (follows `pkg/registry/apps/deployment`).

use std::sync::LazyLock;

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::managedfields::{Set, reset_fields};
use jiff::Timestamp;

use super::{Template, collisions_only_grow, default_workload, status_counts, workload_cells};
use crate::columns::{AGE, NAME, age, column, count, format_label_selector, name, wide};
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{Column, Strategy, advance_generation, keep, keep_metadata, set_first_generation};
use crate::validation::{At, int_or_percent, same_field};

const SPEC: &[(&str, Fill)] = &[
    ("strategy", Fill::Empty),
    ("revisionHistoryLimit", Fill::Int(10)),
    ("progressDeadlineSeconds", Fill::Int(600)),
];
const ROLLING_UPDATE: &[(&str, Fill)] =
    &[("maxUnavailable", Fill::Text("25%")), ("maxSurge", Fill::Text("25%"))];
const STRATEGIES: [&str; 2] = ["Recreate", "RollingUpdate"];
const COUNTS: [&str; 8] = [
    "observedGeneration",
    "replicas",
    "updatedReplicas",
    "readyReplicas",
    "availableReplicas",
    "unavailableReplicas",
    "terminatingReplicas",
    "collisionCount",
];
const PARTS: [&str; 3] = ["updatedReplicas", "readyReplicas", "availableReplicas"];

const COLUMNS: [Column; 8] = [
    NAME,
    column("Ready", "string", "Ready pods, of all wanted."),
    column("Up-to-date", "string", "Pods of the current template."),
    column("Available", "string", "Pods that are ready and stayed so for long enough."),
    AGE,
    wide("Containers", "string", "Names of the template's containers."),
    wide("Images", "string", "Images of the template's containers."),
    wide("Selector", "string", "Which pods belong to it."),
];

pub struct Deployment;

impl Strategy for Deployment {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
        let Some(spec) = object(obj, "spec") else { return };
        default_workload(spec);
        fill(spec, SPEC);
        let Some(strategy) = object(spec, "strategy") else { return };
        fill(strategy, &[("type", Fill::Text("RollingUpdate"))]);
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling_update) = object_or_new(strategy, "rollingUpdate")
        {
            fill(rolling_update, ROLLING_UPDATE);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = apimachinery::json!({});
        set_first_generation(obj);
    }

    /// Annotations count too: they are copied to the ReplicaSets.
    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        let changed =
            !same_field(obj, old, "spec") || !same_field(&obj["metadata"], &old["metadata"], "annotations");
        advance_generation(obj, old, changed);
    }

    fn reset_fields(&self, subresource: &str) -> &'static Set {
        static STATUS: LazyLock<Set> =
            LazyLock::new(|| Set::from_paths(&[&["spec"], &["metadata", "labels"]]));
        match subresource {
            "status" => &STATUS,
            other => reset_fields(other),
        }
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep_metadata(obj, old, "labels");
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        spec.get("replicas").check_nonnegative(&mut errors);
        Template { kind: "deployment", set: "ReplicaSet" }.validate(
            &spec,
            &spec.get("template"),
            &mut errors,
        );
        update_strategy(&spec.get("strategy"), &mut errors);
        spec.get("minReadySeconds").check_nonnegative(&mut errors);
        spec.get("revisionHistoryLimit").check_nonnegative(&mut errors);
        let deadline = spec.get("progressDeadlineSeconds");
        deadline.check_nonnegative(&mut errors);
        if deadline.is_set() && deadline.int() <= spec.get("minReadySeconds").int() {
            errors.push(deadline.invalid("must be greater than minReadySeconds"));
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        let path = ["spec", "selector"];
        At::root(obj).at(&path).check_unchanged(&At::root(old).at(&path), &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let status = At::root(obj).get("status");
        status_counts(&status, &COUNTS, &PARTS, "readyReplicas", &mut errors);
        collisions_only_grow(&status, old, &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        super::workload_warnings(obj, old)
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let ready = count(obj, &["status", "readyReplicas"]);
        let mut row = vec![
            name(obj),
            format!("{ready}/{}", count(obj, &["spec", "replicas"])).into(),
            count(obj, &["status", "updatedReplicas"]).into(),
            count(obj, &["status", "availableReplicas"]).into(),
            age(obj, now),
        ];
        row.extend(workload_cells(obj));
        row.push(format_label_selector(obj.pointer("/spec/selector")).into());
        row
    }
}

fn update_strategy(strategy: &At, errors: &mut ErrorList) {
    let rolling_update = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "Recreate" => {
            if rolling_update.is_set() {
                let detail = "may not be specified when strategy `type` is 'Recreate'";
                errors.push(rolling_update.forbidden(detail));
            }
        }
        "RollingUpdate" if !rolling_update.is_set() => {
            errors.push(rolling_update.required("this should be defaulted and never be nil"));
        }
        "RollingUpdate" => validate_rolling_update(&rolling_update, errors),
        _ => errors.push(strategy.not_supported(&STRATEGIES)),
    }
}

fn validate_rolling_update(rolling_update: &At, errors: &mut ErrorList) {
    let (unavailable, surge) = (rolling_update.get("maxUnavailable"), rolling_update.get("maxSurge"));
    let [unavailable_amount, surge_amount] = [&unavailable, &surge].map(|at| int_or_percent(at, errors));
    if unavailable_amount == 0 && surge_amount == 0 {
        errors.push(unavailable.invalid("may not be 0 when `maxSurge` is 0"));
    }
    if unavailable.value.is_string() && unavailable_amount > 100 {
        errors.push(unavailable.invalid("must not be greater than 100%"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn with(changes: &[(&str, Value)]) -> Value {
        let mut obj = json!({"metadata": {"name": "d"}, "spec": {
            "selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        for (field, value) in changes {
            obj["spec"][field] = value.clone();
        }
        Deployment.default(&mut obj);
        obj
    }

    fn check(changes: &[(&str, Value)], expect: &[&str]) {
        expect_errors(&Deployment.validate(&with(changes)), expect);
    }

    #[test]
    fn a_deployment_rolls_by_a_quarter() {
        let obj = with(&[]);
        assert_eq!(
            obj["spec"]["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}})
        );
        let numbers =
            ["replicas", "revisionHistoryLimit", "progressDeadlineSeconds"].map(|f| obj["spec"][f].clone());
        assert_eq!(numbers, [json!(1), json!(10), json!(600)]);
        check(&[], &[]);
    }

    #[test]
    fn the_template_matches_the_selector() {
        check(
            &[("selector", Value::Null)],
            &[
                "spec.selector: Required value",
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        );
        check(
            &[("selector", json!({}))],
            &["spec.selector: Invalid value: {}: empty selector is invalid for deployment"],
        );
        check(
            &[("selector", json!({"matchLabels": {"a": "c"}}))],
            &[
                "spec.template.metadata.labels: Invalid value: {\"a\":\"b\"}: `selector` does not match template `labels`",
            ],
        );
    }

    #[test]
    fn the_template_is_a_pod_that_always_restarts() {
        let template = |spec: Value| json!({"metadata": {"labels": {"a": "b"}}, "spec": spec});
        check(
            &[(
                "template",
                template(json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]})),
            )],
            &["spec.template.spec.restartPolicy: Unsupported value: \"Never\": supported values: \"Always\""],
        );
        check(
            &[("template", template(json!({"containers": [{"name": "c"}]})))],
            &["spec.template.spec.containers[0].image: Required value"],
        );
    }

    #[test]
    fn strategies_make_progress() {
        let rolling = |unavailable: Value, surge: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
        check(
            &[("strategy", rolling(json!(0), json!("0%")))],
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ],
        );
        check(
            &[("strategy", rolling(json!("101%"), json!(1)))],
            &[
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
            ],
        );
        check(
            &[("strategy", json!({"type": "Recreate", "rollingUpdate": {}}))],
            &["spec.strategy.rollingUpdate: Forbidden"],
        );
        check(
            &[("progressDeadlineSeconds", json!(5)), ("minReadySeconds", json!(5))],
            &["spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds"],
        );
    }

    #[test]
    fn the_selector_stays_and_annotations_count() {
        let (old, mut new) = (with(&[]), with(&[]));
        new["metadata"]["annotations"] = json!({"x": "y"});
        Deployment.prepare_for_update(&mut new, &old);
        assert_eq!(new["metadata"]["generation"], 1);
        new["spec"]["selector"]["matchLabels"] = json!({"a": "b", "c": "d"});
        new["spec"]["template"]["metadata"]["labels"] = json!({"a": "b", "c": "d"});
        expect_errors(
            &Deployment.validate_update(&new, &old),
            &[
                "spec.selector: Invalid value: {\"matchLabels\":{\"a\":\"b\",\"c\":\"d\"}}: field is immutable",
            ],
        );
    }

    #[test]
    fn a_row_shows_progress() {
        let mut obj = with(&[("replicas", json!(3))]);
        obj["status"] = json!({"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 1});
        let cells = Deployment.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(
            cells,
            [
                json!("d"),
                json!("2/3"),
                json!(3),
                json!(1),
                json!("<unknown>"),
                json!("c"),
                json!("i:1"),
                json!("a=b")
            ]
        );
    }
}
