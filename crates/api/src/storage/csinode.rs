//! CSINode (follows `pkg/registry/storage/csinode`).

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::names;
use jiff::Timestamp;

use super::csi_driver_name;
use crate::columns::{AGE, NAME, age, column, items, name};
use crate::defaults::{Fill, each, fill, object, object_or_new, store_as_none};
use crate::strategy::{Column, Strategy, drop_field};
use crate::validation::{At, same};

/// The longest name a storage system may have for a node.
const NODE_ID_MAX: usize = 256;

const COLUMNS: [Column; 3] = [NAME, column("Drivers", "integer", "How many drivers run on the node."), AGE];

pub struct CSINode;

impl Strategy for CSINode {
    /// Upstream always writes the list, empty as `null`.
    fn default(&self, obj: &mut Value) {
        if let Some(spec) = object_or_new(obj, "spec")
            && spec.get("drivers").is_none()
        {
            spec["drivers"] = Value::Null;
        }
        for driver in each(&mut obj["spec"], "drivers") {
            fill(driver, &[("topologyKeys", Fill::Null)]);
        }
    }

    /// The protobuf that upstream stores cannot tell an empty list from none.
    fn canonicalize(&self, obj: &mut Value) {
        let Some(spec) = object(obj, "spec") else { return };
        store_as_none(spec, &["drivers"]);
        each(spec, "drivers").for_each(|driver| store_as_none(driver, &["topologyKeys"]));
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut names = BTreeSet::new();
        for driver in At::root(obj).at(&["spec", "drivers"]).items() {
            validate_driver(&driver, &mut names, &mut errors);
        }
        errors
    }

    /// What a driver said stays, but for how many volumes it can still hold.
    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        let drivers = At::root(obj).at(&["spec", "drivers"]);
        let without_count = |driver: &Value| {
            let mut copy = driver.clone();
            drop_field(&mut copy, "allocatable");
            copy
        };
        for before in items(old, &["spec", "drivers"]) {
            for driver in drivers.items().filter(|d| d.value.get("name") == before.get("name")) {
                let (new, before) = (without_count(driver.value), without_count(before));
                if !same(&new, &before) {
                    errors.push(Error::invalid(&drivers.path, new, crate::objectmeta::FIELD_IMMUTABLE));
                }
            }
        }
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), items(obj, &["spec", "drivers"]).len().into(), age(obj, now)]
    }
}

fn validate_driver<'a>(driver: &At<'a>, names: &mut BTreeSet<&'a str>, errors: &mut ErrorList) {
    let (name, node) = (driver.get("name"), driver.get("nodeID"));
    csi_driver_name(&name, errors);
    if node.is_empty() {
        errors.push(node.required(""));
    }
    if node.len() > NODE_ID_MAX {
        errors.push(node.invalid(format!("must be {NODE_ID_MAX} characters or less")));
    }
    driver.at(&["allocatable", "count"]).check_nonnegative(errors);
    if !names.insert(name.text()) {
        errors.push(name.duplicate());
    }
    let mut keys = BTreeSet::new();
    for key in driver.get("topologyKeys").texts() {
        if key.is_empty() {
            errors.push(driver.required(""));
        }
        if !keys.insert(key) {
            errors.push(Error::duplicate(&driver.path, key));
        }
        errors
            .extend(names::is_qualified_name(key).into_iter().map(|c| Error::invalid(&driver.path, key, c)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn drivers_of_a_node_are_checked_and_stay() {
        let node = |drivers: Value| json!({"metadata": {"name": "n"}, "spec": {"drivers": drivers}});
        let driver =
            |id: &str, count: i64| json!({"name": "d", "nodeID": id, "allocatable": {"count": count}});
        let check =
            |drivers: Value, expect: &[&str]| expect_errors(&CSINode.validate(&node(drivers)), expect);
        check(json!([driver("i", 0)]), &[]);
        check(
            json!([driver("", -1), driver("i", 1)]),
            &[
                "spec.drivers[0].nodeID: Required value",
                "spec.drivers[0].allocatable.count: Invalid value: -1: must be greater than or equal to 0",
                "spec.drivers[1].name: Duplicate value: \"d\"",
            ],
        );
        check(
            json!([{"name": "d", "nodeID": "i", "topologyKeys": ["a", "a"]}]),
            &["spec.drivers[0]: Duplicate value: \"a\""],
        );
        let old = node(json!([driver("i", 1)]));
        expect_errors(&CSINode.validate_update(&node(json!([driver("i", 2)])), &old), &[]);
        expect_errors(
            &CSINode.validate_update(&node(json!([driver("j", 1)])), &old),
            &["spec.drivers: Invalid value"],
        );
    }
}
