//! The group `apiregistration.k8s.io`: APIService (follows `k8s.io/kube-aggregator/pkg/registry/apiservice`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::managedfields::{Set, reset_fields_and_metadata};
use apimachinery::meta::str_at;
use apimachinery::{Value, json, names};
use base64::Engine;
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, items, name};
use crate::defaults::{Fill, fill, object, object_or_new};
use crate::strategy::{Column, NameRule, Strategy, Writer, keep, keep_all_metadata};
use crate::validation::{At, dns1123_subdomain};

const GROUP_PRIORITY_MAX: i64 = 20_000;
const VERSION_PRIORITY_MAX: i64 = 1000;
const PORT_MAX: i64 = 65535;
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
pub const AVAILABLE: &str = "Available";

const COLUMNS: [Column; 4] = [
    NAME,
    column("Service", "string", "The reference to the service that hosts this API endpoint."),
    column("Available", "string", "Whether this service is available."),
    AGE,
];

/// A group and a version, with their priorities.
pub type LocalService = (&'static str, &'static str, i64, i64);

/// Groups and versions that this server itself serves, with the priorities that order them: of the group among groups,
/// and of the version in its group (follows `DefaultGenericAPIServicePriorities`).
pub const LOCAL: &[LocalService] = &[
    ("", "v1", 18_000, 1),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("apps", "v1", 17_800, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("resource.k8s.io", "v1", 16_200, 21),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
];

/// Marks the objects that the server makes for [`LOCAL`] whenever it starts.
pub const AUTOMANAGED: &str = "kube-aggregator.kubernetes.io/automanaged";

pub struct APIService;

impl Strategy for APIService {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("status", Fill::Empty)]);
        if let Some(service) = object_or_new(obj, "spec").and_then(|spec| object(spec, "service")) {
            fill(service, &[("port", Fill::Int(443))]);
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({});
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }

    fn reset_fields(&self, subresource: &str) -> &'static Set {
        reset_fields_and_metadata(subresource)
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep_all_metadata(obj, old);
    }

    /// What this server itself serves is available at once.
    fn stamp(&self, _subresource: &str, obj: &mut Value, old: Option<&Value>, writer: &Writer) {
        if old.is_none() && is_local(obj) {
            obj["status"]["conditions"] = json!([{"type": AVAILABLE, "status": "True", "reason": "Local",
                "lastTransitionTime": writer.time(), "message": "Local APIServices are always available"}]);
        }
    }

    fn validate_new(&self, obj: &Value, metadata: ErrorList) -> ErrorList {
        let mut errors = required_name(obj);
        errors.extend(metadata);
        errors.extend(self.validate(obj));
        errors
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        let (group, version) = (spec.get("group"), spec.get("version"));
        if group.is_empty() && version.text() != "v1" {
            errors.push(group.required("only v1 may have an empty group and it better be legacy kube"));
        }
        if !group.is_empty() {
            dns1123_subdomain(&group, &mut errors);
        }
        version.check(names::is_dns1035_label, &mut errors);
        for (field, max) in
            [("groupPriorityMinimum", GROUP_PRIORITY_MAX), ("versionPriority", VERSION_PRIORITY_MAX)]
        {
            let at = spec.get(field);
            if !(1..=max).contains(&at.int()) {
                let detail = format!("must be positive and less than {max}");
                errors.push(Error::invalid(&at.path, at.int(), detail));
            }
        }
        match spec.field("service") {
            None => local(&spec, &mut errors),
            Some(service) => remote(&spec, &service, &mut errors),
        }
        errors
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        for condition in At::root(obj).at(&["status", "conditions"]).items() {
            let status = condition.get("status");
            if !STATUSES.contains(&status.text()) {
                errors.push(Error::not_supported(&status.path, status.text(), &STATUSES));
            }
        }
        errors
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let service = obj.pointer("/spec/service").map_or_else(
            || "Local".to_owned(),
            |service| format!("{}/{}", str_at(service, &["namespace"]), str_at(service, &["name"])),
        );
        vec![name(obj), service.into(), availability(obj).into(), age(obj, now)]
    }
}

/// The object that stands for a group and version of [`LOCAL`].
pub fn local_service(&(group, version, group_priority, version_priority): &(&str, &str, i64, i64)) -> Value {
    let mut spec = json!({"version": version, "groupPriorityMinimum": group_priority,
        "versionPriority": version_priority});
    if !group.is_empty() {
        spec["group"] = group.into();
    }
    json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "spec": spec,
        "metadata": {"name": format!("{version}.{group}"), "labels": {AUTOMANAGED: "onstart"}}})
}

/// Whether this server itself serves the group and version.
pub fn is_local(service: &Value) -> bool {
    service.pointer("/spec/service").is_none_or(Value::is_null)
}

fn availability(obj: &Value) -> String {
    let conditions = items(obj, &["status", "conditions"]);
    let Some(available) = conditions.iter().find(|c| str_at(c, &["type"]) == AVAILABLE) else {
        return "Unknown".to_owned();
    };
    match (str_at(available, &["status"]), str_at(available, &["reason"])) {
        ("True", _) => "True".to_owned(),
        (status, "") => status.to_owned(),
        (status, reason) => format!("{status} ({reason})"),
    }
}

/// It is named after what it serves.
fn required_name(obj: &Value) -> ErrorList {
    let required = format!("{}.{}", str_at(obj, &["spec", "version"]), str_at(obj, &["spec", "group"]));
    let given = ["generateName", "name"].map(|field| At::root(obj).at(&["metadata", field]));
    let is_wrong = |name: &&At| {
        !name.is_empty() && name.text() != required && names::is_path_segment_name(name.text()).is_empty()
    };
    let wrong = given.iter().filter(is_wrong);
    wrong.map(|name| name.invalid(format!("must be `spec.version+\".\"+spec.group`: {required:?}"))).collect()
}

fn local(spec: &At, errors: &mut ErrorList) {
    let (bundle, skip) = (spec.get("caBundle"), spec.get("insecureSkipTLSVerify"));
    if !bundle.is_empty() {
        let length = base64::engine::general_purpose::STANDARD.decode(bundle.text()).map_or(0, |b| b.len());
        let detail = "local APIServices may not have a caBundle";
        errors.push(Error::invalid(&bundle.path, format!("{length} bytes"), detail));
    }
    if skip.is_true() {
        errors.push(skip.invalid("local APIServices may not have insecureSkipTLSVerify"));
    }
}

fn remote(spec: &At, service: &At, errors: &mut ErrorList) {
    for field in ["namespace", "name"] {
        if service.get(field).is_empty() {
            errors.push(service.get(field).required(""));
        }
    }
    let port = service.get("port");
    if !(1..=PORT_MAX).contains(&port.int()) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(Error::invalid(&port.path, port.int(), detail));
    }
    let skip = spec.get("insecureSkipTLSVerify");
    if skip.is_true() && !spec.get("caBundle").is_empty() {
        errors.push(skip.invalid("may not be true if caBundle is present"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    fn service(name: &str, change: Value) -> Value {
        let mut obj = json!({"metadata": {"name": name}, "spec": {"group": "e.com", "version": "v1",
            "groupPriorityMinimum": 100, "versionPriority": 15}});
        for (key, value) in change.as_object().into_iter().flatten() {
            obj["spec"][key] = value.clone();
        }
        APIService.default(&mut obj);
        obj
    }

    #[test]
    fn services_are_checked_field_by_field() {
        let check = |change: Value, expect: &[&str]| {
            expect_errors(&APIService.validate(&service("v1.e.com", change)), expect);
        };
        check(json!({}), &[]);
        check(json!({"service": {"namespace": "n", "name": "s"}, "insecureSkipTLSVerify": true}), &[]);
        check(
            json!({"groupPriorityMinimum": 20001, "versionPriority": 0}),
            &[
                "spec.groupPriorityMinimum: Invalid value: 20001: must be positive and less than 20000",
                "spec.versionPriority: Invalid value: 0: must be positive and less than 1000",
            ],
        );
        check(
            json!({"caBundle": "AAAA", "insecureSkipTLSVerify": true}),
            &[
                "spec.caBundle: Invalid value: \"3 bytes\": local APIServices may not have a caBundle",
                "spec.insecureSkipTLSVerify: Invalid value: true: local APIServices may not have insecureSkipTLSVerify",
            ],
        );
        check(
            json!({"service": {"port": 70000}}),
            &[
                "spec.service.namespace: Required value",
                "spec.service.name: Required value",
                "spec.service.port: Invalid value: 70000: port is not valid: must be between 1 and 65535",
            ],
        );
        expect_errors(
            &APIService.validate_new(&service("x", json!({})), ErrorList::new()),
            &["metadata.name: Invalid value: \"x\": must be `spec.version+\".\"+spec.group`: \"v1.e.com\""],
        );
    }

    #[test]
    fn every_served_version_has_a_service() {
        for row in LOCAL {
            expect_errors(&APIService.validate(&local_service(row)), &[]);
        }
        for kind in crate::CATALOGUE {
            let r = &kind.resource;
            let aggregated = ["apiregistration.k8s.io"].contains(&r.group);
            assert!(
                aggregated || LOCAL.iter().any(|l| (l.0, l.1) == (r.group, r.version)),
                "{}/{}",
                r.group,
                r.version
            );
        }
    }

    #[test]
    fn what_is_local_is_available() {
        let mut obj = service("v1.e.com", json!({}));
        APIService.prepare_for_create(&mut obj);
        let row = |obj: &Value| APIService.row(obj, Timestamp::UNIX_EPOCH)[1..3].to_vec();
        assert_eq!(row(&obj), ["Local", "Unknown"].map(Value::from));
        APIService.stamp("", &mut obj, None, &Writer { now: Timestamp::UNIX_EPOCH, user: &Value::default });
        assert_eq!(row(&obj), ["Local", "True"].map(Value::from));
        obj["spec"]["service"] = json!({"namespace": "n", "name": "s"});
        obj["status"]["conditions"] =
            json!([{"type": "Available", "status": "False", "reason": "MissingEndpoints"}]);
        assert_eq!(row(&obj), ["n/s", "False (MissingEndpoints)"].map(Value::from));
    }
}
