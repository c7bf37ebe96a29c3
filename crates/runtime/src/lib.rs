//! The container runtime behind the CRI: images, sandboxes, containers and the shim that runs them.
//!
//! `Runtime::open` takes up what runs, `Runtime::in_process` gives the kubelet its clients, `Runtime::serve` puts the
//! same services on a socket, `connect` reaches another runtime's. `shim_main` is the other program in here: the small
//! process that holds a pod sandbox. The library knows no other crate of the workspace.

pub mod apparmor;
pub mod cgroups;
mod channel;
mod config;
mod container;
mod container_spec;
pub mod cri;
mod devices;
mod error;
mod exec;
mod files;
pub mod grpc_socket;
mod identity;
mod image_service;
pub mod images;
mod record;
mod relay;
mod runtime;
mod sandbox;
mod service;
pub mod shim;
mod shim_client;
mod stats;
pub mod streaming;

pub use cgroups::Cgroups;
pub use channel::{ChannelError, CriChannel, CriClients, connect, listen};
pub use config::{Config, PodNetwork, PodNetworkRequest, PodPortMapping};
pub use error::{Error, Result};
pub use runtime::Runtime;
pub use service::Service;
pub use shim::shim_main;
