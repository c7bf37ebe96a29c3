//! ConfigMap (follows `pkg/registry/core/configmap`).

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Value, names};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, name};
use crate::strategy::{Column, Strategy};
use crate::validation::{At, same_field};

/// The most data a ConfigMap or a Secret may hold.
pub const DATA_SIZE_MAX: usize = 1024 * 1024;

const COLUMNS: [Column; 3] = [NAME, column("Data", "string", "Number of entries."), AGE];

pub struct ConfigMap;

impl Strategy for ConfigMap {
    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = At::root(obj);
        let (data, binary) = (root.get("data"), root.get("binaryData"));
        let mut size = 0;
        for (key, value) in data.entries() {
            key_complaints(key, &value, &mut errors);
            if binary.get(key).is_set() {
                errors.push(Error::invalid(&value.path, key, "duplicate of key present in binaryData"));
            }
            size += value.text().len();
        }
        for (key, value) in binary.entries() {
            key_complaints(key, &value, &mut errors);
            size += decoded_len(value.text());
        }
        if size > DATA_SIZE_MAX {
            errors.push(Error::too_long(&Path::new(""), DATA_SIZE_MAX));
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = immutable_fields(obj, old, &["data", "binaryData"]);
        errors.extend(self.validate(obj));
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let entries = At::root(obj).get("data").len() + At::root(obj).get("binaryData").len();
        vec![name(obj), entries.into(), age(obj, now)]
    }
}

/// The complaints about the name of an entry.
pub(super) fn key_complaints(key: &str, value: &At, errors: &mut ErrorList) {
    for complaint in names::is_config_map_key(key) {
        errors.push(Error::invalid(&value.path, key, complaint));
    }
}

/// The number of bytes that base64 text stands for.
pub(super) fn decoded_len(base64: &str) -> usize {
    let padding = base64.bytes().rev().take_while(|b| *b == b'=').count();
    (base64.len() / 4 * 3).saturating_sub(padding)
}

/// Once `immutable` is set, neither it nor the data changes.
pub(super) fn immutable_fields(obj: &Value, old: &Value, fields: &[&str]) -> ErrorList {
    const DETAIL: &str = "field is immutable when `immutable` is set";
    let mut errors = ErrorList::new();
    if old.get("immutable") != Some(&Value::Bool(true)) {
        return errors;
    }
    if obj.get("immutable") != Some(&Value::Bool(true)) {
        errors.push(Error::forbidden(&Path::new("immutable"), DETAIL));
    }
    for field in fields {
        if !same_field(obj, old, field) {
            errors.push(Error::forbidden(&Path::new(field), DETAIL));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn keys_are_file_names_and_unique() {
        expect_errors(&ConfigMap.validate(&json!({"data": {"a.b": "x"}, "binaryData": {"c": "AAAA"}})), &[]);
        let obj = json!({"data": {"a": "x", "../x": ""}, "binaryData": {"a": ""}});
        expect_errors(
            &ConfigMap.validate(&obj),
            &[
                "data[../x]: Invalid value: \"../x\": a valid config key",
                "data[../x]: Invalid value: \"../x\": must not start with '..'",
                "data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
            ],
        );
    }

    #[test]
    fn the_size_limit_holds_exactly() {
        let with = |size: usize| json!({"data": {"k": "x".repeat(size)}});
        expect_errors(&ConfigMap.validate(&with(DATA_SIZE_MAX)), &[]);
        expect_errors(&ConfigMap.validate(&with(DATA_SIZE_MAX + 1)), &["<nil>: Too long"]);
    }

    #[test]
    fn an_immutable_map_stays() {
        let old = json!({"immutable": true, "data": {"a": "b"}});
        let new = json!({"data": {"a": "c"}});
        expect_errors(&ConfigMap.validate_update(&new, &old), &["immutable: Forbidden", "data: Forbidden"]);
    }
}
