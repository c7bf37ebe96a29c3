//! Keeps the Endpoints of every Service that has a selector, for those who still read them (follows upstream's
//! `pkg/controller/endpoint`).

mod reconcile;
mod subsets;
#[cfg(test)]
mod tests;

use api::resource::{ENDPOINTS, PODS, SERVICES};
use api::view::core::{Endpoints, Pod, Service};
use async_trait::async_trait;
use client::{Client, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::endpointslice::{selected, services_selecting};
use crate::plan::{Action, Plan};

pub use reconcile::reconcile;

pub const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";
pub const CONTROLLER_NAME: &str = "endpoint-controller";

struct EndpointController {
    services: Informer<Service>,
    pods: Informer<Pod>,
    endpoints: Informer<Endpoints>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(EndpointController {
        services: informers.get(),
        pods: informers.get(),
        endpoints: informers.get(),
    })
}

#[async_trait]
impl Controller for EndpointController {
    fn watch(&self, watches: &mut Watches) {
        watches.on(SERVICES, &self.services, itself);
        let services = self.services.clone();
        watches.on(PODS, &self.pods, move |delta| services_selecting(&services, delta));
        watches.on(ENDPOINTS, &self.endpoints, |delta| {
            let meta = &delta.object().metadata;
            let is_ours = meta.labels.get(MANAGED_BY).is_some_and(|name| name == CONTROLLER_NAME);
            is_ours.then(|| meta.namespaced_name()).into_iter().collect()
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let endpoints = self.endpoints.get(&key.namespace, &key.name);
        let Some(service) = self.services.get(&key.namespace, &key.name) else {
            let mut plan = Plan::default();
            // Whoever made them: with their Service they mean nothing any more.
            if let Some(endpoints) = endpoints {
                plan.act(Action::delete(ENDPOINTS, &endpoints.metadata));
            }
            return Ok(plan);
        };
        Ok(reconcile(&service, &selected(&self.pods, &service), endpoints.as_deref()))
    }
}
