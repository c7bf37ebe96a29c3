//! The group `scheduling.k8s.io`: PriorityClass (follows `pkg/registry/scheduling/priorityclass`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, count, name};
use crate::core::pod::validation::PREEMPTION_POLICIES;
use crate::defaults::{Fill, fill};
use crate::strategy::{Column, Strategy, set_first_generation};
use crate::validation::At;

const SYSTEM_PREFIX: &str = "system-";
/// Priorities above this are the system's.
pub const HIGHEST_USER_DEFINABLE_PRIORITY: i64 = 1_000_000_000;
/// Classes that exist in every cluster, by name and value.
pub const SYSTEM_CLASSES: [(&str, i64); 2] = [
    ("system-node-critical", 2 * HIGHEST_USER_DEFINABLE_PRIORITY + 1000),
    ("system-cluster-critical", 2 * HIGHEST_USER_DEFINABLE_PRIORITY),
];

const COLUMNS: [Column; 5] = [
    NAME,
    column("Value", "integer", "Priority of its pods."),
    column("Global-Default", "boolean", "Whether pods without a class get it."),
    AGE,
    column("PreemptionPolicy", "string", "Whether its pods evict others."),
];

pub struct PriorityClass;

impl Strategy for PriorityClass {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("preemptionPolicy", Fill::Text("PreemptLowerPriority")), ("value", Fill::Int(0))]);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let (class, value) = (str_at(obj, &["metadata", "name"]), count(obj, &["value"]));
        if class.starts_with(SYSTEM_PREFIX) {
            if let Some(complaint) = system_class_complaint(class, value, obj) {
                let path = Path::new("metadata").child("name");
                let detail = format!(
                    "priority class names with '{SYSTEM_PREFIX}' prefix are reserved for system use only. error: {complaint}"
                );
                errors.push(Error::forbidden(&path, detail));
            }
        } else if value > HIGHEST_USER_DEFINABLE_PRIORITY {
            let detail = format!(
                "maximum allowed value of a user defined priority is {HIGHEST_USER_DEFINABLE_PRIORITY}"
            );
            errors.push(Error::forbidden(&Path::new("value"), detail));
        }
        if let Some(policy) = At::root(obj).field("preemptionPolicy") {
            policy.check_enum_of(&PREEMPTION_POLICIES, &mut errors);
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        if count(obj, &["value"]) != count(old, &["value"]) {
            errors.push(Error::forbidden(&Path::new("value"), "may not be changed in an update."));
        }
        let (new, old) = (At::root(obj).get("preemptionPolicy"), At::root(old).get("preemptionPolicy"));
        new.check_unchanged(&old, &mut errors);
        errors
    }

    fn undeletable(&self, name: &str) -> Option<&'static str> {
        let is_system = SYSTEM_CLASSES.iter().any(|(system, _)| *system == name);
        is_system.then_some("this is a system priority class and cannot be deleted")
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let global_default = obj.get("globalDefault") == Some(&Value::Bool(true));
        vec![
            name(obj),
            count(obj, &["value"]).into(),
            global_default.into(),
            age(obj, now),
            str_at(obj, &["preemptionPolicy"]).into(),
        ]
    }
}

fn system_class_complaint(class: &str, value: i64, obj: &Value) -> Option<String> {
    let global_default = obj.get("globalDefault") == Some(&Value::Bool(true));
    match SYSTEM_CLASSES.iter().find(|(name, _)| *name == class) {
        None => Some(format!("{class} is not a known system priority class")),
        Some((_, expect)) if *expect != value => {
            Some(format!("value of {class} PriorityClass must be {expect}"))
        }
        Some(_) if global_default => Some(format!("globalDefault of {class} PriorityClass must be false")),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn system_classes_are_the_systems() {
        let check = |name: &str, value: i64, expect: &[&str]| {
            let mut obj = json!({"metadata": {"name": name}, "value": value});
            PriorityClass.default(&mut obj);
            expect_errors(&PriorityClass.validate(&obj), expect);
        };
        check("high", HIGHEST_USER_DEFINABLE_PRIORITY, &[]);
        check("high", HIGHEST_USER_DEFINABLE_PRIORITY + 1, &["value: Forbidden: maximum allowed value"]);
        check("system-node-critical", 2_000_001_000, &[]);
        check(
            "system-mine",
            1,
            &["metadata.name: Forbidden: priority class names with 'system-' prefix are reserved"],
        );
    }

    #[test]
    fn a_class_keeps_its_value() {
        let errors = PriorityClass.validate_update(&json!({"value": 2}), &json!({"value": 1}));
        expect_errors(&errors, &["value: Forbidden: may not be changed in an update."]);
    }
}
