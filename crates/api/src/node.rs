//! The group `node.k8s.io`: RuntimeClass (follows `pkg/registry/node/runtimeclass`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, name};
use crate::core::pod::validation::requirements;
use crate::core::pod::validation::scheduling::tolerations;
use crate::objectmeta::validate_labels;
use crate::strategy::{Column, Strategy};
use crate::validation::{At, dns1123_label, node_labels, same_field};

const TOLERATION_KEYS: [&str; 4] = ["key", "operator", "value", "effect"];

const COLUMNS: [Column; 3] =
    [NAME, column("Handler", "string", "Configuration of the runtime it stands for."), AGE];

pub struct RuntimeClass;

impl Strategy for RuntimeClass {
    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = At::root(obj);
        let handler = root.get("handler");
        if handler.is_empty() {
            errors.push(handler.required(""));
        } else {
            dns1123_label(&handler, &mut errors);
        }
        let overhead = root.get("overhead");
        requirements::overhead(&overhead.get("podFixed").under(&overhead.path), &mut errors);
        if let Some(scheduling) = root.field("scheduling") {
            let selector = scheduling.get("nodeSelector");
            validate_labels(selector.value.as_object().map(|_| selector.value), &selector.path, &mut errors);
            unique_tolerations(&scheduling.get("tolerations"), &mut errors);
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        At::root(obj).get("handler").check_unchanged(&At::root(old).get("handler"), &mut errors);
        errors
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        node_labels::in_map(&At::root(obj).at(&["scheduling", "nodeSelector"]))
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), str_at(obj, &["handler"]).into(), age(obj, now)]
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

fn unique_tolerations(list: &At, errors: &mut ErrorList) {
    tolerations(list, errors);
    let all: Vec<At> = list.items().collect();
    let same = |a: &At, b: &At| TOLERATION_KEYS.iter().all(|key| same_field(a.value, b.value, key));
    for (index, toleration) in all.iter().enumerate() {
        if all[..index].iter().any(|before| same(before, toleration)) {
            errors.push(Error::duplicate(&toleration.path, toleration.value.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn classes_name_a_handler_for_ever() {
        let check = |obj: Value, expect: &[&str]| expect_errors(&RuntimeClass.validate(&obj), expect);
        check(json!({"handler": "gvisor", "overhead": {"podFixed": {"memory": "1Mi"}}}), &[]);
        check(json!({}), &["handler: Required value"]);
        check(json!({"handler": "A"}), &["handler: Invalid value: \"A\": a lowercase RFC 1123 label"]);
        check(
            json!({"handler": "h", "overhead": {"podFixed": {"pods": "1"}}}),
            &["overhead.limits[pods]: Invalid value: \"pods\": must be a standard resource for containers"],
        );
        check(
            json!({"handler": "h", "overhead": {"podFixed": {"memory": "-1"}}}),
            &["overhead.limits[memory]: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        let toleration = json!({"key": "a", "operator": "Exists"});
        check(
            json!({"handler": "h", "scheduling": {"tolerations": [toleration, toleration]}}),
            &["scheduling.tolerations[1]: Duplicate value"],
        );
        expect_errors(
            &RuntimeClass.validate_update(&json!({"handler": "b"}), &json!({"handler": "a"})),
            &["handler: Invalid value: \"b\": field is immutable"],
        );
        let old = json!({"scheduling": {"nodeSelector": {"beta.kubernetes.io/os": "linux"}}});
        assert!(
            RuntimeClass.warnings(&old, None)[0]
                .starts_with("scheduling.nodeSelector: deprecated since v1.14")
        );
    }
}
