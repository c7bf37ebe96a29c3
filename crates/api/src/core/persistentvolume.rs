//! PersistentVolume (follows `pkg/registry/core/persistentvolume`).

use apimachinery::Value;

use crate::strategy::{Strategy, drop_field, keep};

pub struct PersistentVolume;

impl Strategy for PersistentVolume {
    fn prepare_for_create(&self, obj: &mut Value) {
        drop_field(obj, "status");
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }
}
