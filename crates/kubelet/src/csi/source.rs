//! What a driver is to bring into a pod: a persistent volume, or one that the pod brings with it.

use std::collections::HashMap;

use api::storage::csi::hex_digest;
use api::view::core::persistentvolume::volume_mode;
use api::view::core::{
    CsiPersistentVolumeSource, CsiVolumeSource, PersistentVolume, Pod, SecretReference, Volume,
};
use apimachinery::quantity::Quantity;
use csi::v1::VolumeCapability;
use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::volume_capability::access_mode::Mode;
use csi::v1::volume_capability::{AccessMode, AccessType, BlockVolume, MountVolume};

pub type Texts = HashMap<String, String>;

/// How long a volume lives, in the words of `CSIDriver.spec.volumeLifecycleModes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifecycle {
    Persistent,
    /// As long as its pod.
    Ephemeral,
}

impl Lifecycle {
    pub fn as_str(self) -> &'static str {
        match self {
            Lifecycle::Persistent => "Persistent",
            Lifecycle::Ephemeral => "Ephemeral",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Source {
    /// The persistent volume's, or that of the pod's volume.
    pub name: String,
    /// What the pod calls it.
    pub name_in_pod: String,
    pub driver: String,
    pub handle: String,
    pub lifecycle: Lifecycle,
    /// A device rather than a file system.
    pub is_block: bool,
    pub fs_type: String,
    pub read_only: bool,
    pub attributes: Texts,
    pub access_modes: Vec<String>,
    pub mount_options: Vec<String>,
    pub stage_secret: Option<SecretReference>,
    pub publish_secret: Option<SecretReference>,
    pub expand_secret: Option<SecretReference>,
    pub capacity: Quantity,
}

impl Source {
    /// The volume of a claim that the pod uses under `used`.
    pub fn persistent(used: &Volume, volume: &PersistentVolume, source: &CsiPersistentVolumeSource) -> Self {
        let is_read_only = used.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only);
        Source {
            name: volume.metadata.name.clone(),
            name_in_pod: used.name.clone(),
            driver: source.driver.clone(),
            handle: source.volume_handle.clone(),
            lifecycle: Lifecycle::Persistent,
            is_block: volume_mode(volume.spec.volume_mode.as_ref()) == "Block",
            fs_type: source.fs_type.clone(),
            read_only: source.read_only || is_read_only,
            attributes: source.volume_attributes.clone().into_iter().collect(),
            access_modes: volume.spec.access_modes.clone(),
            mount_options: volume.spec.mount_options.clone(),
            stage_secret: source.node_stage_secret_ref.clone(),
            publish_secret: source.node_publish_secret_ref.clone(),
            expand_secret: source.node_expand_secret_ref.clone(),
            capacity: volume.capacity(),
        }
    }

    /// Its handle is made up, the same whenever it is asked for (upstream: `makeVolumeHandle`).
    pub fn inline(pod: &Pod, name: &str, source: &CsiVolumeSource) -> Self {
        let secret = source.node_publish_secret_ref.as_ref().map(|secret| SecretReference {
            name: secret.name.clone(),
            namespace: pod.metadata.namespace.clone(),
        });
        Source {
            name: name.to_owned(),
            name_in_pod: name.to_owned(),
            driver: source.driver.clone(),
            handle: format!("csi-{}", hex_digest(&[&pod.metadata.uid, name])),
            lifecycle: Lifecycle::Ephemeral,
            is_block: false,
            fs_type: source.fs_type.clone().unwrap_or_default(),
            read_only: source.read_only == Some(true),
            attributes: source.volume_attributes.clone().into_iter().collect(),
            access_modes: vec!["ReadWriteOnce".to_owned()],
            mount_options: Vec::new(),
            stage_secret: None,
            publish_secret: secret,
            expand_secret: None,
            capacity: Quantity::default(),
        }
    }

    /// How the volume is used, as the driver is told; `group` is the pod's.
    pub fn capability(&self, held: &[Capability], group: Option<i64>) -> VolumeCapability {
        let tells_writers = held.contains(&Capability::SingleNodeMultiWriter);
        let mode = self.access_modes.first().map_or(Mode::Unknown, |mode| access_mode(mode, tells_writers));
        let access_type = if self.is_block {
            AccessType::Block(BlockVolume {})
        } else {
            let group = group.filter(|_| held.contains(&Capability::VolumeMountGroup));
            AccessType::Mount(MountVolume {
                fs_type: self.fs_type.clone(),
                mount_flags: self.mount_options.clone(),
                volume_mount_group: group.map(|group| group.to_string()).unwrap_or_default(),
            })
        };
        VolumeCapability {
            access_mode: Some(AccessMode { mode: mode.into() }),
            access_type: Some(access_type),
        }
    }

    /// With more modes it is unknown which one the pod means.
    pub fn is_for_one_pod(&self) -> bool {
        self.access_modes == ["ReadWriteOncePod"]
    }

    /// Whether the kubelet gives the volume to the pod's group (upstream: `supportsFSGroup`).
    pub fn belongs_to_group(&self, policy: Option<&str>) -> bool {
        let is_one_nodes = self.access_modes.iter().any(|mode| mode == "ReadWriteOnce");
        match policy {
            _ if self.read_only || self.is_block => false,
            Some("None") => false,
            Some("File") => true,
            _ => !self.fs_type.is_empty() && is_one_nodes,
        }
    }
}

/// Drivers that tell one writer from several on a node get the finer modes.
fn access_mode(mode: &str, tells_writers: bool) -> Mode {
    match (mode, tells_writers) {
        ("ReadWriteOnce", true) => Mode::SingleNodeMultiWriter,
        ("ReadWriteOncePod", true) => Mode::SingleNodeSingleWriter,
        ("ReadWriteOnce" | "ReadWriteOncePod", false) => Mode::SingleNodeWriter,
        ("ReadOnlyMany", _) => Mode::MultiNodeReaderOnly,
        ("ReadWriteMany", _) => Mode::MultiNodeMultiWriter,
        _ => Mode::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn inline() -> Source {
        let pod: Pod =
            apimachinery::from_value(json!({"metadata": {"uid": "u", "namespace": "n"}})).expect("a pod");
        let source = json!({"driver": "d", "fsType": "ext4", "nodePublishSecretRef": {"name": "s"}});
        Source::inline(&pod, "v", &apimachinery::from_value(source).expect("a source"))
    }

    #[test]
    fn drivers_that_tell_writers_apart_get_the_finer_modes() {
        assert_eq!(access_mode("ReadWriteOnce", false), Mode::SingleNodeWriter);
        assert_eq!(access_mode("ReadWriteOnce", true), Mode::SingleNodeMultiWriter);
        assert_eq!(access_mode("ReadWriteOncePod", true), Mode::SingleNodeSingleWriter);
        assert_eq!(access_mode("ReadOnlyMany", true), Mode::MultiNodeReaderOnly);
    }

    #[test]
    fn a_pods_own_volume_has_a_handle_of_its_own_and_secrets_of_its_namespace() {
        let source = inline();
        assert_eq!(source.handle, format!("csi-{}", hex_digest(&["uv"])));
        assert_eq!(source.publish_secret.expect("a secret").namespace, "n");
    }

    #[test]
    fn a_driver_that_gives_volumes_to_groups_is_told_the_group() {
        let told = |held: &[Capability]| match inline().capability(held, Some(7)).access_type {
            Some(AccessType::Mount(mount)) => mount.volume_mount_group,
            other => panic!("{other:?}"),
        };
        assert_eq!((told(&[]).as_str(), told(&[Capability::VolumeMountGroup]).as_str()), ("", "7"));
    }

    #[test]
    fn the_policy_decides_which_volumes_belong_to_the_pods_group() {
        let check = |policy: Option<&str>, fs_type: &str, mode: &str, expect: bool| {
            let source = Source { fs_type: fs_type.into(), access_modes: vec![mode.into()], ..inline() };
            assert_eq!(source.belongs_to_group(policy), expect, "{policy:?} {fs_type} {mode}");
        };
        check(None, "ext4", "ReadWriteOnce", true);
        check(None, "", "ReadWriteOnce", false);
        check(None, "ext4", "ReadWriteMany", false);
        check(Some("File"), "", "ReadWriteMany", true);
        check(Some("None"), "ext4", "ReadWriteOnce", false);
        assert!(!Source { read_only: true, ..inline() }.belongs_to_group(Some("File")));
    }
}
