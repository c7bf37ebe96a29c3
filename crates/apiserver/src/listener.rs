//! Connections: TLS, HTTP/1.1 or HTTP/2 as agreed in its handshake, and the limits that keep one client's silence or
//! garbage from costing anybody else.

use std::convert::Infallible;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
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
use crate::stall::{Endless, Impatient};
use crate::tls::{Serving, SharedTls};

/// Connections at once. Each takes some 20 KB; client-go multiplexes everything over one.
const CONNECTIONS_MAX: usize = 4096;
/// A client that has not finished its TLS handshake by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// A client that has not sent its request's head by then is let go.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// A client that takes nothing of what it is sent for this long is let go: as long as a request may last by default
/// (upstream: `--request-timeout`).
pub const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Requests at once on one HTTP/2 connection (upstream: `--http2-max-streams-per-connection`, 1000 unless set).
const STREAMS_MAX: u32 = 1000;
/// All header fields of a request together; more is answered with 431 (upstream: Go's DefaultMaxHeaderBytes).
pub const HEADER_BYTES_MAX: u32 = 1 << 20;
/// What the first line of a request over HTTP/1.1 may take beside them (upstream: Go's slop for it).
const REQUEST_LINE_BYTES_MAX: usize = 4 << 10;
/// Header fields of a request over HTTP/1.1: a proxy in front sends one for each of its user's groups. Room for them is
/// made anew for each request. More is answered with 431.
pub const HEADERS_MAX: usize = 1000;
/// An HTTP/2 client that is silent is asked whether it is still there, and let go if it does not answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long requests may take to finish once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failure to accept, which is usually a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Who answers what comes over connections.
pub trait Answers: Send + Sync + 'static {
    /// Never fails: a failure is an answer.
    fn answer(
        self: Arc<Self>,
        request: Request<Body>,
        peer: Peer,
    ) -> impl Future<Output = Response<Body>> + Send;

    /// A client and this server did not agree on TLS.
    fn handshake_failed(&self);

    /// No new connections are taken; those that are open are to end.
    fn stopping(&self);
}

impl Answers for Core {
    async fn answer(self: Arc<Self>, request: Request<Body>, peer: Peer) -> Response<Body> {
        pipeline::handle(self, request, peer).await
    }

    fn handshake_failed(&self) {
        self.metrics.gates.handshake_failed();
    }

    fn stopping(&self) {
        self.draining.cancel();
    }
}

/// Accepts connections until `stop`, then lets those that are open finish.
pub async fn serve<A: Answers>(
    answers: Arc<A>,
    listener: TcpListener,
    tls: SharedTls,
    stop: CancellationToken,
) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => break,
            accepted = accept(&listener, &seats) => accepted,
        };
        match accepted {
            Ok((stream, seat)) => {
                connections.spawn(connection(answers.clone(), stream, tls.load_full(), stop.clone(), seat));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    answers.stopping();
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

async fn connection<A: Answers>(
    answers: Arc<A>,
    stream: TcpStream,
    tls: Arc<Serving>,
    stop: CancellationToken,
    _seat: OwnedSemaphorePermit,
) {
    // Boxed one after the other: most connections do nothing most of the time, and take no room for their handshake
    // then, nor for the protocol that they do not speak.
    let Some(stream) = Box::pin(handshake(stream, &tls)).await else {
        answers.handshake_failed();
        return;
    };
    let session = stream.get_ref().1;
    let (peer, is_http2) = (peer(&stream, &tls), session.alpn_protocol() == Some(b"h2"));
    drop(tls);
    let result = if is_http2 {
        Box::pin(serve_http2(answers, stream, peer, stop)).await
    } else {
        Box::pin(serve_http1(answers, stream, peer, stop)).await
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}

async fn handshake(stream: TcpStream, tls: &Serving) -> Option<Box<TlsStream<TcpStream>>> {
    match timeout(HANDSHAKE_TIMEOUT, TlsAcceptor::from(tls.config.clone()).accept(stream)).await {
        Ok(Ok(stream)) => return Some(Box::new(stream)),
        Ok(Err(error)) => tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => tracing::debug!("TLS handshake timed out"),
    }
    None
}

/// Who the client's certificate says it is.
fn peer(stream: &TlsStream<TcpStream>, tls: &Serving) -> Peer {
    let (socket, session) = stream.get_ref();
    let certificate = session.peer_certificates().and_then(|chain| tls.client_certificate(chain));
    Peer::Connection {
        certificate,
        address: socket.peer_addr().ok().map(|address| address.ip().to_canonical()),
    }
}

/// Serves a connection to its end; once the server stops, no new requests on it. The connections of the two protocols
/// have no trait in common that could shut them.
macro_rules! serve_until {
    ($connection:expr, $stop:expr) => {{
        let mut connection = pin!($connection);
        tokio::select! {
            result = connection.as_mut() => result,
            () = $stop.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        }
    }};
}

async fn serve_http1<A: Answers>(
    answers: Arc<A>,
    stream: Box<TlsStream<TcpStream>>,
    peer: Peer,
    stop: CancellationToken,
) -> hyper::Result<()> {
    let (stream, endless) = Impatient::new(stream, STALL_TIMEOUT);
    let service =
        service_fn(move |request| answer(answers.clone(), request, peer.clone(), Some(endless.clone())));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX as usize + REQUEST_LINE_BYTES_MAX);
    serve_until!(builder.serve_connection(TokioIo::new(stream), service).with_upgrades(), stop)
}

async fn serve_http2<A: Answers>(
    answers: Arc<A>,
    stream: Box<TlsStream<TcpStream>>,
    peer: Peer,
    stop: CancellationToken,
) -> hyper::Result<()> {
    let (stream, _) = Impatient::new(stream, STALL_TIMEOUT);
    let service = service_fn(move |request| answer(answers.clone(), request, peer.clone(), None));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    serve_until!(builder.serve_connection(TokioIo::new(stream), service), stop)
}

/// Boxed: hyper keeps the room of this future as long as the answer's body or the connection lasts, and there are many
/// watches and idle connections.
type Answer = Pin<Box<dyn Future<Output = Result<Response<WireBody>, Infallible>> + Send>>;

/// `endless` lets a connection that becomes a session wait for as long as it takes.
fn answer<A: Answers>(
    answers: Arc<A>,
    request: Request<Incoming>,
    peer: Peer,
    endless: Option<Endless>,
) -> Answer {
    Box::pin(async move {
        let response = respond(answers, request, peer).await;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS
            && let Some(endless) = endless
        {
            endless.set();
        }
        Ok(response)
    })
}

async fn respond<A: Answers>(answers: Arc<A>, request: Request<Incoming>, peer: Peer) -> Response<WireBody> {
    let request: Request<Body> = request.map(|body| body.map_err(Into::into).boxed_unsync());
    answers.answer(request, peer).await.map(body::wire)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The room of what a function returns.
    fn room<A, B, C, D, F>(_: fn(A, B, C, D) -> F) -> usize {
        size_of::<F>()
    }

    /// Beside this a connection holds its TLS session and what hyper and rustls have buffered, a page or two each.
    #[test]
    fn an_idle_connection_takes_no_room_for_what_it_does_not_do() {
        let rooms = [room(serve_http1::<Core>), room(serve_http2::<Core>)];
        assert!(rooms.iter().all(|room| *room <= 4 << 10), "{rooms:?}");
    }
}
