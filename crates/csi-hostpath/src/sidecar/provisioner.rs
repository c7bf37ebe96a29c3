//! Volumes for claims: made when a claim asks this driver, deleted when nobody holds them any more (follows
//! external-provisioner with `--node-deployment`).

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES};
use api::view::core::persistentvolume::{PROVISIONED_BY, SELECTED_NODE, STORAGE_PROVISIONER, volume_mode};
use api::view::core::{PersistentVolume, PersistentVolumeClaim};
use api::view::storage::StorageClass;
use apimachinery::{Value, json};
use client::DeleteOptions;
use csi::v1::controller_server::Controller;
use csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume, access_mode::Mode};
use csi::v1::{CapacityRange, CreateVolumeRequest, DeleteVolumeRequest, VolumeCapability};
use tonic::Request;

use super::{Claim, Error, Sidecar, Volume};

/// Parameters of a class that are Kubernetes' own, and no driver's.
const RESERVED: &str = "csi.storage.k8s.io/";
const FS_TYPE: &str = "csi.storage.k8s.io/fstype";
/// Where the secret of each sort of call is, by upstream's parameters of classes.
const SECRETS: [(&str, &str); 3] = [
    ("node-stage-secret", "nodeStageSecretRef"),
    ("node-publish-secret", "nodePublishSecretRef"),
    ("node-expand-secret", "nodeExpandSecretRef"),
];

impl Sidecar {
    pub(super) async fn provision(&self, claim: Arc<Claim>) -> Result<(), Error> {
        let view = &claim.view;
        if !is_asked(view, self.name(), self.node()) {
            return Ok(());
        }
        let class: StorageClass = self.client.get(STORAGE_CLASSES, "", view.class()).await?;
        // Where no node was chosen, the class may name those that may have the volume.
        if !class.allows_topology(&self.node_labels().await?) {
            return Ok(());
        }
        let mut asked = request(view, &class);
        if let Some(name) = view.attributes_class() {
            asked.mutable_parameters = self.attributes_class(name).await?;
        }
        let made = self.driver.create_volume(Request::new(asked)).await?.into_inner();
        let made = made.volume.ok_or_else(|| Error::Malformed("the driver made no volume".to_owned()))?;
        let volume = volume(view, &class, self.name(), &made);
        match self.client.create(PERSISTENT_VOLUMES, "", &volume).await {
            Err(error) if !error.is_already_exists() => Err(error.into()),
            _ => Ok(()),
        }
    }

    pub(super) async fn reclaim(&self, volume: Arc<Volume>) -> Result<(), Error> {
        let view = &volume.view;
        if !self.owns(view) || !is_let_go(view, self.name()) {
            return Ok(());
        }
        let handle = view.spec.csi.as_ref().map(|csi| csi.volume_handle.clone()).unwrap_or_default();
        self.driver
            .delete_volume(Request::new(DeleteVolumeRequest { volume_id: handle, ..Default::default() }))
            .await?;
        let options = DeleteOptions { uid: Some(view.metadata.uid.clone()), ..Default::default() };
        match self.client.delete(PERSISTENT_VOLUMES, "", &view.metadata.name, &options).await {
            Err(error) if !error.is_not_found() => Err(error.into()),
            _ => Ok(()),
        }
    }
}

/// Whether the claim waits for this driver to make its volume on this node.
fn is_asked(claim: &PersistentVolumeClaim, driver: &str, node: &str) -> bool {
    let annotated = |key: &str| claim.metadata.annotations.get(key);
    claim.spec.volume_name.is_empty()
        && !claim.metadata.is_being_deleted()
        && annotated(STORAGE_PROVISIONER).is_some_and(|asked| asked == driver)
        && annotated(SELECTED_NODE).is_none_or(|chosen| chosen == node)
}

/// Whether the volume, made by this driver, is to be deleted.
fn is_let_go(volume: &PersistentVolume, driver: &str) -> bool {
    volume.status.phase == "Released"
        && volume.spec.persistent_volume_reclaim_policy == "Delete"
        && volume.metadata.annotations.get(PROVISIONED_BY).is_some_and(|by| by == driver)
        && !volume.metadata.is_being_deleted()
}

fn is_block(claim: &PersistentVolumeClaim) -> bool {
    volume_mode(claim.spec.volume_mode.as_ref()) == "Block"
}

fn request(claim: &PersistentVolumeClaim, class: &StorageClass) -> CreateVolumeRequest {
    let access_type = if is_block(claim) {
        AccessType::Block(BlockVolume {})
    } else {
        AccessType::Mount(MountVolume { fs_type: fs_type(class), ..Default::default() })
    };
    let capability = |mode: &String| {
        let mode = if mode == "ReadOnlyMany" { Mode::SingleNodeReaderOnly } else { Mode::SingleNodeWriter };
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(access_type.clone()),
        }
    };
    let parameters = class.parameters.iter().filter(|(key, _)| !key.starts_with(RESERVED));
    CreateVolumeRequest {
        name: name(claim),
        capacity_range: Some(CapacityRange { required_bytes: claim.request().value(), limit_bytes: 0 }),
        volume_capabilities: claim.spec.access_modes.iter().map(capability).collect(),
        parameters: parameters.map(|(key, value)| (key.clone(), value.clone())).collect(),
        secrets: HashMap::new(),
        accessibility_requirements: None,
        mutable_parameters: HashMap::new(),
    }
}

fn name(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", claim.metadata.uid)
}

fn fs_type(class: &StorageClass) -> String {
    class.parameters.get(FS_TYPE).cloned().unwrap_or_default()
}

/// The object for a volume that was made.
fn volume(
    claim: &PersistentVolumeClaim,
    class: &StorageClass,
    driver: &str,
    made: &csi::v1::Volume,
) -> Value {
    let meta = &claim.metadata;
    let mut source = json!({
        "driver": driver, "volumeHandle": made.volume_id, "volumeAttributes": made.volume_context,
    });
    if !is_block(claim) && !fs_type(class).is_empty() {
        source["fsType"] = fs_type(class).into();
    }
    for (parameter, field) in SECRETS {
        let of = |part: &str| class.parameters.get(&format!("{RESERVED}{parameter}-{part}"));
        if let (Some(name), Some(namespace)) = (of("name"), of("namespace")) {
            source[field] = json!({"name": expand(name, claim), "namespace": expand(namespace, claim)});
        }
    }
    let segments = made.accessible_topology.iter().flat_map(|topology| &topology.segments);
    let expressions: Vec<Value> =
        segments.map(|(key, value)| json!({"key": key, "operator": "In", "values": [value]})).collect();
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name(claim), "annotations": {PROVISIONED_BY: driver}},
        "spec": {
            "capacity": {"storage": made.capacity_bytes.to_string()},
            "accessModes": claim.spec.access_modes,
            "volumeMode": volume_mode(claim.spec.volume_mode.as_ref()),
            "storageClassName": claim.class(),
            "volumeAttributesClassName": claim.attributes_class(),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "mountOptions": class.mount_options,
            "claimRef": {
                "apiVersion": PERSISTENT_VOLUME_CLAIMS.api_version(), "kind": PERSISTENT_VOLUME_CLAIMS.kind,
                "namespace": meta.namespace, "name": meta.name, "uid": meta.uid,
            },
            "csi": source,
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}},
        },
    })
}

/// Parameters may speak of the claim.
fn expand(template: &str, claim: &PersistentVolumeClaim) -> String {
    let meta = &claim.metadata;
    template.replace("${pvc.namespace}", &meta.namespace).replace("${pvc.name}", &meta.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(annotations: Value, mode: &str) -> PersistentVolumeClaim {
        apimachinery::from_value(json!({
            "metadata": {"name": "c", "namespace": "n", "uid": "u", "annotations": annotations},
            "spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": mode, "storageClassName": "k",
                "resources": {"requests": {"storage": "1Mi"}}}}))
        .expect("a claim")
    }

    #[test]
    fn a_claim_is_served_by_its_driver_on_its_node() {
        let check = |annotations: Value, expect: bool| {
            assert_eq!(
                is_asked(&claim(annotations.clone(), "Filesystem"), "d", "here"),
                expect,
                "{annotations}"
            );
        };
        check(json!({STORAGE_PROVISIONER: "d"}), true);
        check(json!({STORAGE_PROVISIONER: "d", SELECTED_NODE: "here"}), true);
        check(json!({STORAGE_PROVISIONER: "d", SELECTED_NODE: "there"}), false);
        check(json!({STORAGE_PROVISIONER: "e"}), false);
        check(json!({}), false);
    }

    #[test]
    fn a_volume_is_as_its_claim_and_class_say() {
        let class: StorageClass = apimachinery::from_value(json!({
            "metadata": {"name": "k"}, "reclaimPolicy": "Retain",
            "parameters": {"kind": "fast", FS_TYPE: "ext4",
                "csi.storage.k8s.io/node-stage-secret-name": "${pvc.name}-key",
                "csi.storage.k8s.io/node-stage-secret-namespace": "${pvc.namespace}"}}))
        .expect("a class");
        let asked = request(&claim(json!({}), "Filesystem"), &class);
        assert_eq!((asked.name.as_str(), asked.parameters.len()), ("pvc-u", 1));
        assert_eq!(asked.capacity_range.expect("a range").required_bytes, 1 << 20);
        let made = csi::v1::Volume { capacity_bytes: 2 << 20, volume_id: "h".into(), ..Default::default() };
        let object = volume(&claim(json!({}), "Filesystem"), &class, "d", &made);
        assert_eq!(object["spec"]["capacity"]["storage"], "2097152");
        assert_eq!(object["spec"]["csi"]["nodeStageSecretRef"], json!({"name": "c-key", "namespace": "n"}));
        assert_eq!(object["spec"]["persistentVolumeReclaimPolicy"], "Retain");
        assert!(
            volume(&claim(json!({}), "Block"), &class, "d", &made)["spec"]["csi"].get("fsType").is_none()
        );
    }

    #[test]
    fn a_volume_is_deleted_when_nobody_holds_it_and_it_is_not_to_stay() {
        let volume = |phase: &str, policy: &str, by: &str| -> PersistentVolume {
            apimachinery::from_value(json!({"metadata": {"name": "v", "annotations": {PROVISIONED_BY: by}},
                "spec": {"persistentVolumeReclaimPolicy": policy}, "status": {"phase": phase}}))
            .expect("a volume")
        };
        assert!(is_let_go(&volume("Released", "Delete", "d"), "d"));
        assert!(!is_let_go(&volume("Bound", "Delete", "d"), "d"));
        assert!(!is_let_go(&volume("Released", "Retain", "d"), "d"));
        assert!(!is_let_go(&volume("Released", "Delete", "e"), "d"));
    }
}
