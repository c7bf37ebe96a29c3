//! The Container Storage Interface v1 and the registration of plugins with kubelets, as both sides of them speak it:
//! messages, clients and servers, and the sockets in between, of plugins of any kind.
//!
//! Nothing here knows Kubernetes' objects. What is written down in `proto` is what this project's kubelet asks for and its
//! example driver answers.

mod plugin;
mod socket;

pub use plugin::{Error, Plugin, REGISTRY_DIR};
pub use socket::{connect, listen};

/// CSI v1: the services of a driver.
pub mod v1 {
    tonic::include_proto!("csi.v1");
}

/// Registration v1: how a kubelet learns of a plugin from the socket that it finds.
pub mod pluginregistration {
    tonic::include_proto!("pluginregistration");
}
