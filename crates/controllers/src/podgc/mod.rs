//! Deletes pods that no kubelet will end: of nodes that are gone or out of service, never scheduled, or too many that
//! have ended (follows upstream's `pkg/controller/podgc`).

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use api::resource::{NODES, PODS};
use api::view::core::{Node, Pod};
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::plan::Plan;

use reconcile::{NodeState, QUARANTINE, World, reconcile};

/// There is one key: the number of ended pods is that of all.
struct PodGc {
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    /// Since when nodes that pods name have been missing.
    missing: Mutex<HashMap<String, Timestamp>>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(PodGc { pods: informers.get(), nodes: informers.get(), missing: Mutex::default() })
}

#[async_trait]
impl Controller for PodGc {
    fn watch(&self, watches: &mut Watches) {
        let nodes = self.nodes.clone();
        watches.on(PODS, &self.pods, move |delta| {
            let pod = delta.object();
            let name = &pod.spec.node_name;
            let lost_node = !name.is_empty() && nodes.get("", name).is_none();
            let may_matter = pod.is_terminal() || pod.metadata.is_being_deleted() || lost_node;
            let is_gone = matches!(delta, Delta::Deleted(_));
            (may_matter && !is_gone).then(Key::default).into_iter().collect()
        });
        watches.on(NODES, &self.nodes, |delta| match delta {
            Delta::Updated { old, new } if old.spec.taints == new.spec.taints => Vec::new(),
            _ => vec![Key::default()],
        });
    }

    async fn reconcile(&self, _: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let pods = self.pods.list();
        let mut world = World { pods, nodes: BTreeMap::new() };
        for pod in &world.pods {
            let name = &pod.spec.node_name;
            if !name.is_empty() && !world.nodes.contains_key(name) {
                let state = self.node_state(name, client, now).await?;
                world.nodes.insert(name.clone(), state);
            }
        }
        self.missing.lock().retain(|name, _| world.nodes.contains_key(name));
        Ok(reconcile(&world, now))
    }
}

impl PodGc {
    async fn node_state(
        &self,
        name: &str,
        client: &Client,
        now: Timestamp,
    ) -> client::error::Result<NodeState> {
        if let Some(node) = self.nodes.get("", name) {
            self.missing.lock().remove(name);
            return Ok(if reconcile::is_out_of_service(&node) {
                NodeState::OutOfService
            } else {
                NodeState::Present
            });
        }
        let since = *self.missing.lock().entry(name.to_owned()).or_insert(now);
        let until = since.saturating_add(QUARANTINE).unwrap_or(Timestamp::MAX);
        if now < until {
            return Ok(NodeState::MissingUntil(until));
        }
        match client.get::<Node>(NODES, "", name).await {
            Ok(_) => Ok(NodeState::Present),
            Err(error) if error.is_not_found() => Ok(NodeState::Gone),
            Err(error) => Err(error),
        }
    }
}
