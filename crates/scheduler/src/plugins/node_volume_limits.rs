//! NodeVolumeLimits: a node takes only as many volumes of a CSI driver as its CSINode says.

use std::collections::{BTreeMap, BTreeSet};

use crate::framework::{Filter, Rejection};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::Volumes;

const EXCEEDED: &str = "node(s) exceed max volume count";

/// Volumes by driver and handle.
type Handles = BTreeSet<(String, String)>;

struct NodeVolumeLimits<'a> {
    volumes: &'a Volumes,
    wanted: Handles,
}

pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    let wanted: Handles = handles(pod, &snapshot.volumes).collect();
    (!wanted.is_empty()).then(|| Box::new(NodeVolumeLimits { volumes: &snapshot.volumes, wanted }) as _)
}

/// The volumes of a pod's claims; one that is not made yet stands for itself under its claim's name.
fn handles<'a>(pod: &'a PodInfo, volumes: &'a Volumes) -> impl Iterator<Item = (String, String)> + 'a {
    let claims = pod.claims().filter_map(|(name, _)| volumes.claim(pod.namespace(), &name));
    claims.filter_map(|claim| match volumes.volume(&claim.spec.volume_name) {
        Some(volume) => volume.spec.csi.as_ref().map(|csi| (csi.driver.clone(), csi.volume_handle.clone())),
        None => {
            let class = volumes.class(claim.class())?;
            Some((class.provisioner.clone(), claim.metadata.namespaced_name().to_string()))
        }
    })
}

impl NodeVolumeLimits<'_> {
    /// What pods of the node use, and what is attached to it without them.
    fn taken(&self, node: &NodeInfo) -> Handles {
        let used = node.pods.iter().flat_map(|pod| handles(pod, self.volumes));
        let attached = self.volumes.attachments().filter(|a| a.spec.node_name == node.name());
        let attached = attached.filter_map(|attachment| {
            let name = attachment.spec.source.persistent_volume_name.as_ref()?;
            let csi = self.volumes.volume(name)?.spec.csi.as_ref()?;
            Some((csi.driver.clone(), csi.volume_handle.clone()))
        });
        used.chain(attached).collect()
    }
}

impl Filter for NodeVolumeLimits<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let Some(csi_node) = self.volumes.csi_node(node.name()) else { return Ok(()) };
        let limit = |driver: &api::view::storage::CsiNodeDriver| {
            Some((driver.name.clone(), usize::try_from(driver.allocatable.as_ref()?.count?).ok()?))
        };
        let limits: BTreeMap<String, usize> = csi_node.spec.drivers.iter().filter_map(limit).collect();
        if limits.is_empty() {
            return Ok(());
        }
        let taken = self.taken(node);
        let count = |handles: &mut dyn Iterator<Item = &(String, String)>, driver: &str| {
            handles.filter(|(of, _)| of == driver).count()
        };
        let exceeds = |(driver, limit): (&String, &usize)| {
            let new = count(&mut self.wanted.difference(&taken), driver);
            new > 0 && count(&mut taken.iter(), driver) + new > *limit
        };
        if limits.iter().any(exceeds) { Err(Rejection::resolvable(EXCEEDED)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::json;

    use super::*;
    use crate::testing::{check_feasible, cluster, labelled_pod, storage};

    fn check(limit: Option<i32>, wanted: &[&str], expect: &[&str]) {
        let spec = |claims: &[&str]| {
            let volume = |name: &&str| json!({"name": name, "persistentVolumeClaim": {"claimName": name}});
            json!({"volumes": claims.iter().map(volume).collect::<Vec<_>>()})
        };
        let other = labelled_pod("other", json!({}), spec(&["a"]));
        let mut snapshot = cluster([(json!({"metadata": {"name": "n"}}), vec![other])]);
        let mut objects = vec![json!({"kind": "CSINode", "metadata": {"name": "n"},
            "spec": {"drivers": [{"name": "d", "nodeID": "n", "allocatable": {"count": limit}}]}})];
        for name in ["a", "b", "c"] {
            objects.push(
                json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"},
                "spec": {"volumeName": name}}),
            );
            objects.push(json!({"kind": "PersistentVolume", "metadata": {"name": name},
                "spec": {"csi": {"driver": "d", "volumeHandle": name}}}));
        }
        snapshot.volumes = Arc::new(storage(&objects));
        check_feasible(filter, &labelled_pod("p", json!({}), spec(wanted)), &snapshot, expect);
    }

    #[test]
    fn a_node_takes_no_more_volumes_than_it_says() {
        check(Some(2), &["b"], &["n"]);
        check(Some(2), &["b", "c"], &[]);
        check(Some(1), &["a"], &["n"]);
        check(None, &["b", "c"], &["n"]);
    }
}
