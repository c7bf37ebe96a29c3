//! Tells of claims that ask for more than their volume has: no plugin of Kubernetes' own grows volumes, so their drivers'
//! resizers are waited for (follows upstream's `pkg/controller/volume/expand`).

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use api::view::core::{PersistentVolume, PersistentVolumeClaim};
use apimachinery::quantity::Quantity;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::{Event, Plan, reference};

const WAITING: &str = "waiting for an external controller to expand this PVC";

struct Expand {
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(Expand { claims: informers.get(), volumes: informers.get() })
}

#[async_trait]
impl Controller for Expand {
    fn watch(&self, watches: &mut Watches) {
        watches.on(PERSISTENT_VOLUME_CLAIMS, &self.claims, |delta| match delta {
            Delta::Updated { old, new } if new.request() <= old.request() => Vec::new(),
            Delta::Deleted(_) => Vec::new(),
            _ => itself(delta),
        });
        watches.on(PERSISTENT_VOLUMES, &self.volumes, |_| Vec::new());
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let volume = self.volumes.get("", &claim.spec.volume_name);
        Ok(volume.map(|volume| reconcile(&claim, &volume)).unwrap_or_default())
    }
}

fn reconcile(claim: &PersistentVolumeClaim, volume: &PersistentVolume) -> Plan {
    let mut plan = Plan::default();
    let has: Quantity =
        claim.status.capacity.get("storage").and_then(|size| size.parse().ok()).unwrap_or_default();
    let is_theirs = volume.spec.claim_ref.as_ref().is_some_and(|held| held.uid == claim.metadata.uid);
    if claim.status.phase == "Bound" && is_theirs && claim.request() > has {
        let regarding = reference(PERSISTENT_VOLUME_CLAIMS, &claim.metadata);
        plan.events.push(Event::normal(regarding, "ExternalExpanding", WAITING));
    }
    plan
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn only_a_bound_claim_that_asks_for_more_is_told_of() {
        let check = |phase: &str, wanted: &str, holder: &str, expect: usize| {
            let claim =
                apimachinery::from_value(json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"},
                "spec": {"resources": {"requests": {"storage": wanted}}, "volumeName": "v"},
                "status": {"phase": phase, "capacity": {"storage": "1Gi"}}}))
                .expect("a claim");
            let volume =
                apimachinery::from_value(json!({"spec": {"claimRef": {"uid": holder}}})).expect("a volume");
            assert_eq!(reconcile(&claim, &volume).events.len(), expect, "{phase} {wanted} {holder}");
        };
        check("Bound", "2Gi", "u", 1);
        check("Bound", "1Gi", "u", 0);
        check("Bound", "2Gi", "other", 0);
        check("Pending", "2Gi", "u", 0);
    }
}
