//! ResourceSlice (follows `pkg/registry/resource/resourceslice`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, name};
use crate::defaults::{Fill, fill, object_or_new};
use crate::storage::csi_driver_name;
use crate::strategy::{Column, Strategy, Writer, bump_generation, set_first_generation};
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

    /// A taint tells since when it has been there (follows `SetDefaults_DeviceTaint`).
    fn stamp(&self, _subresource: &str, obj: &mut Value, _old: Option<&Value>, writer: &Writer) {
        let devices = obj.pointer_mut("/spec/devices").and_then(Value::as_array_mut);
        let taints =
            devices.into_iter().flatten().filter_map(|device| device.get_mut("taints")?.as_array_mut());
        for taint in taints.flatten().filter_map(Value::as_object_mut) {
            taint.entry("timeAdded").or_insert_with(|| writer.time());
        }
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
        node_choice(&spec, &mut errors);
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

/// Exactly one way to say from which nodes the devices can be reached.
fn node_choice(spec: &At, errors: &mut ErrorList) {
    const CHOICES: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    let is_chosen = |name: &&str| match spec.get(name).value {
        Value::Null => false,
        Value::Bool(chosen) => *chosen,
        _ => true,
    };
    let chosen: Vec<String> = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"]
        .iter()
        .filter(|name| is_chosen(name))
        .map(|name| format!("`{name}`"))
        .collect();
    match chosen.len() {
        0 => errors.push(spec.required(CHOICES)),
        1 => {}
        _ => {
            let why = format!("{CHOICES}, but multiple fields are set");
            errors.push(Error::invalid(&spec.path, format!("{{{}}}", chosen.join(", ")), why));
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::testing::expect_errors;

    #[test]
    fn a_taint_tells_since_when_it_has_been_there() {
        let taints =
            |taints: Value| json!({"spec": {"devices": [{"name": "d", "taints": taints}, {"name": "e"}]}});
        let (old, now) = ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z");
        let mut obj = taints(json!([{"key": "a"}, {"key": "b", "timeAdded": old}]));
        let writer = Writer { now: now.parse().expect("a time"), user: &|| Value::Null };
        ResourceSlice.stamp("", &mut obj, None, &writer);
        assert_eq!(obj, taints(json!([{"key": "a", "timeAdded": now}, {"key": "b", "timeAdded": old}])));
    }

    #[test]
    fn a_slice_says_in_one_way_from_where_its_devices_are_reached() {
        let check = |choice: Value, expect: &[&str]| {
            let mut obj =
                json!({"spec": {"driver": "d.example.com", "pool": {"name": "p", "resourceSliceCount": 1}}});
            obj["spec"]
                .as_object_mut()
                .expect("an object")
                .extend(choice.as_object().cloned().expect("an object"));
            expect_errors(&ResourceSlice.validate(&obj), expect);
        };
        check(json!({"nodeName": "n"}), &[]);
        check(json!({"allNodes": false}), &["spec: Required value: exactly one of `nodeName`"]);
        let both = "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of";
        check(json!({"nodeName": "n", "allNodes": true}), &[both]);
    }
}
