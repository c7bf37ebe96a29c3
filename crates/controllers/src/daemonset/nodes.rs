//! Which nodes a DaemonSet is for (follows `NodeShouldRunDaemonPod`).

use api::view::core::nodeselector::{NAME_FIELD, matches_required};
use api::view::core::{Node, Pod, PodSpec, Toleration};
use apimachinery::{Value, json};

use crate::taint::{
    DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY, PID_PRESSURE,
    UNREACHABLE, UNSCHEDULABLE,
};

/// What pods of DaemonSets bear more than others: they are the node's own.
const TOLERATED: [(&str, &str); 6] = [
    (NOT_READY, NO_EXECUTE),
    (UNREACHABLE, NO_EXECUTE),
    (DISK_PRESSURE, NO_SCHEDULE),
    (MEMORY_PRESSURE, NO_SCHEDULE),
    (PID_PRESSURE, NO_SCHEDULE),
    (UNSCHEDULABLE, NO_SCHEDULE),
];

/// Whether a node is one to run on, and whether a pod that runs there may stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub should_run: bool,
    pub may_stay: bool,
}

/// A pod's spec as the DaemonSet's pods have it, seen slim.
pub fn spec_of(template: &Value) -> PodSpec {
    let mut spec: PodSpec = apimachinery::from_value(template["spec"].clone()).unwrap_or_default();
    spec.tolerations.extend(tolerations(spec.host_network));
    spec
}

fn tolerations(host_network: bool) -> impl Iterator<Item = Toleration> {
    let more = host_network.then_some((NETWORK_UNAVAILABLE, NO_SCHEDULE));
    TOLERATED.into_iter().chain(more).map(|(key, effect)| Toleration {
        key: key.to_owned(),
        operator: "Exists".to_owned(),
        effect: effect.to_owned(),
        ..Toleration::default()
    })
}

pub fn verdict(spec: &PodSpec, node: &Node) -> Verdict {
    let named = spec.node_name.is_empty() || spec.node_name == node.metadata.name;
    if !named || !matches_required(spec, node) {
        return Verdict { should_run: false, may_stay: false };
    }
    let mut verdict = Verdict { should_run: true, may_stay: true };
    for taint in &node.spec.taints {
        if !spec.tolerations.iter().any(|toleration| toleration.tolerates(taint)) {
            verdict.should_run &= !matches!(taint.effect.as_str(), NO_SCHEDULE | NO_EXECUTE);
            verdict.may_stay &= taint.effect != NO_EXECUTE;
        }
    }
    verdict
}

/// The node a pod is on, or is meant for while the scheduler has not placed it (upstream: `GetTargetNodeName`).
pub fn target(pod: &Pod) -> Option<&str> {
    if !pod.spec.node_name.is_empty() {
        return Some(&pod.spec.node_name);
    }
    let affinity = pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = &affinity.required_during_scheduling_ignored_during_execution.as_ref()?.node_selector_terms;
    let fields = terms.iter().flat_map(|term| &term.match_fields);
    let mut named = fields.filter(|field| field.key == NAME_FIELD && field.operator == "In");
    named.find_map(|field| match field.values.as_slice() {
        [name] => Some(name.as_str()),
        _ => None,
    })
}

/// Makes a pod one for this node: the scheduler will place it nowhere else.
pub fn bind(pod: &mut Value, node: &str) {
    let host_network = pod["spec"]["hostNetwork"] == true;
    let mut all = pod["spec"]["tolerations"].as_array().cloned().unwrap_or_default();
    for toleration in tolerations(host_network) {
        let wanted = json!({"key": toleration.key, "operator": "Exists", "effect": toleration.effect});
        if !all.contains(&wanted) {
            all.push(wanted);
        }
    }
    pod["spec"]["tolerations"] = all.into();
    let term = json!({"matchFields": [{"key": NAME_FIELD, "operator": "In", "values": [node]}]});
    let affinity = &mut pod["spec"]["affinity"];
    if affinity.is_null() {
        *affinity = json!({});
    }
    if affinity["nodeAffinity"].is_null() {
        affinity["nodeAffinity"] = json!({});
    }
    affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"] =
        json!({"nodeSelectorTerms": [term]});
}
