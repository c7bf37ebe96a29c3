//! The sockets of a plugin in the kubelet's folder: one on which it does its work, and one by which the kubelet learns of it.

use std::io;
use std::path::{Path, PathBuf};

use tokio_stream::wrappers::UnixListenerStream;
use tonic::transport::server::{Router, Server};
use tonic::{Request, Response, Status};

use crate::pluginregistration::registration_server::{Registration, RegistrationServer};
use crate::pluginregistration::{InfoRequest, PluginInfo, RegistrationStatus, RegistrationStatusResponse};
use crate::socket::listen;

/// Where in its folder a kubelet looks for plugins.
pub const REGISTRY_DIR: &str = "plugins_registry";
/// Where in the kubelet's folder plugins have folders of their own.
const PLUGINS_DIR: &str = "plugins";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{0}: {1}")]
    Io(PathBuf, io::Error),
    #[error("cannot answer: {0}")]
    Serve(#[from] tonic::transport::Error),
}

/// What a plugin is to the kubelet.
#[derive(Clone, Copy, Debug)]
pub struct Plugin<'a> {
    /// As the kubelet's handlers are called, such as `CSIPlugin`.
    pub kind: &'a str,
    pub name: &'a str,
    /// The file's name of the socket on which it does its work.
    pub socket: &'a str,
    pub versions: &'a [&'a str],
}

impl Plugin<'_> {
    /// Does the plugin's work by `services` for the kubelet of a folder, and tells it who it is when asked.
    pub async fn serve(self, services: Router, kubelet_dir: &Path) -> Result<(), Error> {
        let endpoint = kubelet_dir.join(PLUGINS_DIR).join(self.name).join(self.socket);
        let registry = kubelet_dir.join(REGISTRY_DIR).join(format!("{}-reg.sock", self.name));
        let listen = |path: &Path| listen(path).map_err(|error| Error::Io(path.to_owned(), error));
        let services = services.serve_with_incoming(UnixListenerStream::new(listen(&endpoint)?));
        let info = PluginInfo {
            r#type: self.kind.to_owned(),
            name: self.name.to_owned(),
            endpoint: endpoint.display().to_string(),
            supported_versions: self.versions.iter().map(|&version| version.to_owned()).collect(),
        };
        let registration = Server::builder()
            .add_service(RegistrationServer::new(Told { info }))
            .serve_with_incoming(UnixListenerStream::new(listen(&registry)?));
        tokio::try_join!(services, registration)?;
        Ok(())
    }
}

/// Answers the kubelet that asks who is there.
struct Told {
    info: PluginInfo,
}

#[tonic::async_trait]
impl Registration for Told {
    async fn get_info(&self, _: Request<InfoRequest>) -> Result<Response<PluginInfo>, Status> {
        Ok(Response::new(self.info.clone()))
    }

    async fn notify_registration_status(
        &self,
        request: Request<RegistrationStatus>,
    ) -> Result<Response<RegistrationStatusResponse>, Status> {
        let status = request.into_inner();
        if status.plugin_registered {
            tracing::info!("the kubelet has registered the plugin");
        } else {
            tracing::warn!(error = status.error, "the kubelet has refused the plugin");
        }
        Ok(Response::new(RegistrationStatusResponse {}))
    }
}
