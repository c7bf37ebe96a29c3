//! VolumeBinding: a pod goes where its bound volumes are reached, and where its other claims can get theirs (follows
//! upstream's plugin and its `volumeBinder`).

use std::borrow::Cow;
use std::sync::Arc;

use api::view::core::persistentvolume::{Reach, SELECTED_NODE, find_matching};
use api::view::core::{PersistentVolume, PersistentVolumeClaim};
use api::view::storage::{CsiStorageCapacity, StorageClass};
use apimachinery::quantity::Quantity;

use crate::framework::{Filter, Rejection};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::{PodVolumes, Volumes};

const BIND_CONFLICT: &str = "node(s) didn't find available persistent volumes to bind";
const NODE_CONFLICT: &str = "node(s) didn't match PersistentVolume's node affinity";
const NOT_ENOUGH_SPACE: &str = "node(s) did not have enough free storage";
const VOLUME_ABSENT: &str = "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)";
const UNBOUND_IMMEDIATE: &str = "pod has unbound immediate PersistentVolumeClaims";
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";

struct VolumeBinding<'a> {
    volumes: &'a Volumes,
    claims: Result<PodClaims<'a>, String>,
}

/// A pod's claims by what they need.
#[derive(Default)]
struct PodClaims<'a> {
    bound: Vec<&'a Arc<PersistentVolumeClaim>>,
    /// Waiting for the pod to be placed, with the volumes of their class; those that ask for the least come first.
    waiting: Vec<(&'a Arc<PersistentVolumeClaim>, Vec<&'a Arc<PersistentVolume>>)>,
}

pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    pod.has_claims().then(|| Box::new(VolumeBinding::new(pod, snapshot)) as _)
}

/// What the pod's volumes need when it goes to this node, which the filter has passed.
pub fn decide(pod: &PodInfo, snapshot: &Snapshot, node: &NodeInfo) -> PodVolumes {
    let decided = pod.has_claims().then(|| VolumeBinding::new(pod, snapshot).find(node).ok()).flatten();
    decided.unwrap_or_default()
}

/// The claim of this name, if a pod may wait for it.
pub fn usable_claim<'a>(
    pod: &PodInfo,
    volumes: &'a Volumes,
    name: &str,
    is_ephemeral: bool,
) -> Result<&'a Arc<PersistentVolumeClaim>, String> {
    let Some(claim) = volumes.claim(pod.namespace(), name) else {
        return Err(if is_ephemeral {
            format!("waiting for ephemeral volume controller to create the persistentvolumeclaim {name:?}")
        } else {
            format!("persistentvolumeclaim {name:?} not found")
        });
    };
    let volume = &claim.spec.volume_name;
    if claim.status.phase == "Lost" {
        return Err(format!(
            "persistentvolumeclaim {name:?} bound to non-existent persistentvolume {volume:?}"
        ));
    }
    if claim.metadata.is_being_deleted() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    if is_ephemeral && !claim.metadata.is_controlled_by(pod.uid()) {
        let namespace = pod.namespace();
        return Err(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
            pod.pod.metadata.name
        ));
    }
    Ok(claim)
}

impl<'a> VolumeBinding<'a> {
    fn new(pod: &PodInfo, snapshot: &'a Snapshot) -> Self {
        let volumes = &*snapshot.volumes;
        VolumeBinding { volumes, claims: sort_claims(pod, volumes) }
    }

    /// Upstream: `FindPodVolumes`.
    fn find(&self, node: &NodeInfo) -> Result<PodVolumes, Vec<&'static str>> {
        let Ok(claims) = &self.claims else { return Err(Vec::new()) };
        let mut reasons = Vec::new();
        if let Err(reason) = self.check_bound(claims, node) {
            reasons.push(reason);
        }
        let mut decided = PodVolumes::default();
        if let Err(reason) = self.serve_waiting(claims, node, &mut decided) {
            reasons.push(reason);
        }
        if reasons.is_empty() { Ok(decided) } else { Err(reasons) }
    }

    fn check_bound(&self, claims: &PodClaims<'_>, node: &NodeInfo) -> Result<(), &'static str> {
        claims.bound.iter().try_for_each(|claim| match self.volumes.volume(&claim.spec.volume_name) {
            None => Err(VOLUME_ABSENT),
            Some(volume) if !volume.allows_node(node.labels()) => Err(NODE_CONFLICT),
            Some(_) => Ok(()),
        })
    }

    fn serve_waiting(
        &self,
        claims: &PodClaims<'_>,
        node: &NodeInfo,
        decided: &mut PodVolumes,
    ) -> Result<(), &'static str> {
        for (claim, candidates) in &claims.waiting {
            let chosen = claim.metadata.annotations.get(SELECTED_NODE);
            if chosen.is_some_and(|chosen| chosen != node.name()) {
                return Err(BIND_CONFLICT);
            }
            let is_free = |volume: &&&Arc<PersistentVolume>| {
                !decided.bindings.iter().any(|(taken, _)| taken.metadata.name == volume.metadata.name)
            };
            let free = candidates.iter().filter(is_free).map(|volume| &***volume);
            let found = match chosen {
                Some(_) => None,
                None => find_matching(claim, free, Reach::Node(node.labels())),
            };
            match found {
                Some(volume) => decided.add_binding(volume, claim),
                None => {
                    self.check_provisioning(claim, node)?;
                    decided.add_provision(claim, node.name());
                }
            }
        }
        Ok(())
    }

    /// Upstream: `checkVolumeProvisions`.
    fn check_provisioning(&self, claim: &PersistentVolumeClaim, node: &NodeInfo) -> Result<(), &'static str> {
        let class = self.volumes.class(claim.class()).ok_or(BIND_CONFLICT)?;
        if matches!(class.provisioner.as_str(), "" | NO_PROVISIONER) || !class.allows_topology(node.labels())
        {
            return Err(BIND_CONFLICT);
        }
        if self.has_capacity(class, claim.request(), node) { Ok(()) } else { Err(NOT_ENOUGH_SPACE) }
    }

    /// Only a driver that publishes its capacities is held to them (upstream: `hasEnoughCapacity`).
    fn has_capacity(&self, class: &StorageClass, size: Quantity, node: &NodeInfo) -> bool {
        let driver = self.volumes.csi_driver(&class.provisioner);
        if driver.and_then(|driver| driver.spec.storage_capacity) != Some(true) {
            return true;
        }
        let suffices = |capacity: &Arc<CsiStorageCapacity>| {
            let limit = capacity.maximum_volume_size.as_ref().or(capacity.capacity.as_ref());
            capacity.storage_class_name == class.metadata.name
                && limit.and_then(|text| text.parse::<Quantity>().ok()).is_some_and(|limit| limit >= size)
                && capacity.node_topology.as_ref().is_some_and(|nodes| nodes.matches(node.labels()))
        };
        self.volumes.capacities().any(suffices)
    }
}

/// Upstream: `GetPodVolumeClaims`.
fn sort_claims<'a>(pod: &PodInfo, volumes: &'a Volumes) -> Result<PodClaims<'a>, String> {
    let mut sorted = PodClaims::default();
    let mut is_unbound_immediate = false;
    for (name, is_ephemeral) in pod.claims() {
        let claim = usable_claim(pod, volumes, &name, is_ephemeral)?;
        let waits = || volumes.class(claim.class()).is_some_and(|class| class.waits_for_first_consumer());
        if claim.is_fully_bound() {
            sorted.bound.push(claim);
        } else if claim.spec.volume_name.is_empty() && waits() {
            sorted.waiting.push((claim, volumes.volumes_of_class(claim.class())));
        } else {
            is_unbound_immediate = true;
        }
    }
    if is_unbound_immediate {
        return Err(UNBOUND_IMMEDIATE.to_owned());
    }
    sorted.waiting.sort_by_key(|(claim, _)| claim.request());
    Ok(sorted)
}

impl Filter for VolumeBinding<'_> {
    fn refuses_all(&self) -> Option<Cow<'static, str>> {
        self.claims.as_ref().err().map(|reason| Cow::Owned(reason.clone()))
    }

    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let reasons = match self.find(node) {
            Ok(_) => return Ok(()),
            Err(reasons) => reasons.into_iter().map(Cow::Borrowed).collect(),
        };
        Err(Rejection { reasons, resolvable: false })
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::testing::{cluster, pod_info, storage};

    const POD: &str = r#"{"volumes": [{"name": "a", "persistentVolumeClaim": {"claimName": "c"}}]}"#;

    fn class(mode: &str, provisioner: &str) -> Value {
        json!({"kind": "StorageClass", "metadata": {"name": "s"}, "volumeBindingMode": mode, "provisioner": provisioner})
    }

    fn claim(edit: Value) -> Value {
        let mut claim = json!({"kind": "PersistentVolumeClaim", "metadata": {"name": "c", "namespace": "default"},
            "spec": {"storageClassName": "s", "accessModes": ["ReadWriteOnce"],
                "resources": {"requests": {"storage": "1Gi"}}}});
        for (key, value) in edit.as_object().into_iter().flatten() {
            claim[key] = value.clone();
        }
        claim
    }

    fn volume(zone: &str, held_by: Option<&str>) -> Value {
        let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]});
        json!({"kind": "PersistentVolume", "metadata": {"name": "v"}, "status": {"phase": "Available"},
            "spec": {"storageClassName": "s", "accessModes": ["ReadWriteOnce"], "capacity": {"storage": "2Gi"},
                "claimRef": held_by.map(|name| json!({"namespace": "default", "name": name, "uid": name})),
                "nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}}})
    }

    /// On a node of zone `x`: what is decided, as (bindings, provisions), or why nothing is.
    fn check(objects: &[Value], expect: Result<(usize, usize), &str>) {
        let mut snapshot = cluster([(json!({"metadata": {"name": "n", "labels": {"zone": "x"}}}), vec![])]);
        snapshot.volumes = Arc::new(storage(objects));
        let pod = pod_info(serde_json::from_str(POD).expect("a spec"));
        let filter = filter(&pod, &snapshot).expect("it has a say");
        let found = match filter.refuses_all() {
            Some(reason) => Err(reason.into_owned()),
            None => filter.filter(&snapshot.nodes[0]).map_err(|rejection| rejection.reasons.join(", ")),
        };
        let decided = || decide(&pod, &snapshot, &snapshot.nodes[0]);
        let found = found.map(|()| (decided().bindings.len(), decided().provisions.len()));
        assert_eq!(found, expect.map_err(str::to_owned), "{objects:?}");
    }

    #[test]
    fn a_claim_that_waits_gets_a_volume_in_reach_or_one_made() {
        let later = |provisioner: &str| class("WaitForFirstConsumer", provisioner);
        check(&[later("p"), claim(json!({})), volume("x", None)], Ok((1, 0)));
        check(&[later("p"), claim(json!({})), volume("y", None)], Ok((0, 1)));
        check(&[later("p"), claim(json!({})), volume("x", Some("other"))], Ok((0, 1)));
        check(&[later(NO_PROVISIONER), claim(json!({})), volume("y", None)], Err(BIND_CONFLICT));
    }

    #[test]
    fn a_bound_claim_ties_the_pod_to_its_volume() {
        let bound = || {
            let mut claim = claim(json!({}));
            claim["spec"]["volumeName"] = "v".into();
            claim["metadata"]["annotations"] = json!({"pv.kubernetes.io/bind-completed": "yes"});
            claim
        };
        check(&[bound(), volume("x", Some("c"))], Ok((0, 0)));
        check(&[bound(), volume("y", Some("c"))], Err(NODE_CONFLICT));
        check(&[bound()], Err(VOLUME_ABSENT));
    }

    #[test]
    fn a_pod_waits_for_its_claims_and_says_why() {
        check(&[], Err("persistentvolumeclaim \"c\" not found"));
        check(&[class("Immediate", "p"), claim(json!({}))], Err(UNBOUND_IMMEDIATE));
        check(
            &[claim(json!({"status": {"phase": "Lost"}}))],
            Err("persistentvolumeclaim \"c\" bound to non-existent persistentvolume \"\""),
        );
    }

    #[test]
    fn a_chosen_node_and_published_capacities_are_kept_to() {
        let later = || class("WaitForFirstConsumer", "p");
        let chosen = |node: &str| {
            let meta = json!({"name": "c", "namespace": "default",
                "annotations": {"volume.kubernetes.io/selected-node": node}});
            claim(json!({"metadata": meta}))
        };
        check(&[later(), chosen("n"), volume("x", None)], Ok((0, 1)));
        check(&[later(), chosen("m")], Err(BIND_CONFLICT));
        let driver =
            || json!({"kind": "CSIDriver", "metadata": {"name": "p"}, "spec": {"storageCapacity": true}});
        let capacity = |size: &str| {
            json!({"kind": "CSIStorageCapacity", "metadata": {"name": "k", "namespace": "d"}, "capacity": size,
                "storageClassName": "s", "nodeTopology": {"matchLabels": {"zone": "x"}}})
        };
        check(&[later(), claim(json!({})), driver()], Err(NOT_ENOUGH_SPACE));
        check(&[later(), claim(json!({})), driver(), capacity("500Mi")], Err(NOT_ENOUGH_SPACE));
        check(&[later(), claim(json!({})), driver(), capacity("5Gi")], Ok((0, 1)));
    }
}
