//! DaemonSet (follows `pkg/registry/apps/daemonset`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Value, json};
use jiff::Timestamp;

use super::{DAEMON_SET, collisions_only_grow, workload_cells};
use crate::columns::{AGE, NAME, age, column, count, format_label_selector, format_labels, name, wide};
use crate::core::pod;
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{Column, Strategy, advance_generation, keep, set_first_generation};
use crate::validation::{At, int_or_percent, same_field};

const COUNTS: [&str; 8] = [
    "currentNumberScheduled",
    "numberMisscheduled",
    "desiredNumberScheduled",
    "numberReady",
    "observedGeneration",
    "updatedNumberScheduled",
    "numberAvailable",
    "numberUnavailable",
];
/// Counts that upstream always writes.
const ALWAYS: &[(&str, Fill)] = &[
    ("currentNumberScheduled", Fill::Int(0)),
    ("numberMisscheduled", Fill::Int(0)),
    ("desiredNumberScheduled", Fill::Int(0)),
    ("numberReady", Fill::Int(0)),
];
/// `apps/v1` keeps the internal template generation in this annotation.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

const COLUMNS: [Column; 11] = [
    NAME,
    column("Desired", "integer", "Nodes that should run its pod."),
    column("Current", "integer", "Nodes that should run its pod, and have one."),
    column("Ready", "integer", "Nodes whose pod is ready."),
    column("Up-to-date", "integer", "Nodes whose pod is of the current template."),
    column("Available", "integer", "Nodes whose pod is ready and stayed so for long enough."),
    column("Node Selector", "string", "The labels of nodes that its pods go to."),
    AGE,
    wide("Containers", "string", "Names of the template's containers."),
    wide("Images", "string", "Images of the template's containers."),
    wide("Selector", "string", "Which pods belong to it."),
];

pub struct DaemonSet;

impl Strategy for DaemonSet {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
        if let Some(status) = object(obj, "status") {
            fill(status, ALWAYS);
        }
        // As a number of its own it is always there.
        if !At::root(obj).at(&["metadata", "annotations", TEMPLATE_GENERATION]).is_set() {
            set_template_generation(obj, 0);
        }
        let Some(spec) = object(obj, "spec") else { return };
        fill(
            spec,
            &[
                ("template", Fill::Empty),
                ("updateStrategy", Fill::Empty),
                ("revisionHistoryLimit", Fill::Int(10)),
            ],
        );
        if let Some(template) = object(spec, "template") {
            pod::defaults::pod_template(template);
        }
        let Some(strategy) = object(spec, "updateStrategy") else { return };
        fill(strategy, &[("type", Fill::Text("RollingUpdate"))]);
        if strategy["type"] == "RollingUpdate"
            && let Some(rolling_update) = object_or_new(strategy, "rollingUpdate")
        {
            fill(rolling_update, &[("maxUnavailable", Fill::Int(1)), ("maxSurge", Fill::Int(0))]);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        let mut status = json!({});
        fill(&mut status, ALWAYS);
        obj["status"] = status;
        set_first_generation(obj);
        set_template_generation(obj, 1);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        let template = |obj: &Value| obj.get("spec").cloned().unwrap_or_default();
        let template_changed = !same_field(&template(obj), &template(old), "template");
        set_template_generation(obj, template_generation(old) + i64::from(template_changed));
        let changed = !same_field(obj, old, "spec");
        advance_generation(obj, old, changed);
    }

    /// Upstream keeps the generation of the template in the spec.
    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        set_template_generation(obj, template_generation(old));
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        DAEMON_SET.validate(&spec, &spec.get("template"), &mut errors);
        spec.get("minReadySeconds").check_nonnegative(&mut errors);
        validate_strategy(&spec.get("updateStrategy"), &mut errors);
        spec.get("revisionHistoryLimit").check_nonnegative(&mut errors);
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
        COUNTS.iter().for_each(|count| status.get(count).check_nonnegative(&mut errors));
        status.get("collisionCount").check_nonnegative(&mut errors);
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
        let number = |field: &str| Value::from(count(obj, &["status", field]));
        let mut row = vec![
            name(obj),
            number("desiredNumberScheduled"),
            number("currentNumberScheduled"),
            number("numberReady"),
            number("updatedNumberScheduled"),
            number("numberAvailable"),
            format_labels(obj.pointer("/spec/template/spec/nodeSelector")).into(),
            age(obj, now),
        ];
        row.extend(workload_cells(obj));
        row.push(format_label_selector(obj.pointer("/spec/selector")).into());
        row
    }
}

fn template_generation(obj: &Value) -> i64 {
    let annotation = obj["metadata"]["annotations"][TEMPLATE_GENERATION].as_str();
    annotation.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn set_template_generation(obj: &mut Value, generation: i64) {
    if let Some(annotations) = object_or_new(obj, "metadata").and_then(|m| object_or_new(m, "annotations")) {
        annotations[TEMPLATE_GENERATION] = generation.to_string().into();
    }
}

fn validate_strategy(strategy: &At, errors: &mut ErrorList) {
    let rolling_update = strategy.get("rollingUpdate");
    match strategy.get("type").text() {
        "OnDelete" => {}
        "RollingUpdate" if !rolling_update.is_set() => errors.push(rolling_update.required("")),
        "RollingUpdate" => validate_rolling_update(&rolling_update, errors),
        _ => errors.push(Error::not_supported_of(
            &strategy.path,
            strategy.value.clone(),
            &["RollingUpdate", "OnDelete"],
        )),
    }
}

fn validate_rolling_update(rolling_update: &At, errors: &mut ErrorList) {
    let parts = ["maxUnavailable", "maxSurge"].map(|field| rolling_update.get(field));
    let amounts = parts.clone().map(|part| int_or_percent(&part, errors));
    for (part, amount) in parts.iter().zip(amounts) {
        if part.value.is_string() && amount > 100 {
            errors.push(part.invalid("must not be greater than 100%"));
        }
    }
    let [unavailable, surge] = parts;
    match amounts.map(|amount| amount != 0) {
        [true, true] => errors.push(surge.invalid("may not be set when maxUnavailable is non-zero")),
        [false, false] => errors.push(unavailable.required("cannot be 0 when maxSurge is 0")),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    fn with(changes: &[(&str, Value)]) -> Value {
        let mut obj = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
            "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}});
        for (field, value) in changes {
            obj["spec"][field] = value.clone();
        }
        DaemonSet.default(&mut obj);
        obj
    }

    fn check(changes: &[(&str, Value)], expect: &[&str]) {
        expect_errors(&DaemonSet.validate(&with(changes)), expect);
    }

    #[test]
    fn one_pod_at_a_time_is_replaced() {
        let obj = with(&[]);
        assert_eq!(
            obj["spec"]["updateStrategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
        );
        check(&[], &[]);
    }

    #[test]
    fn either_surge_or_unavailability_makes_progress() {
        let rolling = |unavailable: Value, surge: Value| json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}});
        check(&[("updateStrategy", rolling(json!(0), json!("10%")))], &[]);
        check(
            &[("updateStrategy", rolling(json!(0), json!(0)))],
            &[
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
            ],
        );
        check(
            &[("updateStrategy", rolling(json!(1), json!(1)))],
            &[
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
            ],
        );
        check(&[("updateStrategy", json!({"type": "Now"}))], &["spec.updateStrategy: Unsupported value"]);
        check(
            &[("selector", json!({}))],
            &["spec.selector: Invalid value: {}: empty selector is invalid for daemonset"],
        );
    }

    #[test]
    fn a_changed_template_counts_twice() {
        let mut old = with(&[]);
        DaemonSet.prepare_for_create(&mut old);
        assert_eq!(old["metadata"]["annotations"][TEMPLATE_GENERATION], "1");
        let mut new = old.clone();
        new["spec"]["minReadySeconds"] = 5.into();
        DaemonSet.prepare_for_update(&mut new, &old);
        assert_eq!(
            (&new["metadata"]["generation"], &new["metadata"]["annotations"][TEMPLATE_GENERATION]),
            (&json!(2), &json!("1"))
        );
        let mut newer = new.clone();
        newer["spec"]["template"]["spec"]["containers"][0]["image"] = "i:2".into();
        DaemonSet.prepare_for_update(&mut newer, &new);
        assert_eq!(
            (&newer["metadata"]["generation"], &newer["metadata"]["annotations"][TEMPLATE_GENERATION]),
            (&json!(3), &json!("2"))
        );
    }
}
