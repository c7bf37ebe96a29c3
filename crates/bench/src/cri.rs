//! The two calls of the CRI's image service that a pull takes, of any runtime on a socket.

use anyhow::{Context, Result};
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic_prost::ProstCodec;

const PULL: &str = "/runtime.v1.ImageService/PullImage";
const REMOVE: &str = "/runtime.v1.ImageService/RemoveImage";

/// PullImageRequest and RemoveImageRequest as far as both are alike.
#[derive(Clone, PartialEq, Message)]
struct ImageRequest {
    #[prost(message, optional, tag = "1")]
    image: Option<ImageSpec>,
}

#[derive(Clone, PartialEq, Message)]
struct ImageSpec {
    #[prost(string, tag = "1")]
    image: String,
}

/// What is answered does not matter here.
#[derive(Clone, PartialEq, Message)]
struct Anything {}

pub struct ImageService {
    grpc: Grpc<Channel>,
}

impl ImageService {
    /// `unix:///run/containerd/containerd.sock`, or a plain path.
    pub async fn connect(endpoint: &str) -> Result<ImageService> {
        let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint).to_owned();
        let connector = tower::service_fn(move |_: Uri| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        });
        let connected = Endpoint::from_static("http://cri").connect_with_connector(connector).await;
        Ok(ImageService {
            grpc: Grpc::new(connected.with_context(|| format!("no runtime answers at {endpoint}"))?),
        })
    }

    pub async fn pull(&mut self, image: &str) -> Result<()> {
        self.call(PULL, image).await
    }

    pub async fn remove(&mut self, image: &str) -> Result<()> {
        self.call(REMOVE, image).await
    }

    async fn call(&mut self, path: &'static str, image: &str) -> Result<()> {
        self.grpc.ready().await?;
        let request = ImageRequest { image: Some(ImageSpec { image: image.to_owned() }) };
        let codec = ProstCodec::<ImageRequest, Anything>::default();
        let path = PathAndQuery::from_static(path);
        let answer = self.grpc.unary(tonic::Request::new(request), path, codec).await;
        answer.map(drop).with_context(|| image.to_owned())
    }
}
