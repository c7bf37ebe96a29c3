//! Mirrors Endpoints that someone made for a Service without a selector into EndpointSlices, which are all that
//! proxies read (follows upstream's `pkg/controller/endpointslicemirroring`).

mod reconcile;
#[cfg(test)]
mod tests;

use api::resource::{ENDPOINT_SLICES, ENDPOINTS, SERVICES};
use api::view::core::{Endpoints, Service};
use api::view::discovery::EndpointSlice;
use async_trait::async_trait;
use client::{Client, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::endpointslice::{MANAGED_BY, SERVICE_NAME};
use crate::plan::Plan;

pub use reconcile::reconcile;

pub const CONTROLLER_NAME: &str = "endpointslicemirroring-controller.k8s.io";

/// The index of mirrored slices by namespace and Endpoints.
const MIRRORED: &str = "mirrored";

struct EndpointSliceMirroring {
    endpoints: Informer<Endpoints>,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let slices: Informer<EndpointSlice> = informers.get();
    slices.add_index(MIRRORED, |slice| mirrored(slice).map(|key| key.to_string()).into_iter().collect());
    Box::new(EndpointSliceMirroring { endpoints: informers.get(), services: informers.get(), slices })
}

#[async_trait]
impl Controller for EndpointSliceMirroring {
    fn watch(&self, watches: &mut Watches) {
        watches.on(ENDPOINTS, &self.endpoints, itself);
        watches.on(SERVICES, &self.services, itself);
        watches.on(ENDPOINT_SLICES, &self.slices, |delta| mirrored(delta.object()).into_iter().collect());
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let endpoints = self.endpoints.get(&key.namespace, &key.name);
        let service = self.services.get(&key.namespace, &key.name);
        let slices = self.slices.by_index(MIRRORED, &key.to_string());
        Ok(reconcile(endpoints.as_deref(), service.as_deref(), &slices))
    }
}

/// The Endpoints that a slice of this controller mirrors.
fn mirrored(slice: &EndpointSlice) -> Option<Key> {
    let labels = &slice.metadata.labels;
    let is_ours = labels.get(MANAGED_BY).is_some_and(|name| name == CONTROLLER_NAME);
    let name = labels.get(SERVICE_NAME).filter(|_| is_ours)?;
    Some(Key::new(slice.metadata.namespace.clone(), name.clone()))
}
