//! Pod (follows `pkg/registry/core/pod`).

pub mod apparmor;
mod columns;
pub mod defaults;
pub mod resources;
pub mod validation;
mod warnings;

use std::sync::LazyLock;

use apimachinery::field::ErrorList;
use apimachinery::managedfields::{Set, reset_fields};
use apimachinery::meta::{str_at, value_at};
use apimachinery::{Map, Value, json, names};
use jiff::Timestamp;

use crate::columns::items;
use crate::defaults::{each, object};
use crate::shown::Shown;
use crate::strategy::{Column, Strategy, advance_generation, keep, keep_metadata, set_first_generation};
use crate::validation::same_field;
pub use warnings::for_template as template_warnings;

const SELECTABLE: [&str; 9] = [
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    // Upstream takes it, but has no text for it: no pod has any.
    "status.podIPs",
    "status.nominatedNodeName",
];

/// The sysctls that affect nobody but the pod (upstream: `safeSysctls`), in the order in which the level "baseline"
/// came to allow them: five at first, one with 1.27, four with 1.29, two with 1.32.
pub const SAFE_SYSCTLS: [&str; 12] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
];

/// Metadata an update of a subresource may not touch (follows `ResetObjectMetaForStatus`).
const RESET_METADATA: [&str; 6] =
    ["deletionTimestamp", "generation", "labels", "annotations", "finalizers", "ownerReferences"];

/// What a resize may change of a container.
const RESIZABLE: [&str; 2] = ["resources", "resizePolicy"];

pub struct Pod;

impl Strategy for Pod {
    fn default(&self, obj: &mut Value) {
        defaults::pod(obj);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
        let mut status = json!({"phase": "Pending", "qosClass": resources::qos_class(obj)});
        if !items(obj, &["spec", "schedulingGates"]).is_empty() {
            status["conditions"] = json!([{
                "type": "PodScheduled",
                "status": "False",
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }]);
        }
        obj["status"] = status;
        merge_match_label_keys(obj);
        if let Some(spec) = object(obj, "spec") {
            defaults::sync_service_account(spec);
        }
        apparmor::sync(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        count_generation(obj, old);
    }

    fn reset_fields(&self, subresource: &str) -> &'static Set {
        static STATUS: LazyLock<Set> = LazyLock::new(|| {
            Set::from_paths(&[
                &["spec"],
                &["metadata", "deletionTimestamp"],
                &["metadata", "ownerReferences"],
            ])
        });
        match subresource {
            "status" => &STATUS,
            other => reset_fields(other),
        }
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        // Old kubelets corrupt these in a way that breaks garbage collection.
        keep_metadata(obj, old, "ownerReferences");
        keep_metadata(obj, old, "deletionTimestamp");
        preserve_observed(obj, old);
    }

    fn prepare_for_subresource_update(&self, subresource: &str, obj: &mut Value, old: &Value) {
        let new_spec = obj.get("spec").cloned().unwrap_or_default();
        let mut spec = old.get("spec").cloned().unwrap_or_default();
        match subresource {
            "ephemeralcontainers" => keep(&mut spec, &new_spec, "ephemeralContainers"),
            "resize" => spec = resized(spec, new_spec),
            _ => {}
        }
        obj["spec"] = spec;
        keep(obj, old, "status");
        for field in RESET_METADATA {
            keep_metadata(obj, old, field);
        }
        count_generation(obj, old);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validation::validate_create(obj)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_update(obj, old)
    }

    fn validate_status_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validation::validate_status_update(obj, old)
    }

    fn validate_subresource_update(&self, subresource: &str, obj: &Value, old: &Value) -> ErrorList {
        match subresource {
            "ephemeralcontainers" => validation::validate_ephemeral_containers_update(obj, old),
            "resize" => validation::validate_resize(obj, old),
            _ => validation::validate_update(obj, old),
        }
    }

    fn warnings_of_proposal(&self, obj: &Value) -> Vec<String> {
        apparmor::warnings(obj)
    }

    /// Only on creation: people rarely update pods, controllers and kubelets do all the time.
    fn warnings(&self, obj: &Value, old: Option<&Value>) -> Vec<String> {
        if old.is_some() { Vec::new() } else { warnings::for_pod(obj) }
    }

    fn selectable_fields(&self, obj: &Value) -> Vec<(&'static str, String)> {
        SELECTABLE.iter().map(|field| (*field, selectable(obj, field))).collect()
    }

    fn selectable_field_names(&self) -> &'static [&'static str] {
        &SELECTABLE
    }

    fn columns(&self) -> &'static [Column] {
        &columns::COLUMNS
    }

    fn shown(&self) -> &Shown {
        &columns::SHOWN
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        columns::row(obj, now)
    }

    fn graceful_deletion(&self, obj: &Value, requested: Option<i64>) -> Option<i64> {
        let own = value_at(obj, &["spec", "terminationGracePeriodSeconds"]).and_then(Value::as_i64);
        let seconds = requested.or(own).unwrap_or_default();
        let unscheduled = str_at(obj, &["spec", "nodeName"]).is_empty();
        let ended = matches!(str_at(obj, &["status", "phase"]), "Failed" | "Succeeded");
        match () {
            () if unscheduled || ended => Some(0),
            () if seconds < 0 => Some(1),
            () => Some(seconds),
        }
    }
}

fn selectable(obj: &Value, field: &str) -> String {
    match field {
        "spec.hostNetwork" => {
            let host_network = value_at(obj, &["spec", "hostNetwork"]) == Some(&Value::Bool(true));
            host_network.to_string()
        }
        "status.podIP" => match items(obj, &["status", "podIPs"]).first() {
            Some(ip) => str_at(ip, &["ip"]).to_owned(),
            None => str_at(obj, &["status", "podIP"]).to_owned(),
        },
        other => str_at(obj, &other.split('.').collect::<Vec<_>>()).to_owned(),
    }
}

fn count_generation(obj: &mut Value, old: &Value) {
    advance_generation(obj, old, !same_field(obj, old, "spec"));
}

/// What a status update leaves out of what was observed stays as it was (follows `preserveOldObservedGeneration`).
fn preserve_observed(obj: &mut Value, old: &Value) {
    let Some(status) = object(obj, "status") else { return };
    let old_status = old.get("status").unwrap_or(&Value::Null);
    for field in ["qosClass", "observedGeneration"] {
        let unset = status.get(field).is_none_or(|v| v.is_null() || v == "" || v == 0);
        if unset {
            keep(status, old_status, field);
        }
    }
    for condition in each(status, "conditions") {
        if condition.get("observedGeneration").is_none_or(|g| g.is_null() || g == 0) {
            let kind = condition.get("type");
            let before = items(old_status, &["conditions"]).iter().find(|c| c.get("type") == kind);
            let before = before.cloned().unwrap_or_default();
            keep(condition, &before, "observedGeneration");
        }
    }
}

/// The old spec with the new containers' resources, if the containers are the same ones; otherwise the new spec, for
/// validation to refuse.
fn resized(old: Value, new: Value) -> Value {
    let mut spec = old;
    for list in ["containers", "initContainers"] {
        let new_list = items(&new, &[list]).to_vec();
        let same = items(&spec, &[list]).len() == new_list.len()
            && items(&spec, &[list]).iter().zip(&new_list).all(|(a, b)| a.get("name") == b.get("name"));
        if !same {
            return new;
        }
        for (container, new) in each(&mut spec, list).zip(&new_list) {
            for field in RESIZABLE {
                keep(container, new, field);
            }
        }
    }
    keep(&mut spec, &new, "resources");
    spec
}

/// Turns `matchLabelKeys` into terms of the selectors beside them, with the pod's own label values (follows
/// `mutatePodAffinity` and `mutateTopologySpreadConstraints`).
fn merge_match_label_keys(obj: &mut Value) {
    let labels =
        value_at(obj, &["metadata", "labels"]).and_then(Value::as_object).cloned().unwrap_or_default();
    let Some(spec) = object(obj, "spec") else { return };
    for constraint in each(spec, "topologySpreadConstraints") {
        merge_label_keys(constraint, &labels);
    }
    let Some(affinity) = object(spec, "affinity") else { return };
    for field in ["podAffinity", "podAntiAffinity"] {
        let Some(terms) = object(affinity, field) else { continue };
        for weighted in each(terms, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = object(weighted, "podAffinityTerm") {
                merge_label_keys(term, &labels);
            }
        }
        for term in each(terms, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge_label_keys(term, &labels);
        }
    }
}

fn merge_label_keys(term: &mut Value, labels: &Map) {
    let mut merged = Vec::new();
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        for key in items(term, &[field]).iter().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                merged.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    let Some(selector) = object(term, "labelSelector").filter(|_| !merged.is_empty()) else { return };
    match selector.get_mut("matchExpressions").and_then(Value::as_array_mut) {
        Some(expressions) => expressions.extend(merged),
        None => selector["matchExpressions"] = merged.into(),
    }
}

/// The warning that a name makes a poor hostname.
pub(crate) fn hostname_warning(name: &str, used_in: &str) -> Option<String> {
    let complaints = names::is_dns1123_label(name);
    (!complaints.is_empty()).then(|| {
        format!(
            "metadata.name: this is used in {used_in}, which can result in surprising behavior; a DNS label is recommended: [{}]",
            complaints.join(" ")
        )
    })
}

/// The names and the images of containers, as a workload's wide row shows them.
pub(crate) fn container_cells(containers: &[Value]) -> (String, String) {
    let join = |field: &str| containers.iter().map(|c| str_at(c, &[field])).collect::<Vec<_>>().join(",");
    (join("name"), join("image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn created(mut pod: Value) -> Value {
        Pod.default(&mut pod);
        Pod.prepare_for_create(&mut pod);
        pod
    }

    #[test]
    fn a_new_pod_is_pending_with_its_class() {
        let pod = created(json!({"metadata": {"name": "p"}, "status": {"phase": "Running"},
            "spec": {"containers": [{"name": "a", "image": "b"}]}}));
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": "BestEffort"}));
        assert_eq!(pod["metadata"]["generation"], 1);
    }

    #[test]
    fn match_label_keys_become_selector_terms() {
        let pod = created(json!({"metadata": {"name": "p", "labels": {"rev": "7"}}, "spec": {
            "containers": [],
            "topologySpreadConstraints": [{"matchLabelKeys": ["rev", "gone"], "labelSelector": {}}]}}));
        assert_eq!(
            pod["spec"]["topologySpreadConstraints"][0]["labelSelector"],
            json!({"matchExpressions": [{"key": "rev", "operator": "In", "values": ["7"]}]})
        );
    }

    #[test]
    fn only_a_change_of_the_spec_counts_as_a_generation() {
        let old = json!({"metadata": {"generation": 3}, "spec": {"a": 1}, "status": {"phase": "Running"}});
        let mut same = json!({"metadata": {}, "spec": {"a": 1, "b": []}, "status": {}});
        Pod.prepare_for_update(&mut same, &old);
        assert_eq!(
            (&same["metadata"]["generation"], &same["status"]["phase"]),
            (&json!(3), &json!("Running"))
        );
        let mut changed = json!({"metadata": {}, "spec": {"a": 2}});
        Pod.prepare_for_update(&mut changed, &old);
        assert_eq!(changed["metadata"]["generation"], 4);
    }

    #[test]
    fn deletion_waits_only_for_pods_that_run() {
        let pod = |node: &str, phase: &str| json!({"spec": {"nodeName": node, "terminationGracePeriodSeconds": 30}, "status": {"phase": phase}});
        let table = [
            (pod("n", "Running"), None, 30),
            (pod("n", "Running"), Some(5), 5),
            (pod("n", "Running"), Some(-1), 1),
            (pod("", "Pending"), None, 0),
            (pod("n", "Succeeded"), None, 0),
        ];
        for (pod, requested, expect) in table {
            assert_eq!(Pod.graceful_deletion(&pod, requested), Some(expect), "{pod} {requested:?}");
        }
    }

    #[test]
    fn a_subresource_changes_only_its_part() {
        let old = json!({"metadata": {"labels": {"a": "b"}, "generation": 1}, "status": {"phase": "Running"},
            "spec": {"containers": [{"name": "a", "image": "x", "resources": {}}]}});
        let mut new = json!({"metadata": {"labels": {}}, "status": {}, "spec": {
            "containers": [{"name": "a", "image": "y", "resources": {"limits": {"cpu": "1"}}}],
            "ephemeralContainers": [{"name": "e"}]}});
        let mut debugged = new.clone();
        Pod.prepare_for_subresource_update("ephemeralcontainers", &mut debugged, &old);
        assert_eq!(debugged["spec"]["containers"], old["spec"]["containers"]);
        assert_eq!(debugged["spec"]["ephemeralContainers"], json!([{"name": "e"}]));
        assert_eq!(debugged["metadata"]["generation"], 2);
        Pod.prepare_for_subresource_update("resize", &mut new, &old);
        assert_eq!(
            new["spec"]["containers"],
            json!([{"name": "a", "image": "x", "resources": {"limits": {"cpu": "1"}}}])
        );
        assert_eq!(new["metadata"]["labels"], json!({"a": "b"}));
    }

    #[test]
    fn field_selectors_see_where_a_pod_runs() {
        let pod = json!({"spec": {"nodeName": "n1"}, "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}]}});
        let fields = Pod.selectable_fields(&pod);
        let get = |name: &str| fields.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_str());
        assert_eq!(get("spec.nodeName"), Some("n1"));
        assert_eq!(get("status.podIP"), Some("10.0.0.1"));
        assert_eq!(get("status.podIPs"), Some(""));
        assert_eq!(get("spec.hostNetwork"), Some("false"));
    }
}
