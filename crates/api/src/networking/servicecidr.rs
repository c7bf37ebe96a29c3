//! ServiceCIDR (follows `pkg/registry/networking/servicecidr`).

use apimachinery::Value;

use crate::strategy::{Strategy, drop_field, keep, keep_all_metadata};

pub struct ServiceCIDR;

impl Strategy for ServiceCIDR {
    fn prepare_for_create(&self, obj: &mut Value) {
        drop_field(obj, "status");
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep_all_metadata(obj, old);
    }
}
