//! Binds PersistentVolumeClaims to PersistentVolumes, has volumes made for claims, and reclaims those let go (follows
//! upstream's `pkg/controller/volume/persistentvolume`).
//!
//! A key with a namespace is a claim, one without a volume. A binding takes two turns: first either side names the
//! other, then both say in their status that they are bound. Whatever state a crash leaves is one of those a turn
//! starts from.

mod bind;
mod claim;
mod local_path;
mod provision;
mod volume;

use std::sync::Arc;

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES};
use api::view::Whole;
use api::view::core::{Node, ObjectReference, PersistentVolume, PersistentVolumeClaim, Pod};
use api::view::storage::StorageClass;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::Plan;
use crate::protection;

type Volume = Whole<PersistentVolume>;
type Claim = Whole<PersistentVolumeClaim>;

/// Claims by the volume they name.
const BY_VOLUME: &str = "volume";
/// Claims that name no volume yet, by class.
const PENDING_BY_CLASS: &str = "pending-class";
/// Volumes by the claim they are held for.
const BY_CLAIM: &str = "claim";
/// Pods by the claims they use.
const PODS_BY_CLAIM: &str = "persistentvolume-claim";

struct PersistentVolumes {
    volumes: Informer<Volume>,
    claims: Informer<Claim>,
    classes: Informer<StorageClass>,
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

/// What a claim is decided on.
pub struct World<'a> {
    pub volumes: &'a [Arc<Volume>],
    pub classes: &'a [Arc<StorageClass>],
    pub nodes: &'a [Arc<Node>],
    /// That use the claim, and have not ended.
    pub pods: &'a [Arc<Pod>],
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let controller = PersistentVolumes {
        volumes: informers.get(),
        claims: informers.get(),
        classes: informers.get(),
        nodes: informers.get(),
        pods: informers.get(),
    };
    controller.claims.add_index(BY_VOLUME, |claim| vec![claim.view.spec.volume_name.clone()]);
    controller.claims.add_index(PENDING_BY_CLASS, |claim| {
        let is_pending = claim.view.spec.volume_name.is_empty();
        is_pending.then(|| claim.view.class().to_owned()).into_iter().collect()
    });
    controller.volumes.add_index(BY_CLAIM, |volume| {
        volume.view.spec.claim_ref.iter().map(|held| claim_key(held).to_string()).collect()
    });
    controller.pods.add_index(PODS_BY_CLAIM, |pod| {
        crate::pvcprotection::usage::claims(pod).iter().map(Key::to_string).collect()
    });
    Box::new(controller)
}

fn claim_key(held: &ObjectReference) -> Key {
    Key::new(held.namespace.clone(), held.name.clone())
}

fn keys<V: api::view::Object>(objects: &[Arc<V>]) -> impl Iterator<Item = Key> {
    objects.iter().map(|object| object.meta().namespaced_name())
}

#[async_trait]
impl Controller for PersistentVolumes {
    fn watch(&self, watches: &mut Watches) {
        let claims = self.claims.clone();
        watches.on(PERSISTENT_VOLUMES, &self.volumes, move |delta| concerned_by_volume(delta, &claims));
        let volumes = self.volumes.clone();
        watches.on(PERSISTENT_VOLUME_CLAIMS, &self.claims, move |delta| concerned_by_claim(delta, &volumes));
        let claims = self.claims.clone();
        watches.on(STORAGE_CLASSES, &self.classes, move |delta| {
            let class = delta.object();
            let unclassed =
                if class.is_default() { claims.by_index(PENDING_BY_CLASS, "") } else { Vec::new() };
            let of_class = claims.by_index(PENDING_BY_CLASS, &class.metadata.name);
            keys(&of_class).chain(keys(&unclassed)).collect()
        });
        // A claim may be waiting for the node that was chosen for it.
        watches.on(api::resource::NODES, &self.nodes, |_| Vec::new());
        watches.on(api::resource::PODS, &self.pods, |_| Vec::new());
    }

    async fn reconcile(&self, key: &Key, client: &Client, _: Timestamp) -> client::error::Result<Plan> {
        if key.namespace.is_empty() {
            let Some(found) = self.volumes.get("", &key.name) else { return Ok(Plan::default()) };
            let claim = self.holder(&found, client).await?;
            return Ok(volume::reconcile(&found, claim.as_deref()));
        }
        let Some(claim) = self.claims.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let world = World {
            volumes: &self.volumes.list(),
            classes: &self.classes.list(),
            nodes: &self.nodes.list(),
            pods: &self.pods.by_index(PODS_BY_CLAIM, &key.to_string()),
        };
        Ok(claim::reconcile(&claim, &world))
    }
}

impl PersistentVolumes {
    /// The claim that holds the volume. Before a volume counts as let go, the server itself is asked: the cache may be
    /// behind the one who bound them.
    async fn holder(&self, volume: &Volume, client: &Client) -> client::error::Result<Option<Arc<Claim>>> {
        let Some(held) = volume.view.spec.claim_ref.as_ref().filter(|held| !held.uid.is_empty()) else {
            return Ok(None);
        };
        let is_it = |claim: &Claim| claim.view.metadata.uid == held.uid;
        let cached = self.claims.get(&held.namespace, &held.name);
        if cached.as_deref().is_some_and(is_it) {
            return Ok(cached);
        }
        let read = protection::read(client, PERSISTENT_VOLUME_CLAIMS, &claim_key(held)).await?;
        let claim = read.and_then(|object| apimachinery::from_value::<Claim>(object).ok());
        Ok(claim.filter(is_it).map(Arc::new))
    }
}

fn concerned_by_volume(delta: &Delta<Volume>, claims: &Informer<Claim>) -> Vec<Key> {
    let volume = &delta.object().view;
    let mut concerned = itself(delta);
    concerned.extend(keys(&claims.by_index(BY_VOLUME, &volume.metadata.name)));
    concerned.extend(volume.spec.claim_ref.as_ref().map(claim_key));
    if volume.status.phase == "Available" && !matches!(delta, Delta::Deleted(_)) {
        concerned.extend(keys(&claims.by_index(PENDING_BY_CLASS, volume.class())));
    }
    concerned
}

fn concerned_by_claim(delta: &Delta<Claim>, volumes: &Informer<Volume>) -> Vec<Key> {
    let claim = &delta.object().view;
    let mut concerned = itself(delta);
    concerned.extend(keys(&volumes.by_index(BY_CLAIM, &claim.metadata.namespaced_name().to_string())));
    concerned
}

#[cfg(test)]
mod tests;
