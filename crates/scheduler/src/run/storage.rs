//! What the scheduler hears of storage, and how a placed pod waits for its volumes.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use api::view::core::persistentvolume::SELECTED_NODE;
use api::view::core::{PersistentVolume, PersistentVolumeClaim, Pod};
use api::view::dynamicresource::ResourceClaim;
use api::view::storage::{CsiDriver, CsiNode, CsiStorageCapacity, StorageClass, VolumeAttachment};
use api::view::{Object, View};
use apimachinery::meta::ObjectMeta;
use client::{Delta, Informer, Informers};
use futures_util::StreamExt;
use futures_util::stream::{BoxStream, SelectAll, poll_fn, select_all};
use tokio::sync::Notify;

use crate::podinfo::PodInfo;
use crate::volumes::{Change, PodVolumes};
use crate::write::Versions;

/// How long a placed pod waits for its volumes before it is placed anew (upstream: `VolumeBindingArgs`).
const BIND_TIMEOUT: Duration = Duration::from_secs(600);

pub struct Storage {
    pub volumes: Informer<PersistentVolume>,
    pub claims: Informer<PersistentVolumeClaim>,
    pub classes: Informer<StorageClass>,
    pub csi_nodes: Informer<CsiNode>,
    pub csi_drivers: Informer<CsiDriver>,
    pub capacities: Informer<CsiStorageCapacity>,
    pub attachments: Informer<VolumeAttachment>,
}

impl Storage {
    pub fn new(informers: &Informers) -> Self {
        Storage {
            volumes: informers.get(),
            claims: informers.get(),
            classes: informers.get(),
            csi_nodes: informers.get(),
            csi_drivers: informers.get(),
            capacities: informers.get(),
            attachments: informers.get(),
        }
    }

    pub async fn synced(&self) {
        tokio::join!(
            self.volumes.synced(),
            self.claims.synced(),
            self.classes.synced(),
            self.csi_nodes.synced(),
            self.csi_drivers.synced(),
            self.capacities.synced(),
            self.attachments.synced(),
        );
    }

    /// All of them now, then every change.
    pub fn changes(&self) -> SelectAll<BoxStream<'static, Change>> {
        select_all([
            changes(&self.volumes, Change::Volume),
            changes(&self.claims, Change::Claim),
            changes(&self.classes, Change::Class),
            changes(&self.csi_nodes, Change::CsiNode),
            changes(&self.csi_drivers, Change::CsiDriver),
            changes(&self.capacities, Change::Capacity),
            changes(&self.attachments, Change::Attachment),
        ])
    }
}

/// The informer's deltas, each as one change among those of others.
pub fn changes<V: View, C: 'static>(informer: &Informer<V>, of: fn(Delta<V>) -> C) -> BoxStream<'static, C> {
    let mut deltas = informer.subscribe();
    poll_fn(move |cx| deltas.poll_recv(cx)).map(of).boxed()
}

/// Lets placed pods wait. Cloning shares it.
#[derive(Clone)]
pub struct Waiting {
    pub pods: Informer<Pod>,
    pub volumes: Informer<PersistentVolume>,
    pub claims: Informer<PersistentVolumeClaim>,
    pub resource_claims: Informer<ResourceClaim>,
    /// Told of each change that may end a wait.
    pub changed: Arc<Notify>,
}

impl Waiting {
    /// Until all that was decided is bound, or cannot be any more. `written` are the versions that the decision led to.
    pub async fn bound(
        &self,
        pod: &PodInfo,
        node: &str,
        decided: &PodVolumes,
        written: &Versions,
    ) -> Result<(), String> {
        let all_bound = async {
            loop {
                let mut changed = pin!(self.changed.notified());
                changed.as_mut().enable();
                if self.is_bound(pod, node, decided, written)? {
                    return Ok(());
                }
                changed.await;
            }
        };
        let outcome = tokio::time::timeout(BIND_TIMEOUT, all_bound).await;
        outcome.unwrap_or_else(|_| Err("context deadline exceeded".to_owned()))
    }

    /// Upstream: `checkBindings`.
    fn is_bound(
        &self,
        pod: &PodInfo,
        node: &str,
        decided: &PodVolumes,
        written: &Versions,
    ) -> Result<bool, String> {
        let metadata = &pod.pod.metadata;
        let known = self.pods.get(&metadata.namespace, &metadata.name);
        if !known
            .is_some_and(|known| known.metadata.uid == metadata.uid && !known.metadata.is_being_deleted())
        {
            return Err("pod does not exist any more".to_owned());
        }
        let mut all_bound = true;
        for ((volume, claim), version) in decided.bindings.iter().zip(&written.volumes) {
            let Some(volume) = heard_of(&self.volumes, &volume.metadata, *version) else {
                all_bound = false;
                continue;
            };
            if volume.spec.claim_ref.as_ref().is_none_or(|held| held.uid.is_empty()) {
                return Err(format!("ClaimRef got reset for pv {:?}", volume.metadata.name));
            }
            all_bound &= self.is_claim_bound(&claim.metadata)?;
        }
        for (claim, version) in decided.provisions.iter().zip(&written.claims) {
            let Some(heard) = heard_of(&self.claims, &claim.metadata, *version) else {
                all_bound = false;
                continue;
            };
            let name = &heard.metadata.name;
            match heard.metadata.annotations.get(SELECTED_NODE) {
                None => return Err(format!("selectedNode annotation reset for PVC {name:?}")),
                Some(selected) if selected != node => {
                    return Err(format!("provisioning failed for PVC {name:?}"));
                }
                Some(_) => all_bound &= self.is_claim_bound(&heard.metadata)?,
            }
        }
        Ok(all_bound)
    }

    fn is_claim_bound(&self, claim: &ObjectMeta) -> Result<bool, String> {
        match self.claims.get(&claim.namespace, &claim.name) {
            Some(claim) => Ok(claim.is_fully_bound()),
            None => Err(format!("persistentvolumeclaim {:?} not found", claim.name)),
        }
    }
}

/// The object, once it is known as it was written.
fn heard_of<V: Object>(informer: &Informer<V>, meta: &ObjectMeta, version: u64) -> Option<Arc<V>> {
    let object = informer.get(&meta.namespace, &meta.name)?;
    let known: u64 = object.meta().resource_version.parse().unwrap_or(u64::MAX);
    (known >= version).then_some(object)
}
