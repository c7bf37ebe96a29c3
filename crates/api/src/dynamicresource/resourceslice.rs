//! ResourceSlice (follows `pkg/registry/resource/resourceslice`).

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, name};
use crate::defaults::{Fill, fill, object_or_new};
use crate::storage::csi_driver_name;
use crate::strategy::{Column, Strategy, bump_generation, set_first_generation};
use crate::validation::At;

const COLUMNS: [Column; 5] = [
    NAME,
    column("Node", "string", "Node that has the devices."),
    column("Driver", "string", "Driver of the devices."),
    column("Pool", "string", "Pool the devices belong to."),
    AGE,
];

pub struct ResourceSlice;

impl Strategy for ResourceSlice {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty)]);
        if let Some(pool) = object_or_new(&mut obj["spec"], "pool") {
            fill(pool, &[("generation", Fill::Int(0))]);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["spec"]);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        csi_driver_name(&spec.get("driver"), &mut errors);
        let pool = spec.get("pool");
        if pool.get("name").is_empty() {
            errors.push(pool.get("name").required(""));
        }
        pool.get("resourceSliceCount").check_positive(&mut errors);
        pool.get("generation").check_nonnegative(&mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        for path in [&["spec", "driver"][..], &["spec", "pool", "name"], &["spec", "nodeName"]] {
            At::root(obj).at(path).check_unchanged(&At::root(old).at(path), &mut errors);
        }
        errors
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        let driver = str_at(obj, &["spec", "driver"]);
        let warning = format!(
            "spec.driver: driver names should be lowercase; {driver:?} contains uppercase characters"
        );
        (driver != driver.to_lowercase()).then_some(warning).into_iter().collect()
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        ["spec.driver", "spec.nodeName"]
            .map(|field| (field, str_at(obj, &field.split('.').collect::<Vec<_>>()).to_owned()))
            .to_vec()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &["spec.driver", "spec.nodeName"]
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let text = |path: &[&str]| Value::from(str_at(obj, path));
        vec![
            name(obj),
            text(&["spec", "nodeName"]),
            text(&["spec", "driver"]),
            text(&["spec", "pool", "name"]),
            age(obj, now),
        ]
    }
}
