//! The API between kubelets and drivers of dynamic resources, as both sides of it speak it.
//!
//! Version 1beta1 has the same messages as version 1 but for the share of a device, so that one set of types does for
//! both. What is written down in `proto` is what this project's kubelet asks for and its example driver answers.

use http::uri::PathAndQuery;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// Version 1 of the plugin's side.
pub mod v1 {
    tonic::include_proto!("k8s.io.kubelet.pkg.apis.dra.v1");
}

/// Version 1alpha1 of how drivers tell of their devices' health.
pub mod health {
    tonic::include_proto!("v1alpha1");
}

use health::{NodeWatchResourcesRequest, NodeWatchResourcesResponse};
use v1::{
    NodePrepareResourcesRequest, NodePrepareResourcesResponse, NodeUnprepareResourcesRequest,
    NodeUnprepareResourcesResponse,
};

/// Which version of the API a plugin answers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V1Beta1,
}

impl Version {
    /// What plugins list when they register, the newest first.
    pub const SERVICES: [(&str, Version); 2] =
        [("v1.DRAPlugin", Version::V1), ("v1beta1.DRAPlugin", Version::V1Beta1)];

    /// The newest of those that a plugin offers.
    pub fn choose(offered: &[String]) -> Option<Version> {
        let is_offered = |service: &str| offered.iter().any(|known| known == service);
        Self::SERVICES.into_iter().find(|(service, _)| is_offered(service)).map(|(_, version)| version)
    }

    fn path(self, call: Call) -> PathAndQuery {
        PathAndQuery::from_static(match (self, call) {
            (Version::V1, Call::Prepare) => "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodePrepareResources",
            (Version::V1, Call::Unprepare) => {
                "/k8s.io.kubelet.pkg.apis.dra.v1.DRAPlugin/NodeUnprepareResources"
            }
            (Version::V1Beta1, Call::Prepare) => {
                "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodePrepareResources"
            }
            (Version::V1Beta1, Call::Unprepare) => {
                "/k8s.io.kubelet.pkg.apis.dra.v1beta1.DRAPlugin/NodeUnprepareResources"
            }
        })
    }
}

#[derive(Clone, Copy)]
enum Call {
    Prepare,
    Unprepare,
}

/// Has the devices of claims made ready.
pub async fn prepare(
    channel: Channel,
    version: Version,
    request: NodePrepareResourcesRequest,
) -> Result<NodePrepareResourcesResponse, Status> {
    ask(channel, version.path(Call::Prepare), request).await
}

/// Gives the devices of claims back.
pub async fn unprepare(
    channel: Channel,
    version: Version,
    request: NodeUnprepareResourcesRequest,
) -> Result<NodeUnprepareResourcesResponse, Status> {
    ask(channel, version.path(Call::Unprepare), request).await
}

/// What a driver tells of its devices' health, as it changes.
pub async fn watch_health(channel: Channel) -> Result<Streaming<NodeWatchResourcesResponse>, Status> {
    let mut grpc = ready(channel).await?;
    let path = PathAndQuery::from_static("/v1alpha1.DRAResourceHealth/NodeWatchResources");
    let request = Request::new(NodeWatchResourcesRequest {});
    let codec = ProstCodec::<NodeWatchResourcesRequest, NodeWatchResourcesResponse>::default();
    grpc.server_streaming(request, path, codec).await.map(Response::into_inner)
}

async fn ask<Q, A>(channel: Channel, path: PathAndQuery, request: Q) -> Result<A, Status>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let mut grpc = ready(channel).await?;
    let answer = grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
    Ok(answer.into_inner())
}

async fn ready(channel: Channel) -> Result<Grpc<Channel>, Status> {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.map_err(|error| Status::unavailable(format!("plugin is not ready: {error}")))?;
    Ok(grpc)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_that_both_know_is_spoken() {
        let check = |offered: &[&str], expect| {
            let offered: Vec<String> = offered.iter().map(|&service| service.to_owned()).collect();
            assert_eq!(Version::choose(&offered), expect, "{offered:?}");
        };
        check(&["v1beta1.DRAPlugin", "v1.DRAPlugin"], Some(Version::V1));
        check(&["v1beta1.DRAPlugin"], Some(Version::V1Beta1));
        check(&["v1alpha1.DRAResourceHealth", "1.0.0"], None);
    }
}
