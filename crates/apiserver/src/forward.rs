//! Passes a request on to another server and its answer back, upgraded connections included, byte for byte.

use std::net::SocketAddr;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use apimachinery::Status;
use http::header::{AUTHORIZATION, CONNECTION, HOST, HeaderName, TE, TRAILER, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::aggregation::REMOTE;
use crate::aggregation::tls::{Trust, client_config};
use crate::audit::Record;
use crate::body::{self, Body, WireBody};
use crate::call::Call;
use crate::pipeline::Payload;

/// A server that does not take a connection within this time is taken for unreachable.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Headers that concern one connection only (RFC 9110, section 7.6.1), and credentials that are for this server.
const NOT_FORWARDED: [HeaderName; 6] = [AUTHORIZATION, CONNECTION, HOST, TE, TRAILER, TRANSFER_ENCODING];

/// Where a request goes on to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    pub address: SocketAddr,
    pub security: Security,
    pub path_and_query: String,
}

/// How a server is spoken to, and who we are to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    Plain,
    /// TLS with whoever answers, to whom we are nobody: pods make their own certificates (upstream: the proxy
    /// transport's `InsecureSkipVerify`).
    Anybody,
    /// TLS with a kubelet, which shows a certificate of the cluster and sees the API server's.
    Kubelet,
}

/// What pods are spoken to with.
static ANYBODY: LazyLock<Arc<ClientConfig>> = LazyLock::new(|| client_config(Trust::Anybody, None));

/// Passes the request on, with more headers, and the answer back.
pub async fn forward(
    call: &Call,
    to: Destination,
    payload: Payload,
    more: HeaderMap,
) -> Result<Response<Body>, Status> {
    let unreachable = |why: &dyn std::fmt::Display| {
        Status::service_unavailable(format!("error trying to reach {}: {why}", to.address))
    };
    let sender = match timeout(CONNECT_TIMEOUT, connect(call, &to)).await {
        Ok(connected) => connected.map_err(|error| unreachable(&error))?,
        Err(_) => return Err(unreachable(&"connection timed out")),
    };
    let request = request(call, &to.address.to_string(), &to.path_and_query, payload, more)?;
    exchange(sender, request).await.map_err(|error| unreachable(&error))
}

/// A connection to another server.
pub type Sender = SendRequest<WireBody>;

/// A request on its way, and the connection of whoever made it, if they want to speak another protocol on it.
pub type Forwarded = (Request<WireBody>, Option<Near>);

/// The connection of whoever made a request.
pub struct Near {
    upgrade: OnUpgrade,
    /// Held as long as the connection lasts, which is what tells the audit log of its end.
    audit: Option<Arc<Record>>,
}

/// The request of this call, for another server, with more headers.
pub fn request(
    call: &Call,
    host: &str,
    path_and_query: &str,
    payload: Payload,
    more: HeaderMap,
) -> Result<Forwarded, Status> {
    let Payload { body, upgrade } = payload;
    let mut request = Request::builder()
        .method(call.method.clone())
        .uri(path_and_query)
        .header(HOST, host)
        .body(body::wire(body))
        .map_err(|error| Status::bad_request(error.to_string()))?;
    copy_headers(&call.headers, request.headers_mut(), upgrade.is_some());
    request.headers_mut().extend(more);
    Ok((request, upgrade.map(|upgrade| Near { upgrade, audit: call.audit.clone() })))
}

#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("the server switched protocols unasked")]
    Switched,
}

/// Sends the request and passes the answer on.
pub async fn exchange(mut sender: Sender, request: Forwarded) -> Result<Response<Body>, ExchangeError> {
    let (request, upgrade) = request;
    let mut response = sender.send_request(request).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        let (parts, body) = response.into_parts();
        let mut passed = Response::new(body.map_err(Into::into).boxed_unsync());
        *passed.status_mut() = parts.status;
        copy_headers(&parts.headers, passed.headers_mut(), false);
        return Ok(passed);
    }
    let far = hyper::upgrade::on(&mut response);
    let Near { upgrade: near, audit } = upgrade.ok_or(ExchangeError::Switched)?;
    tokio::spawn(async move {
        let _held = audit;
        match tokio::try_join!(near, far) {
            Ok((near, far)) => {
                if let Err(error) = copy_bidirectional(&mut TokioIo::new(near), &mut TokioIo::new(far)).await
                {
                    tracing::debug!(%error, "a forwarded stream broke off");
                }
            }
            Err(error) => tracing::debug!(%error, "a connection could not be upgraded"),
        }
    });
    let mut passed = Response::new(body::empty());
    *passed.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    copy_headers(response.headers(), passed.headers_mut(), true);
    Ok(passed)
}

fn copy_headers(from: &HeaderMap, to: &mut HeaderMap, upgrading: bool) {
    for (name, value) in from {
        let keep = match *name {
            UPGRADE | CONNECTION => upgrading,
            _ => {
                let is_identity = ["impersonate-", REMOTE].iter().any(|p| name.as_str().starts_with(p));
                !NOT_FORWARDED.contains(name) && !is_identity
            }
        };
        if keep {
            to.append(name, value.clone());
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("no certificate authority and client certificate for kubelets is configured")]
    NoTls,
}

async fn connect(call: &Call, to: &Destination) -> Result<Sender, ConnectError> {
    let stream = TcpStream::connect(to.address).await?;
    connect_on(stream, to, call.core.config.kubelet_tls.clone()).await
}

/// HTTP on a connection to a server. `kubelet_tls` is how kubelets are spoken to.
pub async fn connect_on(
    stream: TcpStream,
    to: &Destination,
    kubelet_tls: Option<Arc<ClientConfig>>,
) -> Result<Sender, ConnectError> {
    stream.set_nodelay(true)?;
    let config = match to.security {
        Security::Plain => return handshake(TokioIo::new(stream)).await,
        Security::Anybody => ANYBODY.clone(),
        Security::Kubelet => kubelet_tls.ok_or(ConnectError::NoTls)?,
    };
    let name = ServerName::from(to.address.ip());
    handshake(TokioIo::new(TlsConnector::from(config).connect(name, stream).await?)).await
}

pub async fn handshake<T>(io: T) -> Result<Sender, ConnectError>
where
    T: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (sender, connection) = http1::handshake(io).await?;
    tokio::spawn(async move {
        if let Err(error) = connection.with_upgrades().await {
            tracing::debug!(%error, "a forwarded connection broke off");
        }
    });
    Ok(sender)
}
