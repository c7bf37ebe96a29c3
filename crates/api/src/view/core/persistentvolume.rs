//! PersistentVolume and PersistentVolumeClaim, and which volume suits which claim (follows component-helpers'
//! `storage/volume`).

use apimachinery::meta::{Condition, LabelSelector, ObjectMeta, StringMap};
use apimachinery::quantity::Quantity;
use serde::{Deserialize, Serialize};

use super::nodeselector::matches_labels;
use super::{NodeSelector, ObjectReference, ResourceList};

/// On a claim or a volume: the controller, not a user, chose the other side.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On a claim: it has been bound once; if its volume is missing now, it is lost.
pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On a claim: where the scheduler wants its volume to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a claim: who is to make its volume.
pub const STORAGE_PROVISIONER: &str = "volume.kubernetes.io/storage-provisioner";
pub const BETA_STORAGE_PROVISIONER: &str = "volume.beta.kubernetes.io/storage-provisioner";
/// On a volume: who made it.
pub const PROVISIONED_BY: &str = "pv.kubernetes.io/provisioned-by";
/// The annotation that named the class before the field did.
const BETA_STORAGE_CLASS: &str = "volume.beta.kubernetes.io/storage-class";
const STORAGE: &str = "storage";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolume {
    pub metadata: ObjectMeta,
    pub spec: PersistentVolumeSpec,
    pub status: PersistentVolumeStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeSpec {
    pub capacity: ResourceList,
    pub access_modes: Vec<String>,
    pub claim_ref: Option<ObjectReference>,
    /// `Retain`, `Delete` or `Recycle`.
    pub persistent_volume_reclaim_policy: String,
    pub storage_class_name: String,
    pub mount_options: Vec<String>,
    /// `Filesystem` or `Block`.
    pub volume_mode: Option<String>,
    pub node_affinity: Option<VolumeNodeAffinity>,
    pub volume_attributes_class_name: Option<String>,
    pub csi: Option<CsiPersistentVolumeSource>,
    pub local: Option<LocalVolumeSource>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeNodeAffinity {
    pub required: Option<NodeSelector>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LocalVolumeSource {
    pub path: String,
    pub fs_type: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretReference {
    pub name: String,
    pub namespace: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiPersistentVolumeSource {
    pub driver: String,
    pub volume_handle: String,
    pub read_only: bool,
    pub fs_type: String,
    pub volume_attributes: StringMap,
    pub controller_publish_secret_ref: Option<SecretReference>,
    pub node_stage_secret_ref: Option<SecretReference>,
    pub node_publish_secret_ref: Option<SecretReference>,
    pub controller_expand_secret_ref: Option<SecretReference>,
    pub node_expand_secret_ref: Option<SecretReference>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeStatus {
    /// `Pending`, `Available`, `Bound`, `Released` or `Failed`.
    pub phase: String,
    pub message: String,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeClaim {
    pub metadata: ObjectMeta,
    pub spec: PersistentVolumeClaimSpec,
    pub status: PersistentVolumeClaimStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeClaimSpec {
    pub access_modes: Vec<String>,
    pub selector: Option<LabelSelector>,
    pub resources: VolumeResourceRequirements,
    pub volume_name: String,
    /// Unset asks for the default class, empty for none.
    pub storage_class_name: Option<String>,
    pub volume_mode: Option<String>,
    pub volume_attributes_class_name: Option<String>,
    pub data_source: Option<apimachinery::Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeResourceRequirements {
    pub requests: ResourceList,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeClaimStatus {
    /// `Pending`, `Bound` or `Lost`.
    pub phase: String,
    pub access_modes: Vec<String>,
    pub capacity: ResourceList,
    pub allocated_resources: ResourceList,
    pub allocated_resource_statuses: StringMap,
    pub conditions: Vec<Condition>,
    pub current_volume_attributes_class_name: Option<String>,
    pub modify_volume_status: Option<ModifyVolumeStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ModifyVolumeStatus {
    pub target_volume_attributes_class_name: String,
    /// `Pending`, `InProgress` or `Infeasible`.
    pub status: String,
}

impl PersistentVolume {
    pub fn class(&self) -> &str {
        let annotated = self.metadata.annotations.get(BETA_STORAGE_CLASS);
        annotated.unwrap_or(&self.spec.storage_class_name)
    }

    pub fn capacity(&self) -> Quantity {
        quantity(&self.spec.capacity)
    }

    /// Whether it belongs to the claim, or waits for one of its name (upstream: `IsVolumeBoundToClaim`).
    pub fn is_bound_to(&self, claim: &PersistentVolumeClaim) -> bool {
        self.spec.claim_ref.as_ref().is_some_and(|held| {
            held.name == claim.metadata.name
                && held.namespace == claim.metadata.namespace
                && (held.uid.is_empty() || held.uid == claim.metadata.uid)
        })
    }

    /// Whether a node with these labels can reach it (upstream: `CheckNodeAffinity`).
    pub fn allows_node(&self, labels: &StringMap) -> bool {
        let required = self.spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
        required.is_none_or(|selector| selector.node_selector_terms.iter().any(|t| matches_labels(t, labels)))
    }

    pub fn has_modes_of(&self, claim: &PersistentVolumeClaim) -> bool {
        claim.spec.access_modes.iter().all(|mode| self.spec.access_modes.contains(mode))
    }
}

impl PersistentVolumeClaim {
    /// The class it asks for; empty is none.
    pub fn class(&self) -> &str {
        let annotated = self.metadata.annotations.get(BETA_STORAGE_CLASS);
        annotated.or(self.spec.storage_class_name.as_ref()).map_or("", String::as_str)
    }

    /// Whether it says anything about its class.
    pub fn has_class(&self) -> bool {
        self.spec.storage_class_name.is_some() || self.metadata.annotations.contains_key(BETA_STORAGE_CLASS)
    }

    /// The class whose attributes its volume is to have.
    pub fn attributes_class(&self) -> Option<&str> {
        self.spec.volume_attributes_class_name.as_deref().filter(|name| !name.is_empty())
    }

    pub fn request(&self) -> Quantity {
        quantity(&self.spec.resources.requests)
    }

    /// Bound on both sides, and finally so.
    pub fn is_fully_bound(&self) -> bool {
        !self.spec.volume_name.is_empty() && self.metadata.annotations.contains_key(BIND_COMPLETED)
    }
}

fn quantity(list: &ResourceList) -> Quantity {
    list.get(STORAGE).and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// `Filesystem` unless something else is written.
pub fn volume_mode(mode: Option<&String>) -> &str {
    mode.map_or("Filesystem", String::as_str)
}

/// Why the volume, which the claim asks for by name, cannot be its (upstream: `checkVolumeSatisfyClaim`).
pub fn mismatch(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Option<String> {
    let (held, asked) = (&volume.spec, &claim.spec);
    Some(match () {
        () if volume.metadata.is_being_deleted() => {
            format!("the volume is marked for deletion {:?}", volume.metadata.name)
        }
        () if volume.capacity().value() < claim.request().value() => "requested PV is too small".to_owned(),
        () if volume.class() != claim.class() => "storageClassName does not match".to_owned(),
        () if !has_same_attributes(volume, claim) => "volumeAttributesClassName does not match".to_owned(),
        () if volume_mode(held.volume_mode.as_ref()) != volume_mode(asked.volume_mode.as_ref()) => {
            "incompatible volumeMode".to_owned()
        }
        () if !volume.has_modes_of(claim) => "incompatible accessMode".to_owned(),
        () => return None,
    })
}

fn has_same_attributes(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let name = |class: &Option<String>| class.clone().unwrap_or_default();
    name(&volume.spec.volume_attributes_class_name) == name(&claim.spec.volume_attributes_class_name)
}

/// Where a claim's volume is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach<'a> {
    Anywhere,
    /// The class waits for the first consumer: only a volume that was promised to the claim counts.
    OnlyPromised,
    /// From a node with these labels.
    Node(&'a StringMap),
}

/// The volume that was promised to the claim, else the smallest that suits it (upstream: `FindMatchingVolume`).
pub fn find_matching<'a>(
    claim: &PersistentVolumeClaim,
    volumes: impl IntoIterator<Item = &'a PersistentVolume>,
    reach: Reach<'_>,
) -> Option<&'a PersistentVolume> {
    let request = claim.request();
    let mut best: Option<(&PersistentVolume, (usize, Quantity))> = None;
    for volume in volumes {
        let fits = volume.capacity() >= request
            && volume_mode(volume.spec.volume_mode.as_ref()) == volume_mode(claim.spec.volume_mode.as_ref())
            && has_same_attributes(volume, claim)
            && !volume.metadata.is_being_deleted()
            && volume.has_modes_of(claim);
        let is_promised = volume.is_bound_to(claim);
        if !fits || (volume.spec.claim_ref.is_some() && !is_promised) {
            continue;
        }
        let is_reached = match reach {
            Reach::Node(labels) => volume.allows_node(labels),
            Reach::Anywhere | Reach::OnlyPromised => true,
        };
        if is_promised {
            return is_reached.then_some(volume);
        }
        let selects = |selector: &LabelSelector| selector.matches(&volume.metadata.labels);
        if reach == Reach::OnlyPromised
            || !is_reached
            || volume.status.phase != "Available"
            || volume.class() != claim.class()
            || !claim.spec.selector.as_ref().is_none_or(selects)
        {
            continue;
        }
        // Without a node, upstream looks first among those with the fewest access modes.
        let modes = if reach == Reach::Anywhere { volume.spec.access_modes.len() } else { 0 };
        let rank = (modes, volume.capacity());
        if best.as_ref().is_none_or(|(_, least)| rank < *least) {
            best = Some((volume, rank));
        }
    }
    best.map(|(volume, _)| volume)
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    fn volume(name: &str, size: &str, edit: Value) -> PersistentVolume {
        let mut object = json!({"metadata": {"name": name}, "status": {"phase": "Available"},
            "spec": {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": "a"}});
        for (key, value) in edit.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        apimachinery::from_value(object).expect("a volume")
    }

    fn claim(edit: Value) -> PersistentVolumeClaim {
        let mut object = json!({"metadata": {"name": "c", "namespace": "n", "uid": "u"},
            "spec": {"resources": {"requests": {"storage": "2Gi"}}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": "a"}});
        for (key, value) in edit.as_object().into_iter().flatten() {
            object["spec"][key] = value.clone();
        }
        apimachinery::from_value(object).expect("a claim")
    }

    fn check(
        claim: &PersistentVolumeClaim,
        volumes: &[PersistentVolume],
        reach: Reach<'_>,
        expect: Option<&str>,
    ) {
        let found = find_matching(claim, volumes, reach).map(|volume| volume.metadata.name.as_str());
        assert_eq!(found, expect, "{claim:?}");
    }

    #[test]
    fn the_smallest_volume_that_suits_is_taken() {
        let volumes = [
            volume("big", "9Gi", json!({})),
            volume("mid", "3Gi", json!({})),
            volume("low", "1Gi", json!({})),
        ];
        check(&claim(json!({})), &volumes, Reach::Anywhere, Some("mid"));
        check(&claim(json!({})), &volumes, Reach::OnlyPromised, None);
        for refused in [
            json!({"storageClassName": "b"}),
            json!({"storageClassName": null}),
            json!({"volumeMode": "Block"}),
            json!({"accessModes": ["ReadWriteMany"]}),
            json!({"selector": {"matchLabels": {"x": "y"}}}),
            json!({"volumeAttributesClassName": "gold"}),
        ] {
            check(&claim(refused), &volumes, Reach::Anywhere, None);
        }
    }

    #[test]
    fn a_promised_volume_goes_before_a_smaller_one_and_never_to_another_claim() {
        let promised =
            |uid: &str, name: &str| json!({"claimRef": {"name": name, "namespace": "n", "uid": uid}});
        let small = volume("small", "2Gi", json!({}));
        for uid in ["", "u"] {
            let volumes = [small.clone(), volume("promised", "5Gi", promised(uid, "c"))];
            check(&claim(json!({})), &volumes, Reach::Anywhere, Some("promised"));
            check(&claim(json!({})), &volumes, Reach::OnlyPromised, Some("promised"));
        }
        check(&claim(json!({})), &[volume("v", "5Gi", promised("other", "c"))], Reach::Anywhere, None);
        check(&claim(json!({})), &[volume("v", "5Gi", promised("", "d"))], Reach::Anywhere, None);
    }

    #[test]
    fn a_node_sees_only_the_volumes_it_reaches() {
        let term = json!({"matchExpressions": [{"key": "zone", "operator": "In", "values": ["x"]}]});
        let affinity = json!({"nodeAffinity": {"required": {"nodeSelectorTerms": [term]}}});
        let volumes = [volume("v", "5Gi", affinity)];
        let labels = |zone: &str| StringMap::from([("zone".to_owned(), zone.to_owned())]);
        check(&claim(json!({})), &volumes, Reach::Node(&labels("x")), Some("v"));
        check(&claim(json!({})), &volumes, Reach::Node(&labels("y")), None);
    }

    #[test]
    fn why_a_named_volume_does_not_suit_is_said_in_upstreams_words() {
        let check = |edit: Value, expect: Option<&str>| {
            assert_eq!(mismatch(&volume("v", "3Gi", edit), &claim(json!({}))).as_deref(), expect);
        };
        check(json!({}), None);
        check(json!({"capacity": {"storage": "1Gi"}}), Some("requested PV is too small"));
        check(json!({"storageClassName": "b"}), Some("storageClassName does not match"));
        check(json!({"volumeMode": "Block"}), Some("incompatible volumeMode"));
        check(json!({"accessModes": ["ReadOnlyMany"]}), Some("incompatible accessMode"));
    }
}
