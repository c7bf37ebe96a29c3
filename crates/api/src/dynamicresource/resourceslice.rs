//! ResourceSlice (follows `pkg/registry/resource/resourceslice`).

use apimachinery::Value;

use crate::strategy::{Strategy, bump_generation, set_first_generation};

pub struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }
}
