//! Rolls a Deployment's pod template out through ReplicaSets (follows upstream's `pkg/controller/deployment`).

mod draft;
mod reconcile;
mod replicas;
mod revision;
mod rollout;
mod scale;
mod status;
mod template;
#[cfg(test)]
mod tests;

use api::resource::{DEPLOYMENTS, PODS, REPLICA_SETS};
use api::view::apps::{Deployment, ReplicaSet};
use api::view::core::Pod;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, controller_of, itself};
use crate::ownership::{CONTROLLER, controller_index, is_alive};
use crate::plan::Plan;

pub use reconcile::{World, reconcile};

struct Deployments {
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    pods: Informer<Pod>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let controller =
        Deployments { deployments: informers.get(), replica_sets: informers.get(), pods: informers.get() };
    controller.pods.add_index(CONTROLLER, |pod| controller_index(&pod.metadata));
    Box::new(controller)
}

#[async_trait]
impl Controller for Deployments {
    fn watch(&self, watches: &mut Watches) {
        watches.on(DEPLOYMENTS, &self.deployments, itself);
        let deployments = self.deployments.clone();
        watches.on(REPLICA_SETS, &self.replica_sets, move |delta| {
            let mut keys = controller_of(delta, DEPLOYMENTS);
            keys.extend(adopters(&deployments, delta));
            keys
        });
        let replica_sets = self.replica_sets.clone();
        // Only Recreate cares about pods: it goes on when the last old one is gone.
        watches.on(PODS, &self.pods, move |delta| match delta {
            Delta::Deleted(pod) => deployment_of(&replica_sets, pod).into_iter().collect(),
            Delta::Added(_) | Delta::Updated { .. } => Vec::new(),
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(deployment) = self.deployments.get(&key.namespace, &key.name) else {
            return Ok(Plan::default());
        };
        let mut world = self.world(&deployment);
        if world.has_adoptable() {
            world.may_adopt = is_alive::<Deployment>(client, &deployment.metadata).await?;
        }
        Ok(reconcile(&deployment, &world, now))
    }
}

impl Deployments {
    fn world(&self, deployment: &Deployment) -> World {
        let replica_sets = self.replica_sets.list_namespace(&deployment.metadata.namespace);
        let owned = replica_sets.iter().filter(|rs| rs.metadata.is_controlled_by(&deployment.metadata.uid));
        let pods = owned.flat_map(|rs| self.pods.by_index(CONTROLLER, &rs.metadata.uid)).collect();
        World::new(deployment, replica_sets, pods)
    }
}

fn deployment_of(replica_sets: &Informer<ReplicaSet>, pod: &Pod) -> Option<Key> {
    let owner = pod.metadata.controller().filter(|owner| owner.kind == REPLICA_SETS.kind)?;
    let replica_set = replica_sets.get(&pod.metadata.namespace, &owner.name)?;
    let deployment = replica_set.metadata.controller().filter(|owner| owner.kind == DEPLOYMENTS.kind)?;
    Some(Key::new(pod.metadata.namespace.clone(), deployment.name.clone()))
}

/// The Deployments that would adopt a ReplicaSet without a controller.
fn adopters(deployments: &Informer<Deployment>, delta: &Delta<ReplicaSet>) -> Vec<Key> {
    let replica_set = match delta {
        Delta::Added(rs) | Delta::Updated { new: rs, .. } => &rs.metadata,
        Delta::Deleted(_) => return Vec::new(),
    };
    if replica_set.controller().is_some() || replica_set.labels.is_empty() {
        return Vec::new();
    }
    let candidates = deployments.list_namespace(&replica_set.namespace);
    let matching = candidates.iter().filter(|d| d.spec.selector.matches(&replica_set.labels));
    matching.map(|d| d.metadata.namespaced_name()).collect()
}
