//! Keeps a PersistentVolumeClaim that is being deleted until no pod uses it (follows upstream's `pvcprotection`).

pub mod usage;

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PODS};
use api::view::PartialObject;
use api::view::core::Pod;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;
use crate::protection;

const FINALIZER: &str = "kubernetes.io/pvc-protection";

struct PvcProtection {
    claims: Informer<PartialObject>,
    pods: Informer<Pod>,
}

#[derive(Deserialize)]
struct PodList {
    items: Vec<Pod>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(PvcProtection {
        claims: informers.get_selected(PERSISTENT_VOLUME_CLAIMS, ""),
        pods: informers.get(),
    })
}

#[async_trait]
impl Controller for PvcProtection {
    fn watch(&self, watches: &mut Watches) {
        watches.on(PERSISTENT_VOLUME_CLAIMS, &self.claims, |delta| match delta {
            Delta::Deleted(_) => Vec::new(),
            _ if protection::is_due(&delta.object().metadata, FINALIZER) => itself(delta),
            _ => Vec::new(),
        });
        watches.on(PODS, &self.pods, claims_let_go);
    }

    async fn reconcile(&self, key: &Key, client: &Client, _: Timestamp) -> client::error::Result<Plan> {
        let cached = self.claims.get(&key.namespace, &key.name);
        if !cached.is_some_and(|claim| protection::is_due(&claim.metadata, FINALIZER)) {
            return Ok(Plan::default());
        }
        let Some(claim) = protection::read(client, PERSISTENT_VOLUME_CLAIMS, key).await? else {
            return Ok(Plan::default());
        };
        let is_used = protection::is_being_deleted(&claim) && {
            let seen = self.pods.list_namespace(&key.namespace);
            // A pod may not have reached the cache yet: only the server can tell that there is none.
            seen.iter().any(|pod| usage::uses(pod, &claim))
                || pods(client, &key.namespace).await?.iter().any(|pod| usage::uses(pod, &claim))
        };
        Ok(protection::reconcile(PERSISTENT_VOLUME_CLAIMS, &claim, FINALIZER, is_used))
    }
}

/// The claims of a pod whose change may have ended their use.
fn claims_let_go(delta: &Delta<Pod>) -> Vec<Key> {
    let pod = delta.object();
    let may_let_go = matches!(delta, Delta::Deleted(_))
        || pod.is_terminal()
        || pod.metadata.is_being_deleted()
        || pod.spec.node_name.is_empty();
    let mut keys = if may_let_go { usage::claims(pod) } else { Vec::new() };
    if let Delta::Updated { old, .. } = delta
        && old.metadata.uid != pod.metadata.uid
    {
        keys.extend(usage::claims(old));
    }
    keys
}

async fn pods(client: &Client, namespace: &str) -> client::error::Result<Vec<Pod>> {
    let list: PodList = client.json(Method::GET, &PODS.collection_path(namespace), None).await?;
    Ok(list.items)
}
