//! Calls of a plugin on its socket, one connection for all, made when first used and again when it breaks.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use prost::Message;
use tokio::net::UnixStream;
use tokio::time::timeout;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use super::Settings;
use super::metrics::Metrics;
use super::proto::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, StatusRequest, StatusResponse,
};

pub struct Client {
    channel: Channel,
    provider: String,
    timeout: Duration,
    metrics: Arc<Metrics>,
}

impl Client {
    /// Must be made within a tokio runtime, which the connection then belongs to.
    pub fn new(settings: &Settings, metrics: Arc<Metrics>) -> Client {
        Client {
            channel: channel(settings.socket.clone()),
            provider: settings.name.clone(),
            timeout: settings.timeout,
            metrics,
        }
    }

    pub async fn status(&self) -> Result<StatusResponse, Status> {
        self.call("/v2.KeyManagementService/Status", StatusRequest {}).await
    }

    pub async fn encrypt(&self, request: EncryptRequest) -> Result<EncryptResponse, Status> {
        self.call("/v2.KeyManagementService/Encrypt", request).await
    }

    pub async fn decrypt(&self, request: DecryptRequest) -> Result<DecryptResponse, Status> {
        self.call("/v2.KeyManagementService/Decrypt", request).await
    }

    async fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A, Status>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let started = Instant::now();
        let calling = async {
            let mut grpc = Grpc::new(self.channel.clone());
            let ready = grpc.ready().await;
            ready.map_err(|error| Status::unavailable(format!("connection error: {error}")))?;
            let codec = ProstCodec::<Q, A>::default();
            grpc.unary(Request::new(request), PathAndQuery::from_static(method), codec).await
        };
        let answer = timeout(self.timeout, calling).await;
        let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")));
        let code = answer.as_ref().map_or_else(Status::code, |_| Code::Ok);
        self.metrics.called(&self.provider, method, code, started.elapsed());
        answer.map(tonic::Response::into_inner)
    }
}

fn channel(socket: PathBuf) -> Channel {
    let connector = tower::service_fn(move |_: Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    // Required by the type, meaningless on a socket.
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}
