//! Ingress (follows `pkg/registry/networking/ingress`).

use apimachinery::Value;

use crate::strategy::{Strategy, bump_generation, drop_field, keep, set_first_generation};

pub struct Ingress;

impl Strategy for Ingress {
    fn prepare_for_create(&self, obj: &mut Value) {
        drop_field(obj, "status");
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        bump_generation(obj, old, &["spec"]);
    }
}
