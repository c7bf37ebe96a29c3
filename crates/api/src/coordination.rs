//! The group `coordination.k8s.io`: Lease (follows `pkg/registry/coordination/lease`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, name};
use crate::defaults::{Fill, fill, object};
use crate::objectmeta::IS_NEGATIVE;
use crate::strategy::{Column, Strategy, drop_field};
use crate::validation::At;

const COLUMNS: [Column; 3] = [NAME, column("Holder", "string", "Who holds the lease."), AGE];

pub struct Lease;

impl Strategy for Lease {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty)]);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        drop_coordinated(obj, None);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        drop_coordinated(obj, Some(old));
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        let duration = spec.get("leaseDurationSeconds");
        if duration.is_set() && duration.int() <= 0 {
            errors.push(duration.invalid("must be greater than 0"));
        }
        let transitions = spec.get("leaseTransitions");
        if transitions.int() < 0 {
            errors.push(Error::invalid(&transitions.path, transitions.int(), IS_NEGATIVE));
        }
        let preferred = spec.get("preferredHolder");
        if !preferred.is_empty() && spec.get("strategy").is_empty() {
            errors.push(preferred.forbidden("may only be specified if `strategy` is defined"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), str_at(obj, &["spec", "holderIdentity"]).into(), age(obj, now)]
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    /// Two holders must not renew over each other.
    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

/// Fields of coordinated leader election, a feature that is off unless an old object already used it.
fn drop_coordinated(obj: &mut Value, old: Option<&Value>) {
    let Some(spec) = object(obj, "spec") else { return };
    for field in ["strategy", "preferredHolder"] {
        let in_use = old.is_some_and(|old| old.pointer(&format!("/spec/{field}")).is_some());
        if !in_use {
            drop_field(spec, field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn a_lease_lasts_a_while() {
        expect_errors(
            &Lease.validate(&json!({"spec": {"leaseDurationSeconds": 40, "leaseTransitions": 0}})),
            &[],
        );
        expect_errors(
            &Lease.validate(&json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}})),
            &[
                "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
                "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
            ],
        );
    }
}
