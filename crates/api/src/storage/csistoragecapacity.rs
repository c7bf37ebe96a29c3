//! CSIStorageCapacity (follows `pkg/registry/storage/csistoragecapacity`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};

use crate::objectmeta::IS_NEGATIVE;
use crate::strategy::Strategy;
use crate::validation::{At, dns1123_subdomain, label_selector, node_labels};

pub struct CSIStorageCapacity;

impl Strategy for CSIStorageCapacity {
    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = At::root(obj);
        label_selector(&root.get("nodeTopology"), &mut errors);
        dns1123_subdomain(&root.get("storageClassName"), &mut errors);
        let capacity = root.get("capacity");
        if let Some(quantity) = capacity.quantity().filter(|quantity| quantity.sign() < 0) {
            errors.push(Error::invalid(&capacity.path, quantity.to_string(), IS_NEGATIVE));
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for field in ["nodeTopology", "storageClassName"] {
            At::root(obj).get(field).check_unchanged(&At::root(old).get(field), &mut errors);
        }
        errors
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        node_labels::in_selector(&At::root(obj).get("nodeTopology"))
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn capacities_are_of_one_class_and_topology() {
        let of = |class: &str, capacity: &str| json!({"storageClassName": class, "capacity": capacity});
        let check = |obj: Value, expect: &[&str]| expect_errors(&CSIStorageCapacity.validate(&obj), expect);
        check(of("c", "1Gi"), &[]);
        check(of("", "1Gi"), &["storageClassName: Invalid value: \"\": a lowercase RFC 1123 subdomain"]);
        check(of("c", "-1"), &["capacity: Invalid value: \"-1\": must be greater than or equal to 0"]);
        expect_errors(
            &CSIStorageCapacity.validate_update(&of("d", "2Gi"), &of("c", "1Gi")),
            &["storageClassName: Invalid value: \"d\": field is immutable"],
        );
        let old = json!({"nodeTopology": {"matchLabels": {"beta.kubernetes.io/os": "linux"}}});
        assert_eq!(CSIStorageCapacity.warnings(&old, None).len(), 1);
    }
}
