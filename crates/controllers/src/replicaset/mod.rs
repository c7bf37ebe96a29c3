//! Keeps as many pods of a ReplicaSet running as it asks for (follows upstream's `pkg/controller/replicaset`).

mod ranking;
mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::{PODS, REPLICA_SETS};
use api::view::core::Pod;
use api::view::{Object, apps::ReplicaSet};
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::catalogue::Config;
use crate::controller::{Controller, Failure, FailureKind, Key, Watches, controller_of, itself};
use crate::ownership::{CONTROLLER, controller_index, orphans_of};
use crate::plan::Plan;

pub use reconcile::{World, reconcile};

struct ReplicaSets {
    replica_sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
    /// What the last attempt to create or delete pods met, for the condition ReplicaFailure.
    failures: Mutex<HashMap<Key, String>>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let (replica_sets, pods) = (informers.get::<ReplicaSet>(), informers.get::<Pod>());
    pods.add_index(CONTROLLER, |pod| controller_index(&pod.metadata));
    replica_sets.add_index(CONTROLLER, |rs| controller_index(&rs.metadata));
    Box::new(ReplicaSets { replica_sets, pods, failures: Mutex::default() })
}

#[async_trait]
impl Controller for ReplicaSets {
    fn watch(&self, watches: &mut Watches) {
        watches.on(REPLICA_SETS, &self.replica_sets, itself);
        let replica_sets = self.replica_sets.clone();
        watches.on(PODS, &self.pods, move |delta| {
            let mut keys = controller_of(delta, REPLICA_SETS);
            keys.extend(adopters(&replica_sets, delta));
            keys
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(replica_set) = self.replica_sets.get(&key.namespace, &key.name) else {
            self.failures.lock().remove(key);
            return Ok(Plan::default());
        };
        let mut world = self.world(key, &replica_set);
        if world.has_adoptable(&replica_set) {
            world.may_adopt = self.is_alive(&replica_set, client).await?;
        }
        Ok(reconcile(&replica_set, &world, now))
    }

    fn carried_out(&self, key: &Key, failure: Option<&Failure>) {
        let mut failures = self.failures.lock();
        match failure {
            Some(failure) if failure.resource == PODS && failure.kind == FailureKind::Refused => {
                failures.insert(key.clone(), failure.message.clone());
            }
            Some(_) => {}
            None => {
                failures.remove(key);
            }
        }
    }
}

impl ReplicaSets {
    fn world(&self, key: &Key, replica_set: &ReplicaSet) -> World {
        let meta = &replica_set.metadata;
        let mut pods = self.pods.by_index(CONTROLLER, &meta.uid);
        pods.extend(self.pods.by_index(CONTROLLER, &orphans_of(&meta.namespace)));
        World {
            pods,
            related: self.related(replica_set),
            may_adopt: false,
            failure: self.failures.lock().get(key).cloned(),
        }
    }

    /// Pods of all ReplicaSets under the same Deployment: those of one rollout share nodes (upstream:
    /// `getIndirectlyRelatedPods`).
    fn related(&self, replica_set: &ReplicaSet) -> Vec<Arc<Pod>> {
        let Some(owner) = replica_set.metadata.controller() else { return Vec::new() };
        let siblings = self.replica_sets.by_index(CONTROLLER, &owner.uid);
        siblings.iter().flat_map(|rs| self.pods.by_index(CONTROLLER, &rs.metadata.uid)).collect()
    }

    /// Asks the server: the cache may not know yet that the ReplicaSet is going, and what it adopts would go with it.
    async fn is_alive(&self, replica_set: &ReplicaSet, client: &Client) -> client::error::Result<bool> {
        let meta = &replica_set.metadata;
        match client.get::<ReplicaSet>(REPLICA_SETS, &meta.namespace, &meta.name).await {
            Ok(fresh) => Ok(fresh.meta().uid == meta.uid && !fresh.meta().is_being_deleted()),
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The ReplicaSets that would adopt a pod without a controller.
fn adopters(replica_sets: &Informer<ReplicaSet>, delta: &Delta<Pod>) -> Vec<Key> {
    let pod = match delta {
        Delta::Added(pod) | Delta::Updated { new: pod, .. } => &pod.metadata,
        Delta::Deleted(_) => return Vec::new(),
    };
    if pod.controller().is_some() || pod.labels.is_empty() {
        return Vec::new();
    }
    let candidates = replica_sets.list_namespace(&pod.namespace);
    let matching = candidates.iter().filter(|rs| rs.spec.selector.matches(&pod.labels));
    matching.map(|rs| rs.metadata.namespaced_name()).collect()
}
