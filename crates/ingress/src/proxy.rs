//! A request from its head to its response: which route, which endpoint, what if that fails.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION, UPGRADE};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::Body as _;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use crate::backend::{Backend, Endpoint};
use crate::body::{AtEnd, Body};
use crate::headers::{self, Forwarded};
use crate::metrics::Registry;
use crate::pool::{self, ConnectError, Pool, Sender};
use crate::table::{Route, Table};
use crate::upgrade;
use crate::workers::Workers;

/// Endpoints that are tried for one request (nginx tries all; each may take its time to fail).
const ATTEMPTS_MAX: usize = 3;
/// A backend that has not begun its response by then has failed (nginx: `proxy_read_timeout`).
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);
/// Where HTTPS needs no port in a URL.
const HTTPS_PORT: u16 = 443;

/// The other end of a connection.
#[derive(Clone)]
pub struct Client {
    pub address: SocketAddr,
    pub is_secure: bool,
    pub forwarded: Forwarded,
    /// Where the connections to endpoints are that its requests may take.
    pub pool: Arc<Pool>,
}

/// Answers requests by the newest table.
pub struct Proxy {
    table: ArcSwap<Table>,
    pub workers: Workers,
    pub counters: Registry,
    /// Where clients are sent that come unencrypted.
    https_port: u16,
}

/// Why a backend gave no response.
enum Failure {
    NoEndpoints,
    Connect,
    Broken,
    TimedOut,
}

impl Failure {
    fn status(&self) -> StatusCode {
        match self {
            Failure::NoEndpoints => StatusCode::SERVICE_UNAVAILABLE,
            Failure::Connect | Failure::Broken => StatusCode::BAD_GATEWAY,
            Failure::TimedOut => StatusCode::GATEWAY_TIMEOUT,
        }
    }
}

/// What became of a request on one connection.
enum Sent {
    Answered(Response<Body>),
    /// The connection was closed before anything of the request had gone out.
    Unsent(Request<Body>),
    Failed(Failure),
}

impl Proxy {
    /// In the caller's network namespace.
    pub fn new(https_port: u16) -> std::io::Result<Proxy> {
        let workers = Workers::start()?;
        Ok(Proxy { table: ArcSwap::default(), workers, counters: Registry::default(), https_port })
    }

    /// Puts a table to use: for requests and handshakes from now on. Those under way keep what they have found.
    pub fn swap(&self, table: Table) {
        let named = |route: &Arc<Route>| route.backend.endpoints.clone();
        let kept: std::collections::HashSet<Endpoint> = table.routes().flat_map(named).collect();
        let has_names = kept.iter().any(|endpoint| matches!(endpoint, Endpoint::Name(..)));
        self.table.store(Arc::new(table));
        // What a name led to is known to the connection alone; it ends when it has been idle.
        let is_kept = |address: &SocketAddr| has_names || kept.contains(&Endpoint::Address(*address));
        self.workers.pools().for_each(|pool| pool.keep_only(is_kept));
        self.counters.tables.fetch_add(1, Ordering::Relaxed);
        self.counters.forget_unused();
    }

    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.table.load()
    }

    pub async fn handle(&self, request: Request<Incoming>, client: &Client) -> Response<Body> {
        let started = Instant::now();
        let Some(host) = headers::host(&request) else {
            return plain(StatusCode::BAD_REQUEST);
        };
        let found = self.table.load().find(&host, request.uri().path()).cloned();
        let Some(route) = found.filter(|_| request.method() != Method::CONNECT) else {
            self.counters.unrouted.fetch_add(1, Ordering::Relaxed);
            return plain(StatusCode::NOT_FOUND);
        };
        let traced = tracing::enabled!(tracing::Level::DEBUG)
            .then(|| format!("{} {host}{}", request.method(), request.uri().path()));
        let response = if route.redirects_to_https && !client.is_secure {
            self.redirect(&host, request.uri())
        } else {
            match self.forward(request, &route.backend, client).await {
                Ok(response) => response,
                Err(failure) => plain(failure.status()),
            }
        };
        let (status, took) = (response.status().as_u16(), started.elapsed());
        route.counters.answered(status, took);
        if let Some(request) = traced {
            tracing::debug!(client = %client.address, request, status, ?took, "answered");
        }
        response
    }

    /// The method stays, unlike with 301.
    fn redirect(&self, host: &str, uri: &Uri) -> Response<Body> {
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let port = match self.https_port {
            HTTPS_PORT => String::new(),
            other => format!(":{other}"),
        };
        let Ok(location) = HeaderValue::from_str(&format!("https://{host}{port}{path}")) else {
            return plain(StatusCode::BAD_REQUEST);
        };
        let mut response = plain(StatusCode::PERMANENT_REDIRECT);
        response.headers_mut().insert(LOCATION, location);
        response
    }

    async fn forward(
        &self,
        mut request: Request<Incoming>,
        backend: &Backend,
        client: &Client,
    ) -> Result<Response<Body>, Failure> {
        let upgrade = headers::upgrade(&request);
        let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        headers::for_backend(&mut request, &client.forwarded, backend.protocol, upgrade.as_ref());
        let request = request.map(|body| Body::streamed(body, None));
        let mut response = self.send(request, backend, client).await?;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            let client_side = client_side.ok_or(Failure::Broken)?;
            self.switch(&mut response, client_side);
        } else {
            headers::remove_hop_by_hop(response.headers_mut());
        }
        // Each side has its own; the server writes the one of the client's connection.
        *response.version_mut() = Version::default();
        Ok(response)
    }

    /// To the first endpoint that takes it.
    async fn send(
        &self,
        mut request: Request<Body>,
        backend: &Backend,
        client: &Client,
    ) -> Result<Response<Body>, Failure> {
        let mut failure = Failure::NoEndpoints;
        for endpoint in backend.in_turn(client.address.ip()).take(ATTEMPTS_MAX) {
            let addresses = match pool::addresses(endpoint).await {
                Ok(addresses) => addresses,
                Err(error) => {
                    failure = self.not_connected(&error);
                    continue;
                }
            };
            for address in addresses.into_iter().take(ATTEMPTS_MAX) {
                request = match send_over_idle(&client.pool, request, backend, address).await {
                    Sent::Answered(response) => return Ok(response),
                    Sent::Failed(failure) => return Err(failure),
                    Sent::Unsent(request) => request,
                };
                let sender = match client.pool.connect(address, backend.protocol).await {
                    Ok(sender) => sender,
                    Err(error) => {
                        failure = self.not_connected(&error);
                        continue;
                    }
                };
                request = match send_over(sender, request).await {
                    Sent::Answered(response) => return Ok(response),
                    Sent::Failed(failure) => return Err(failure),
                    Sent::Unsent(request) => request,
                };
                failure = Failure::Broken;
            }
        }
        Err(failure)
    }

    fn not_connected(&self, error: &ConnectError) -> Failure {
        tracing::debug!(%error, "an endpoint cannot be reached");
        self.counters.connect_failures.fetch_add(1, Ordering::Relaxed);
        Failure::Connect
    }

    fn switch(&self, response: &mut Response<Body>, client_side: OnUpgrade) {
        let backend_side = response.extensions_mut().remove::<OnUpgrade>();
        let upgrade = response.headers().get(UPGRADE).cloned();
        headers::remove_hop_by_hop(response.headers_mut());
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
        if let Some(upgrade) = upgrade {
            response.headers_mut().insert(UPGRADE, upgrade);
        }
        if let Some(backend_side) = backend_side {
            tokio::spawn(upgrade::join(client_side, backend_side));
        }
    }
}

/// The head of a request that has no body and may be repeated (RFC 9110, section 9.2.2).
struct Copy {
    method: Method,
    uri: Uri,
    version: Version,
    headers: HeaderMap,
}

impl Copy {
    fn of(request: &Request<Body>) -> Option<Copy> {
        let may_be_repeated = request.method().is_idempotent() && request.body().is_end_stream();
        may_be_repeated.then(|| Copy {
            method: request.method().clone(),
            uri: request.uri().clone(),
            version: request.version(),
            headers: request.headers().clone(),
        })
    }

    fn into_request(self) -> Request<Body> {
        let mut request = Request::new(Body::Empty);
        *request.method_mut() = self.method;
        *request.uri_mut() = self.uri;
        *request.version_mut() = self.version;
        *request.headers_mut() = self.headers;
        request
    }
}

/// Over the connections that are open already. A backend may close one at the very moment it is used again: what may
/// be repeated, and is known whole, is then given back as unsent.
async fn send_over_idle(
    pool: &Arc<Pool>,
    mut request: Request<Body>,
    backend: &Backend,
    address: SocketAddr,
) -> Sent {
    while let Some(sender) = pool.idle(address, backend.protocol) {
        let is_shared = matches!(sender, Sender::H2c(_));
        let copy = Copy::of(&request);
        request = match (send_over(sender, request).await, copy) {
            (Sent::Unsent(request), _) => request,
            (Sent::Failed(Failure::Broken), Some(copy)) => copy.into_request(),
            (sent, _) => return sent,
        };
        if is_shared {
            pool.forget_shared(address);
        }
    }
    Sent::Unsent(request)
}

async fn send_over(sender: Sender, mut request: Request<Body>) -> Sent {
    let ended = request.body_mut().ended();
    let patience = async {
        // However long a client takes to send, the backend's time begins afterwards.
        if let Some(ended) = ended {
            // The other half is dropped when it is so.
            drop(ended.await);
        }
        tokio::time::sleep(RESPONSE_TIMEOUT).await;
    };
    let sent = match sender {
        Sender::Http1(mut lease) => {
            let sending = lease.sender.try_send_request(request);
            tokio::select! {
                biased;
                sent = sending => Some((sent, Some(AtEnd::GiveBack(lease)))),
                () = patience => None,
            }
        }
        Sender::H2c(mut sender) => {
            let sending = sender.try_send_request(request);
            tokio::select! {
                biased;
                sent = sending => Some((sent, None)),
                () = patience => None,
            }
        }
    };
    match sent {
        Some((Ok(mut response), _)) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            let backend_side = hyper::upgrade::on(&mut response);
            response.extensions_mut().insert(backend_side);
            Sent::Answered(response.map(|_| Body::Empty))
        }
        Some((Ok(response), at_end)) => Sent::Answered(response.map(|body| Body::streamed(body, at_end))),
        Some((Err(mut error), _)) => match error.take_message() {
            Some(request) => Sent::Unsent(request),
            None => {
                tracing::debug!(error = %error.error(), "a backend gave no response");
                Sent::Failed(Failure::Broken)
            }
        },
        None => Sent::Failed(Failure::TimedOut),
    }
}

/// A response of the proxy itself: its status, in words.
fn plain(status: StatusCode) -> Response<Body> {
    let text = format!("{} {}\n", status.as_u16(), status.canonical_reason().unwrap_or_default());
    let mut response = Response::new(Body::Whole(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
