//! What the kubelet is told at start: what node it is, and by what it goes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::meta::StringMap;
use client::debug::SetVerbosity;
use client::metrics::Source;
use client::zpages::Pages;

use crate::certificate::Shown;
use crate::kubeletconfig::KubeletConfiguration;

#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ip: IpAddr,
    /// The node's address of the other family, in a cluster of both.
    pub node_ip_other: Option<IpAddr>,
    /// Pod volumes and termination messages live below; upstream: `/var/lib/kubelet`.
    pub root_dir: PathBuf,
    /// Where the built-in provisioner's volumes of this node are; the node offers none without.
    pub local_path_root: Option<PathBuf>,
    pub node_labels: StringMap,
    /// TLS of the kubelet's own API: its certificate, and the authority of client certificates.
    pub tls: Arc<rustls::ServerConfig>,
    pub shown: Shown,
    /// `vX.Y.Z`, as nodes report it.
    pub version: String,
    pub kubelet: KubeletConfiguration,
    /// What the kubelet says of itself.
    pub pages: Pages,
    /// Sets how much is logged.
    pub set_verbosity: SetVerbosity,
    /// What the kubelet is part of is measured by.
    pub figures: Vec<Arc<dyn Source>>,
}

impl Config {
    /// Where the kubelet's own API listens.
    pub fn listen(&self) -> SocketAddr {
        SocketAddr::new(self.kubelet.address, port(self.kubelet.port))
    }

    /// Where anybody may look at pods and figures, if at all.
    pub fn listen_read_only(&self) -> Option<SocketAddr> {
        let port = port(self.kubelet.read_only_port);
        (port != 0).then(|| SocketAddr::new(self.kubelet.address, port))
    }

    /// Where the kubelet says whether it is well, if at all.
    pub fn listen_healthz(&self) -> Option<SocketAddr> {
        let port = port(self.kubelet.healthz_port);
        (port != 0).then(|| SocketAddr::new(self.kubelet.healthz_bind_address, port))
    }
}

fn port(number: i32) -> u16 {
    u16::try_from(number).expect("the configuration is validated")
}

impl Config {
    /// The node's addresses, the one that counts first.
    pub fn host_ips(&self) -> Vec<IpAddr> {
        [self.node_ip].into_iter().chain(self.node_ip_other).collect()
    }
}
