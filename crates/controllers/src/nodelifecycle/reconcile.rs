//! From a node and the time of its last sign of life to its conditions, its taints, and the readiness of its pods
//! (follows `tryUpdateNodeHealth`, `processTaintBaseEviction` and `doNoScheduleTaintingPass`).

use std::sync::Arc;

use api::resource::{NODES, PODS};
use api::view::core::{Node, Pod, Taint};
use apimachinery::json;
use apimachinery::meta::{Condition, find_condition};
use client::PatchType;
use jiff::{SignedDuration, Timestamp};

use crate::plan::{Action, Event, Plan, reference};
use crate::podstatus;
use crate::taint::{
    DISK_PRESSURE, MEMORY_PRESSURE, NETWORK_UNAVAILABLE, NO_EXECUTE, NO_SCHEDULE, NOT_READY, PID_PRESSURE,
    UNREACHABLE, UNSCHEDULABLE,
};

/// How long a node may be silent (upstream: `--node-monitor-grace-period`).
pub const MONITOR_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(50);
/// How long a new node may be silent (upstream: `--node-startup-grace-period`).
pub const STARTUP_GRACE_PERIOD: SignedDuration = SignedDuration::from_secs(60);

/// Conditions that a silent kubelet no longer vouches for.
const VOUCHED: [&str; 4] = ["Ready", "MemoryPressure", "DiskPressure", "PIDPressure"];
/// Condition, status, and the taint that follows.
const TAINTED: [(&str, &str, &str); 6] = [
    ("Ready", "False", NOT_READY),
    ("Ready", "Unknown", UNREACHABLE),
    ("MemoryPressure", "True", MEMORY_PRESSURE),
    ("DiskPressure", "True", DISK_PRESSURE),
    ("PIDPressure", "True", PID_PRESSURE),
    ("NetworkUnavailable", "True", NETWORK_UNAVAILABLE),
];

#[derive(Clone, Debug, Default)]
pub struct World {
    /// The last sign of life, by our own clock.
    pub heard_at: Timestamp,
    /// The node's pods.
    pub pods: Vec<Arc<Pod>>,
    /// The node is seen for the first time.
    pub is_new: bool,
}

pub fn reconcile(node: &Node, world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if world.is_new {
        let name = &node.metadata.name;
        let message = format!("Node {name} event: Registered Node {name} in Controller");
        plan.events.push(Event::normal(regarding(node), "RegisteredNode", message));
    }
    let conditions = judge(node, world, now, &mut plan);
    let ready = status_of(&conditions, "Ready");
    if ready != "True" {
        mark_pods_not_ready(node, world, now, &mut plan);
    }
    let taints = taints(node, &conditions, now);
    if taints != node.spec.taints {
        // The status patch just planned raises the version: the taints follow when that shows.
        if conditions == node.status.conditions {
            plan.act(Action::patch(NODES, &node.metadata, json!({"spec": {"taints": taints}})));
        }
    }
    plan
}

/// Events name a node by its name in place of the UID, as upstream's do.
fn regarding(node: &Node) -> api::view::core::ObjectReference {
    let mut regarding = reference(NODES, &node.metadata);
    regarding.uid = node.metadata.name.clone();
    regarding
}

fn status_of<'a>(conditions: &'a [Condition], kind: &str) -> &'a str {
    find_condition(conditions, kind).map_or("", |c| &c.status)
}

/// The conditions that hold, planning their writing where silence changed them.
fn judge(node: &Node, world: &World, now: Timestamp, plan: &mut Plan) -> Vec<Condition> {
    let has_posted = find_condition(&node.status.conditions, "Ready").is_some();
    let grace = if has_posted { MONITOR_GRACE_PERIOD } else { STARTUP_GRACE_PERIOD };
    let deadline = world.heard_at.saturating_add(grace).unwrap_or(Timestamp::MAX);
    let mut conditions = node.status.conditions.clone();
    if now < deadline {
        plan.requeue(deadline);
        return conditions;
    }
    let mut changed = Vec::new();
    for kind in VOUCHED {
        let present = conditions.iter_mut().find(|c| c.kind == kind);
        if present.as_ref().is_some_and(|c| c.status == "Unknown") {
            continue;
        }
        let (reason, message) = match present {
            Some(_) => ("NodeStatusUnknown", "Kubelet stopped posting node status."),
            None => ("NodeStatusNeverUpdated", "Kubelet never posted node status."),
        };
        let unknown = Condition {
            kind: kind.into(),
            status: "Unknown".into(),
            reason: reason.into(),
            message: message.into(),
            last_heartbeat_time: present
                .as_ref()
                .map_or(node.metadata.creation_timestamp, |c| c.last_heartbeat_time),
            last_transition_time: Some(now),
            ..Condition::default()
        };
        changed.push(unknown.clone());
        match present {
            Some(present) => *present = unknown,
            None => conditions.push(unknown),
        }
    }
    if !changed.is_empty() {
        plan.act(patch_conditions(node, &changed));
        if status_of(&node.status.conditions, "Ready") == "True" {
            let message = format!("Node {} status is now: NodeNotReady", node.metadata.name);
            plan.events.push(Event::normal(regarding(node), "NodeNotReady", message));
        }
    }
    conditions
}

fn patch_conditions(node: &Node, changed: &[Condition]) -> Action {
    Action::Patch {
        resource: NODES,
        namespace: String::new(),
        name: node.metadata.name.clone(),
        subresource: Some("status"),
        // Conditions merge by type; a kubelet that comes back meanwhile has raised the version.
        kind: PatchType::Strategic,
        patch: json!({
            "metadata": {"uid": node.metadata.uid, "resourceVersion": node.metadata.resource_version},
            "status": {"conditions": changed},
        }),
    }
}

/// Taints that conditions call for, besides those of others; one that stays keeps its time.
fn taints(node: &Node, conditions: &[Condition], now: Timestamp) -> Vec<Taint> {
    let mut wanted: Vec<(&str, &str)> = Vec::new();
    for (kind, status, key) in TAINTED {
        if status_of(conditions, kind) == status {
            wanted.push((key, NO_SCHEDULE));
            if kind == "Ready" {
                wanted.push((key, NO_EXECUTE));
            }
        }
    }
    if node.spec.unschedulable {
        wanted.push((UNSCHEDULABLE, NO_SCHEDULE));
    }
    let is_ours = |taint: &Taint| {
        let follows = TAINTED.iter().any(|(_, _, key)| *key == taint.key) || taint.key == UNSCHEDULABLE;
        let evicts = taint.key == NOT_READY || taint.key == UNREACHABLE;
        (follows && taint.effect == NO_SCHEDULE) || (evicts && taint.effect == NO_EXECUTE)
    };
    let is_wanted = |taint: &Taint| wanted.contains(&(taint.key.as_str(), taint.effect.as_str()));
    let mut taints: Vec<Taint> =
        node.spec.taints.iter().filter(|taint| !is_ours(taint) || is_wanted(taint)).cloned().collect();
    for (key, effect) in &wanted {
        if !taints.iter().any(|taint| taint.key == *key && taint.effect == *effect) {
            let time_added = Some(now);
            taints.push(Taint {
                key: key.to_string(),
                effect: effect.to_string(),
                time_added,
                ..Taint::default()
            });
        }
    }
    taints
}

/// No pod of a silent node is ready: Services must not send to it (upstream: `MarkPodsNotReady`).
fn mark_pods_not_ready(node: &Node, world: &World, now: Timestamp, plan: &mut Plan) {
    let is_silent = now >= world.heard_at.saturating_add(MONITOR_GRACE_PERIOD).unwrap_or(Timestamp::MAX);
    for pod in world.pods.iter().filter(|pod| is_silent && pod.is_ready()) {
        let not_ready = Condition {
            kind: "Ready".into(),
            status: "False".into(),
            last_transition_time: Some(now),
            ..Condition::default()
        };
        plan.act(podstatus::patch(pod, Some(&not_ready), json!({})));
        let message = format!("Node {} is not ready", node.metadata.name);
        plan.events.push(Event::warning(reference(PODS, &pod.metadata), "NodeNotReady", message));
    }
}
