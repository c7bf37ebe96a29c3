//! Keeps claims that pods use, and volumes that claims are bound to, from being removed under them: a finalizer stays
//! until nobody uses the object (follows upstream's `pkg/controller/volume/{pvcprotection,pvprotection}`).

mod reconcile;

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS};
use api::view::PartialObject;
use api::view::core::Pod;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;

use reconcile::{Protection, Volume, claims_of, protect, uses};

struct Claims {
    claims: Informer<PartialObject>,
    pods: Informer<Pod>,
}

struct Volumes {
    volumes: Informer<Volume>,
}

pub fn claims(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(Claims { claims: informers.get_selected(PERSISTENT_VOLUME_CLAIMS, ""), pods: informers.get() })
}

pub fn volumes(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(Volumes { volumes: informers.get_selected(PERSISTENT_VOLUMES, "") })
}

#[async_trait]
impl Controller for Claims {
    fn watch(&self, watches: &mut Watches) {
        watches.on(PERSISTENT_VOLUME_CLAIMS, &self.claims, itself);
        // Only the end of a pod can free a claim.
        watches.on(PODS, &self.pods, |delta| {
            let pod = delta.object();
            let ended = pod.is_terminal() || matches!(delta, Delta::Deleted(_));
            let claims = claims_of(pod).into_iter().filter(|_| ended);
            claims.map(|name| Key::new(pod.metadata.namespace.clone(), name)).collect()
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let protection =
            Protection { resource: PERSISTENT_VOLUME_CLAIMS, finalizer: "kubernetes.io/pvc-protection" };
        let pods = self.pods.list_namespace(&key.namespace);
        Ok(protect(protection, &claim.metadata, || pods.iter().any(|pod| uses(pod, &key.name))))
    }
}

#[async_trait]
impl Controller for Volumes {
    fn watch(&self, watches: &mut Watches) {
        watches.on(PERSISTENT_VOLUMES, &self.volumes, itself);
    }

    async fn reconcile(&self, key: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let Some(volume) = self.volumes.get("", &key.name) else { return Ok(Plan::default()) };
        let protection =
            Protection { resource: PERSISTENT_VOLUMES, finalizer: "kubernetes.io/pv-protection" };
        Ok(protect(protection, &volume.metadata, || volume.status.phase == "Bound"))
    }
}
