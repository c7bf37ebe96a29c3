//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration.

use apimachinery::Value;

use crate::strategy::{Strategy, bump_generation, set_first_generation};

pub struct MutatingWebhookConfiguration;

impl Strategy for MutatingWebhookConfiguration {
    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["webhooks"]);
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}

pub struct ValidatingWebhookConfiguration;

impl Strategy for ValidatingWebhookConfiguration {
    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["webhooks"]);
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }
}
