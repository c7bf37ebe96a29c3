//! The driver: its settings, its volumes, and the sockets it answers on.

mod controller;
mod identity;
mod loop_device;
mod mounts;
mod node;
mod registration;
mod volumes;

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use csi::pluginregistration::registration_server::RegistrationServer;
use csi::v1::controller_server::ControllerServer;
use csi::v1::identity_server::IdentityServer;
use csi::v1::node_server::NodeServer;
use tokio_stream::wrappers::UnixListenerStream;

use registration::Registration;
use volumes::Volumes;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("cannot answer: {0}")]
    Serve(#[from] tonic::transport::Error),
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

/// Answers on a socket in the kubelet's `plugins`, and tells the kubelet by one in `plugins_registry`.
pub async fn serve(driver: Driver, kubelet_dir: &Path) -> Result<(), Error> {
    let name = driver.settings.name.clone();
    let endpoint = kubelet_dir.join("plugins").join(&name).join("csi.sock");
    let registry = kubelet_dir.join("plugins_registry").join(format!("{name}-reg.sock"));
    let listen = |path: &Path| csi::listen(path).map_err(|error| Error::Io(path.to_owned(), error));
    let services = tonic::transport::Server::builder()
        .add_service(IdentityServer::new(driver.clone()))
        .add_service(ControllerServer::new(driver.clone()))
        .add_service(NodeServer::new(driver))
        .serve_with_incoming(UnixListenerStream::new(listen(&endpoint)?));
    let registration = tonic::transport::Server::builder()
        .add_service(RegistrationServer::new(Registration { name, endpoint }))
        .serve_with_incoming(UnixListenerStream::new(listen(&registry)?));
    tokio::try_join!(services, registration)?;
    Ok(())
}
