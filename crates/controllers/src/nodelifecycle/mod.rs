//! Watches over nodes: one that stops renewing its lease becomes Unknown, and taints follow conditions (follows
//! upstream's `pkg/controller/nodelifecycle`).

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use api::resource::{LEASES, NODES};
use api::view::coordination::Lease;
use api::view::core::{Node, Pod};
use async_trait::async_trait;
use client::{Client, Informer, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;

pub use reconcile::{World, reconcile};

/// Where kubelets renew their leases.
const LEASE_NAMESPACE: &str = "kube-node-lease";
/// The index of pods by node.
pub const BY_NODE: &str = "node";

struct NodeLifecycle {
    nodes: Informer<Node>,
    leases: Informer<Lease>,
    pods: Informer<Pod>,
    heard: Mutex<HashMap<String, Heard>>,
}

/// The last sign of life, by our own clock: the node's may be wrong.
#[derive(Clone, Debug, PartialEq)]
struct Heard {
    sign: Sign,
    at: Timestamp,
}

/// What changes while a kubelet lives: its lease, and the heartbeat of its Ready condition.
#[derive(Clone, Debug, Default, PartialEq)]
struct Sign {
    renewed: Option<Timestamp>,
    heartbeat: Option<Timestamp>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let pods: Informer<Pod> = informers.get();
    index_by_node(&pods);
    Box::new(NodeLifecycle { nodes: informers.get(), leases: informers.get(), pods, heard: Mutex::default() })
}

pub fn index_by_node(pods: &Informer<Pod>) {
    pods.add_index(BY_NODE, |pod| {
        Some(pod.spec.node_name.clone()).filter(|name| !name.is_empty()).into_iter().collect()
    });
}

#[async_trait]
impl Controller for NodeLifecycle {
    fn watch(&self, watches: &mut Watches) {
        watches.on(NODES, &self.nodes, itself);
        watches.on(LEASES, &self.leases, |delta| {
            let meta = &delta.object().metadata;
            let is_node = meta.namespace == LEASE_NAMESPACE;
            is_node.then(|| Key::new("", meta.name.clone())).into_iter().collect()
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(node) = self.nodes.get("", &key.name) else {
            self.heard.lock().remove(&key.name);
            return Ok(Plan::default());
        };
        let is_new = !self.heard.lock().contains_key(&key.name);
        let world =
            World { heard_at: self.hear(&node, now), pods: self.pods.by_index(BY_NODE, &key.name), is_new };
        Ok(reconcile(&node, &world, now))
    }
}

impl NodeLifecycle {
    /// When the node gave its last sign of life; a new sign counts from now.
    fn hear(&self, node: &Node, now: Timestamp) -> Timestamp {
        let name = &node.metadata.name;
        let lease = self.leases.get(LEASE_NAMESPACE, name);
        let ready = apimachinery::meta::find_condition(&node.status.conditions, "Ready");
        let sign = Sign {
            renewed: lease.and_then(|lease| lease.spec.renew_time),
            // What this controller itself writes is no sign of life.
            heartbeat: ready.filter(|c| c.status != "Unknown").and_then(|c| c.last_heartbeat_time),
        };
        let mut heard = self.heard.lock();
        let last = heard.entry(name.clone()).or_insert_with(|| Heard { sign: sign.clone(), at: now });
        let is_sign = sign.renewed > last.sign.renewed || sign.heartbeat > last.sign.heartbeat;
        if is_sign {
            *last = Heard { sign, at: now };
        }
        last.at
    }
}
