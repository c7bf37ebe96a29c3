//! DeviceClass (follows `pkg/registry/resource/deviceclass`).

use apimachinery::field::ErrorList;
use apimachinery::{Value, names};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, name};
use crate::defaults::{Fill, fill};
use crate::dynamicresource::selector;
use crate::dynamicresource::validation::{configuration, fits};
use crate::strategy::{Column, NameRule, Strategy, bump_generation, set_first_generation};
use crate::validation::{At, is_extended_resource};

const COLUMNS: [Column; 2] = [NAME, AGE];
/// Upstream: `DeviceConfigMaxSize`.
const CONFIG_MAX: usize = 32;

pub struct DeviceClass;

impl Strategy for DeviceClass {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty)]);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }

    fn name_rule(&self) -> NameRule {
        names::is_long_name
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        selector::validate(&spec.get("selectors"), &mut errors);
        let configs = spec.get("config");
        if fits(&configs, CONFIG_MAX, &mut errors) {
            configs.items().for_each(|config| configuration(&config, &mut errors));
        }
        let resource = spec.get("extendedResourceName");
        if resource.is_set() && !is_extended_resource(resource.text()) {
            errors.push(resource.invalid("must be a valid extended resource name"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), age(obj, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn the_extended_resource_that_devices_are_is_of_a_domain_of_its_own() {
        let check = |resource: &str, expect: &[&str]| {
            let class = json!({"spec": {"extendedResourceName": resource}});
            expect_errors(&DeviceClass.validate(&class), expect);
        };
        check("example.com/gpu", &[]);
        for bad in ["", "gpu", "kubernetes.io/gpu", "requests.example.com/gpu", "example.com/"] {
            let why = "must be a valid extended resource name";
            check(bad, &[&format!("spec.extendedResourceName: Invalid value: {bad:?}: {why}")]);
        }
    }
}
