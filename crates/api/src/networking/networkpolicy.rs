//! NetworkPolicy (follows `pkg/registry/networking/networkpolicy`).

use apimachinery::Value;

use crate::strategy::{Strategy, bump_generation, set_first_generation};

pub struct NetworkPolicy;

impl Strategy for NetworkPolicy {
    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }
}
