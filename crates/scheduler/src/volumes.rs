//! Volumes, claims and what is known of storage, kept up to date from changes (upstream: the assume caches of
//! `volumebinding`).
//!
//! A binding that a decision has made is assumed until the API server tells of the object again, so that the next
//! decision does not give the same volume away.

use std::sync::Arc;

use api::resource::PERSISTENT_VOLUME_CLAIMS;
use api::view::core::persistentvolume::{BOUND_BY_CONTROLLER, SELECTED_NODE};
use api::view::core::{ObjectReference, PersistentVolume, PersistentVolumeClaim};
use api::view::storage::{CsiDriver, CsiNode, CsiStorageCapacity, StorageClass, VolumeAttachment};
use apimachinery::meta::NamespacedName;
use client::Delta;

use crate::framework::ClusterEvent;
use crate::objects::{Objects, put};

#[derive(Clone, Debug, Default)]
pub struct Volumes {
    volumes: Objects<PersistentVolume>,
    claims: Objects<PersistentVolumeClaim>,
    classes: Objects<StorageClass>,
    csi_nodes: Objects<CsiNode>,
    csi_drivers: Objects<CsiDriver>,
    capacities: Objects<CsiStorageCapacity>,
    attachments: Objects<VolumeAttachment>,
    /// As decided, but not yet heard of.
    assumed_volumes: Objects<PersistentVolume>,
    assumed_claims: Objects<PersistentVolumeClaim>,
}

/// A change of any of these.
pub enum Change {
    Volume(Delta<PersistentVolume>),
    Claim(Delta<PersistentVolumeClaim>),
    Class(Delta<StorageClass>),
    CsiNode(Delta<CsiNode>),
    CsiDriver(Delta<CsiDriver>),
    Capacity(Delta<CsiStorageCapacity>),
    Attachment(Delta<VolumeAttachment>),
}

/// What a pod's placement needs of its volumes before the pod may be bound.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PodVolumes {
    /// Volumes that are there, as they are to be, and the claims that get them.
    pub bindings: Vec<(Arc<PersistentVolume>, Arc<PersistentVolumeClaim>)>,
    /// Claims, as they are to be, whose volumes are to be made for the node.
    pub provisions: Vec<Arc<PersistentVolumeClaim>>,
}

impl PodVolumes {
    pub fn is_empty(&self) -> bool {
        self.bindings.is_empty() && self.provisions.is_empty()
    }

    pub fn add_binding(&mut self, volume: &PersistentVolume, claim: &Arc<PersistentVolumeClaim>) {
        let mut volume = volume.clone();
        if !volume.is_bound_to(claim) {
            volume.metadata.annotations.insert(BOUND_BY_CONTROLLER.to_owned(), "yes".to_owned());
        }
        volume.spec.claim_ref = Some(reference(claim));
        self.bindings.push((Arc::new(volume), claim.clone()));
    }

    pub fn add_provision(&mut self, claim: &PersistentVolumeClaim, node: &str) {
        let mut claim = claim.clone();
        claim.metadata.annotations.insert(SELECTED_NODE.to_owned(), node.to_owned());
        self.provisions.push(Arc::new(claim));
    }
}

fn reference(claim: &PersistentVolumeClaim) -> ObjectReference {
    ObjectReference {
        kind: PERSISTENT_VOLUME_CLAIMS.kind.to_owned(),
        api_version: PERSISTENT_VOLUME_CLAIMS.api_version(),
        namespace: claim.metadata.namespace.clone(),
        name: claim.metadata.name.clone(),
        uid: claim.metadata.uid.clone(),
        resource_version: claim.metadata.resource_version.clone(),
        field_path: String::new(),
    }
}

impl Volumes {
    /// Takes a change and says what it may mean for waiting pods.
    pub fn apply(&mut self, change: &Change) -> ClusterEvent {
        match change {
            Change::Volume(delta) => {
                self.assumed_volumes.remove(&put(&mut self.volumes, delta));
                ClusterEvent::PersistentVolume
            }
            Change::Claim(delta) => {
                self.assumed_claims.remove(&put(&mut self.claims, delta));
                ClusterEvent::PersistentVolumeClaim
            }
            Change::Class(delta) => {
                put(&mut self.classes, delta);
                ClusterEvent::StorageClass
            }
            Change::CsiNode(delta) => {
                put(&mut self.csi_nodes, delta);
                ClusterEvent::CsiNode
            }
            Change::CsiDriver(delta) => {
                put(&mut self.csi_drivers, delta);
                ClusterEvent::CsiDriver
            }
            Change::Capacity(delta) => {
                put(&mut self.capacities, delta);
                ClusterEvent::CsiStorageCapacity
            }
            Change::Attachment(delta) => {
                put(&mut self.attachments, delta);
                ClusterEvent::VolumeAttachment
            }
        }
    }

    /// From now on the decision counts as carried out.
    pub fn assume(&mut self, decided: &PodVolumes) {
        for (volume, _) in &decided.bindings {
            self.assumed_volumes.insert(volume.metadata.namespaced_name(), volume.clone());
        }
        for claim in &decided.provisions {
            self.assumed_claims.insert(claim.metadata.namespaced_name(), claim.clone());
        }
    }

    /// The decision was not carried out.
    pub fn revert(&mut self, decided: &PodVolumes) {
        for (volume, _) in &decided.bindings {
            self.assumed_volumes.remove(&volume.metadata.namespaced_name());
        }
        for claim in &decided.provisions {
            self.assumed_claims.remove(&claim.metadata.namespaced_name());
        }
    }

    pub fn volume(&self, name: &str) -> Option<&Arc<PersistentVolume>> {
        let key = NamespacedName::new("", name);
        self.assumed_volumes.get(&key).or_else(|| self.volumes.get(&key))
    }

    /// In no order.
    pub fn volumes_of_class(&self, class: &str) -> Vec<&Arc<PersistentVolume>> {
        let current =
            self.volumes.iter().map(|(key, volume)| self.assumed_volumes.get(key).unwrap_or(volume));
        current.filter(|volume| volume.class() == class).collect()
    }

    pub fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        let key = NamespacedName::new(namespace, name);
        self.assumed_claims.get(&key).or_else(|| self.claims.get(&key))
    }

    pub fn class(&self, name: &str) -> Option<&Arc<StorageClass>> {
        self.classes.get(&NamespacedName::new("", name))
    }

    pub fn csi_node(&self, node: &str) -> Option<&Arc<CsiNode>> {
        self.csi_nodes.get(&NamespacedName::new("", node))
    }

    pub fn csi_driver(&self, name: &str) -> Option<&Arc<CsiDriver>> {
        self.csi_drivers.get(&NamespacedName::new("", name))
    }

    pub fn capacities(&self) -> impl Iterator<Item = &Arc<CsiStorageCapacity>> {
        self.capacities.values()
    }

    pub fn attachments(&self) -> impl Iterator<Item = &Arc<VolumeAttachment>> {
        self.attachments.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_decided_counts_until_it_is_heard_of_or_taken_back() {
        let (mut volume, mut claim) = (PersistentVolume::default(), PersistentVolumeClaim::default());
        volume.metadata.name = "v".into();
        (claim.metadata.namespace, claim.metadata.name) = ("n".into(), "c".into());
        let (volume, claim) = (Arc::new(volume), Arc::new(claim));
        let mut volumes = Volumes::default();
        volumes.apply(&Change::Volume(Delta::Added(volume.clone())));
        volumes.apply(&Change::Claim(Delta::Added(claim.clone())));
        let mut decided = PodVolumes::default();
        decided.add_binding(&volume, &claim);
        decided.add_provision(&claim, "node");
        let is_assumed = |volumes: &Volumes| {
            let held = volumes.volume("v").expect("there").spec.claim_ref.is_some();
            let chosen =
                volumes.claim("n", "c").expect("there").metadata.annotations.contains_key(SELECTED_NODE);
            (held, chosen)
        };
        volumes.assume(&decided);
        assert_eq!(is_assumed(&volumes), (true, true));
        volumes.apply(&Change::Volume(Delta::Added(volume)));
        assert_eq!(is_assumed(&volumes), (false, true));
        volumes.assume(&decided);
        volumes.revert(&decided);
        assert_eq!(is_assumed(&volumes), (false, false));
    }
}
