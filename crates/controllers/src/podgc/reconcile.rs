//! From all pods and the states of their nodes to those to delete (follows `PodGCController.gc`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::resource::PODS;
use api::view::core::{Node, Pod};
use apimachinery::json;
use apimachinery::meta::{Condition, find_condition};
use client::DeleteOptions;
use jiff::{SignedDuration, Timestamp};

use crate::plan::{Action, Plan};
use crate::podstatus;
use crate::taint::OUT_OF_SERVICE;

/// Ended pods kept (upstream: `--terminated-pod-gc-threshold`).
pub const TERMINATED_PODS_MAX: usize = 12_500;
/// How long a node must be missing before its pods are given up (upstream: `quarantineTime`).
pub const QUARANTINE: SignedDuration = SignedDuration::from_secs(40);

#[derive(Clone, Debug, Default)]
pub struct World {
    pub pods: Vec<Arc<Pod>>,
    /// The nodes that pods name.
    pub nodes: BTreeMap<String, NodeState>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    Present,
    /// Someone has declared that it will not come back.
    OutOfService,
    /// Not in the cache; to be looked at again then.
    MissingUntil(Timestamp),
    /// Missing for long, and the server confirms it.
    Gone,
}

pub fn is_out_of_service(node: &Node) -> bool {
    let is_ready = find_condition(&node.status.conditions, "Ready").is_some_and(Condition::is_true);
    !is_ready && node.spec.taints.iter().any(|taint| taint.key == OUT_OF_SERVICE)
}

pub fn reconcile(world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let mut ended = Vec::new();
    for pod in &world.pods {
        let is_ending = pod.metadata.is_being_deleted();
        let never_scheduled = pod.spec.node_name.is_empty();
        match world.nodes.get(&pod.spec.node_name) {
            Some(NodeState::Gone) => {
                let message = "PodGC: node no longer exists";
                let condition = podstatus::disruption(pod, "DeletionByPodGC", message, now);
                give_up(pod, condition, &mut plan);
            }
            Some(NodeState::OutOfService) if is_ending => give_up(pod, None, &mut plan),
            Some(NodeState::MissingUntil(at)) => plan.requeue(*at),
            _ if never_scheduled && is_ending => give_up(pod, None, &mut plan),
            _ if pod.is_terminal() && !is_ending => ended.push(pod),
            _ => {}
        }
    }
    let excess = ended.len().saturating_sub(TERMINATED_PODS_MAX);
    if excess > 0 {
        ended.sort_by_key(|pod| {
            let is_evicted = pod.status.phase == "Failed" && pod.status.reason == "Evicted";
            (!is_evicted, pod.metadata.creation_timestamp, pod.metadata.name.clone())
        });
    }
    for pod in &ended[..excess] {
        give_up(pod, None, &mut plan);
    }
    plan
}

/// Fails a pod that has not ended, then removes it without grace: no kubelet is there to do it.
fn give_up(pod: &Pod, condition: Option<Condition>, plan: &mut Plan) {
    if !pod.is_terminal() {
        plan.act(podstatus::patch(pod, condition.as_ref(), json!({"phase": "Failed"})));
    }
    let options = DeleteOptions { grace_period_seconds: Some(0), ..DeleteOptions::default() };
    plan.act(Action::delete_with(PODS, &pod.metadata, options));
}
