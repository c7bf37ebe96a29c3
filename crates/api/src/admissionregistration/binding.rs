//! ValidatingAdmissionPolicyBinding and MutatingAdmissionPolicyBinding.

use apimachinery::Value;

use crate::strategy::{Strategy, bump_generation, set_first_generation};

pub struct MutatingAdmissionPolicyBinding;

impl Strategy for MutatingAdmissionPolicyBinding {
    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

pub struct ValidatingAdmissionPolicyBinding;

impl Strategy for ValidatingAdmissionPolicyBinding {
    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}
