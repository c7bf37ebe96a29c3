//! What has been found for a claim, who uses it, and how its devices are (follows `validateResourceClaimStatusUpdate`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList};
use apimachinery::quote::Quoted;
use apimachinery::{Value, json};

use super::validation::{CONFIG_MAX, REQUESTS_MAX, RequestNames};
use crate::core::pod::validation::affinity::node_selector;
use crate::dynamicresource::validation::{
    binding_conditions, configuration, fits, pool_name, raw_object, set,
};
use crate::storage::csi_driver_name;
use crate::validation::conditions::conditions;
use crate::validation::{At, dns1123_label, ip};

/// Upstream: `ResourceClaimReservedForMaxSize`.
const RESERVED_FOR_MAX: usize = 256;
/// Upstream: `AllocatedDeviceStatusMaxConditions`.
const CONDITIONS_MAX: usize = 8;
/// Upstream: `AllocatedDeviceStatusDataMaxLength`.
const DATA_BYTES_MAX: usize = 10 * 1024;
/// Upstream: `NetworkDeviceDataMaxIPs`.
const IPS_MAX: usize = 16;
/// Upstream: `NetworkDeviceDataInterfaceNameMaxLength`.
const INTERFACE_NAME_BYTES_MAX: usize = 256;
/// Upstream: `NetworkDeviceDataHardwareAddressMaxLength`.
const HARDWARE_ADDRESS_BYTES_MAX: usize = 128;
const CONFIG_SOURCES: [&str; 2] = ["FromClaim", "FromClass"];

pub fn validate_update(claim: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let [status, old_status] = [claim, old].map(|claim| At::root(claim).get("status"));
    let [allocation, old_allocation] = [&status, &old_status].map(|status| status.get("allocation"));
    let reserved = status.get("reservedFor");
    set(&reserved, RESERVED_FOR_MAX, |user| user.get("uid").text(), user, &mut errors);
    let allocated: BTreeSet<_> =
        allocation.at(&["devices", "results"]).items().map(|result| DeviceId::of(&result)).collect();
    let check = |device: &At, errors: &mut ErrorList| self::device(device, &allocated, errors);
    set(&status.get("devices"), usize::MAX, DeviceId::of, check, &mut errors);

    if !reserved.is_empty() && !allocation.is_set() {
        errors.push(reserved.forbidden("may not be specified when `allocated` is not set"));
    } else if At::root(claim).at(&["metadata", "deletionTimestamp"]).is_set() {
        let before = old_status.get("reservedFor");
        if reserved.items().any(|user| !before.items().any(|old| old.value == user.value)) {
            errors.push(reserved.forbidden(
                "new entries may not be added while `deallocationRequested` or `deletionTimestamp` are set",
            ));
        }
    }
    match (old_allocation.is_set(), allocation.is_set()) {
        (true, true) => allocation.check_unchanged(&old_allocation, &mut errors),
        (false, true) => {
            let names = RequestNames::of(&At::root(claim).at(&["spec", "devices"]));
            self::allocation(&allocation, &names, &mut errors);
        }
        (_, false) => {}
    }
    errors
}

/// Which device of which pool is meant, and which share of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct DeviceId<'a>([&'a str; 4]);

impl<'a> DeviceId<'a> {
    fn of(at: &At<'a>) -> Self {
        DeviceId(["driver", "pool", "device", "shareID"].map(|field| at.get(field).text()))
    }
}

impl From<DeviceId<'_>> for Value {
    fn from(DeviceId([driver, pool, device, share]): DeviceId<'_>) -> Value {
        json!({"Driver": driver, "Pool": pool, "Device": device, "ShareID": share})
    }
}

fn user(user: &At, errors: &mut ErrorList) {
    for field in ["resource", "name", "uid"] {
        let text = user.get(field);
        if text.is_empty() {
            errors.push(text.required(""));
        }
    }
}

/// The names by which a device is known.
fn names(device: &At, errors: &mut ErrorList) {
    csi_driver_name(&device.get("driver"), errors);
    pool_name(&device.get("pool"), errors);
    dns1123_label(&device.get("device"), errors);
}

fn share(device: &At, errors: &mut ErrorList) {
    if let Some(share) = device.field("shareID") {
        share.check(is_uid, errors);
    }
}

fn device(device: &At, allocated: &BTreeSet<DeviceId>, errors: &mut ErrorList) {
    names(device, errors);
    share(device, errors);
    let id = DeviceId::of(device);
    if !allocated.contains(&id) {
        errors.push(Error::invalid(&device.path, id, "must be an allocated device in the claim"));
    }
    let list = device.get("conditions");
    fits(&list, CONDITIONS_MAX, errors);
    conditions(&list, errors);
    if let Some(data) = device.field("data") {
        raw_object(&data, DATA_BYTES_MAX, errors);
    }
    let network = device.get("networkData");
    network.get("interfaceName").check_bytes(INTERFACE_NAME_BYTES_MAX, errors);
    network.get("hardwareAddress").check_bytes(HARDWARE_ADDRESS_BYTES_MAX, errors);
    set(&network.get("ips"), IPS_MAX, At::text, ip::of_interface, errors);
}

fn allocation(allocation: &At, requests: &RequestNames, errors: &mut ErrorList) {
    let (results, configs) = (allocation.at(&["devices", "results"]), allocation.at(&["devices", "config"]));
    if fits(&results, REQUESTS_MAX, errors) {
        for result in results.items() {
            requests.check_reference(&result.get("request"), errors);
            names(&result, errors);
            binding_conditions(&result, errors);
            share(&result, errors);
        }
    }
    // Those of the class and those of the claim.
    if fits(&configs, 2 * CONFIG_MAX, errors) {
        for config in configs.items() {
            config.get("source").check_enum(&CONFIG_SOURCES, errors);
            requests.check_references(&config.get("requests"), errors);
            configuration(&config, errors);
        }
    }
    if let Some(nodes) = allocation.field("nodeSelector") {
        node_selector(&nodes, false, errors);
    }
}

/// A UUID in the one form that is normal; the other complaints are those of Go's usual library.
fn is_uid(text: &str) -> Vec<String> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_dashed = |text: &str| {
        text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    let wrong = match text.len() {
        36 if is_dashed(text) => None,
        32 if digits(text) => None,
        38 if !text.starts_with('{') || !text.ends_with('}') => {
            Some("invalid bracketed UUID format".to_owned())
        }
        38 if is_dashed(&text[1..37]) => None,
        45 if !text.get(..9).is_some_and(|urn| urn.eq_ignore_ascii_case("urn:uuid:")) => {
            Some(format!("invalid urn prefix: {}", Quoted(text.get(..9).unwrap_or_default())))
        }
        45 if is_dashed(&text[9..]) => None,
        32 | 36 | 38 | 45 => Some("invalid UUID format".to_owned()),
        length => Some(format!("invalid UUID length: {length}")),
    };
    match wrong {
        Some(wrong) => vec![format!("error validating uid: {wrong}")],
        None if text.len() != 36 || text.bytes().any(|byte| byte.is_ascii_uppercase()) => {
            vec!["uid must be in RFC 4122 normalized form, `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx` with lowercase hexadecimal characters".to_owned()]
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    const UID: &str = "3b241101-e2bb-4255-8caf-4136c566a962";

    fn claim(status: Value) -> Value {
        json!({"metadata": {"name": "c"}, "status": status,
               "spec": {"devices": {"requests": [{"name": "r"}, {"name": "f", "firstAvailable": [{"name": "s"}]}]}}})
    }

    fn result() -> Value {
        json!({"request": "r", "driver": "d.example.com", "pool": "p", "device": "d"})
    }

    fn check(status: Value, expect: &[&str]) {
        expect_errors(&validate_update(&claim(status), &claim(json!({}))), expect);
    }

    #[test]
    fn nobody_has_a_claim_that_has_nothing() {
        let user = json!({"resource": "pods", "name": "a", "uid": "u"});
        let allocation = json!({"devices": {"results": [result()]}});
        check(json!({"reservedFor": [user], "allocation": allocation}), &[]);
        check(json!({"reservedFor": [user]}), &["status.reservedFor: Forbidden: may not be specified when"]);
        check(
            json!({"reservedFor": [user, user, {}], "allocation": allocation}),
            &[
                "status.reservedFor[2].resource: Required value",
                "status.reservedFor[2].name: Required value",
                "status.reservedFor[2].uid: Required value",
                "status.reservedFor[1]: Duplicate value: \"u\"",
            ],
        );
        let mut going = claim(json!({"reservedFor": [user], "allocation": allocation}));
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        let old = claim(json!({"allocation": allocation}));
        expect_errors(&validate_update(&going, &old), &["status.reservedFor: Forbidden: new entries"]);
        expect_errors(&validate_update(&going, &going), &[]);
    }

    #[test]
    fn an_allocation_answers_requests_and_stays() {
        let of = |result: Value| json!({"allocation": {"devices": {"results": [result]}}});
        check(
            of(json!({"request": "f/s", "driver": "d", "pool": "a/b", "device": "d", "shareID": UID})),
            &[],
        );
        check(
            of(json!({"request": "x", "driver": "", "pool": "", "device": "", "shareID": "u"})),
            &[
                "status.allocation.devices.results[0].request: Invalid value: \"x\": must be the name",
                "status.allocation.devices.results[0].driver: Required value",
                "status.allocation.devices.results[0].pool: Required value",
                "status.allocation.devices.results[0].device: Invalid value: \"\"",
                "status.allocation.devices.results[0].shareID: Invalid value: \"u\": error validating uid: invalid UUID length: 1",
            ],
        );
        check(
            json!({"allocation": {"devices": {"config": [{"source": "x", "requests": ["r", "r"]}]}, "nodeSelector": {}}}),
            &[
                "status.allocation.devices.config[0].source: Unsupported value: \"x\"",
                "status.allocation.devices.config[0].requests[1]: Duplicate value",
                "status.allocation.devices.config[0].opaque: Required value",
                "status.allocation.nodeSelector.nodeSelectorTerms: Required value",
            ],
        );
        let (one, other) = (claim(of(result())), claim(of(json!({"request": "f"}))));
        expect_errors(
            &validate_update(&one, &other),
            &[
                "status.allocation: Invalid value: {\"devices\":{\"results\":[{\"device\":\"d\",\"driver\":\"d.example.com\",\"pool\":\"p\",\"request\":\"r\"}]}}: field is immutable",
            ],
        );
        expect_errors(&validate_update(&claim(json!({})), &other), &[]);
    }

    #[test]
    fn devices_are_those_of_the_claim() {
        let with =
            |device: Value| json!({"allocation": {"devices": {"results": [result()]}}, "devices": [device]});
        let device = |field: &str, value: Value| {
            let mut device = result();
            device[field] = value;
            with(device)
        };
        check(device("data", json!({})), &[]);
        check(device("data", json!([])), &["status.devices[0].data: Invalid value: \"<value omitted>\""]);
        check(device("shareID", json!(UID)), &["status.devices[0]: Invalid value: {"]);
        check(
            device("conditions", json!([{}])),
            &[
                "status.devices[0].conditions[0].type: Invalid value",
                "status.devices[0].conditions[0].type: Invalid value",
                "status.devices[0].conditions[0].status: Unsupported value: \"\"",
                "status.devices[0].conditions[0].lastTransitionTime: Required value",
                "status.devices[0].conditions[0].reason: Required value",
            ],
        );
        check(
            device(
                "networkData",
                json!({"interfaceName": "i".repeat(257), "hardwareAddress": "h".repeat(129),
                                         "ips": ["10.0.0.7", "10.0.0.7/24", "010.0.0.7/24", "::ffff:1.2.3.4/120", "2001:DB8::1/64"]}),
            ),
            &[
                "status.devices[0].networkData.interfaceName: Too long",
                "status.devices[0].networkData.hardwareAddress: Too long",
                "status.devices[0].networkData.ips[0]: Invalid value: \"10.0.0.7\": must be a valid address in CIDR form",
                "status.devices[0].networkData.ips[2]: Invalid value: \"010.0.0.7/24\": must be in canonical form (\"10.0.0.7/24\")",
                "status.devices[0].networkData.ips[3]: Invalid value: \"::ffff:1.2.3.4/120\": must be in canonical form (\"1.2.3.4/24\")",
                "status.devices[0].networkData.ips[4]: Invalid value: \"2001:DB8::1/64\": must be in canonical form (\"2001:db8::1/64\")",
            ],
        );
    }

    #[test]
    fn uids_have_one_form() {
        let complaint = |text: &str| is_uid(text).pop().unwrap_or_default();
        assert_eq!(complaint(UID), "");
        assert_eq!(complaint(&UID.replace('-', "x")), "error validating uid: invalid UUID format");
        for other in
            [UID.to_uppercase(), UID.replace('-', ""), format!("{{{UID}}}"), format!("urn:uuid:{UID}")]
        {
            assert!(complaint(&other).starts_with("uid must be in RFC 4122 normalized form"), "{other}");
        }
        assert_eq!(complaint(&format!("({UID})")), "error validating uid: invalid bracketed UUID format");
        assert_eq!(
            complaint(&format!("urn=uuid:{UID}")),
            "error validating uid: invalid urn prefix: \"urn=uuid:\""
        );
        assert_eq!(complaint(&"é".repeat(19)), "error validating uid: invalid bracketed UUID format");
    }
}
