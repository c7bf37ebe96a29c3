//! What the kubelet is told at start.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::meta::StringMap;

use crate::settings::Settings;

/// Upstream's `maxPods` default.
pub const MAX_PODS_DEFAULT: u32 = 110;

#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ip: IpAddr,
    /// Pod volumes and termination messages live below; upstream: `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Where the built-in provisioner's volumes of this node are; the node offers none without.
    pub local_path_root: Option<PathBuf>,
    /// Container logs, `NAMESPACE_NAME_UID/CONTAINER/ATTEMPT.log` below it; upstream: `/var/log/pods`.
    pub pod_logs_dir: PathBuf,
    /// The cgroup below which all pods live, for example `/coxswain`.
    pub cgroup_root: String,
    /// Empty when the cluster has no DNS service.
    pub cluster_dns: Vec<IpAddr>,
    pub cluster_domain: String,
    /// The file of upstream resolvers that pods with `dnsPolicy: Default` get.
    pub resolv_conf: PathBuf,
    pub max_pods: u32,
    pub node_labels: StringMap,
    /// Where the kubelet's own API listens; port 0 takes any free port.
    pub listen: SocketAddr,
    /// TLS of the kubelet's own API: its certificate, and the authority of client certificates.
    pub tls: Arc<rustls::ServerConfig>,
    /// `vX.Y.Z`, as nodes report it.
    pub version: String,
    pub settings: Settings,
}
