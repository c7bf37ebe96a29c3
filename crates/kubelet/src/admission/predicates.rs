//! What the scheduler checks too, checked by the node itself (follows `lifecycle/predicate.go`). Pure.

use std::collections::BTreeMap;

use api::core::pod::resources::{Counted, pod_requests};
use api::view::core::hostport::{self, HostPort};
use api::view::core::nodeselector::matches_required;
use api::view::core::{Node, Pod};
use apimachinery::json;

use super::Refusal;
use crate::resources::whole;
use crate::volumes::downward::Allocatable;

pub const NODE_AFFINITY: &str = "NodeAffinity";

const OS_LABEL: &str = "kubernetes.io/os";
const OS: &str = "linux";
pub const CPU: &str = "cpu";
pub const MEMORY: &str = "memory";
const PODS: &str = "pods";
const EPHEMERAL_STORAGE: &str = "ephemeral-storage";

/// What one pod takes of the node: CPU in thousandths, everything else in units.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    requests: BTreeMap<String, i64>,
    ports: Vec<HostPort>,
}

impl Claim {
    pub fn of(pod: &Pod) -> Self {
        let mut requests = pod_requests(&json!({"spec": pod.spec, "status": pod.status}), Counted::Status);
        // What devices of a claim serve is not taken of the node's own.
        if let Some(extended) = &pod.status.extended_resource_claim_status {
            let is_claimed =
                |name: &String| extended.request_mappings.iter().any(|of| of.resource_name == *name);
            requests.retain(|name, _| !is_claimed(name));
        }
        let amount = |(name, amount): (String, apimachinery::quantity::Quantity)| {
            let amount = if name == CPU { amount.milli_value() } else { amount.value() };
            (name, amount)
        };
        Claim {
            requests: requests.into_iter().map(amount).collect(),
            ports: hostport::host_ports(&pod.spec).collect(),
        }
    }

    /// Each pod is one.
    pub fn amount(&self, name: &str) -> i64 {
        if name == PODS { 1 } else { self.requests.get(name).copied().unwrap_or(0) }
    }
}

/// What a pod wants beyond what is left of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lacking {
    pub resource: String,
    pub amount: i64,
}

/// What the pods of a node may take together.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    pub allocatable: Allocatable,
    pub pods_max: u32,
}

impl Room {
    /// `None` for what the node does not have.
    fn amount(&self, name: &str, node: &Node) -> Option<i64> {
        match name {
            PODS => Some(i64::from(self.pods_max)),
            CPU => Some(self.allocatable.milli_cpu),
            MEMORY => Some(self.allocatable.memory_bytes),
            EPHEMERAL_STORAGE => Some(self.allocatable.ephemeral_storage_bytes),
            _ => node.status.allocatable.contains_key(name).then(|| whole(&node.status.allocatable, name)),
        }
    }
}

/// Whether the pod can be on the node beside `others`.
pub fn admit<'c>(
    pod: &Pod,
    claim: &Claim,
    node: &Node,
    others: impl Iterator<Item = &'c Claim> + Clone,
    room: &Room,
) -> Result<(), Refusal> {
    fits_system(pod)?;
    if let Some(short) = shortages(claim, node, others.clone(), room).first() {
        return Err(short.refusal());
    }
    fits_but_for_resources(pod, claim, node, others)
}

/// What is lacking for the pod, where nothing else speaks against it.
pub fn lacking<'c>(
    pod: &Pod,
    claim: &Claim,
    node: &Node,
    others: impl Iterator<Item = &'c Claim> + Clone,
    room: &Room,
) -> Result<Vec<Lacking>, Refusal> {
    fits_system(pod)?;
    fits_but_for_resources(pod, claim, node, others.clone())?;
    Ok(shortages(claim, node, others, room).iter().map(Shortage::lacking).collect())
}

fn fits_but_for_resources<'c>(
    pod: &Pod,
    claim: &Claim,
    node: &Node,
    others: impl Iterator<Item = &'c Claim> + Clone,
) -> Result<(), Refusal> {
    let failed = |name: &str, why: &str| Err(Refusal::new(name, format!("Predicate {name} failed: {why}")));
    if !matches_required(&pod.spec, node) {
        return failed(NODE_AFFINITY, "node(s) didn't match Pod's node affinity/selector");
    }
    let mut used = others.flat_map(|other| &other.ports);
    if used.any(|used| claim.ports.iter().any(|port| port.conflicts(used))) {
        return failed("NodePorts", "node(s) didn't have free ports for the requested pod ports");
    }
    let mut taints = node.spec.taints.iter().filter(|taint| taint.effect == "NoExecute");
    let tolerations = &pod.spec.tolerations;
    if !crate::staticpods::is_static(pod)
        && taints.any(|taint| !tolerations.iter().any(|toleration| toleration.tolerates(taint)))
    {
        return failed("TaintToleration", "node(s) had taints that the pod didn't tolerate");
    }
    Ok(())
}

fn fits_system(pod: &Pod) -> Result<(), Refusal> {
    if pod.metadata.labels.get(OS_LABEL).is_some_and(|os| os != OS) {
        let message = "Failed to admit pod as the `kubernetes.io/os` label doesn't match node label";
        return Err(Refusal::new("PodOSSelectorNodeLabelDoesNotMatch", message));
    }
    if pod.spec.os.as_ref().is_some_and(|os| os.name != OS) {
        let message = "Failed to admit pod as the OS field doesn't match node OS";
        return Err(Refusal::new("PodOSNotSupported", message));
    }
    Ok(())
}

/// A resource of which there is too little.
struct Shortage {
    name: String,
    requested: i64,
    used: i64,
    capacity: i64,
}

impl Shortage {
    fn refusal(&self) -> Refusal {
        let Shortage { name, requested, used, capacity } = self;
        let message = format!(
            "Node didn't have enough resource: {name}, requested: {requested}, used: {used}, capacity: {capacity}"
        );
        Refusal::new(format!("OutOf{name}"), message)
    }

    fn lacking(&self) -> Lacking {
        let left = self.capacity.saturating_sub(self.used);
        Lacking { resource: self.name.clone(), amount: self.requested.saturating_sub(left) }
    }
}

/// Upstream's order: places, CPU, memory, storage, then the rest by name. What the pod does not ask for always fits.
fn shortages<'c>(
    claim: &Claim,
    node: &Node,
    others: impl Iterator<Item = &'c Claim> + Clone,
    room: &Room,
) -> Vec<Shortage> {
    let first = [PODS, CPU, MEMORY, EPHEMERAL_STORAGE];
    let rest = claim.requests.keys().map(String::as_str).filter(|name| !first.contains(name));
    let short = |name: &str| {
        let requested = claim.amount(name);
        let capacity = room.amount(name, node);
        // Devices that the node has never heard of are somebody else's to give.
        if requested == 0 || capacity.is_none() && name.contains('/') {
            return None;
        }
        let used = others.clone().fold(0_i64, |sum, other| sum.saturating_add(other.amount(name)));
        let capacity = capacity.unwrap_or(0);
        let fits = requested <= capacity.saturating_sub(used);
        (!fits).then(|| Shortage { name: name.to_owned(), requested, used, capacity })
    };
    first.into_iter().chain(rest).filter_map(short).collect()
}

#[cfg(test)]
mod tests;
