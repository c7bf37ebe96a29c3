//! The built-in provisioner's volumes: a directory on the node that the scheduler chose. The node's kubelet makes the
//! directory when a pod first mounts it, and removes it when the volume is deleted.

use api::resource::PERSISTENT_VOLUME_CLAIMS;
use api::storage::localpath::{FINALIZER, NODE_LABEL, ROOT};
use api::view::core::Node;
use api::view::core::persistentvolume::{BOUND_BY_CONTROLLER, volume_mode};
use api::view::storage::StorageClass;
use apimachinery::{Value, json};

use super::Claim;
use crate::plan::reference;

/// A directory is on one node, so these are the modes that keep their word.
const ACCESS_MODES: [&str; 2] = ["ReadWriteOnce", "ReadWriteOncePod"];

/// The volume to create, or why there can be none.
pub fn volume(claim: &Claim, class: &StorageClass, node: Option<&Node>) -> Result<Value, String> {
    let spec = &claim.view.spec;
    if let Some(mode) = spec.access_modes.iter().find(|mode| !ACCESS_MODES.contains(&mode.as_str())) {
        return Err(format!("access mode {mode} is not possible on a directory of one node"));
    }
    if volume_mode(spec.volume_mode.as_ref()) != "Filesystem" {
        return Err("only volumeMode Filesystem is possible".to_owned());
    }
    if spec.data_source.is_some() {
        return Err("a volume cannot begin with the data of another".to_owned());
    }
    let Some(node) = node else {
        return Err(
            "no node has been selected; the class needs volumeBindingMode WaitForFirstConsumer".to_owned()
        );
    };
    let name = format!("pvc-{}", claim.view.metadata.uid);
    let node_name = &node.metadata.name;
    let (Some(root), Some(label)) =
        (node.metadata.annotations.get(ROOT), node.metadata.labels.get(NODE_LABEL))
    else {
        return Err(format!("node {node_name:?} has no place for local volumes"));
    };
    Ok(json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {"name": name, "finalizers": [FINALIZER], "annotations": {BOUND_BY_CONTROLLER: "yes"}},
        "spec": {
            "capacity": {"storage": spec.resources.requests.get("storage")},
            "accessModes": spec.access_modes,
            "volumeMode": "Filesystem",
            "storageClassName": claim.view.class(),
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "claimRef": reference(PERSISTENT_VOLUME_CLAIMS, &claim.view.metadata),
            "local": {"path": format!("{}/{name}", root.trim_end_matches('/'))},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [
                {"matchExpressions": [{"key": NODE_LABEL, "operator": "In", "values": [label]}]},
            ]}},
        },
    }))
}
