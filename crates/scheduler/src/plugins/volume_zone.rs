//! VolumeZone: a volume whose labels name zones or regions is only reached from nodes in them.

use std::sync::Arc;

use api::view::core::PersistentVolume;
use apimachinery::meta::StringMap;

use crate::framework::{Filter, Rejection};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

const CONFLICT: &str = "node(s) had no available volume zone";
/// Labels that say where something is, each with the name it has had since.
const TOPOLOGY_LABELS: [(&str, &str); 4] = [
    ("failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("failure-domain.beta.kubernetes.io/region", "topology.kubernetes.io/region"),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    ("topology.kubernetes.io/region", "topology.kubernetes.io/region"),
];
/// Stands between the zones of one label.
const SEPARATOR: &str = "__";

struct VolumeZone<'a>(Vec<&'a Arc<PersistentVolume>>);

pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    let volumes: Vec<_> = pod
        .claims()
        .filter(|(_, is_ephemeral)| !is_ephemeral)
        .filter_map(|(name, _)| snapshot.volumes.claim(pod.namespace(), &name))
        .filter_map(|claim| snapshot.volumes.volume(&claim.spec.volume_name))
        .filter(|volume| has_topology(&volume.metadata.labels))
        .collect();
    (!volumes.is_empty()).then(|| Box::new(VolumeZone(volumes)) as _)
}

fn has_topology(labels: &StringMap) -> bool {
    TOPOLOGY_LABELS.iter().any(|(key, _)| labels.contains_key(*key))
}

fn is_reached(volume: &PersistentVolume, node: &StringMap) -> bool {
    TOPOLOGY_LABELS.iter().all(|(key, newer)| {
        let Some(zones) = volume.metadata.labels.get(*key) else { return true };
        let here = node.get(*key).or_else(|| node.get(*newer));
        here.is_some_and(|here| zones.split(SEPARATOR).any(|zone| zone.trim() == here))
    })
}

impl Filter for VolumeZone<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let labels = node.labels();
        // A node that says nothing of where it is belongs to a cluster of one zone.
        if !has_topology(labels) || self.0.iter().all(|volume| is_reached(volume, labels)) {
            return Ok(());
        }
        Err(Rejection::unresolvable(CONFLICT))
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::testing::{check_feasible, cluster, labelled_pod, storage};

    fn check(labels: Value, expect: &[&str]) {
        let node =
            |name: &str, labels: Value| (json!({"metadata": {"name": name, "labels": labels}}), vec![]);
        let mut snapshot = cluster([
            node("a", json!({"topology.kubernetes.io/zone": "x"})),
            node("b", json!({"topology.kubernetes.io/zone": "y"})),
            node("c", json!({})),
        ]);
        let claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "default"},
            "spec": {"volumeName": "v"}});
        let volume = json!({"kind": "PersistentVolume", "metadata": {"name": "v", "labels": labels}});
        snapshot.volumes = Arc::new(storage(&[claim, volume]));
        let spec = json!({"volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "c"}}]});
        check_feasible(filter, &labelled_pod("p", json!({}), spec), &snapshot, expect);
    }

    #[test]
    fn nodes_of_other_zones_are_out_of_reach() {
        check(json!({"topology.kubernetes.io/zone": "x"}), &["a", "c"]);
        check(json!({"failure-domain.beta.kubernetes.io/zone": "x__y"}), &["a", "b", "c"]);
        check(json!({"topology.kubernetes.io/region": "r"}), &["c"]);
        check(json!({}), &["a", "b", "c"]);
    }
}
