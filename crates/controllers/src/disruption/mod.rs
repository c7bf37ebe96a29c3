//! Counts for each PodDisruptionBudget how many of its pods may be evicted now, and takes back announcements of
//! disruptions that did not come (follows upstream's `pkg/controller/disruption`).

mod reconcile;
mod stale;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use api::resource::{
    DEPLOYMENTS, POD_DISRUPTION_BUDGETS, PODS, REPLICA_SETS, REPLICATION_CONTROLLERS, Resource, STATEFUL_SETS,
};
use api::view::View;
use api::view::apps::{Deployment, ReplicaSet, ReplicationController, StatefulSet};
use api::view::core::Pod;
use api::view::policy::PodDisruptionBudget;
use apimachinery::GroupVersion;
use apimachinery::meta::{ObjectMeta, OwnerReference};
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;
use crate::scale;

use reconcile::{Scaled, World, needs_scales, reconcile};
pub use stale::new as stale;

struct Disruptions {
    budgets: Informer<PodDisruptionBudget>,
    pods: Informer<Pod>,
    owners: Owners,
}

/// What the scales of the usual owners are read from.
struct Owners {
    deployments: Informer<Deployment>,
    replica_sets: Informer<ReplicaSet>,
    replication_controllers: Informer<ReplicationController>,
    stateful_sets: Informer<StatefulSet>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let owners = Owners {
        deployments: informers.get(),
        replica_sets: informers.get(),
        replication_controllers: informers.get(),
        stateful_sets: informers.get(),
    };
    Box::new(Disruptions { budgets: informers.get(), pods: informers.get(), owners })
}

#[async_trait]
impl Controller for Disruptions {
    fn watch(&self, watches: &mut Watches) {
        watches.on(POD_DISRUPTION_BUDGETS, &self.budgets, itself);
        let budgets = self.budgets.clone();
        watches.on(PODS, &self.pods, move |delta| {
            let mut metas = vec![&delta.object().metadata];
            if let Delta::Updated { old, .. } = delta {
                metas.push(&old.metadata);
            }
            let all = budgets.list_namespace(&metas[0].namespace);
            let concerned = all.iter().filter(|budget| metas.iter().any(|meta| budget.selects(meta)));
            concerned.map(|budget| budget.metadata.namespaced_name()).collect()
        });
        // Their sizes are only read, but must be there before the first count.
        fn none<V: View>(_: &Delta<V>) -> Vec<Key> {
            Vec::new()
        }
        watches.on(DEPLOYMENTS, &self.owners.deployments, none);
        watches.on(REPLICA_SETS, &self.owners.replica_sets, none);
        watches.on(REPLICATION_CONTROLLERS, &self.owners.replication_controllers, none);
        watches.on(STATEFUL_SETS, &self.owners.stateful_sets, none);
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(budget) = self.budgets.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let mut pods = self.pods.list_namespace(&key.namespace);
        pods.retain(|pod| budget.selects(&pod.metadata));
        let budgets = self.budgets.list_namespace(&key.namespace);
        let mut scales = BTreeMap::new();
        if needs_scales(&budget) {
            for owner in pods.iter().filter_map(|pod| pod.metadata.controller()) {
                if !scales.contains_key(&owner.uid) {
                    let scaled = self.owners.scale(owner, &key.namespace, client).await;
                    scales.insert(owner.uid.clone(), scaled);
                }
            }
        }
        Ok(reconcile(&budget, &World { pods, budgets, scales }, now))
    }
}

impl Owners {
    /// What stands behind a pod's controller, and its size. A ReplicaSet of a Deployment counts as the Deployment.
    async fn scale(
        &self,
        owner: &OwnerReference,
        namespace: &str,
        client: &Client,
    ) -> Result<Option<Scaled>, String> {
        let Some(version) = GroupVersion::parse(&owner.api_version) else {
            return Err(format!("unexpected GroupVersion string: {}", owner.api_version));
        };
        let found = match (version.group.as_str(), owner.kind.as_str()) {
            ("", "ReplicationController") => {
                let set = self.replication_controllers.get(namespace, &owner.name);
                set.and_then(|set| sized(owner, &set.0.metadata, set.0.spec.replicas))
            }
            ("apps" | "extensions", "ReplicaSet") => self.replica_set(owner, namespace),
            ("apps", "StatefulSet") => {
                let set = self.stateful_sets.get(namespace, &owner.name);
                set.and_then(|set| sized(owner, &set.metadata, set.spec.replicas))
            }
            _ => None,
        };
        match found {
            Some(found) => Ok(Some(found)),
            None => by_subresource(owner, &version, namespace, client).await,
        }
    }

    fn replica_set(&self, owner: &OwnerReference, namespace: &str) -> Option<Scaled> {
        let set = self.replica_sets.get(namespace, &owner.name)?;
        match set.metadata.controller().filter(|above| above.kind == DEPLOYMENTS.kind) {
            None => sized(owner, &set.metadata, set.spec.replicas),
            Some(above) if set.metadata.uid == owner.uid => {
                let deployment = self.deployments.get(namespace, &above.name)?;
                sized(above, &deployment.metadata, deployment.spec.replicas)
            }
            Some(_) => None,
        }
    }
}

fn sized(owner: &OwnerReference, found: &ObjectMeta, replicas: Option<i32>) -> Option<Scaled> {
    let is_same = found.uid == owner.uid;
    is_same.then(|| Scaled { uid: found.uid.clone(), replicas: replicas.unwrap_or(1) })
}

/// Asks the server for the scale of an owner of any kind.
async fn by_subresource(
    owner: &OwnerReference,
    version: &GroupVersion,
    namespace: &str,
    client: &Client,
) -> Result<Option<Scaled>, String> {
    let resource: Option<Resource> =
        scale::resource_of(client, version, &owner.kind).await.map_err(|error| error.to_string())?;
    let Some(resource) = resource else {
        return Err(format!("no matches for kind {:?} in version {:?}", owner.kind, owner.api_version));
    };
    match scale::get(client, resource, namespace, &owner.name).await {
        Ok(scale) if scale.metadata.uid == owner.uid => {
            Ok(Some(Scaled { uid: owner.uid.clone(), replicas: scale.spec.replicas }))
        }
        Ok(_) => Ok(None),
        Err(error) if error.is_not_found() && !has_scale(resource) => {
            Err(format!("{} does not implement the scale subresource", resource.group_resource()))
        }
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

/// Whether a missing scale means a missing object. Of kinds outside of the table nothing is known.
fn has_scale(resource: Resource) -> bool {
    let row = api::catalogue::by_kind(resource.group, resource.version, resource.kind);
    row.is_some_and(|row| row.subresource("scale").is_some())
}
