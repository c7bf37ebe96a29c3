//! The driver: its settings, its volumes, and the sockets it answers on.

mod controller;
mod identity;
mod loop_device;
mod mounts;
mod node;
mod volumes;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csi::Plugin;
use csi::v1::controller_server::ControllerServer;
use csi::v1::identity_server::IdentityServer;
use csi::v1::node_server::NodeServer;

use volumes::Volumes;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
}

#[derive(Clone, Debug)]
pub struct Settings {
    pub name: String,
    pub node_id: String,
    pub state_dir: PathBuf,
    /// Zero for any number.
    pub volumes_max: i64,
}

/// Answers all calls. Cloning shares the volumes.
#[derive(Clone)]
pub struct Driver {
    pub settings: Arc<Settings>,
    volumes: Arc<Volumes>,
}

impl Driver {
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let volumes = Volumes::open(&settings.state_dir)
            .map_err(|error| Error::Io(settings.state_dir.clone(), error))?;
        Ok(Driver { settings: Arc::new(settings), volumes: Arc::new(volumes) })
    }

    /// The label of nodes by which volumes are tied to theirs.
    pub fn topology_key(&self) -> String {
        format!("topology.{}/node", self.settings.name)
    }
}

/// Serves the kubelet of a folder.
pub async fn serve(driver: Driver, kubelet_dir: &Path) -> Result<(), csi::Error> {
    let settings = driver.settings.clone();
    let services = tonic::transport::Server::builder()
        .add_service(IdentityServer::new(driver.clone()))
        .add_service(ControllerServer::new(driver.clone()))
        .add_service(NodeServer::new(driver));
    let plugin = Plugin { kind: "CSIPlugin", name: &settings.name, socket: "csi.sock", versions: &["1.0.0"] };
    plugin.serve(services, kubelet_dir).await
}
