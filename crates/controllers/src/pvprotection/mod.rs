//! Keeps a PersistentVolume that is being deleted until it is no longer bound (follows upstream's `pvprotection`).

use api::resource::PERSISTENT_VOLUMES;
use api::view::PartialObject;
use apimachinery::Value;
use apimachinery::meta::str_at;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;
use crate::protection;

const FINALIZER: &str = "kubernetes.io/pv-protection";

struct PvProtection {
    volumes: Informer<PartialObject>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(PvProtection { volumes: informers.get_selected(PERSISTENT_VOLUMES, "") })
}

#[async_trait]
impl Controller for PvProtection {
    fn watch(&self, watches: &mut Watches) {
        watches.on(PERSISTENT_VOLUMES, &self.volumes, |delta| match delta {
            Delta::Deleted(_) => Vec::new(),
            _ if protection::is_due(&delta.object().metadata, FINALIZER) => itself(delta),
            _ => Vec::new(),
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let volume = protection::read(client, PERSISTENT_VOLUMES, key).await?;
        Ok(volume.map_or_else(Plan::default, |volume| reconcile(&volume)))
    }
}

fn reconcile(volume: &Value) -> Plan {
    let is_bound = str_at(volume, &["status", "phase"]) == "Bound";
    protection::reconcile(PERSISTENT_VOLUMES, volume, FINALIZER, is_bound)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_volume_that_is_being_deleted_is_kept_only_while_bound() {
        let volume = |phase: &str| {
            json!({"metadata": {"name": "v", "finalizers": [FINALIZER],
                "deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"phase": phase}})
        };
        assert!(reconcile(&volume("Bound")).is_empty());
        for phase in ["", "Pending", "Available", "Released", "Failed"] {
            assert_eq!(reconcile(&volume(phase)).steps.len(), 1, "{phase}");
        }
    }
}
