//! Port-forward: connections to ports of a pod, over SPDY streams or WebSocket channels.
//!
//! SPDY, also tunnelled in WebSocket messages, opens streams for each connection as it comes. The
//! older WebSocket form names its ports beforehand and has one connection for each.
//! Follows pkg/streaming/portforward of k8s.io/cri-streaming.

mod channels;
mod streams;

use std::{sync::Arc, time::Duration};

use http::HeaderMap;
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::JoinError,
};
use tokio_tungstenite::WebSocketStream;

use super::{
    Backend, Duplex, Writer,
    negotiate::{self, Upgrade},
    spdy,
    websocket::{self, Encoding},
};

pub(super) use channels::MAX_PORTS;
pub(super) use streams::serve as serve_spdy;

const V1: &str = "portforward.k8s.io";
const TUNNELLED_V1: &str = "SPDY/3.1+portforward.k8s.io";

/// How long the goodbye may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The protocols served to a client whose request names this number of ports: channels need some.
pub(super) fn protocols(upgrade: Upgrade, ports: usize) -> &'static [&'static str] {
    match (upgrade, ports) {
        (Upgrade::Spdy, _) => &[V1],
        (Upgrade::WebSocket, 0) => &[TUNNELLED_V1],
        (Upgrade::WebSocket, _) => &[TUNNELLED_V1, websocket::V4, websocket::V4_BASE64],
    }
}

/// Whether a request has to name its ports, since its client speaks WebSocket and offers no tunnel
/// (follows NewV4Options and the kubelet's getPortForward).
pub fn must_name_ports(headers: &HeaderMap) -> bool {
    let offers = negotiate::offer_header(Upgrade::WebSocket);
    let tunnel = negotiate::protocol(headers, offers, &[TUNNELLED_V1]);
    negotiate::upgrade(headers) == Some(Upgrade::WebSocket) && !matches!(tunnel, Ok(Some(_)))
}

/// Forwards over a WebSocket in the protocol agreed on; a client that offered none speaks channels
/// in binary.
pub(super) async fn serve_websocket<S>(
    socket: WebSocketStream<S>,
    protocol: Option<&str>,
    backend: Arc<dyn Backend>,
    sandbox_id: String,
    ports: Vec<u16>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    if protocol == Some(TUNNELLED_V1) {
        let session = spdy::Session::new(websocket::tunnel(socket), spdy::Role::Server);
        streams::serve(session, backend, sandbox_id).await;
    } else {
        channels::serve(socket, Encoding::of(protocol), backend, sandbox_id, ports).await;
    }
}

/// One connection; why it failed is told on `error`.
async fn forward(
    backend: Arc<dyn Backend>,
    sandbox_id: String,
    port: u16,
    data: Box<dyn Duplex>,
    error: Writer,
) {
    if let Err(problem) = backend.port_forward(&sandbox_id, port, data).await {
        let message = format!("error forwarding port {port} to pod {sandbox_id}, uid : {problem}");
        tracing::debug!(message);
        write_error(error, &message).await;
    }
}

async fn write_error(mut stream: impl AsyncWrite + Unpin, message: &str) {
    let written = async {
        stream.write_all(message.as_bytes()).await?;
        stream.shutdown().await
    };
    if let Err(error) = written.await {
        tracing::debug!(%error, "port-forward error not delivered");
    }
}

fn log_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "port-forward ended badly");
    }
}
