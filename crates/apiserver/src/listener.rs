//! Connections: TLS, HTTP/1.1 or HTTP/2 as agreed in its handshake, and the limits that keep one client's silence or
//! garbage from costing anybody else.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::{self, Body, WireBody};
use crate::core::Core;
use crate::pipeline::{self, Peer};
use crate::tls::{Serving, SharedTls};

/// Connections at once. Each takes some 20 KB; client-go multiplexes everything over one.
const CONNECTIONS_MAX: usize = 4096;
/// A client that has not finished its TLS handshake by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that has not sent its request's head by then is let go.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Requests at once on one HTTP/2 connection (upstream: `--http2-max-streams-per-connection`, 1000 unless set).
const STREAMS_MAX: u32 = 1000;
/// All header fields of a request together (upstream: Go's DefaultMaxHeaderBytes).
const HEADER_BYTES_MAX: u32 = 1 << 20;
/// An HTTP/2 client that is silent is asked whether it is still there, and let go if it does not answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long requests may take to finish once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failure to accept, which is usually a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `stop`, then lets those that are open finish.
pub async fn serve(core: Arc<Core>, listener: TcpListener, tls: SharedTls, stop: CancellationToken) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &seats) => accepted,
        };
        match accepted {
            Ok((stream, seat)) => {
                connections.spawn(connection(core.clone(), stream, tls.load_full(), stop.clone(), seat));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    core.draining.cancel();
    connections.close();
    if timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::warn!(open = connections.len(), "connections were still open when the server stopped");
    }
}

async fn accept(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
) -> std::io::Result<(TcpStream, OwnedSemaphorePermit)> {
    let seat = seats.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, seat))
}

async fn connection(
    core: Arc<Core>,
    stream: TcpStream,
    tls: Arc<Serving>,
    stop: CancellationToken,
    _seat: OwnedSemaphorePermit,
) {
    let stream = match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls.config.clone()).accept(stream)).await
    {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!("TLS handshake timed out");
            return;
        }
    };
    let (builder, peer) = agreed(&stream, &tls);
    let service = service_fn(move |request: Request<Incoming>| {
        let (core, peer) = (core.clone(), peer.clone());
        // Boxed: hyper keeps the room of this future as long as the answer's body or the connection lasts, and there
        // are many watches and idle connections.
        Box::pin(async move { Ok::<_, std::convert::Infallible>(respond(core, request, peer).await) })
    });
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn respond(core: Arc<Core>, request: Request<Incoming>, peer: Peer) -> Response<WireBody> {
    let request: Request<Body> = request.map(|body| body.map_err(Into::into).boxed_unsync());
    pipeline::handle(core, request, peer).await.map(body::wire)
}

/// The protocol that the TLS handshake agreed on, and who the client's certificate says it is.
fn agreed(stream: &TlsStream<TcpStream>, tls: &Serving) -> (Builder<TokioExecutor>, Peer) {
    let session = stream.get_ref().1;
    let address = stream.get_ref().0.peer_addr().ok().map(|address| address.ip());
    let certificate = session.peer_certificates().and_then(|chain| tls.client_certificate(chain));
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let builder =
        if session.alpn_protocol() == Some(b"h2") { builder.http2_only() } else { builder.http1_only() };
    (builder, Peer::Connection { certificate, address })
}
