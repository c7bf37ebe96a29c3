//! Recounts what the objects of a namespace use of its ResourceQuotas, when something has gone or shrunk; what comes is
//! reserved by admission (follows upstream's `pkg/controller/resourcequota`). It counts what the server has, not a
//! cache: a reservation that a cache does not know yet would be given away a second time.

mod reconcile;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use api::quota::tracked_resources;
use api::resource::{DEVICE_CLASSES, PODS, RESOURCE_CLAIMS, RESOURCE_QUOTAS, Resource, SERVICES};
use api::view::core::{Pod, ResourceQuota, Service};
use apimachinery::Value;
use apimachinery::meta::ObjectMeta;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::discovery::{Discovered, Monitors};
use crate::plan::Plan;

use reconcile::{World, hard_limits, reconcile};

/// The resource that quotas name `pods`, `deployments.apps` and so on.
type Countable = HashMap<String, Resource>;

struct ResourceQuotas {
    client: Client,
    informers: Informers,
    quotas: Informer<ResourceQuota>,
    pods: Informer<Pod>,
    services: Informer<Service>,
    countable: Arc<Mutex<Countable>>,
}

pub fn new(_: &Config, informers: &Informers, client: &Client) -> Box<dyn Controller> {
    Box::new(ResourceQuotas {
        client: client.clone(),
        informers: informers.clone(),
        quotas: informers.get(),
        pods: informers.get(),
        services: informers.get(),
        countable: Arc::default(),
    })
}

#[async_trait]
impl Controller for ResourceQuotas {
    fn watch(&self, watches: &mut Watches) {
        watches.on(RESOURCE_QUOTAS, &self.quotas, |delta| match delta {
            // Admission writes the status with every reservation.
            Delta::Updated { old, new } if hard_limits(old) == hard_limits(new) => Vec::new(),
            _ => vec![delta.object().metadata.namespaced_name()],
        });
        let quotas = self.quotas.clone();
        watches.on(PODS, &self.pods, move |delta| match delta {
            Delta::Updated { old, new } if has_shrunk(old, new) => concerned(&quotas, "pods", &new.metadata),
            _ => Vec::new(),
        });
        let quotas = self.quotas.clone();
        watches.on(SERVICES, &self.services, move |delta| match delta {
            Delta::Updated { old, new } if old.spec != new.spec => {
                concerned(&quotas, "services", &new.metadata)
            }
            _ => Vec::new(),
        });
        self.watch_all(watches);
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(quota) = self.quotas.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let mut world = World::default();
        for name in tracked_resources(&hard_limits(&quota)) {
            let resource = self.countable.lock().get(&name).copied();
            let listed = match resource {
                Some(resource) => list(client, resource, &key.namespace).await?,
                None => Vec::new(),
            };
            if resource == Some(RESOURCE_CLAIMS) {
                world.device_classes = list(client, DEVICE_CLASSES, "").await?;
            }
            world.objects.insert(name, listed);
        }
        Ok(reconcile(&quota, &world, now))
    }
}

impl ResourceQuotas {
    /// Whatever goes makes room in the quotas that count its kind.
    fn watch_all(&self, watches: &mut Watches) {
        let monitors = Monitors { client: self.client.clone(), informers: self.informers.clone() };
        let (countable, quotas) = (self.countable.clone(), self.quotas.clone());
        watches.spawn(|queue| {
            let all = quotas.clone();
            let again = queue.clone();
            monitors.run(
                move |discovered| {
                    *countable.lock() = countable_of(discovered);
                    all.list().iter().for_each(|quota| again.add(quota.metadata.namespaced_name()));
                },
                move |resource, delta| {
                    let concerned = match delta {
                        Delta::Deleted(gone) => concerned(&quotas, &name_of(resource), &gone.metadata),
                        // Of claims the metadata does not show whether they ask for less; they change seldom.
                        Delta::Updated { new, .. } if resource.plural == "persistentvolumeclaims" => {
                            concerned(&quotas, &name_of(resource), &new.metadata)
                        }
                        Delta::Added(_) | Delta::Updated { .. } => Vec::new(),
                    };
                    concerned.into_iter().for_each(|key| queue.add(key));
                },
                || {},
            )
        });
    }
}

fn countable_of(discovered: &Discovered) -> Countable {
    let listed =
        discovered.resources.iter().filter(|served| served.can("list") && served.resource.namespaced);
    listed.map(|served| (name_of(served.resource), served.resource)).collect()
}

/// How quotas name a resource.
fn name_of(resource: Resource) -> String {
    resource.group_resource().to_string()
}

/// The quotas that count objects of this resource where the object is, or was.
fn concerned(quotas: &Informer<ResourceQuota>, resource: &str, object: &ObjectMeta) -> Vec<Key> {
    let counts = |quota: &&Arc<ResourceQuota>| {
        tracked_resources(&hard_limits(quota)).iter().any(|name| name == resource)
    };
    let all = quotas.list_namespace(&object.namespace);
    all.iter().filter(counts).map(|quota| quota.metadata.namespaced_name()).collect()
}

/// Whether a pod counts for less than before: it has ended, is ending, or asks for other resources.
fn has_shrunk(old: &Pod, new: &Pod) -> bool {
    let state = |pod: &Pod| (pod.is_terminal(), pod.metadata.is_being_deleted());
    let asks = |pod: &Pod| {
        let containers = pod.spec.containers.iter().chain(&pod.spec.init_containers);
        containers.map(|container| container.resources.clone()).collect::<Vec<_>>()
    };
    state(old) != state(new) || asks(old) != asks(new) || old.spec.resources != new.spec.resources
}

async fn list(
    client: &Client,
    resource: Resource,
    namespace: &str,
) -> client::error::Result<Vec<Arc<Value>>> {
    let mut listed = client.list(resource, namespace, "").await?;
    let items = match listed.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    };
    Ok(items.into_iter().map(Arc::new).collect())
}
