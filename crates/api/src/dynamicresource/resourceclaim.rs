//! ResourceClaim and ResourceClaimTemplate (follow `pkg/registry/resource/resourceclaim` and
//! `resourceclaimtemplate`).

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};
use apimachinery::managedfields::{Set, reset_fields_and_metadata};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, items, name};
use crate::defaults::{Fill, each, fill, object, object_or_new};
use crate::dynamicresource::selector;
use crate::strategy::{Column, Strategy, drop_field, keep, keep_all_metadata};
use crate::validation::{At, dns1123_label, dns1123_subdomain};

/// Requests of one claim, and alternatives of one request.
const REQUESTS_MAX: usize = 32;
const SUB_REQUESTS_MAX: usize = 8;
const ALLOCATION_MODES: [&str; 2] = ["All", "ExactCount"];

const CLAIM_COLUMNS: [Column; 3] = [NAME, column("State", "string", "How far the claim has come."), AGE];
const TEMPLATE_COLUMNS: [Column; 2] = [NAME, AGE];

pub struct ResourceClaim;

impl Strategy for ResourceClaim {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("status", Fill::Empty)]);
        if let Some(spec) = object_or_new(obj, "spec") {
            default_spec(spec);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        drop_field(obj, "status");
        fill(obj, &[("status", Fill::Empty)]);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }

    fn reset_fields(&self, subresource: &str) -> &'static Set {
        reset_fields_and_metadata(subresource)
    }

    /// Without an allocation there is nothing to say about devices.
    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep_all_metadata(obj, old);
        let allocated = At::root(obj).at(&["status", "allocation"]).is_set();
        if let Some(status) = object(obj, "status").filter(|_| !allocated) {
            drop_field(status, "devices");
        }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        requests(&At::root(obj).at(&["spec", "devices", "requests"]), &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        At::root(obj).get("spec").check_unchanged(&At::root(old).get("spec"), &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &CLAIM_COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), state(obj).into(), age(obj, now)]
    }
}

pub struct ResourceClaimTemplate;

impl Strategy for ResourceClaimTemplate {
    fn default(&self, obj: &mut Value) {
        let Some(template) = object_or_new(obj, "spec") else { return };
        fill(template, &[("metadata", Fill::Empty)]);
        if let Some(spec) = object_or_new(template, "spec") {
            default_spec(spec);
        }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        requests(&At::root(obj).at(&["spec", "spec", "devices", "requests"]), &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        At::root(obj).get("spec").check_unchanged(&At::root(old).get("spec"), &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &TEMPLATE_COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), age(obj, now)]
    }
}

/// One device exactly, unless a request says otherwise.
fn default_spec(spec: &mut Value) {
    let Some(devices) = object_or_new(spec, "devices") else { return };
    for request in each(devices, "requests") {
        if let Some(exactly) = object(request, "exactly") {
            default_count(exactly);
        }
        each(request, "firstAvailable").for_each(default_count);
    }
}

fn default_count(request: &mut Value) {
    fill(request, &[("allocationMode", Fill::Text("ExactCount"))]);
    if At::root(request).get("allocationMode").text() == "ExactCount" {
        fill(request, &[("count", Fill::NonZero(1))]);
    }
}

fn state(obj: &Value) -> String {
    let root = At::root(obj);
    let deleted = root.at(&["metadata", "deletionTimestamp"]).is_set();
    let allocated = root.at(&["status", "allocation"]).is_set();
    let reserved = allocated && !items(obj, &["status", "reservedFor"]).is_empty();
    let states = [
        (deleted, "deleted"),
        (!allocated && !deleted, "pending"),
        (allocated, "allocated"),
        (reserved, "reserved"),
    ];
    states.iter().filter(|(is, _)| *is).map(|(_, state)| *state).collect::<Vec<_>>().join(",")
}

fn requests(list: &At, errors: &mut ErrorList) {
    if list.len() > REQUESTS_MAX {
        errors.push(Error::too_many(&list.path, list.len(), REQUESTS_MAX));
    }
    let mut seen = BTreeSet::new();
    for request in list.items() {
        named(&request, &mut seen, errors);
        let (exactly, alternatives) = (request.field("exactly"), request.get("firstAvailable"));
        match (&exactly, alternatives.is_empty()) {
            (Some(_), false) => errors.push(Error::invalid(
                &request.path,
                request.value.clone(),
                "exactly one of `exactly` or `firstAvailable` is required, but multiple fields are set",
            )),
            (None, true) => {
                errors.push(request.required("exactly one of `exactly` or `firstAvailable` is required"));
            }
            _ => {}
        }
        if let Some(exactly) = exactly {
            wanted(&exactly, errors);
        }
        if alternatives.len() > SUB_REQUESTS_MAX {
            errors.push(Error::too_many(&alternatives.path, alternatives.len(), SUB_REQUESTS_MAX));
        }
        let mut seen = BTreeSet::new();
        for alternative in alternatives.items() {
            named(&alternative, &mut seen, errors);
            wanted(&alternative, errors);
        }
    }
}

fn named<'a>(request: &At<'a>, seen: &mut BTreeSet<&'a str>, errors: &mut ErrorList) {
    let name = request.get("name");
    if name.is_empty() {
        errors.push(name.required(""));
        return;
    }
    dns1123_label(&name, errors);
    if !seen.insert(name.text()) {
        errors.push(Error::duplicate(&request.path, name.text()));
    }
}

/// What kind of device is wanted, and how many.
fn wanted(request: &At, errors: &mut ErrorList) {
    let (class, mode, count) =
        (request.get("deviceClassName"), request.get("allocationMode"), request.get("count"));
    if class.is_empty() {
        errors.push(class.required(""));
    } else {
        dns1123_subdomain(&class, errors);
    }
    selector::validate(&request.get("selectors"), errors);
    match mode.text() {
        "All" if count.int() != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            errors.push(count.invalid(detail));
        }
        "ExactCount" if count.int() <= 0 => errors.push(count.invalid("must be greater than zero")),
        "All" | "ExactCount" => {}
        _ => errors.push(mode.not_supported(&ALLOCATION_MODES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn claim(requests: Value) -> Value {
        let mut obj = json!({"spec": {"devices": {"requests": requests}}});
        ResourceClaim.default(&mut obj);
        obj
    }

    #[test]
    fn claims_are_checked_request_by_request() {
        let check = |requests: Value, expect: &[&str]| {
            expect_errors(&ResourceClaim.validate(&claim(requests)), expect)
        };
        check(json!([{"name": "r", "exactly": {"deviceClassName": "c"}}]), &[]);
        check(
            json!([{"name": "r"}]),
            &["spec.devices.requests[0]: Required value: exactly one of `exactly`"],
        );
        check(
            json!([{"name": "A", "exactly": {"allocationMode": "All", "count": 2}}]),
            &[
                "spec.devices.requests[0].name: Invalid value: \"A\"",
                "spec.devices.requests[0].exactly.deviceClassName: Required value",
                "spec.devices.requests[0].exactly.count: Invalid value: 2: must not be specified when",
            ],
        );
        let (old, new) =
            (claim(json!([])), claim(json!([{"name": "r", "exactly": {"deviceClassName": "c"}}])));
        expect_errors(&ResourceClaim.validate_update(&new, &old), &["spec: Invalid value"]);
        assert_eq!(new["spec"]["devices"]["requests"][0]["exactly"]["count"], 1);
    }

    #[test]
    fn a_state_says_how_far_a_claim_has_come() {
        assert_eq!(state(&json!({})), "pending");
        assert_eq!(state(&json!({"status": {"allocation": {}, "reservedFor": [{}]}})), "allocated,reserved");
        assert_eq!(state(&json!({"metadata": {"deletionTimestamp": "x"}})), "deleted");
    }
}
