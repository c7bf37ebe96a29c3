//! PersistentVolumeClaim (follows `pkg/registry/core/persistentvolumeclaim`).

use apimachinery::Value;

use crate::strategy::{Strategy, drop_field, keep};

pub struct PersistentVolumeClaim;

impl Strategy for PersistentVolumeClaim {
    fn prepare_for_create(&self, obj: &mut Value) {
        drop_field(obj, "status");
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }
}
