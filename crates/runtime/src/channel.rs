//! The ways to the runtime: in process, through its own socket, or to another runtime's socket, as one client type.

use std::convert::Infallible;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::transport::{Endpoint, Server, Uri};
use tower::util::BoxCloneSyncService;
use tower::{Service as TowerService, ServiceExt};

use crate::cri::image_service_client::ImageServiceClient;
use crate::cri::image_service_server::ImageServiceServer;
use crate::cri::runtime_service_client::RuntimeServiceClient;
use crate::cri::runtime_service_server::RuntimeServiceServer;
use crate::runtime::Runtime;
use crate::service::Service;
use crate::{Error, Result, grpc_socket};

/// ExecSync may answer with 16 MiB on each of two streams.
const MESSAGE_BYTES_MAX: usize = 40 << 20;
/// Only root may drive containers.
const SOCKET_MODE: u32 = 0o600;

/// Why a request got no answer. A type of its own: futures over a boxed error are not provably `Send` (rust#100013).
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct ChannelError(Box<dyn std::error::Error + Send + Sync>);

impl ChannelError {
    fn new(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ChannelError {
        ChannelError(error.into())
    }
}

/// What every CRI client sends its requests through, wherever the runtime is.
pub type CriChannel = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, ChannelError>;

/// Clients of both CRI services; cheap to clone.
#[derive(Clone)]
pub struct CriClients {
    pub runtime: RuntimeServiceClient<CriChannel>,
    pub images: ImageServiceClient<CriChannel>,
    channels: [CriChannel; 2],
}

impl CriClients {
    fn new(runtime: CriChannel, images: CriChannel) -> CriClients {
        CriClients {
            channels: [runtime.clone(), images.clone()],
            runtime: RuntimeServiceClient::new(runtime).max_decoding_message_size(MESSAGE_BYTES_MAX),
            images: ImageServiceClient::new(images).max_decoding_message_size(MESSAGE_BYTES_MAX),
        }
    }

    /// Clients whose requests go through something else first.
    pub fn through(&self, layer: impl Fn(CriChannel) -> CriChannel) -> CriClients {
        let [runtime, images] = self.channels.clone().map(layer);
        CriClients::new(runtime, images)
    }
}

impl Runtime {
    /// Clients that call this runtime without a socket.
    pub fn in_process(self: Arc<Self>) -> CriClients {
        let service = Service { runtime: self };
        CriClients::new(
            channel(RuntimeServiceServer::new(service.clone())),
            channel(ImageServiceServer::new(service)),
        )
    }

    /// Serves the CRI to who connects to a socket of [`listen`], until `stop`.
    pub async fn serve(
        self: Arc<Self>,
        listener: UnixListener,
        stop: CancellationToken,
    ) -> std::result::Result<(), tonic::transport::Error> {
        let service = Service { runtime: self };
        Server::builder()
            .layer(tower::layer::layer_fn(OnOwnTask))
            .add_service(
                RuntimeServiceServer::new(service.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX),
            )
            .add_service(ImageServiceServer::new(service))
            .serve_with_incoming_shutdown(grpc_socket::incoming(listener), stop.cancelled_owned())
            .await
    }
}

/// Opens a runtime's socket, for `crictl` and the like: from now on others can connect, and are answered once
/// [`Runtime::serve`] runs. A file of that name is taken to be left by an earlier runtime.
pub fn listen(socket: &Path) -> Result<UnixListener> {
    let bound = || {
        match std::fs::remove_file(socket) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let listener = UnixListener::bind(socket)?;
        std::fs::set_permissions(socket, std::fs::Permissions::from_mode(SOCKET_MODE))?;
        Ok(listener)
    };
    bound().map_err(Error::io("listen on", socket))
}

/// Connects to a runtime's socket, `unix:///run/containerd/containerd.sock` or a plain path. The connection is made at
/// the first request, and again when it was lost.
pub async fn connect(endpoint: &str) -> Result<CriClients> {
    let path = endpoint.strip_prefix("unix://").unwrap_or(endpoint).to_owned();
    if !path.starts_with('/') {
        return Err(Error::InvalidArgument(format!(
            "container runtime endpoint {endpoint:?} is not a unix socket"
        )));
    }
    let connector = tower::service_fn(move |_: Uri| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let transport = Endpoint::from_static("http://cri").connect_with_connector_lazy(connector);
    let boxed = || BoxCloneSyncService::new(transport.clone().map_err(ChannelError::new));
    Ok(CriClients::new(boxed(), boxed()))
}

fn channel<S>(server: S) -> CriChannel
where
    S: TowerService<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S: Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
    BoxCloneSyncService::new(OnOwnTask(server))
}

/// A tonic server that goes on with what it was asked whether or not the asker stays: who leaves must not abandon a
/// start, a pull or a removal half way.
#[derive(Clone)]
struct OnOwnTask<S>(S);

impl<S> TowerService<http::Request<Body>> for OnOwnTask<S>
where
    S: TowerService<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = http::Response<Body>;
    type Error = ChannelError;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, ChannelError>>;

    fn poll_ready(&mut self, context: &mut Context) -> Poll<std::result::Result<(), ChannelError>> {
        self.0.poll_ready(context).map_err(|never| match never {})
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = tokio::spawn(self.0.call(request));
        Box::pin(async move {
            match answer.await {
                Ok(Ok(response)) => Ok(response),
                Err(panicked) => Err(ChannelError::new(panicked)),
            }
        })
    }
}
