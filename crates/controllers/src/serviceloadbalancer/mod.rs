//! Answers for Services of type LoadBalancer with the nodes' own addresses, on which every node's service proxy then
//! takes their traffic. A Service with a `loadBalancerClass` is left to whoever serves that class. Its place is that of
//! upstream's service-lb-controller with a cloud behind it (`pkg/controller/service` of the cloud provider).

mod reconcile;
#[cfg(test)]
mod tests;

use api::resource::{ENDPOINT_SLICES, NODES, SERVICES};
use api::view::core::{Node, Service};
use api::view::discovery::EndpointSlice;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::plan::Plan;

pub use reconcile::announces;
use reconcile::{World, holds_addresses, is_balanced, reconcile};

/// Names the Service a slice belongs to.
const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";
const BY_SERVICE: &str = "serviceloadbalancer/service";

struct ServiceLoadBalancer {
    services: Informer<Service>,
    nodes: Informer<Node>,
    slices: Informer<EndpointSlice>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let slices: Informer<EndpointSlice> = informers.get();
    slices.add_index(BY_SERVICE, |slice| service_of(slice).map(|key| key.to_string()).into_iter().collect());
    Box::new(ServiceLoadBalancer { services: informers.get(), nodes: informers.get(), slices })
}

fn service_of(slice: &EndpointSlice) -> Option<Key> {
    let name = slice.metadata.labels.get(LABEL_SERVICE_NAME)?;
    Some(Key::new(slice.metadata.namespace.clone(), name.clone()))
}

/// All Services that are or were balanced.
fn concerned(services: &Informer<Service>) -> Vec<Key> {
    let services = services.list().into_iter();
    let concerned = services.filter(|service| is_balanced(service) || holds_addresses(service));
    concerned.map(|service| service.metadata.namespaced_name()).collect()
}

#[async_trait]
impl Controller for ServiceLoadBalancer {
    fn watch(&self, watches: &mut Watches) {
        let services = self.services.clone();
        watches.on(SERVICES, &self.services, move |delta| {
            let before = if let Delta::Updated { old, .. } = delta { Some(&**old) } else { None };
            let matters = |service: &Service| is_balanced(service) || holds_addresses(service);
            // A port that one Service takes or gives up may be another's.
            if matters(delta.object()) || before.is_some_and(matters) {
                concerned(&services)
            } else {
                Vec::new()
            }
        });
        let services = self.services.clone();
        watches.on(NODES, &self.nodes, move |delta| match delta {
            Delta::Updated { old, new } if announces(old) == announces(new) => Vec::new(),
            _ => concerned(&services),
        });
        let services = self.services.clone();
        watches.on(ENDPOINT_SLICES, &self.slices, move |delta| {
            let key = service_of(delta.object());
            let follows = |key: &Key| {
                let service = services.get(&key.namespace, &key.name);
                service.is_some_and(|s| is_balanced(&s) && s.spec.external_traffic_policy == "Local")
            };
            key.filter(follows).into_iter().collect()
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let Some(service) = self.services.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let world = World {
            nodes: self.nodes.list(),
            services: self.services.list(),
            slices: self.slices.by_index(BY_SERVICE, &key.to_string()),
        };
        Ok(reconcile(&service, &world))
    }
}
