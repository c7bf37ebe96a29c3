//! VolumeRestrictions: a claim with the access mode ReadWriteOncePod serves one pod at a time.

use std::borrow::Cow;
use std::collections::BTreeSet;

use crate::framework::{Filter, Rejection};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

const IN_USE: &str = "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
const ONE_POD: &str = "ReadWriteOncePod";

struct VolumeRestrictions {
    absent: Option<String>,
    is_in_use: bool,
}

pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    let named = || pod.claims().filter(|(_, is_ephemeral)| !is_ephemeral).map(|(name, _)| name);
    let claim = |name: &str| snapshot.volumes.claim(pod.namespace(), name);
    if let Some(name) = named().find(|name| claim(name).is_none()) {
        let absent = Some(format!("persistentvolumeclaim {name:?} not found"));
        return Some(Box::new(VolumeRestrictions { absent, is_in_use: false }));
    }
    let for_one_pod = |name: &String| {
        claim(name).is_some_and(|claim| claim.spec.access_modes.iter().any(|mode| mode == ONE_POD))
    };
    let wanted: BTreeSet<String> = named().filter(for_one_pod).collect();
    let uses = |other: &PodInfo| {
        other.uid() != pod.uid()
            && other.namespace() == pod.namespace()
            && other.claims().any(|(name, _)| wanted.contains(&name))
    };
    let is_in_use = || snapshot.nodes.iter().flat_map(|node| &node.pods).any(|other| uses(other));
    (!wanted.is_empty() && is_in_use())
        .then(|| Box::new(VolumeRestrictions { absent: None, is_in_use: true }) as _)
}

impl Filter for VolumeRestrictions {
    fn refuses_all(&self) -> Option<Cow<'static, str>> {
        self.absent.clone().map(Cow::Owned)
    }

    fn filter(&self, _: &NodeInfo) -> Result<(), Rejection> {
        if self.is_in_use { Err(Rejection::resolvable(IN_USE)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::json;

    use super::*;
    use crate::testing::{check_feasible, cluster, labelled_pod, storage};

    fn check(mode: &str, other_claim: &str, expect: &[&str]) {
        let spec =
            |claim: &str| json!({"volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": claim}}]});
        let other = labelled_pod("other", json!({}), spec(other_claim));
        let mut snapshot = cluster([
            (json!({"metadata": {"name": "a"}}), vec![other]),
            (json!({"metadata": {"name": "b"}}), vec![]),
        ]);
        let claim = |name: &str| {
            json!({"kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": "default"},
                "spec": {"accessModes": [mode]}})
        };
        snapshot.volumes = Arc::new(storage(&[claim("c"), claim("d")]));
        check_feasible(filter, &labelled_pod("p", json!({}), spec("c")), &snapshot, expect);
    }

    #[test]
    fn a_claim_for_one_pod_is_nobody_elses_while_it_is_used() {
        check("ReadWriteOncePod", "c", &[]);
        check("ReadWriteOncePod", "d", &["a", "b"]);
        check("ReadWriteOnce", "c", &["a", "b"]);
    }
}
