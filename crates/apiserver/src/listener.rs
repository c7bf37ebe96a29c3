//! Connections: TLS, HTTP/1.1 or HTTP/2 as agreed in its handshake, and the limits that keep one client's silence or
//! garbage from costing anybody else.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use client::head::Content;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::body::{self, Body, BoxError, WireBody};
use crate::core::Core;
use crate::gathered::Gathered;
use crate::lasting::{self, Handover};
use crate::pipeline::{self, Peer};
use crate::stall::{Handle, Impatient};
use crate::tls::{Serving, SharedTls};

/// Connections at once. Each takes some 20 KB, a watch over HTTP/1.1 less; client-go multiplexes everything over one.
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
/// made anew for each request, twice 32 bytes a field: up to 14 KiB the allocator has such room at hand. More is answered
/// with 431.
pub const HEADERS_MAX: usize = 400;
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

async fn serve_http1<A: Answers>(
    answers: Arc<A>,
    stream: Box<TlsStream<TcpStream>>,
    peer: Peer,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let mut stream = Impatient::new(stream, STALL_TIMEOUT);
    loop {
        // Boxed: what an answer that lasts does not need goes before it is sent.
        let requests = Box::pin(requests(answers.clone(), stream, peer.clone(), stop.clone()));
        let Some((response, unasked, freed)) = requests.await? else { return Ok(()) };
        stream = freed;
        if !Box::pin(lasting::send(&mut stream, response, unasked)).await? {
            return Ok(stream.shutdown().await?);
        }
    }
}

/// Serves requests until the connection ends, or an answer is to have it to itself; once the server stops, no new
/// requests. Returns that answer, how many bytes the client has sent beyond its request, and the stream.
async fn requests<A: Answers, S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    answers: Arc<A>,
    stream: Impatient<S>,
    peer: Peer,
    stop: CancellationToken,
) -> Result<Option<(Response<WireBody>, usize, Impatient<S>)>, BoxError> {
    let handover = Handover::default();
    let http1 = Http1 { stream: stream.handle(), handover: handover.clone() };
    let service =
        service_fn(move |request| answer(answers.clone(), request, peer.clone(), Some(http1.clone())));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX as usize + REQUEST_LINE_BYTES_MAX);
    let mut connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    let response = poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        if let Poll::Ready(ended) = Pin::new(&mut connection).poll(cx) {
            return Poll::Ready(ended.map(|()| None));
        }
        // It is the connection that runs the service: nothing is handed over but by polling it.
        handover.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(Some(response))))
    });
    let Some(response) = response.await? else { return Ok(None) };
    Ok(connection.into_parts().map(|parts| (response, parts.read_buf.len(), parts.io.into_inner())))
}

async fn serve_http2<A: Answers>(
    answers: Arc<A>,
    stream: Box<TlsStream<TcpStream>>,
    peer: Peer,
    stop: CancellationToken,
) -> Result<(), BoxError> {
    let stream = Gathered::new(Impatient::new(stream, STALL_TIMEOUT));
    let service = service_fn(move |request| answer(answers.clone(), request, peer.clone(), None));
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream.share()), service));
    let mut stopped = pin!(stop.cancelled());
    let mut stopping = false;
    let ended = poll_fn(|cx| {
        if !stopping && stopped.as_mut().poll(cx).is_ready() {
            stopping = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map_err(BoxError::from)
    });
    stream.drive(ended).await
}

/// What the answer to a request over HTTP/1.1 may make of its connection.
#[derive(Clone)]
struct Http1 {
    stream: Handle,
    handover: Handover,
}

/// Boxed: hyper keeps the room of this future as long as the answer's body or the connection lasts, and there are many
/// watches and idle connections.
type Answer = Pin<Box<dyn Future<Output = Result<Response<WireBody>, Infallible>> + Send>>;

fn answer<A: Answers>(
    answers: Arc<A>,
    request: Request<Incoming>,
    peer: Peer,
    http1: Option<Http1>,
) -> Answer {
    Box::pin(async move {
        let http1 = http1.map(|http1| (lasting::may_take_over(&request), http1));
        let response = respond(answers, request, peer).await;
        match http1 {
            // A session waits for as long as it takes.
            Some((_, http1)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                http1.stream.set_endless();
            }
            Some((true, http1)) if lasting::lasts(&response) && http1.stream.is_flushed() => {
                http1.handover.put(response);
                return pending().await;
            }
            _ => {}
        }
        Ok(response)
    })
}

async fn respond<A: Answers>(answers: Arc<A>, request: Request<Incoming>, peer: Peer) -> Response<WireBody> {
    let request: Request<Body> = request.map(|body| body.map_err(Into::into).boxed_unsync());
    let content = Content::of_answer_to(&request);
    content.fit(answers.answer(request, peer).await, body::empty).map(body::wire)
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
        let rooms = [
            room(serve_http1::<Core>),
            room(requests::<Core, Box<TlsStream<TcpStream>>>),
            room(serve_http2::<Core>),
        ];
        assert!(rooms.iter().all(|room| *room <= 4 << 10), "{rooms:?}");
    }
}
