//! Keeps as many pods of a ReplicaSet, or of a ReplicationController, running as it asks for (follows upstream's
//! `pkg/controller/replicaset` and `pkg/controller/replication`).

mod ranking;
mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::PODS;
use api::view::View;
use api::view::apps::{ReplicaSet, ReplicationController};
use api::view::core::Pod;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::catalogue::Config;
use crate::controller::{Controller, Failure, FailureKind, Key, Watches, controller_of, itself};
use crate::ownership::{CONTROLLER, controller_index, is_alive, orphans_of};
use crate::plan::Plan;

pub use reconcile::{World, reconcile};

struct ReplicaSets<V> {
    replica_sets: Informer<V>,
    pods: Informer<Pod>,
    /// What the last attempt to create or delete pods met, for the condition ReplicaFailure.
    failures: Mutex<HashMap<Key, String>>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    of::<ReplicaSet>(informers)
}

pub fn replication_controllers(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    of::<ReplicationController>(informers)
}

fn of<V: View + AsRef<ReplicaSet>>(informers: &Informers) -> Box<dyn Controller> {
    let (replica_sets, pods) = (informers.get::<V>(), informers.get::<Pod>());
    pods.add_index(CONTROLLER, |pod| controller_index(&pod.metadata));
    replica_sets.add_index(CONTROLLER, |set| controller_index(set.meta()));
    Box::new(ReplicaSets { replica_sets, pods, failures: Mutex::default() })
}

#[async_trait]
impl<V: View + AsRef<ReplicaSet>> Controller for ReplicaSets<V> {
    fn watch(&self, watches: &mut Watches) {
        watches.on(V::RESOURCE, &self.replica_sets, itself);
        let replica_sets = self.replica_sets.clone();
        watches.on(PODS, &self.pods, move |delta| {
            let mut keys = controller_of(delta, V::RESOURCE);
            keys.extend(adopters(&replica_sets, delta));
            keys
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(replica_set) = self.replica_sets.get(&key.namespace, &key.name) else {
            self.failures.lock().remove(key);
            return Ok(Plan::default());
        };
        let replica_set = (*replica_set).as_ref();
        let mut world = self.world(key, replica_set);
        if world.has_adoptable(replica_set) {
            world.may_adopt = is_alive::<V>(client, &replica_set.metadata).await?;
        }
        Ok(reconcile(V::RESOURCE, replica_set, &world, now))
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

impl<V: View + AsRef<ReplicaSet>> ReplicaSets<V> {
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
        siblings.iter().flat_map(|set| self.pods.by_index(CONTROLLER, &set.meta().uid)).collect()
    }
}

/// The ReplicaSets that would adopt a pod without a controller.
fn adopters<V: View + AsRef<ReplicaSet>>(replica_sets: &Informer<V>, delta: &Delta<Pod>) -> Vec<Key> {
    let pod = match delta {
        Delta::Added(pod) | Delta::Updated { new: pod, .. } => &pod.metadata,
        Delta::Deleted(_) => return Vec::new(),
    };
    if pod.controller().is_some() || pod.labels.is_empty() {
        return Vec::new();
    }
    let candidates = replica_sets.list_namespace(&pod.namespace);
    let matching = candidates.iter().filter(|set| set.as_ref().as_ref().spec.selector.matches(&pod.labels));
    matching.map(|set| set.meta().namespaced_name()).collect()
}
