//! VolumeAttributesClass (follows `pkg/registry/storage/volumeattributesclass`).

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use jiff::Timestamp;

use super::{parameters, provisioner};
use crate::columns::{AGE, NAME, age, column, name};
use crate::strategy::{Column, Strategy};
use crate::validation::{At, same_field};

const COLUMNS: [Column; 3] = [NAME, column("DriverName", "string", "Driver that knows the attributes."), AGE];

pub struct VolumeAttributesClass;

impl Strategy for VolumeAttributesClass {
    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = At::root(obj);
        provisioner(&root.get("driverName"), &mut errors);
        parameters(&root.get("parameters"), &mut errors);
        if root.get("parameters").is_empty() {
            errors.push(root.get("parameters").required("must contain at least one key/value pair"));
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for field in ["driverName", "parameters"] {
            if !same_field(obj, old, field) {
                errors.push(At::root(obj).get(field).forbidden(format!("updates to {field} are forbidden.")));
            }
        }
        errors.extend(self.validate(obj));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), str_at(obj, &["driverName"]).into(), age(obj, now)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn attributes_are_given_once() {
        let of = |driver: &str, parameters: Value| json!({"driverName": driver, "parameters": parameters});
        let check =
            |obj: Value, expect: &[&str]| expect_errors(&VolumeAttributesClass.validate(&obj), expect);
        check(of("d.e", json!({"a": "b"})), &[]);
        check(of("", json!({"a": "b"})), &["driverName: Required value"]);
        check(of("d", json!({})), &["parameters: Required value: must contain at least one key/value pair"]);
        expect_errors(
            &VolumeAttributesClass.validate_update(&of("e", json!({"a": "c"})), &of("d", json!({"a": "b"}))),
            &[
                "driverName: Forbidden: updates to driverName are forbidden.",
                "parameters: Forbidden: updates to parameters are forbidden.",
            ],
        );
    }
}
