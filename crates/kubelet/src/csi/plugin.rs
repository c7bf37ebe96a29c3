//! Calls to a plugin on its socket.

use std::path::{Path, PathBuf};
use std::time::Duration;

use csi::v1::node_client::NodeClient;
use csi::v1::node_service_capability::Type;
use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::{
    NodeExpandVolumeRequest, NodeGetCapabilitiesRequest, NodeGetInfoRequest, NodeGetInfoResponse,
    NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest,
};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::pluginmanager;

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

    pub async fn node_info(&self) -> Result<NodeGetInfoResponse, Status> {
        self.call(async |channel| NodeClient::new(channel).node_get_info(NodeGetInfoRequest {}).await).await
    }

    pub async fn capabilities(&self) -> Result<Vec<Capability>, Status> {
        let request = NodeGetCapabilitiesRequest {};
        let asked = self.call(async |channel| NodeClient::new(channel).node_get_capabilities(request).await);
        let held = asked.await?.capabilities.into_iter().filter_map(|held| held.r#type);
        Ok(held.map(|Type::Rpc(rpc)| rpc.r#type()).collect())
    }

    pub async fn stage(&self, request: NodeStageVolumeRequest) -> Result<(), Status> {
        self.call(async |channel| NodeClient::new(channel).node_stage_volume(request).await).await.map(drop)
    }

    pub async fn unstage(&self, request: NodeUnstageVolumeRequest) -> Result<(), Status> {
        self.call(async |channel| NodeClient::new(channel).node_unstage_volume(request).await).await.map(drop)
    }

    pub async fn publish(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.call(async |channel| NodeClient::new(channel).node_publish_volume(request).await).await.map(drop)
    }

    pub async fn unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<(), Status> {
        let unpublish = async |channel| NodeClient::new(channel).node_unpublish_volume(request).await;
        self.call(unpublish).await.map(drop)
    }

    pub async fn expand(&self, request: NodeExpandVolumeRequest) -> Result<(), Status> {
        self.call(async |channel| NodeClient::new(channel).node_expand_volume(request).await).await.map(drop)
    }

    pub async fn stats(
        &self,
        request: NodeGetVolumeStatsRequest,
    ) -> Result<NodeGetVolumeStatsResponse, Status> {
        self.call(async |channel| NodeClient::new(channel).node_get_volume_stats(request).await).await
    }

    async fn call<A, F>(&self, ask: impl FnOnce(Channel) -> F) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        pluginmanager::call(&self.socket, TIMEOUT, ask).await
    }
}
