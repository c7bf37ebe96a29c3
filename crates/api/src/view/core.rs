//! The core group, `v1`.

mod config;
mod container;
pub mod hostport;
mod node;
pub mod nodeselector;
pub mod persistentvolume;
mod pod;
mod resourcequota;
mod service;
mod volume;

pub use config::*;
pub use container::*;
pub use node::*;
pub use persistentvolume::{
    CsiPersistentVolumeSource, PersistentVolume, PersistentVolumeClaim, PersistentVolumeSpec, SecretReference,
};
pub use pod::*;
pub use resourcequota::*;
pub use service::*;
pub use volume::*;

super::view! {
    ConfigMap => CONFIG_MAPS;
    Endpoints => ENDPOINTS;
    Namespace => NAMESPACES;
    Node => NODES;
    PersistentVolume => PERSISTENT_VOLUMES;
    PersistentVolumeClaim => PERSISTENT_VOLUME_CLAIMS;
    Pod => PODS;
    ResourceQuota => RESOURCE_QUOTAS;
    Secret => SECRETS;
    Service => SERVICES;
    ServiceAccount => SERVICE_ACCOUNTS;
}
