//! DeviceClass (follows `pkg/registry/resource/deviceclass`).

use apimachinery::field::ErrorList;
use apimachinery::{Value, names};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, name};
use crate::defaults::{Fill, fill};
use crate::dynamicresource::selector;
use crate::strategy::{Column, NameRule, Strategy, bump_generation, set_first_generation};
use crate::validation::At;

const COLUMNS: [Column; 2] = [NAME, AGE];

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
        selector::validate(&At::root(obj).at(&["spec", "selectors"]), &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), age(obj, now)]
    }
}
