//! Calls to a plugin on its socket.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

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

use crate::metrics::VolumeMetrics;
use crate::pluginmanager;

/// How long a plugin may take over one call (upstream: `csiTimeout`).
const TIMEOUT: Duration = Duration::from_secs(120);

/// A plugin, as it can be called.
#[derive(Clone, Debug)]
pub struct Plugin {
    driver: String,
    socket: PathBuf,
    metrics: Arc<VolumeMetrics>,
}

impl Plugin {
    pub fn new(driver: &str, socket: &Path, metrics: Arc<VolumeMetrics>) -> Self {
        Plugin { driver: driver.to_owned(), socket: socket.to_owned(), metrics }
    }

    pub async fn node_info(&self) -> Result<NodeGetInfoResponse, Status> {
        self.call("NodeGetInfo", async |channel| {
            NodeClient::new(channel).node_get_info(NodeGetInfoRequest {}).await
        })
        .await
    }

    pub async fn capabilities(&self) -> Result<Vec<Capability>, Status> {
        let request = NodeGetCapabilitiesRequest {};
        let asked = self.call("NodeGetCapabilities", async |channel| {
            NodeClient::new(channel).node_get_capabilities(request).await
        });
        let held = asked.await?.capabilities.into_iter().filter_map(|held| held.r#type);
        Ok(held.map(|Type::Rpc(rpc)| rpc.r#type()).collect())
    }

    pub async fn stage(&self, request: NodeStageVolumeRequest) -> Result<(), Status> {
        self.call("NodeStageVolume", async |channel| {
            NodeClient::new(channel).node_stage_volume(request).await
        })
        .await
        .map(drop)
    }

    pub async fn unstage(&self, request: NodeUnstageVolumeRequest) -> Result<(), Status> {
        self.call("NodeUnstageVolume", async |channel| {
            NodeClient::new(channel).node_unstage_volume(request).await
        })
        .await
        .map(drop)
    }

    pub async fn publish(&self, request: NodePublishVolumeRequest) -> Result<(), Status> {
        self.call("NodePublishVolume", async |channel| {
            NodeClient::new(channel).node_publish_volume(request).await
        })
        .await
        .map(drop)
    }

    pub async fn unpublish(&self, request: NodeUnpublishVolumeRequest) -> Result<(), Status> {
        let unpublish = async |channel| NodeClient::new(channel).node_unpublish_volume(request).await;
        self.call("NodeUnpublishVolume", unpublish).await.map(drop)
    }

    pub async fn expand(&self, request: NodeExpandVolumeRequest) -> Result<(), Status> {
        self.call("NodeExpandVolume", async |channel| {
            NodeClient::new(channel).node_expand_volume(request).await
        })
        .await
        .map(drop)
    }

    pub async fn stats(
        &self,
        request: NodeGetVolumeStatsRequest,
    ) -> Result<NodeGetVolumeStatsResponse, Status> {
        self.call("NodeGetVolumeStats", async |channel| {
            NodeClient::new(channel).node_get_volume_stats(request).await
        })
        .await
    }

    async fn call<A, F>(&self, method: &str, ask: impl FnOnce(Channel) -> F) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let began = Instant::now();
        let answer = pluginmanager::call(&self.socket, TIMEOUT, ask).await;
        let method = format!("/csi.v1.Node/{method}");
        self.metrics.driver_called(&self.driver, &method, answer.as_ref().err(), began);
        answer
    }
}
