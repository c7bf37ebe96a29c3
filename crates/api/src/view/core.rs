//! The core group, `v1`.

mod config;
mod container;
mod node;
mod pod;
mod service;
mod volume;

pub use config::*;
pub use container::*;
pub use node::*;
pub use pod::*;
pub use service::*;
pub use volume::*;

super::view! {
    ConfigMap => CONFIG_MAPS;
    Endpoints => ENDPOINTS;
    Namespace => NAMESPACES;
    Node => NODES;
    Pod => PODS;
    Secret => SECRETS;
    Service => SERVICES;
    ServiceAccount => SERVICE_ACCOUNTS;
}
