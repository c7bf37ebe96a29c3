//! What a slice says of each device, and of the counters that devices share (follows `validateDevice`,
//! `validateCounterSet`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::quantity::Quantity;

use super::chosen;
use crate::core::pod::validation::affinity::node_selector;
use crate::dynamicresource::validation::{binding_conditions, fits, qualified_name, set, taint};
use crate::validation::{At, dns1123_label, dns1123_subdomain, is_native_resource};

/// Upstream: `ResourceSliceMaxAttributesAndCapacitiesPerDevice`.
const ATTRIBUTES_AND_CAPACITIES_MAX: usize = 32;
/// Upstream: `ResourceSliceMaxAttributeValuesPerDevice`.
const ATTRIBUTE_VALUES_MAX: usize = 48;
/// Upstream: `DeviceAttributeMaxValueLength`.
const VALUE_LENGTH_MAX: usize = 64;
/// Upstream: `DeviceTaintsMaxLength`.
const TAINTS_MAX: usize = 16;
/// Upstream: `ResourceSliceMaxDeviceCounterConsumptionsPerDevice`.
const CONSUMPTIONS_MAX: usize = 2;
/// Upstream: `ResourceSliceMaxCountersPerCounterSet` and `ResourceSliceMaxCountersPerDeviceCounterConsumption`.
const COUNTERS_MAX: usize = 32;
/// Upstream: `CapacityRequestPolicyDiscreteMaxOptions`.
const VALID_VALUES_MAX: usize = 10;
/// A domain, a slash and an identifier: longer names are shortened where a path shows them.
const KEY_SHOWN_MAX: usize = 63 + 1 + 32;
const LISTS: [&str; 4] = ["bools", "ints", "strings", "versions"];

/// `reached_apart`: each device says itself from which nodes it is reached.
pub fn validate(device: &At, reached_apart: bool, errors: &mut ErrorList) {
    dns1123_label(&device.get("name"), errors);
    let (attributes, capacity) = (device.get("attributes"), device.get("capacity"));
    let mut count = |count: usize, max: usize, what: &str| {
        if count > max {
            let detail = format!("the total number of {what} must not exceed {max}");
            errors.push(Error::invalid(&device.path, count, detail));
        }
    };
    count(attributes.len() + capacity.len(), ATTRIBUTES_AND_CAPACITIES_MAX, "attributes and capacities");
    count(attributes.entries().map(|(_, of)| values(&of)).sum(), ATTRIBUTE_VALUES_MAX, "attribute values");
    by_name(&attributes, attribute, errors);
    let shared = device.get("allowMultipleAllocations").is_true();
    by_name(&capacity, |of, errors| self::capacity(of, shared, errors), errors);
    let taints = device.get("taints");
    if fits(&taints, TAINTS_MAX, errors) {
        taints.items().for_each(|it| taint(&it, errors));
    }
    set(
        &device.get("consumesCounters"),
        CONSUMPTIONS_MAX,
        |it| it.get("counterSet").text(),
        |it, errors| counters(it, "counterSet", errors),
        errors,
    );
    reached_from(device, reached_apart, errors);
    binding_conditions(device, errors);
    mappings(device, errors);
}

/// Counters by name, of a set that is shared or of what a device takes of one.
pub fn counters(of: &At, name: &str, errors: &mut ErrorList) {
    let (name, counters) = (of.get(name), of.get("counters"));
    if name.is_empty() {
        errors.push(name.required(""));
    } else {
        dns1123_label(&name, errors);
    }
    if counters.is_empty() {
        errors.push(counters.required(""));
    } else if fits(&counters, COUNTERS_MAX, errors) {
        for (key, _) in counters.entries() {
            dns1123_label(&At::new(&key.into(), counters.path.clone()), errors);
        }
    }
}

/// The number of values of an attribute, which may be a list.
fn values(attribute: &At) -> usize {
    LISTS.iter().map(|list| attribute.get(list).len()).sum::<usize>().max(1)
}

/// Entries by qualified name.
fn by_name(map: &At, check: impl Fn(&At, &mut ErrorList), errors: &mut ErrorList) {
    for (key, entry) in map.entries() {
        qualified_name(&At::new(&key.into(), map.path.clone()), errors);
        check(&At::new(entry.value, map.path.key(&shortened(key))), errors);
    }
}

fn shortened(key: &str) -> String {
    if key.len() <= KEY_SHOWN_MAX {
        return key.to_owned();
    }
    let remaining = KEY_SHOWN_MAX - "...".len();
    let begins = key.floor_char_boundary(remaining.div_ceil(2));
    let ends = key.ceil_char_boundary(key.len() - remaining / 2);
    format!("{}...{}", &key[..begins], &key[ends..])
}

fn attribute(attribute: &At, errors: &mut ErrorList) {
    let text = |value: &At, errors: &mut ErrorList| {
        if value.len() > VALUE_LENGTH_MAX {
            errors.push(Error::too_long(&value.path, VALUE_LENGTH_MAX));
        }
    };
    let version = |value: &At, errors: &mut ErrorList| {
        if !is_semver(value.text()) {
            errors.push(value.invalid("must be a string compatible with semver.org spec 2.0.0"));
        }
        text(value, errors);
    };
    attribute.field("string").inspect(|it| text(it, errors));
    attribute.field("version").inspect(|it| version(it, errors));
    for list in LISTS {
        let Some(list) = attribute.field(list) else { continue };
        if list.is_empty() {
            errors.push(list.invalid("must not be empty if specified"));
        }
    }
    attribute.get("strings").items().for_each(|it| text(&it, errors));
    attribute.get("versions").items().for_each(|it| version(&it, errors));
    let fields = ["bool", "int", "string", "version"].into_iter().chain(LISTS);
    match fields.filter(|field| attribute.field(field).is_some()).count() {
        0 => errors.push(Error::invalid(&attribute.path, "", "exactly one value must be specified")),
        1 => {}
        _ => errors.push(attribute.invalid("exactly one value must be specified")),
    }
}

/// A version as semver.org has it: three numbers, what comes before the release, and the build.
fn is_semver(text: &str) -> bool {
    let number = |part: &str| {
        !part.is_empty()
            && part.bytes().all(|b| b.is_ascii_digit())
            && (part == "0" || !part.starts_with('0'))
    };
    let identifier =
        |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
    let (core, before) = rest.split_once('-').map_or((rest, None), |(core, before)| (core, Some(before)));
    let of_before =
        |part: &str| identifier(part) && (number(part) || part.bytes().any(|b| !b.is_ascii_digit()));
    core.split('.').count() == 3
        && core.split('.').all(number)
        && before.is_none_or(|before| before.split('.').all(of_before))
        && build.is_none_or(|build| build.split('.').all(identifier))
}

fn capacity(capacity: &At, shared: bool, errors: &mut ErrorList) {
    let Some(policy) = capacity.field("requestPolicy") else { return };
    let (values, range) = (policy.get("validValues"), policy.field("validRange"));
    let default = policy.get("default");
    let total = capacity.get("value").quantity().unwrap_or_default();
    match (values.is_empty(), range) {
        _ if !shared => errors.push(policy.forbidden("allowMultipleAllocations must be true")),
        (false, Some(_)) => errors.push(policy.forbidden(
            "exactly one policy can be specified, cannot specify \"validValues\" and \"validRange\" at the same time",
        )),
        (false, None) => match default.quantity() {
            None => errors.push(default.required("required when validValues is defined")),
            Some(default) => valid_values(&values, &default, &total, errors),
        },
        (true, Some(range)) => match default.quantity() {
            None => errors.push(default.required("required when validRange is defined")),
            Some(default) => valid_range(&range, &default, &total, errors),
        },
        (true, None) => {}
    }
}

fn refuse(path: &Path, value: &Quantity, detail: impl Into<String>, errors: &mut ErrorList) {
    errors.push(Error::invalid(path, value.to_string(), detail));
}

fn valid_values(list: &At, default: &Quantity, total: &Quantity, errors: &mut ErrorList) {
    let values: Vec<(Path, Quantity)> =
        list.items().map(|it| (it.path.clone(), it.quantity().unwrap_or_default())).collect();
    for pair in values.windows(2).filter(|pair| pair[0].1 > pair[1].1) {
        refuse(&pair[1].0, &pair[1].1, "values must be sorted in ascending order", errors);
    }
    if fits(list, VALID_VALUES_MAX, errors) {
        for (path, value) in values.iter().filter(|(_, value)| value > total) {
            refuse(path, value, format!("option is larger than capacity value: {total}"), errors);
        }
        for (at, (path, value)) in values.iter().enumerate() {
            if values[..at].iter().any(|(_, other)| other.value() == value.value()) {
                errors.push(Error::duplicate(path, value.value().to_string()));
            }
        }
        if values.iter().any(|(_, value)| value == default) {
            return;
        }
    }
    refuse(&list.path, default, "default value is not valid according to the requestPolicy", errors);
}

fn valid_range(range: &At, default: &Quantity, total: &Quantity, errors: &mut ErrorList) {
    let bound = |field: &str| range.field(field).and_then(|it| Some((it.path.clone(), it.quantity()?)));
    let Some((min_path, min)) = bound("min") else {
        errors.push(range.get("min").required("required when validRange is defined"));
        return;
    };
    if min > *total {
        refuse(&min_path, &min, format!("min is larger than capacity value: {total}"), errors);
    }
    if *default < min {
        refuse(&min_path, default, format!("default is less than min: {min}"), errors);
    }
    let max = bound("max");
    if let Some((path, max)) = &max {
        if min > *max {
            refuse(path, &min, format!("min is larger than max: {max}"), errors);
        }
        if max > total {
            refuse(path, max, format!("max is larger than capacity value: {total}"), errors);
        }
        if default > max {
            refuse(path, default, format!("default is more than max: {max}"), errors);
        }
    }
    let Some((path, step)) = bound("step") else { return };
    let mut first = min;
    first.add(&step);
    if first > *total {
        refuse(&path, &step, format!("one step {first} is larger than capacity value: {total}"), errors);
    }
    for value in std::iter::once(default).chain(max.as_ref().map(|(_, max)| max)) {
        let distance = value.value().wrapping_sub(min.value());
        if distance.checked_rem(step.value()) != Some(0) {
            let detail = format!("value is not a multiple of a given step ({step}) from ({min})");
            refuse(&path, value, detail, errors);
        }
    }
}

/// From which nodes a device is reached, where the slice leaves that to its devices.
fn reached_from(device: &At, reached_apart: bool, errors: &mut ErrorList) {
    const CHOICES: [&str; 3] = ["nodeName", "nodeSelector", "allNodes"];
    if !reached_apart {
        if CHOICES.iter().any(|choice| device.field(choice).is_some()) {
            let why = "`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
            errors.push(Error::invalid(&device.path, Value::Null, why));
        }
        return;
    }
    if let Some(name) = device.field("nodeName") {
        if name.is_empty() {
            errors.push(name.invalid("must not be empty"));
        } else {
            dns1123_subdomain(&name, errors);
        }
    }
    device.field("nodeSelector").inspect(|selector| node_selector(selector, true, errors));
    if let Some(all) = device.field("allNodes").filter(|all| !all.is_true()) {
        errors.push(all.invalid("must be either unset or set to true"));
    }
    let why = "exactly one of `nodeName`, `nodeSelector`, or `allNodes` is required when `perDeviceNodeSelection` is set to true in the ResourceSlice spec";
    let chosen = chosen(device, &CHOICES);
    match chosen.len() {
        0 => errors.push(device.required(why)),
        1 => {}
        _ => errors.push(Error::invalid(&device.path, format!("{{{}}}", chosen.join(", ")), why)),
    }
}

/// Which resources of the node a device counts as (follows `validateNodeAllocatableResourceMappings`).
fn mappings(device: &At, errors: &mut ErrorList) {
    let capacity = device.get("capacity");
    for (resource, mapping) in device.get("nodeAllocatableResourceMappings").entries() {
        if !is_native_resource(resource) {
            let why = "must be a node allocatable resource name";
            errors.push(Error::invalid(&mapping.path, resource, why));
        }
        let (multiplier, key) = (mapping.field("allocationMultiplier"), mapping.field("capacityKey"));
        if multiplier.is_none() && key.is_none() {
            let why = "at least one of allocationMultiplier or capacityKey must be set";
            errors.push(Error::invalid(&mapping.path, "", why));
        }
        if let Some(multiplier) = multiplier.filter(|it| it.quantity().is_some_and(|it| it.sign() <= 0)) {
            errors.push(multiplier.invalid("must be positive"));
        }
        match key {
            Some(key) if key.is_empty() => {
                errors.push(key.invalid("capacityKey must not be an empty string"));
            }
            Some(key) if capacity.field(key.text()).is_none() => errors.push(key.not_found()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::testing::expect_errors;

    fn check(device: Value, expect: &[&str]) {
        let mut errors = ErrorList::new();
        let mut named = json!({"d": {"name": "d"}});
        for (key, value) in device.as_object().expect("an object") {
            named["d"][key] = value.clone();
        }
        validate(&At::root(&named).get("d"), false, &mut errors);
        expect_errors(&errors, expect);
    }

    #[test]
    fn versions_are_semantic() {
        for good in ["1.2.3", "0.0.0", "1.0.0-alpha.1", "1.0.0-0a", "1.0.0-a-b+01.x-y", "1.0.0+a-b"] {
            assert!(is_semver(good), "{good}");
        }
        for bad in ["", "1.2", "01.2.3", "1.2.3-", "1.2.3-01", "1.2.3-a..b", "1.2.3+", "1.2.3+a+b", "v1.2.3"]
        {
            assert!(!is_semver(bad), "{bad}");
        }
    }

    #[test]
    fn an_attribute_has_one_value() {
        let attribute = |attribute: Value| json!({"attributes": {"a": attribute}});
        check(attribute(json!({"ints": [1, 2]})), &[]);
        check(attribute(json!({})), &["d.attributes[a]: Invalid value: \"\": exactly one value"]);
        check(
            attribute(json!({"int": 1, "version": "1"})),
            &[
                "d.attributes[a].version: Invalid value: \"1\": must be a string",
                "d.attributes[a]: Invalid value: {",
            ],
        );
        check(
            attribute(json!({"strings": []})),
            &["d.attributes[a].strings: Invalid value: []: must not be empty"],
        );
        check(attribute(json!({"string": "x".repeat(65)})), &["d.attributes[a].string: Too long"]);
        check(
            json!({"attributes": {"1": {"bool": true}}}),
            &["d.attributes: Invalid value: \"1\": a valid C identifier"],
        );
        let many = attribute(json!({"bools": vec![true; 49]}));
        check(many, &["d: Invalid value: 49: the total number of attribute values must not exceed 48"]);
    }

    #[test]
    fn what_may_be_asked_of_a_shared_device_fits_its_capacity() {
        let capacity = |policy: Value| json!({"allowMultipleAllocations": true, "capacity": {"c": {"value": "10", "requestPolicy": policy}}});
        check(capacity(json!({"default": "2", "validValues": ["1", "2"]})), &[]);
        check(capacity(json!({"default": "2", "validRange": {"min": "2", "max": "6", "step": "2"}})), &[]);
        check(
            json!({"capacity": {"c": {"value": "10", "requestPolicy": {}}}}),
            &["d.capacity[c].requestPolicy: Forbidden: allowMultipleAllocations must be true"],
        );
        check(
            capacity(json!({"default": "3", "validValues": ["20", "1", "1"]})),
            &[
                "d.capacity[c].requestPolicy.validValues[1]: Invalid value: \"1\": values must be sorted",
                "d.capacity[c].requestPolicy.validValues[0]: Invalid value: \"20\": option is larger than capacity value: 10",
                "d.capacity[c].requestPolicy.validValues[2]: Duplicate value: \"1\"",
                "d.capacity[c].requestPolicy.validValues: Invalid value: \"3\": default value is not valid",
            ],
        );
        check(
            capacity(json!({"default": "1", "validRange": {"min": "2", "max": "20", "step": "4"}})),
            &[
                "d.capacity[c].requestPolicy.validRange.min: Invalid value: \"1\": default is less than min: 2",
                "d.capacity[c].requestPolicy.validRange.max: Invalid value: \"20\": max is larger than capacity value: 10",
                "d.capacity[c].requestPolicy.validRange.step: Invalid value: \"1\": value is not a multiple of a given step (4) from (2)",
                "d.capacity[c].requestPolicy.validRange.step: Invalid value: \"20\": value is not a multiple",
            ],
        );
        check(capacity(json!({"validRange": {}})), &["d.capacity[c].requestPolicy.default: Required value"]);
    }

    #[test]
    fn a_device_says_where_it_is_only_if_the_slice_leaves_it_to_it() {
        check(
            json!({"nodeName": "n"}),
            &["d: Invalid value: null: `nodeName`, `nodeSelector` and `allNodes`"],
        );
        let apart = |device: Value, expect: &[&str]| {
            let mut errors = ErrorList::new();
            validate(&At::new(&device, Path::new("d")), true, &mut errors);
            expect_errors(&errors, expect);
        };
        apart(json!({"name": "d", "nodeName": "n"}), &[]);
        apart(
            json!({"name": "d", "allNodes": false}),
            &[
                "d.allNodes: Invalid value: false: must be either unset or set to true",
                "d: Required value: exactly one of",
            ],
        );
        apart(
            json!({"name": "d", "nodeName": "n", "allNodes": true}),
            &["d: Invalid value: \"{`nodeName`, `allNodes`}\": exactly one of"],
        );
    }

    #[test]
    fn counters_and_mappings_have_names() {
        check(
            json!({"consumesCounters": [{"counterSet": "s", "counters": {"A": {"value": "1"}}}, {}]}),
            &[
                "d.consumesCounters[0].counters: Invalid value: \"A\"",
                "d.consumesCounters[1].counterSet: Required value",
                "d.consumesCounters[1].counters: Required value",
            ],
        );
        check(
            json!({"nodeAllocatableResourceMappings": {
                "example.com/a": {"allocationMultiplier": "0"}, "cpu": {"capacityKey": "c"}}}),
            &[
                "d.nodeAllocatableResourceMappings[cpu].capacityKey: Not found: \"c\"",
                "d.nodeAllocatableResourceMappings[example.com/a]: Invalid value: \"example.com/a\": must be a node",
                "d.nodeAllocatableResourceMappings[example.com/a].allocationMultiplier: Invalid value: \"0\": must be positive",
            ],
        );
    }
}
