//! DeviceClass (follows `pkg/registry/resource/deviceclass`).

use apimachinery::Value;

use crate::strategy::{Strategy, bump_generation, set_first_generation};

pub struct DeviceClass;

impl Strategy for DeviceClass {
    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }
}
