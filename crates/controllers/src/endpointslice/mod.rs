//! Keeps the EndpointSlices of every Service that has a selector (follows upstream's `k8s.io/endpointslice`).

mod endpoint;
mod ports;
mod reconcile;
mod slices;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use api::resource::{ENDPOINT_SLICES, NODES, PODS, SERVICES};
use api::view::core::{Node, Pod, Service};
use api::view::discovery::EndpointSlice;
use apimachinery::meta::StringMap;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;

pub use endpoint::{hostname, target};
pub use ports::named_ports_of;
pub use reconcile::{HEADLESS, World, reconcile};

/// Says to which Service a slice belongs.
pub const SERVICE_NAME: &str = "kubernetes.io/service-name";
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
pub const CONTROLLER_NAME: &str = "endpointslice-controller.k8s.io";

/// The index of slices by namespace and Service.
const BY_SERVICE: &str = "service";

struct EndpointSlices {
    services: Informer<Service>,
    pods: Informer<Pod>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let slices: Informer<EndpointSlice> = informers.get();
    slices.add_index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
    Box::new(EndpointSlices {
        services: informers.get(),
        pods: informers.get(),
        nodes: informers.get(),
        slices,
    })
}

#[async_trait]
impl Controller for EndpointSlices {
    fn watch(&self, watches: &mut Watches) {
        watches.on(SERVICES, &self.services, itself);
        let services = self.services.clone();
        watches.on(PODS, &self.pods, move |delta| services_selecting(&services, delta));
        watches.on(ENDPOINT_SLICES, &self.slices, |delta| service_of(delta.object()).into_iter().collect());
        watches.on(NODES, &self.nodes, |_| Vec::new());
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        // The slices of a Service that is gone go with it, by the garbage collector.
        let Some(service) = self.services.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let world = World {
            pods: selected(&self.pods, &service),
            zones: zones(&self.nodes.list()),
            slices: self.slices.by_index(BY_SERVICE, &key.to_string()),
        };
        Ok(reconcile(&service, &world))
    }
}

fn zones(nodes: &[Arc<Node>]) -> StringMap {
    let zone = |node: &Node| node.metadata.labels.get("topology.kubernetes.io/zone").cloned();
    nodes.iter().filter_map(|node| Some((node.metadata.name.clone(), zone(node)?))).collect()
}

/// The Service of a slice that this controller manages.
fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let labels = &slice.metadata.labels;
    let is_ours = labels.get(MANAGED_BY).is_some_and(|name| name == CONTROLLER_NAME);
    let service = labels.get(SERVICE_NAME).filter(|_| is_ours)?;
    Some(Key::new(slice.metadata.namespace.clone(), service.clone()))
}

/// The pods that a Service's selector matches.
pub fn selected(pods: &Informer<Pod>, service: &Service) -> Vec<Arc<Pod>> {
    let mut pods = pods.list_namespace(&service.metadata.namespace);
    pods.retain(|pod| selects(service, &pod.metadata.labels));
    pods
}

fn selects(service: &Service, labels: &StringMap) -> bool {
    let selector = &service.spec.selector;
    !selector.is_empty() && selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

/// The Services whose endpoints a pod's change may touch: those that select it, or did.
pub fn services_selecting(services: &Informer<Service>, delta: &Delta<Pod>) -> Vec<Key> {
    let pod = delta.object();
    let former = match delta {
        Delta::Updated { old, new } if !endpoint::differs(old, new) => return Vec::new(),
        Delta::Updated { old, .. } => Some(&old.metadata.labels),
        Delta::Added(_) | Delta::Deleted(_) => None,
    };
    let candidates = services.list_namespace(&pod.metadata.namespace);
    let concerned = candidates.iter().filter(|service| {
        selects(service, &pod.metadata.labels) || former.is_some_and(|labels| selects(service, labels))
    });
    concerned.map(|service| service.metadata.namespaced_name()).collect()
}
