//! Attaches volumes of CSI drivers to the nodes whose pods use them, and detaches them afterwards, by VolumeAttachments
//! that each driver's attacher carries out (follows upstream's `pkg/controller/volume/attachdetach`).

mod reconcile;

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::resource::{
    CSI_DRIVERS, NODES, PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS, VOLUME_ATTACHMENTS,
};
use api::view::core::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use api::view::storage::{CsiDriver, VolumeAttachment};
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::plan::Plan;
use reconcile::{Attachable, World, is_ready, reconcile, unwanted};

const PODS_BY_NODE: &str = "attachdetach-node";
const PODS_BY_CLAIM: &str = "attachdetach-claim";

/// Keys are nodes' names.
struct AttachDetach {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
    claims: Informer<PersistentVolumeClaim>,
    volumes: Informer<PersistentVolume>,
    drivers: Informer<CsiDriver>,
    attachments: Informer<VolumeAttachment>,
    /// Since when no pod wants an attachment, by node and name.
    unwanted: Mutex<HashMap<String, BTreeMap<String, Timestamp>>>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let pods = informers.get::<Pod>();
    pods.add_index(PODS_BY_NODE, |pod| vec![pod.spec.node_name.clone()]);
    pods.add_index(PODS_BY_CLAIM, |pod| {
        crate::pvcprotection::usage::claims(pod).iter().map(Key::to_string).collect()
    });
    Box::new(AttachDetach {
        nodes: informers.get(),
        pods,
        claims: informers.get(),
        volumes: informers.get(),
        drivers: informers.get(),
        attachments: informers.get(),
        unwanted: Mutex::default(),
    })
}

fn node_key(name: &str) -> Option<Key> {
    (!name.is_empty()).then(|| Key::new("", name))
}

#[async_trait]
impl Controller for AttachDetach {
    fn watch(&self, watches: &mut Watches) {
        watches.on(NODES, &self.nodes, |delta| match delta {
            Delta::Updated { old, new }
                if old.status.volumes_in_use == new.status.volumes_in_use
                    && is_ready(old) == is_ready(new)
                    && old.spec.taints == new.spec.taints =>
            {
                Vec::new()
            }
            _ => vec![Key::new("", delta.object().metadata.name.clone())],
        });
        watches.on(PODS, &self.pods, |delta| {
            let pod = delta.object();
            let uses_claims = pod.spec.volumes.iter().any(|v| v.claim_name(&pod.metadata.name).is_some());
            node_key(&pod.spec.node_name).filter(|_| uses_claims).into_iter().collect()
        });
        let pods = self.pods.clone();
        watches.on(PERSISTENT_VOLUME_CLAIMS, &self.claims, move |delta| {
            let claim = delta.object().metadata.namespaced_name();
            let users = pods.by_index(PODS_BY_CLAIM, &claim.to_string());
            users.iter().filter_map(|pod| node_key(&pod.spec.node_name)).collect()
        });
        let attachments = self.attachments.clone();
        watches.on(VOLUME_ATTACHMENTS, &self.attachments, move |delta| {
            let freed = delta.object();
            // A volume that is on one node at a time may now go to where it is awaited.
            let all = attachments.list();
            let others = all.iter().filter(|a| a.spec.source == freed.spec.source);
            others.chain([freed]).filter_map(|attachment| node_key(&attachment.spec.node_name)).collect()
        });
        watches.on(PERSISTENT_VOLUMES, &self.volumes, |_| Vec::new());
        watches.on(CSI_DRIVERS, &self.drivers, |_| Vec::new());
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let pods = self.pods.by_index(PODS_BY_NODE, &key.name);
        let wanted: Vec<_> = pods.iter().flat_map(|pod| self.attachables(pod)).collect();
        let attachments = self.attachments.list();
        let unwanted_since = self.unwanted_since(&key.name, &unwanted(&key.name, &wanted, &attachments), now);
        let world = World {
            node_name: &key.name,
            node: self.nodes.get("", &key.name),
            wanted: &wanted,
            attachments: &attachments,
            unwanted_since: &unwanted_since,
            now,
        };
        Ok(reconcile(&world))
    }
}

impl AttachDetach {
    /// Since when each of these is unwanted; of others that is forgotten.
    fn unwanted_since(
        &self,
        node: &str,
        unwanted: &[&VolumeAttachment],
        now: Timestamp,
    ) -> BTreeMap<String, Timestamp> {
        let mut all = self.unwanted.lock();
        let known = all.remove(node).unwrap_or_default();
        let since = |name: &String| known.get(name).copied().unwrap_or(now);
        let names = unwanted.iter().map(|attachment| &attachment.metadata.name);
        let found: BTreeMap<String, Timestamp> = names.map(|name| (name.clone(), since(name))).collect();
        if !found.is_empty() {
            all.insert(node.to_owned(), found.clone());
        }
        found
    }

    /// The volumes of a pod's claims that must be attached for it.
    fn attachables(&self, pod: &Arc<Pod>) -> Vec<Attachable> {
        if pod.is_terminal() {
            return Vec::new();
        }
        let claims = crate::pvcprotection::usage::claims(pod).into_iter();
        let bound = claims.filter_map(|key| self.claims.get(&key.namespace, &key.name));
        bound
            .filter(|claim| claim.is_fully_bound())
            .filter_map(|claim| self.volumes.get("", &claim.spec.volume_name))
            .filter(|volume| volume.spec.csi.as_ref().is_some_and(|csi| self.needs_attach(&csi.driver)))
            .map(|volume| Attachable { volume, pod: pod.clone() })
            .collect()
    }

    /// A driver of which nothing is said is attached.
    fn needs_attach(&self, driver: &str) -> bool {
        self.drivers.get("", driver).is_none_or(|driver| driver.spec.needs_attach())
    }
}

#[cfg(test)]
mod tests;
