//! What the kubelet is told at start: what node it is, and by what it goes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use apimachinery::meta::StringMap;

use crate::certificate::Shown;
use crate::kubeletconfig::KubeletConfiguration;

#[derive(Clone)]
pub struct Config {
    pub node_name: String,
    pub node_ip: IpAddr,
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
}

impl Config {
    /// Where the kubelet's own API listens.
    pub fn listen(&self) -> SocketAddr {
        let port = u16::try_from(self.kubelet.port).expect("the configuration is validated");
        SocketAddr::new(self.kubelet.address, port)
    }
}
