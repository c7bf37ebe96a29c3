//! Calls to a plugin on its socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::proto::{
    Capability, Empty, NodeGetCapabilitiesResponse, NodeGetInfoResponse, NodePublishVolumeRequest,
    NodeStageVolumeRequest, NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, PluginInfo,
    RegistrationStatus,
};

/// How long a plugin may take over one call (upstream: `csiTimeout`).
const TIMEOUT: Duration = Duration::from_secs(120);

/// A plugin, as it can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plugin {
    socket: PathBuf,
}

impl Plugin {
    pub fn new(socket: &Path) -> Self {
        Plugin { socket: socket.to_owned() }
    }

    pub async fn info(&self) -> Result<PluginInfo, tonic::Status> {
        self.call("/pluginregistration.Registration/GetInfo", Empty {}).await
    }

    pub async fn notify(&self, status: RegistrationStatus) -> Result<(), tonic::Status> {
        self.done("/pluginregistration.Registration/NotifyRegistrationStatus", status).await
    }

    pub async fn node_info(&self) -> Result<NodeGetInfoResponse, tonic::Status> {
        self.call("/csi.v1.Node/NodeGetInfo", Empty {}).await
    }

    pub async fn has(&self, capability: Capability) -> Result<bool, tonic::Status> {
        let answer: NodeGetCapabilitiesResponse =
            self.call("/csi.v1.Node/NodeGetCapabilities", Empty {}).await?;
        let mut held = answer.capabilities.iter().filter_map(|held| held.rpc.as_ref());
        Ok(held.any(|rpc| rpc.kind() == capability))
    }

    pub async fn stage(&self, request: NodeStageVolumeRequest) -> Result<(), tonic::Status> {
        self.done("/csi.v1.Node/NodeStageVolume", request).await
    }

    pub async fn unstage(&self, request: NodeUnstageVolumeRequest) -> Result<(), tonic::Status> {
        self.done("/csi.v1.Node/NodeUnstageVolume", request).await
    }

    pub async fn publish(&self, request: NodePublishVolumeRequest) -> Result<(), tonic::Status> {
        self.done("/csi.v1.Node/NodePublishVolume", request).await
    }

    pub async fn unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<(), tonic::Status> {
        self.done("/csi.v1.Node/NodeUnpublishVolume", request).await
    }

    async fn done<M>(&self, path: &'static str, message: M) -> Result<(), tonic::Status>
    where
        M: prost::Message + Default + 'static,
    {
        self.call::<M, Empty>(path, message).await.map(drop)
    }

    async fn call<M, A>(&self, path: &'static str, message: M) -> Result<A, tonic::Status>
    where
        M: prost::Message + Default + 'static,
        A: prost::Message + Default + 'static,
    {
        let answer = async {
            let mut client = tonic::client::Grpc::new(self.connect().await?);
            client.ready().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
            let codec = tonic_prost::ProstCodec::<M, A>::default();
            client.unary(tonic::Request::new(message), PathAndQuery::from_static(path), codec).await
        };
        let answer = tokio::time::timeout(TIMEOUT, answer).await;
        let answer =
            answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("context deadline exceeded")));
        answer.map(tonic::Response::into_inner)
    }

    /// A connection for each call: a plugin that was replaced is found behind the same path.
    async fn connect(&self) -> Result<Channel, tonic::Status> {
        let socket = self.socket.clone();
        let connector = tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        });
        // Required by the type, meaningless on a socket.
        let endpoint = Endpoint::from_static("http://localhost");
        let channel = endpoint.connect_with_connector(connector).await;
        channel.map_err(|error| {
            let socket = self.socket.display();
            tonic::Status::unavailable(format!("plugin does not answer on {socket}: {error}"))
        })
    }
}
