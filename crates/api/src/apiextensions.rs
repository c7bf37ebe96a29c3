//! The group `apiextensions.k8s.io`: CustomResourceDefinition.

use apimachinery::Value;

use crate::strategy::{Strategy, bump_generation, drop_field, keep, keep_all_metadata, set_first_generation};

pub struct CustomResourceDefinition;

impl Strategy for CustomResourceDefinition {
    fn prepare_for_create(&self, obj: &mut Value) {
        drop_field(obj, "status");
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        bump_generation(obj, old, &["spec"]);
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep_all_metadata(obj, old);
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}
