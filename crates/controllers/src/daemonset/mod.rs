//! Runs a pod of a DaemonSet on every node that it is for (follows upstream's `pkg/controller/daemon`).

mod nodes;
mod pods;
mod reconcile;
mod rollout;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use api::resource::{CONTROLLER_REVISIONS, DAEMON_SETS, NODES, PODS};
use api::view::apps::{ControllerRevision, DaemonSet};
use api::view::core::{Node, Pod};
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, controller_of, itself};
use crate::ownership::{CONTROLLER, controller_index, is_alive, orphans_of};
use crate::plan::Plan;

pub use reconcile::{World, reconcile};

/// The pause before a failed pod is replaced grows from the first to the second (upstream: `failedPodsBackoff`).
const BACKOFF_MIN: SignedDuration = SignedDuration::from_secs(1);
const BACKOFF_MAX: SignedDuration = SignedDuration::from_mins(15);

struct DaemonSets {
    daemon_sets: Informer<DaemonSet>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    revisions: Informer<ControllerRevision>,
    backoffs: Mutex<HashMap<(Key, String), Backoff>>,
}

#[derive(Clone, Copy)]
struct Backoff {
    pause: SignedDuration,
    since: Timestamp,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let pods = informers.get::<Pod>();
    pods.add_index(CONTROLLER, |pod| controller_index(&pod.metadata));
    Box::new(DaemonSets {
        daemon_sets: informers.get(),
        nodes: informers.get(),
        pods,
        revisions: informers.get(),
        backoffs: Mutex::default(),
    })
}

#[async_trait]
impl Controller for DaemonSets {
    fn watch(&self, watches: &mut Watches) {
        watches.on(DAEMON_SETS, &self.daemon_sets, itself);
        watches.on(CONTROLLER_REVISIONS, &self.revisions, |delta| controller_of(delta, DAEMON_SETS));
        let daemon_sets = self.daemon_sets.clone();
        watches.on(PODS, &self.pods, move |delta| {
            let mut keys = controller_of(delta, DAEMON_SETS);
            keys.extend(adopters(&daemon_sets, delta));
            keys
        });
        let daemon_sets = self.daemon_sets.clone();
        watches.on(NODES, &self.nodes, move |delta| {
            if changes_placement(delta) {
                daemon_sets.list().iter().map(|set| set.metadata.namespaced_name()).collect()
            } else {
                Vec::new()
            }
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(daemon_set) = self.daemon_sets.get(&key.namespace, &key.name) else {
            self.backoffs.lock().retain(|(owner, _), _| owner != key);
            return Ok(Plan::default());
        };
        let mut world = self.world(&daemon_set);
        if world.has_adoptable(&daemon_set) {
            world.may_adopt = is_alive::<DaemonSet>(client, &daemon_set.metadata).await?;
        }
        world.paused_nodes = self.paused_nodes(key, &world, now);
        Ok(reconcile(&daemon_set, &world, now))
    }
}

impl DaemonSets {
    fn world(&self, daemon_set: &DaemonSet) -> World {
        let meta = &daemon_set.metadata;
        let mut pods = self.pods.by_index(CONTROLLER, &meta.uid);
        pods.extend(self.pods.by_index(CONTROLLER, &orphans_of(&meta.namespace)));
        World {
            pods,
            nodes: self.nodes.list(),
            revisions: self.revisions.list_namespace(&meta.namespace),
            may_adopt: false,
            paused_nodes: HashMap::new(),
        }
    }

    /// Nodes on which a failed pod stays a while, and until when.
    fn paused_nodes(&self, key: &Key, world: &World, now: Timestamp) -> HashMap<String, Timestamp> {
        let failed =
            world.pods.iter().filter(|pod| pod.status.phase == "Failed" && !pod.metadata.is_being_deleted());
        let mut backoffs = self.backoffs.lock();
        let mut paused = HashMap::new();
        for node in failed.map(|pod| pod.spec.node_name.clone()) {
            let backoff = backoffs
                .entry((key.clone(), node.clone()))
                .or_insert(Backoff { pause: SignedDuration::ZERO, since: now });
            let until = backoff.since.checked_add(backoff.pause).unwrap_or(now);
            if until > now {
                paused.insert(node, until);
            } else {
                let pause = (backoff.pause * 2).clamp(BACKOFF_MIN, BACKOFF_MAX);
                *backoff = Backoff { pause, since: now };
            }
        }
        paused
    }
}

/// The DaemonSets that would adopt a pod without a controller.
fn adopters(daemon_sets: &Informer<DaemonSet>, delta: &Delta<Pod>) -> Vec<Key> {
    let pod = match delta {
        Delta::Added(pod) | Delta::Updated { new: pod, .. } => &pod.metadata,
        Delta::Deleted(_) => return Vec::new(),
    };
    if pod.controller().is_some() || pod.labels.is_empty() {
        return Vec::new();
    }
    let candidates = daemon_sets.list_namespace(&pod.namespace);
    let matching = candidates.iter().filter(|set| set.spec.selector.matches(&pod.labels));
    matching.map(|set| set.metadata.namespaced_name()).collect()
}

/// Heartbeats of nodes concern nobody here.
fn changes_placement(delta: &Delta<Node>) -> bool {
    match delta {
        Delta::Updated { old, new } => {
            old.metadata.labels != new.metadata.labels
                || old.spec.taints != new.spec.taints
                || old.spec.unschedulable != new.spec.unschedulable
        }
        Delta::Added(_) | Delta::Deleted(_) => true,
    }
}
