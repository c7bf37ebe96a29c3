//! Says of every ServiceCIDR whether it is ready, and keeps one that is being deleted while Services hold addresses that
//! no other range has (follows upstream's `servicecidrs`). Which addresses are held it reads from the Services, whom their
//! IPAddresses follow.

mod reconcile;
#[cfg(test)]
mod tests;

use api::resource::{SERVICE_CIDRS, SERVICES};
use api::view::core::Service;
use api::view::networking::ServiceCIDR;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::plan::Plan;

use reconcile::reconcile;

struct ServiceCIDRs {
    ranges: Informer<ServiceCIDR>,
    services: Informer<Service>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(ServiceCIDRs { ranges: informers.get(), services: informers.get() })
}

/// The ranges that wait to go: another range, or an address given back, may let them.
fn ending(ranges: &Informer<ServiceCIDR>) -> Vec<Key> {
    let ranges = ranges.list().into_iter().filter(|range| range.metadata.is_being_deleted());
    ranges.map(|range| range.metadata.namespaced_name()).collect()
}

#[async_trait]
impl Controller for ServiceCIDRs {
    fn watch(&self, watches: &mut Watches) {
        let ranges = self.ranges.clone();
        watches.on(SERVICE_CIDRS, &self.ranges, move |delta| {
            let mut concerned = ending(&ranges);
            concerned.push(delta.object().metadata.namespaced_name());
            concerned
        });
        let ranges = self.ranges.clone();
        watches.on(SERVICES, &self.services, move |delta| match delta {
            Delta::Updated { old, new } if old.spec.cluster_ips == new.spec.cluster_ips => Vec::new(),
            _ => ending(&ranges),
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(range) = self.ranges.get("", &key.name) else { return Ok(Plan::default()) };
        Ok(reconcile(&range, &self.ranges.list(), &self.services.list(), now))
    }
}
