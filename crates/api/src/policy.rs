//! The group `policy`: how much of a workload may be away at once (follows `pkg/registry/policy/poddisruptionbudget`).

use apimachinery::field::ErrorList;
use apimachinery::{Value, json, names};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, count, name};
use crate::defaults::{Fill, fill};
use crate::strategy::{Column, NameRule, Strategy, advance_generation, keep, set_first_generation};
use crate::validation::conditions::conditions;
use crate::validation::{At, int_or_percent, label_selector, same_field};

const EVICTION_POLICIES: [&str; 2] = ["AlwaysAllow", "IfHealthyBudget"];
const COUNTS: [&str; 4] = ["disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods"];
/// Counts that upstream always writes.
const ALWAYS: &[(&str, Fill)] = &[
    ("disruptionsAllowed", Fill::Int(0)),
    ("currentHealthy", Fill::Int(0)),
    ("desiredHealthy", Fill::Int(0)),
    ("expectedPods", Fill::Int(0)),
];

const COLUMNS: [Column; 5] = [
    NAME,
    column("Min Available", "string", "The minimum number of pods that must be available."),
    column("Max Unavailable", "string", "The maximum number of pods that may be unavailable."),
    column("Allowed Disruptions", "integer", "Calculated number of pods that may be disrupted at this time."),
    AGE,
];

pub struct PodDisruptionBudget;

impl Strategy for PodDisruptionBudget {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
        fill(&mut obj["status"], ALWAYS);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({});
        fill(&mut obj["status"], ALWAYS);
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
        let bounds = ["minAvailable", "maxUnavailable"].map(|field| spec.get(field));
        if bounds.iter().all(At::is_set) {
            errors.push(spec.invalid("minAvailable and maxUnavailable cannot be both set"));
        }
        for bound in bounds.iter().filter(|bound| bound.is_set()) {
            let amount = int_or_percent(bound, &mut errors);
            if bound.value.is_string() && amount > 100 {
                errors.push(bound.invalid("must not be greater than 100%"));
            }
        }
        label_selector(&spec.get("selector"), &mut errors);
        spec.get("unhealthyPodEvictionPolicy").check_optional_enum(&EVICTION_POLICIES, &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let status = At::root(obj).get("status");
        conditions(&status.get("conditions"), &mut errors);
        COUNTS.iter().for_each(|count| status.get(count).check_nonnegative(&mut errors));
        errors
    }

    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let bound = |field: &str| match &obj["spec"][field] {
            Value::Null => Value::from("N/A"),
            Value::String(text) => text.as_str().into(),
            number => number.to_string().into(),
        };
        vec![
            name(obj),
            bound("minAvailable"),
            bound("maxUnavailable"),
            count(obj, &["status", "disruptionsAllowed"]).into(),
            age(obj, now),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    fn check(spec: Value, expect: &[&str]) {
        expect_errors(
            &PodDisruptionBudget.validate(&json!({"metadata": {"name": "b"}, "spec": spec})),
            expect,
        );
    }

    #[test]
    fn a_budget_bounds_from_one_side() {
        check(json!({"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}), &[]);
        check(json!({"maxUnavailable": "50%"}), &[]);
        check(
            json!({"minAvailable": 1, "maxUnavailable": 1}),
            &[
                "spec: Invalid value: {\"maxUnavailable\":1,\"minAvailable\":1}: minAvailable and maxUnavailable cannot be both set",
            ],
        );
        check(
            json!({"minAvailable": "101%"}),
            &["spec.minAvailable: Invalid value: \"101%\": must not be greater than 100%"],
        );
        check(
            json!({"minAvailable": -1}),
            &["spec.minAvailable: Invalid value: -1: must be greater than or equal to 0"],
        );
        check(
            json!({"unhealthyPodEvictionPolicy": "Maybe"}),
            &["spec.unhealthyPodEvictionPolicy: Unsupported value"],
        );
    }

    #[test]
    fn a_row_shows_what_bounds() {
        let obj = json!({"metadata": {"name": "b"}, "spec": {"maxUnavailable": "50%"}, "status": {"disruptionsAllowed": 2}});
        let row = PodDisruptionBudget.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(row[..4], [json!("b"), json!("N/A"), json!("50%"), json!(2)]);
    }
}
