//! Connections of clients: accepted, decrypted, served, and at the end let finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use client::CancellationToken;
use client::head::Content;
use http::{HeaderValue, Request};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use crate::body::Body;
use crate::headers::Forwarded;
use crate::proxy::{Client, Proxy};

/// Connections at once on one port, some 20 KB each; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16_384;
/// A client that has not finished its TLS handshake by then is let go.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may be silent between requests, or take to send the head of one (nginx: `keepalive_timeout`).
const HEADER_TIMEOUT: Duration = Duration::from_secs(75);
/// Requests at once on one HTTP/2 connection (nginx: `http2_max_concurrent_streams`).
const STREAMS_MAX: u32 = 128;
/// All header fields of a request together (nginx: `large_client_header_buffers` has 4 of 8 KB).
const HEADER_BYTES_MAX: u32 = 32 << 10;
/// An HTTP/2 client that is silent is asked whether it is still there, and let go if it does not answer.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(20);
/// How long requests may take to finish once the proxy stops; less than a service gets to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(4);
/// Pause after a failure to accept, which is usually a lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Which certificate a client is shown: what the newest table says.
struct Resolver(Arc<Proxy>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.table().certificates.find(hello.server_name()).cloned()
    }
}

/// How connections of the HTTPS port begin.
pub fn acceptor(proxy: Arc<Proxy>) -> Result<TlsAcceptor, rustls::Error> {
    let mut config = tls::server().with_no_client_auth().with_cert_resolver(Arc::new(Resolver(proxy)));
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Accepts connections until `stop`, then lets those that are open finish. `port` is what clients are told.
pub async fn serve(
    proxy: Arc<Proxy>,
    listener: TcpListener,
    port: u16,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
) {
    let seats = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    let told = HeaderValue::from(port);
    let accept = async {
        loop {
            match accept(&listener, &seats).await {
                Ok((stream, address, seat)) => {
                    let worker = proxy.workers.next();
                    let forwarded = forwarded(address, tls.is_some(), told.clone());
                    let pool = worker.pool.clone();
                    let client = Client { address, is_secure: tls.is_some(), forwarded, pool };
                    let (proxy, tls, stop) = (proxy.clone(), tls.clone(), stop.clone());
                    let serving = connection(proxy, stream, client, tls, stop, seat);
                    connections.spawn_on(serving, &worker.runtime);
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accept).await;
    drop(listener);
    connections.close();
    if timeout(DRAIN_TIMEOUT, connections.wait()).await.is_err() {
        tracing::info!(open = connections.len(), "connections were still open when the proxy stopped");
    }
}

async fn accept(
    listener: &TcpListener,
    seats: &Arc<Semaphore>,
) -> std::io::Result<(std::net::TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let seat = seats.clone().acquire_owned().await.map_err(std::io::Error::other)?;
    let (stream, address) = listener.accept().await?;
    stream.set_nodelay(true)?;
    // The thread that serves it has it told of what arrives.
    let stream = stream.into_std()?;
    Ok((stream, SocketAddr::new(address.ip().to_canonical(), address.port()), seat))
}

fn forwarded(address: SocketAddr, is_secure: bool, port: HeaderValue) -> Forwarded {
    let client = HeaderValue::from_str(&address.ip().to_string()).expect("an address is of plain characters");
    Forwarded { client, port, proto: HeaderValue::from_static(if is_secure { "https" } else { "http" }) }
}

async fn connection(
    proxy: Arc<Proxy>,
    stream: std::net::TcpStream,
    client: Client,
    tls: Option<TlsAcceptor>,
    stop: CancellationToken,
    _seat: OwnedSemaphorePermit,
) {
    let open = Open::new(proxy);
    let stream = match TcpStream::from_std(stream) {
        Ok(stream) => stream,
        Err(error) => return tracing::debug!(%error, "a connection cannot be served"),
    };
    let Some(tls) = tls else { return serve_stream(&open.0, stream, client, builder(), stop).await };
    let stream = match timeout(HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake timed out"),
    };
    let agreed = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let builder = if agreed { builder().http2_only() } else { builder().http1_only() };
    serve_stream(&open.0, stream, client, builder, stop).await;
}

/// A connection in the count of those that are open.
struct Open(Arc<Proxy>);

impl Open {
    fn new(proxy: Arc<Proxy>) -> Open {
        proxy.counters.connections.fetch_add(1, Ordering::Relaxed);
        Open(proxy)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.counters.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(HEADER_BYTES_MAX as usize)
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADER_BYTES_MAX)
        .adaptive_window(true)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

async fn serve_stream(
    proxy: &Arc<Proxy>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    client: Client,
    builder: Builder<TokioExecutor>,
    stop: CancellationToken,
) {
    let client = Arc::new(client);
    let service = service_fn(|request: Request<Incoming>| {
        let (proxy, client) = (proxy.clone(), client.clone());
        async move {
            let content = Content::of_answer_to(&request);
            let response = proxy.handle(request, &client).await;
            Ok::<_, Infallible>(content.fit(response, || Body::Empty))
        }
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
        tracing::debug!(%error, "a client's connection ended");
    }
}
