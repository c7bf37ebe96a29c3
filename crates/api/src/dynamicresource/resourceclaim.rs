//! ResourceClaim and ResourceClaimTemplate (follow `pkg/registry/resource/resourceclaim` and
//! `resourceclaimtemplate`).

mod status;
mod validation;

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::managedfields::{Set, reset_fields_and_metadata};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, items, name};
use crate::defaults::{Fill, each, fill, object, object_or_new, store_as_none};
use crate::objectmeta::validate_template;
use crate::strategy::{Column, Strategy, drop_field, keep, keep_all_metadata};
use crate::validation::At;

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

    fn canonicalize(&self, obj: &mut Value) {
        store_as_none(&mut obj["spec"]["devices"], &["requests"]);
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
        validation::spec(&At::root(obj).get("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        At::root(obj).get("spec").check_unchanged(&At::root(old).get("spec"), &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        status::validate_update(obj, old)
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
        let template = At::root(obj).get("spec");
        validate_template(&template.get("metadata"), &mut errors);
        validation::spec(&template.get("spec"), &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        At::root(obj).get("spec").check_unchanged(&At::root(old).get("spec"), &mut errors);
        errors
    }

    fn canonicalize(&self, obj: &mut Value) {
        store_as_none(&mut obj["spec"]["spec"]["devices"], &["requests"]);
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
    fill(devices, &[("requests", Fill::Null)]);
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
    fn constraints_and_settings_are_for_requests_of_the_claim() {
        let check = |devices: Value, expect: &[&str]| {
            let mut obj =
                claim(json!([{"name": "r", "firstAvailable": [{"name": "s", "deviceClassName": "c"}]}]));
            for (key, value) in devices.as_object().expect("an object") {
                obj["spec"]["devices"][key] = value.clone();
            }
            expect_errors(&ResourceClaim.validate(&obj), expect);
        };
        check(
            json!({"constraints": [{"requests": ["r", "r/s"], "matchAttribute": "d/a"}],
                "config": [{"requests": ["r"], "opaque": {"driver": "d", "parameters": {}}}]}),
            &[],
        );
        let unknown = "must be the name of a request in the claim";
        check(
            json!({"constraints": [{"requests": ["r", "r", "r/t", "a/b/c"]}]}),
            &[
                &format!("spec.devices.constraints[0].requests[2]: Invalid value: \"r/t\": {unknown}"),
                &format!("spec.devices.constraints[0].requests[3]: Invalid value: \"a/b/c\": {unknown}"),
                "spec.devices.constraints[0].requests[1]: Duplicate value: \"r\"",
                "spec.devices.constraints[0]: Required value: exactly one of \"matchAttribute\"",
            ],
        );
        check(
            json!({"config": [{"requests": ["A"]}]}),
            &[
                "spec.devices.config[0].requests[0]: Invalid value: \"A\": a lowercase RFC 1123 label",
                &format!("spec.devices.config[0].requests[0]: Invalid value: \"A\": {unknown}"),
                "spec.devices.config[0].opaque: Required value",
            ],
        );
    }

    #[test]
    fn a_template_gives_its_claims_labels_and_annotations_only() {
        let mut obj = json!({"spec": {"metadata": {"labels": {"a": "b"}, "name": "n", "uid": "", "finalizers": ["f/g"]}}});
        ResourceClaimTemplate.default(&mut obj);
        expect_errors(
            &ResourceClaimTemplate.validate(&obj),
            &[
                "spec.metadata.name: Forbidden: cannot be set",
                "spec.metadata.finalizers: Forbidden: cannot be set",
            ],
        );
    }

    #[test]
    fn a_state_says_how_far_a_claim_has_come() {
        assert_eq!(state(&json!({})), "pending");
        assert_eq!(state(&json!({"status": {"allocation": {}, "reservedFor": [{}]}})), "allocated,reserved");
        assert_eq!(state(&json!({"metadata": {"deletionTimestamp": "x"}})), "deleted");
    }
}
