//! `storage.k8s.io/v1`.

use std::time::Duration;

use apimachinery::meta::{LabelSelector, ObjectMeta, StringMap};
use apimachinery::time;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::core::PersistentVolumeSpec;

/// Marks the class that claims get when they name none.
const IS_DEFAULT: &str = "storageclass.kubernetes.io/is-default-class";
const BETA_IS_DEFAULT: &str = "storageclass.beta.kubernetes.io/is-default-class";

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageClass {
    pub metadata: ObjectMeta,
    pub provisioner: String,
    pub reclaim_policy: Option<String>,
    pub mount_options: Vec<String>,
    /// The provisioner's.
    pub parameters: StringMap,
    pub allow_volume_expansion: Option<bool>,
    /// `Immediate` or `WaitForFirstConsumer`.
    pub volume_binding_mode: Option<String>,
    pub allowed_topologies: Vec<TopologySelectorTerm>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologySelectorTerm {
    pub match_label_expressions: Vec<TopologySelectorLabelRequirement>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologySelectorLabelRequirement {
    pub key: String,
    pub values: Vec<String>,
}

impl StorageClass {
    pub fn is_default(&self) -> bool {
        let says = |key: &str| self.metadata.annotations.get(key).is_some_and(|value| value == "true");
        says(IS_DEFAULT) || says(BETA_IS_DEFAULT)
    }

    pub fn waits_for_first_consumer(&self) -> bool {
        self.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer")
    }

    /// Whether volumes may be made for a node with these labels (upstream: `MatchTopologySelectorTerms`).
    pub fn allows_topology(&self, labels: &StringMap) -> bool {
        let holds = |requirement: &TopologySelectorLabelRequirement| {
            labels.get(&requirement.key).is_some_and(|value| requirement.values.contains(value))
        };
        let term = |term: &TopologySelectorTerm| term.match_label_expressions.iter().all(holds);
        self.allowed_topologies.is_empty() || self.allowed_topologies.iter().any(term)
    }
}

/// The newest of those marked as default, by name among equals (upstream: `GetDefaultClass`).
pub fn default_class<'a>(classes: impl IntoIterator<Item = &'a StorageClass>) -> Option<&'a StorageClass> {
    let defaults = classes.into_iter().filter(|class| class.is_default());
    let newest_first = |class: &&StorageClass| {
        (std::cmp::Reverse(class.metadata.creation_timestamp), class.metadata.name.clone())
    };
    defaults.min_by_key(newest_first)
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CsiNode {
    pub metadata: ObjectMeta,
    pub spec: CsiNodeSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CsiNodeSpec {
    #[serde(deserialize_with = "super::null_is_default")]
    pub drivers: Vec<CsiNodeDriver>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiNodeDriver {
    pub name: String,
    /// What the driver calls the node.
    #[serde(rename = "nodeID")]
    pub node_id: String,
    #[serde(deserialize_with = "super::null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub topology_keys: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allocatable: Option<VolumeNodeResources>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeNodeResources {
    /// How many volumes of the driver the node takes; unset is no limit.
    pub count: Option<i32>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CsiDriver {
    pub metadata: ObjectMeta,
    pub spec: CsiDriverSpec,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiDriverSpec {
    pub attach_required: Option<bool>,
    pub pod_info_on_mount: Option<bool>,
    /// `Persistent`, `Ephemeral`.
    pub volume_lifecycle_modes: Vec<String>,
    pub storage_capacity: Option<bool>,
    /// `ReadWriteOnceWithFSType`, `File` or `None`.
    pub fs_group_policy: Option<String>,
    pub token_requests: Vec<TokenRequest>,
    pub requires_republish: Option<bool>,
    pub service_account_token_in_secrets: Option<bool>,
    pub node_allocatable_update_period_seconds: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TokenRequest {
    pub audience: String,
    pub expiration_seconds: Option<i64>,
}

impl CsiDriverSpec {
    pub fn needs_attach(&self) -> bool {
        self.attach_required != Some(false)
    }

    /// How often nodes are to ask the driver how many volumes they may have.
    pub fn allocatable_update_period(&self) -> Option<Duration> {
        self.node_allocatable_update_period_seconds.map(Duration::from_secs)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiStorageCapacity {
    pub metadata: ObjectMeta,
    pub node_topology: Option<LabelSelector>,
    pub storage_class_name: String,
    pub capacity: Option<String>,
    pub maximum_volume_size: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct VolumeAttachment {
    pub metadata: ObjectMeta,
    pub spec: VolumeAttachmentSpec,
    pub status: VolumeAttachmentStatus,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeAttachmentSpec {
    pub attacher: String,
    pub node_name: String,
    pub source: VolumeAttachmentSource,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeAttachmentSource {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub persistent_volume_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inline_volume_spec: Option<PersistentVolumeSpec>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeAttachmentStatus {
    pub attached: bool,
    pub attachment_metadata: StringMap,
    pub attach_error: Option<VolumeError>,
    pub detach_error: Option<VolumeError>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeError {
    #[serde(with = "time::rfc3339")]
    pub time: Option<Timestamp>,
    pub message: String,
    /// The driver's gRPC code.
    pub error_code: Option<i32>,
}

super::view! {
    CsiDriver => CSI_DRIVERS;
    CsiNode => CSI_NODES;
    CsiStorageCapacity => CSI_STORAGE_CAPACITIES;
    StorageClass => STORAGE_CLASSES;
    VolumeAttachment => VOLUME_ATTACHMENTS;
}
