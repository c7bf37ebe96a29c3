//! What the runtime needs to know from whoever runs it, and the pod network it plugs sandboxes into.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;

pub struct Config {
    /// Images, container root file systems and records; survives a reboot.
    pub data_dir: PathBuf,
    /// Sockets and mounts of what runs now; need not survive a reboot.
    pub state_dir: PathBuf,
    /// Where sandboxes without a `cgroup_parent` go, e.g. `/coxswain`.
    pub cgroup_root: String,
    /// Program started as `PROGRAM runtime-shim ..`; it calls `shim_main` with what follows.
    pub shim: PathBuf,
    pub network: Arc<dyn PodNetwork>,
    /// `registries.yaml`: mirrors, credentials and authorities of registries. It need not be there.
    pub registries: PathBuf,
}

/// A sandbox to connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodNetworkRequest {
    pub sandbox_id: String,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Network namespace; it lives as long as the sandbox's processes.
    pub netns: PathBuf,
    pub port_mappings: Vec<PodPortMapping>,
    pub annotations: HashMap<String, String>,
}

/// A port of the node that leads to a port of the pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodPortMapping {
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: &'static str,
    pub container_port: u16,
    pub host_port: u16,
    /// Empty: every address of the node.
    pub host_ip: String,
}

/// Gives sandboxes their addresses.
#[async_trait]
pub trait PodNetwork: Send + Sync + 'static {
    /// Connects a sandbox; its addresses, the primary one first. The error reaches the pod's events.
    async fn attach(&self, pod: &PodNetworkRequest) -> Result<Vec<IpAddr>, String>;

    /// Undoes `attach`. Called for sandboxes that are long gone too, and maybe more than once: must succeed then.
    async fn detach(&self, sandbox_id: &str) -> Result<(), String>;
}
