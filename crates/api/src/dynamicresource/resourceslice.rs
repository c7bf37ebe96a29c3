//! ResourceSlice (follows `pkg/registry/resource/resourceslice`).

mod device;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::meta::str_at;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, name};
use crate::core::pod::validation::affinity::node_selector;
use crate::defaults::{Fill, fill, object_or_new};
use crate::dynamicresource::validation::{pool_name, set};
use crate::storage::csi_driver_name;
use crate::strategy::{Column, Strategy, Writer, bump_generation, set_first_generation};
use crate::validation::{At, dns1123_subdomain};

/// Upstream: `ResourceSliceMaxDevices` and `ResourceSliceMaxDevicesWithAdvancedFeatures`.
const DEVICES_MAX: usize = 128;
const ADVANCED_DEVICES_MAX: usize = 64;
/// Upstream: `ResourceSliceMaxCounterSets`.
const COUNTER_SETS_MAX: usize = 8;

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
        pool_name(&pool.get("name"), &mut errors);
        pool.get("resourceSliceCount").check_positive(&mut errors);
        if pool.get("generation").int() < 0 {
            errors.push(pool.get("generation").invalid("must be greater than or equal to zero"));
        }
        reached_from(&spec, &mut errors);
        devices(&spec, &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        for path in [&["spec", "pool", "name"][..], &["spec", "driver"], &["spec", "nodeName"]] {
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

/// From which nodes the devices can be reached: exactly one way to say it.
fn reached_from(spec: &At, errors: &mut ErrorList) {
    const CHOICES: [&str; 4] = ["nodeName", "nodeSelector", "allNodes", "perDeviceNodeSelection"];
    const ONE_OF: &str =
        "exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required";
    if let Some(name) = spec.field("nodeName") {
        if name.is_empty() {
            errors.push(name.invalid("must be either unset or set to a non-empty string"));
        } else {
            dns1123_subdomain(&name, errors);
        }
    }
    if let Some(selector) = spec.field("nodeSelector") {
        node_selector(&selector, true, errors);
        let terms = selector.get("nodeSelectorTerms");
        if terms.len() != 1 {
            errors.push(terms.invalid("must have exactly one node selector term"));
        }
    }
    for flag in ["allNodes", "perDeviceNodeSelection"] {
        if let Some(flag) = spec.field(flag).filter(|flag| !flag.is_true()) {
            errors.push(flag.invalid("must be either unset or set to true"));
        }
    }
    let chosen = chosen(spec, &CHOICES);
    match chosen.len() {
        0 => errors.push(spec.required(ONE_OF)),
        1 => {}
        _ => {
            let why = format!("{ONE_OF}, but multiple fields are set");
            errors.push(Error::invalid(&spec.path, format!("{{{}}}", chosen.join(", ")), why));
        }
    }
}

/// The fields that choose something, as messages name them.
fn chosen(of: &At, fields: &[&str]) -> Vec<String> {
    let chooses = |field: &&&str| match of.get(field).value {
        Value::Null => false,
        Value::Bool(chosen) => *chosen,
        Value::String(name) => !name.is_empty(),
        _ => true,
    };
    fields.iter().filter(chooses).map(|name| format!("`{name}`")).collect()
}

/// Devices, or the counters that devices of other slices of the pool share.
fn devices(spec: &At, errors: &mut ErrorList) {
    let (devices, counters) = (spec.get("devices"), spec.get("sharedCounters"));
    if devices.is_set() && counters.is_set() {
        let why = "only one of `sharedCounters` or `devices` is allowed";
        errors.push(Error::invalid(&spec.path, "", why));
    }
    let max =
        if devices.items().any(|device| is_advanced(&device)) { ADVANCED_DEVICES_MAX } else { DEVICES_MAX };
    let reached_apart = spec.get("perDeviceNodeSelection").is_true();
    let check = |it: &At, errors: &mut ErrorList| device::validate(it, reached_apart, errors);
    set(&devices, max, |it| it.get("name").text(), check, errors);
    let check = |it: &At, errors: &mut ErrorList| device::counters(it, "name", errors);
    set(&counters, COUNTER_SETS_MAX, |it| it.get("name").text(), check, errors);
}

/// Taints, counters and lists make devices larger, and so fewer.
fn is_advanced(device: &At) -> bool {
    let lists = |attribute: &At| {
        ["bools", "ints", "strings", "versions"].iter().any(|list| attribute.field(list).is_some())
    };
    !device.get("taints").is_empty()
        || !device.get("consumesCounters").is_empty()
        || device.get("attributes").entries().any(|(_, attribute)| lists(&attribute))
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
        check(
            json!({"allNodes": false}),
            &[
                "spec.allNodes: Invalid value: false: must be either unset or set to true",
                "spec: Required value: exactly one of `nodeName`",
            ],
        );
        check(
            json!({"nodeSelector": {"nodeSelectorTerms": []}}),
            &[
                "spec.nodeSelector.nodeSelectorTerms: Required value",
                "spec.nodeSelector.nodeSelectorTerms: Invalid value: []: must have exactly one node selector term",
            ],
        );
        let both = "spec: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of";
        check(json!({"nodeName": "n", "allNodes": true}), &[both]);
        check(
            json!({"nodeName": "n", "devices": [{"name": "d"}, {"name": "d"}], "sharedCounters": [{"name": "s"}]}),
            &[
                "spec: Invalid value: \"\": only one of `sharedCounters` or `devices` is allowed",
                "spec.devices[1]: Duplicate value: \"d\"",
                "spec.sharedCounters[0].counters: Required value",
            ],
        );
        let many = |devices: usize, device: Value| json!({"nodeName": "n", "devices": vec![device; devices]});
        check(many(129, json!({"name": "d"})), &["spec.devices: Too many: 129: must have at most 128 items"]);
        let tainted = json!({"name": "d", "taints": [{"key": "a", "effect": "None"}]});
        check(many(65, tainted), &["spec.devices: Too many: 65: must have at most 64 items"]);
    }
}
