//! CSIDriver (follows `pkg/registry/storage/csidriver`).

use apimachinery::Value;

use crate::strategy::{Strategy, bump_generation, set_first_generation};

pub struct CSIDriver;

impl Strategy for CSIDriver {
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
