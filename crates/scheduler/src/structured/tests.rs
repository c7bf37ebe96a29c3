//! Devices chosen for claims, by table and by property.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use api::view::core::Node;
use api::view::dynamicresource::{AllocationResult, DeviceClass, ResourceClaim, ResourceSlice};
use apimachinery::{Value, json};
use proptest::prelude::*;

use super::{Allocated, Allocator, Failure};

fn read<V: api::view::Object>(value: Value) -> V {
    apimachinery::from_value(value).unwrap()
}

fn node() -> Node {
    read(json!({"metadata": {"name": "n", "labels": {"zone": "x"}}}))
}

/// A complete pool of one slice on node `n`.
fn slice(devices: Value) -> Value {
    json!({"metadata": {"name": "s"}, "spec": {"driver": "d.org", "nodeName": "n", "devices": devices,
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})
}

/// Devices `a`, `b` and so on, of these sizes.
fn sizes(sizes: &[i64]) -> Value {
    let device = |(n, size): (usize, &i64)| {
        let name = char::from(b'a' + u8::try_from(n).unwrap()).to_string();
        json!({"name": name, "attributes": {"size": {"int": size}}})
    };
    sizes.iter().enumerate().map(device).collect()
}

fn claim(requests: Value) -> Value {
    json!({"metadata": {"name": "c", "namespace": "default", "uid": "u"}, "spec": {"devices": {"requests": requests}}})
}

fn exactly(name: &str, mut edit: Value) -> Value {
    edit["deviceClassName"] = "k".into();
    if edit["allocationMode"].is_null() {
        edit["allocationMode"] = "ExactCount".into();
        edit["count"] = edit["count"].as_i64().unwrap_or(1).into();
    }
    json!({"name": name, "exactly": edit})
}

fn at_least(size: i64) -> Value {
    json!({"selectors": [{"cel": {"expression": format!("device.attributes['d.org'].size >= {size}")}}]})
}

fn allocate(
    slices: &[Value],
    claims: &[Value],
    taken: &[AllocationResult],
) -> Result<Vec<AllocationResult>, Failure> {
    let class: DeviceClass = read(json!({"metadata": {"name": "k"},
        "spec": {"config": [{"opaque": {"driver": "d.org", "parameters": {"of": "class"}}}]}}));
    let classes = HashMap::from([("k", &class)]);
    let slices: Vec<Arc<ResourceSlice>> = slices.iter().map(|slice| Arc::new(read(slice.clone()))).collect();
    let claims: Vec<ResourceClaim> = claims.iter().map(|claim| read(claim.clone())).collect();
    let claims: Vec<&ResourceClaim> = claims.iter().collect();
    let mut allocated = Allocated::default();
    taken.iter().for_each(|allocation| allocated.add(allocation));
    Allocator::new(&claims, &classes, slices.iter(), allocated)
        .map_err(Failure::Claim)?
        .allocate(&node(), None)
}

/// Each result as `request=device`.
fn told(results: &[AllocationResult]) -> String {
    let of_claim = |result: &AllocationResult| {
        let each = result.devices.results.iter().map(|r| format!("{}={}", r.request, r.device));
        each.collect::<Vec<_>>().join(",")
    };
    results.iter().map(of_claim).collect::<Vec<_>>().join(";")
}

fn check_slices(slices: &[Value], claims: &[Value], expect: Result<&str, &str>) {
    let found = allocate(slices, claims, &[]);
    let found = found.map(|results| told(&results)).map_err(|failure| match failure {
        Failure::None => "none".to_owned(),
        Failure::OnNode(why) | Failure::Claim(why) => why,
    });
    assert_eq!(found.as_deref().map_err(String::as_str), expect, "{claims:?}");
}

fn check(devices: Value, requests: Value, expect: Result<&str, &str>) {
    check_slices(&[slice(devices)], &[claim(requests)], expect);
}

#[test]
fn the_first_devices_that_serve_all_requests_are_taken() {
    check(sizes(&[1, 2, 3]), json!([exactly("r", json!({}))]), Ok("r=a"));
    check(sizes(&[1, 2, 3]), json!([exactly("r", json!({"count": 2}))]), Ok("r=a,r=b"));
    check(sizes(&[1, 2, 3]), json!([exactly("r", at_least(2))]), Ok("r=b"));
    check(sizes(&[1, 2]), json!([exactly("r", json!({"count": 3}))]), Err("none"));
    // The first request has to leave `b` to the second.
    check(sizes(&[1, 2]), json!([exactly("r", at_least(1)), exactly("s", at_least(2))]), Ok("r=a,s=b"));
    check(sizes(&[2, 1]), json!([exactly("r", at_least(1)), exactly("s", at_least(2))]), Ok("r=b,s=a"));
    check_slices(
        &[slice(sizes(&[2, 1]))],
        &[claim(json!([exactly("r", json!({}))])), claim(json!([exactly("s", at_least(2))]))],
        Ok("r=b;s=a"),
    );
}

#[test]
fn all_devices_means_all_that_are_selected_and_at_least_one() {
    let all = |edit: Value| {
        let mut edit = edit;
        edit["allocationMode"] = "All".into();
        json!([exactly("r", edit)])
    };
    check(sizes(&[1, 2, 3]), all(at_least(2)), Ok("r=b,r=c"));
    check(sizes(&[1]), all(at_least(2)), Err("none"));
    let mut updated = slice(sizes(&[1]));
    updated["spec"]["pool"]["resourceSliceCount"] = 2.into();
    let why = "claim default/c, request r: asks for all devices, but resource pool d.org/p is currently being updated";
    check_slices(&[updated.clone()], &[claim(all(json!({})))], Err(why));
    check_slices(&[updated], &[claim(json!([exactly("r", json!({}))]))], Err("none"));
}

#[test]
fn the_first_alternative_that_can_be_served_is_taken() {
    let alternative = |name: &str, edit: Value| {
        let mut sub = exactly(name, edit)["exactly"].take();
        sub["name"] = name.into();
        sub
    };
    let request = json!([{"name": "r", "firstAvailable": [alternative("big", at_least(9)), alternative("small", at_least(1))]}]);
    check(sizes(&[1, 9]), request.clone(), Ok("r/big=b"));
    check(sizes(&[1, 2]), request, Ok("r/small=a"));
}

#[test]
fn devices_agree_or_differ_in_an_attribute_as_the_claim_says() {
    let devices = || sizes(&[1, 2, 1, 2]);
    let constrained = |constraint: Value| {
        let mut claim = claim(json!([exactly("r", at_least(2)), exactly("s", json!({}))]));
        claim["spec"]["devices"]["constraints"] = json!([constraint]);
        claim
    };
    let check =
        |constraint: Value, expect| check_slices(&[slice(devices())], &[constrained(constraint)], expect);
    check(json!({"matchAttribute": "d.org/size"}), Ok("r=b,s=d"));
    check(json!({"distinctAttribute": "d.org/size"}), Ok("r=b,s=a"));
    check(json!({"requests": ["s"], "matchAttribute": "d.org/size"}), Ok("r=b,s=a"));
    check(json!({"matchAttribute": "other.org/size"}), Err("none"));
}

#[test]
fn only_the_newest_generation_that_the_node_reaches_counts() {
    let with = |name: &str, spec: Value, device: &str| {
        let mut slice = slice(json!([{"name": device}]));
        slice["metadata"]["name"] = name.into();
        slice["spec"]["nodeName"] = Value::Null;
        for (key, value) in spec.as_object().unwrap() {
            slice["spec"][key] = value.clone();
        }
        slice
    };
    let one = || [claim(json!([exactly("r", json!({}))]))];
    let newer = json!({"name": "p", "generation": 2, "resourceSliceCount": 1});
    let slices = [
        with("s", json!({"nodeName": "n"}), "old"),
        with("t", json!({"nodeName": "n", "pool": newer}), "new"),
    ];
    check_slices(&slices, &one(), Ok("r=new"));
    check_slices(&[with("s", json!({"nodeName": "m"}), "x")], &one(), Err("none"));
    check_slices(&[with("s", json!({"allNodes": true}), "x")], &one(), Ok("r=x"));
    let zone = |zone: &str| {
        let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
        json!({"nodeSelector": {"nodeSelectorTerms": [term]}})
    };
    check_slices(&[with("s", zone("x"), "x")], &one(), Ok("r=x"));
    check_slices(&[with("s", zone("y"), "x")], &one(), Err("none"));
    let per_device = json!({"perDeviceNodeSelection": true,
        "devices": [{"name": "far", "nodeName": "m"}, {"name": "near", "nodeName": "n"}]});
    check_slices(&[with("s", per_device, "")], &one(), Ok("r=near"));
}

#[test]
fn a_taint_keeps_those_away_who_do_not_tolerate_it() {
    let devices = json!([{"name": "a", "taints": [{"key": "broken", "effect": "NoSchedule"}]}]);
    check(devices.clone(), json!([exactly("r", json!({}))]), Err("none"));
    let tolerating = json!({"tolerations": [{"key": "broken", "operator": "Exists"}]});
    check(devices, json!([exactly("r", tolerating)]), Ok("r=a"));
}

#[test]
fn a_device_in_use_is_only_for_those_who_look_after_it() {
    let plain = claim(json!([exactly("r", json!({}))]));
    let taken = allocate(&[slice(sizes(&[1]))], std::slice::from_ref(&plain), &[]).unwrap();
    assert_eq!(allocate(&[slice(sizes(&[1]))], std::slice::from_ref(&plain), &taken), Err(Failure::None));
    let admin = claim(json!([exactly("r", json!({"adminAccess": true}))]));
    let looked_after = allocate(&[slice(sizes(&[1]))], &[admin], &taken).unwrap();
    assert_eq!(looked_after[0].devices.results[0].admin_access, Some(true));
    assert!(allocate(&[slice(sizes(&[1]))], &[plain], &looked_after).is_ok());
}

#[test]
fn parts_of_a_device_share_its_counters() {
    let mut shared = slice(json!([]));
    shared["metadata"]["name"] = "counters".into();
    shared["spec"]["sharedCounters"] = json!([{"name": "gpu", "counters": {"memory": {"value": "4Gi"}}}]);
    let part = |name: &str, memory: &str| json!({"name": name, "consumesCounters": [{"counterSet": "gpu", "counters": {"memory": {"value": memory}}}]});
    let mut parts = slice(json!([part("half", "2Gi"), part("most", "3Gi"), part("other", "2Gi")]));
    for slice in [&mut shared, &mut parts] {
        slice["spec"]["pool"]["resourceSliceCount"] = 2.into();
    }
    let slices = [shared.clone(), parts];
    check_slices(&slices, &[claim(json!([exactly("r", json!({"count": 2}))]))], Ok("r=half,r=other"));
    check_slices(&slices, &[claim(json!([exactly("r", json!({"count": 3}))]))], Err("none"));
    let mut wrong =
        slice(json!([json!({"name": "x", "consumesCounters": [{"counterSet": "none", "counters": {}}]})]));
    wrong["spec"]["pool"]["resourceSliceCount"] = 2.into();
    let invalid = "invalid resource pools were encountered";
    check_slices(&[shared, wrong], &[claim(json!([exactly("r", json!({}))]))], Err(invalid));
}

#[test]
fn shares_of_a_device_are_given_until_it_is_used_up() {
    let device =
        json!([{"name": "a", "allowMultipleAllocations": true, "capacity": {"memory": {"value": "10Gi"}}}]);
    let share =
        |memory: &str| claim(json!([exactly("r", json!({"capacity": {"requests": {"memory": memory}}}))]));
    let slices = [slice(device)];
    let mut taken = Vec::new();
    for _ in 0..2 {
        taken.extend(allocate(&slices, &[share("4Gi")], &taken).unwrap());
    }
    let result = &taken[0].devices.results[0];
    assert_eq!(result.consumed_capacity["memory"], "4Gi".parse().unwrap());
    let id = result.share_id.as_deref().unwrap();
    assert_eq!(id.split('-').map(str::len).collect::<Vec<_>>(), [8, 4, 4, 4, 12]);
    assert_eq!(allocate(&slices, &[share("4Gi")], &taken), Err(Failure::None));
    assert!(allocate(&slices, &[share("2Gi")], &taken).is_ok());
}

#[test]
fn a_result_says_where_it_is_reached_and_how_it_is_configured() {
    let mut wanted = claim(json!([exactly("r", json!({})), exactly("s", json!({}))]));
    let opaque = |of: &str| json!({"driver": "d.org", "parameters": {"of": of}});
    wanted["spec"]["devices"]["config"] =
        json!([{"requests": ["s"], "opaque": opaque("s")}, {"opaque": opaque("all")}]);
    let found = allocate(&[slice(sizes(&[1, 2]))], &[wanted], &[]).unwrap();
    let config: Vec<_> = found[0]
        .devices
        .config
        .iter()
        .map(|c| (&c["source"], &c["requests"], &c["opaque"]["parameters"]["of"]))
        .collect();
    let expect = [
        (json!("FromClass"), json!(["r", "s"]), json!("class")),
        (json!("FromClaim"), json!(["s"]), json!("s")),
        (json!("FromClaim"), Value::Null, json!("all")),
    ];
    assert_eq!(config, expect.iter().map(|(a, b, c)| (a, b, c)).collect::<Vec<_>>());
    let field = json!({"key": "metadata.name", "operator": "In", "values": ["n"]});
    let term = &found[0].node_selector.as_ref().unwrap().node_selector_terms[0];
    assert_eq!(apimachinery::to_value(&term.match_fields).unwrap(), json!([field]));
}

#[test]
fn what_is_wrong_with_a_claim_is_said() {
    let broken = json!({"selectors": [{"cel": {"expression": "device.attributes['d.org'].none"}}]});
    let why = "claim default/c: selector #0: CEL runtime error: no such key: none";
    check(sizes(&[1]), json!([exactly("r", broken)]), Err(why));
    let many = json!([exactly("r", json!({"count": 33}))]);
    let why = "claim default/c: number of requested devices 33 exceeds the claim limit of 32";
    check(sizes(&[1]), many, Err(why));
}

#[test]
fn a_search_without_end_is_given_up() {
    let devices: Value =
        (0..60).map(|n| json!({"name": format!("d{n}"), "attributes": {"size": {"int": n % 20}}})).collect();
    let mut wanted = claim(json!([exactly("r", json!({"count": 16}))]));
    wanted["spec"]["devices"]["constraints"] = json!([{"matchAttribute": "d.org/size"}]);
    check_slices(&[slice(devices.clone())], &[wanted], Err("none"));
    let hard = claim(json!([exactly("r", json!({"count": 20})), exactly("s", at_least(99))]));
    check_slices(&[slice(devices)], &[hard], Err("node n: timed out trying to allocate devices"));
}

/// Whether each wish can have a device of its own that is large enough.
fn can_serve(devices: &[i64], wishes: &[i64]) -> bool {
    let Some((wish, rest)) = wishes.split_first() else { return true };
    (0..devices.len()).any(|n| {
        let mut left = devices.to_vec();
        left.remove(n) >= *wish && can_serve(&left, rest)
    })
}

proptest! {
    #[test]
    fn devices_are_found_whenever_they_exist_and_none_is_given_twice(
        devices in proptest::collection::vec(0..5i64, 0..5),
        wishes in proptest::collection::vec(0..5i64, 1..4),
        taken in 0..3usize,
    ) {
        let slices = [slice(sizes(&devices))];
        let first = taken.min(devices.len());
        let before = match first {
            0 => Vec::new(),
            count => allocate(&slices, &[claim(json!([exactly("t", json!({"count": count}))]))], &[]).unwrap(),
        };
        let requests: Vec<Value> =
            wishes.iter().enumerate().map(|(n, size)| exactly(&format!("r{n}"), at_least(*size))).collect();
        let found = allocate(&slices, &[claim(json!(requests))], &before);
        prop_assert_eq!(found.is_ok(), can_serve(&devices[first..], &wishes));
        let all: Vec<_> = before.iter().chain(found.iter().flatten()).flat_map(|a| &a.devices.results).collect();
        let names: BTreeSet<&str> = all.iter().map(|result| result.device.as_str()).collect();
        prop_assert_eq!(names.len(), all.len());
    }
}
