//! The seam between a client and the API server: one request in, one (possibly endless) response out.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::certificate::{CertificateError, Replaceable};
use crate::config::RestConfig;
use crate::error::{Error, Result};

/// A server that has not taken the connection, TLS included, by then is unreachable (client-go: 30 s, and 10 s for TLS).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that is silent while a request waits is asked whether it is still there, so that a watch over a connection
/// that died unseen ends (client-go: ReadIdleTimeout and PingTimeout).
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);

/// A response body: data as it comes.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
pub type ResponseFuture<'a> = Pin<Box<dyn Future<Output = Result<Response<Body>>> + Send + 'a>>;

/// Carries requests to an API server under one identity. The path and query are set, the authority is not.
pub trait Transport: Send + Sync + 'static {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_>;
}

/// HTTPS with a pool of connections; HTTP/2 where the server offers it.
pub struct Https {
    /// Replaced, with its connections, when the client certificate is.
    client: ArcSwap<HyperClient<tls::Connector, Full<Bytes>>>,
    connector: tls::Connector,
    certificate: Option<Arc<Replaceable>>,
    server: Uri,
    bearer_token: Option<String>,
}

impl Https {
    pub fn new(config: &RestConfig) -> Result<Arc<Self>> {
        let certificate = config.certificate()?;
        let connector = tls::Connector::new(config, certificate.clone())?;
        let client = ArcSwap::from_pointee(pool(connector.clone()));
        let server = config
            .server
            .parse()
            .map_err(|e| Error::Transport(format!("server address {:?} is not a URL: {e}", config.server)))?;
        let bearer_token = config.bearer_token.clone();
        Ok(Arc::new(Https { client, connector, certificate, server, bearer_token }))
    }

    /// Shows another client certificate from now on, if it shows one at all. What is under way goes on over its old
    /// connection.
    pub fn show(&self, certificate: &[u8], key: &[u8]) -> std::result::Result<(), CertificateError> {
        if let Some(shown) = &self.certificate {
            shown.replace(certificate, key)?;
            self.client.store(Arc::new(pool(self.connector.clone())));
        }
        Ok(())
    }

    fn absolute(&self, relative: &Uri) -> Result<Uri> {
        let mut parts = self.server.clone().into_parts();
        parts.path_and_query = relative.path_and_query().cloned();
        Uri::from_parts(parts)
            .map_err(|e| Error::Transport(format!("request path {relative} is not valid: {e}")))
    }
}

fn pool(connector: tls::Connector) -> HyperClient<tls::Connector, Full<Bytes>> {
    HyperClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(connector)
}

impl Transport for Https {
    fn send(&self, request: Request<Bytes>) -> ResponseFuture<'_> {
        Box::pin(async move {
            let (mut parts, body) = request.into_parts();
            parts.uri = self.absolute(&parts.uri)?;
            if let Some(token) = &self.bearer_token {
                let value = format!("Bearer {token}").parse().map_err(|_| {
                    Error::Transport("the bearer token holds characters a header cannot".to_owned())
                })?;
                parts.headers.insert(http::header::AUTHORIZATION, value);
            }
            let client = self.client.load_full();
            let response = client
                .request(Request::from_parts(parts, Full::new(body)))
                .await
                .map_err(|e| Error::Transport(describe(&e)))?;
            Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
        })
    }
}

/// The whole chain of causes: hyper's own text says only "client error (Connect)".
fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// TCP and TLS for hyper's pool.
mod tls {
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::net::TcpStream;
    use tokio::time::timeout;
    use tokio_rustls::TlsConnector;
    use tower_service::Service;

    use super::{Arc, BoxError, CONNECT_TIMEOUT, HttpConnector, Replaceable, RestConfig, Result, Uri};
    use crate::tls::TlsConnection;

    #[derive(Clone)]
    pub struct Connector {
        tcp: HttpConnector,
        tls: TlsConnector,
    }

    impl Connector {
        pub fn new(config: &RestConfig, certificate: Option<Arc<Replaceable>>) -> Result<Self> {
            let mut tcp = HttpConnector::new();
            tcp.enforce_http(false);
            tcp.set_nodelay(true);
            Ok(Connector { tcp, tls: TlsConnector::from(config.tls_showing(certificate)?) })
        }
    }

    type Connecting = Pin<Box<dyn Future<Output = std::result::Result<TlsConnection, BoxError>> + Send>>;

    async fn connect(tcp: &mut HttpConnector, uri: Uri) -> std::result::Result<TcpStream, BoxError> {
        std::future::poll_fn(|cx| tcp.poll_ready(cx)).await?;
        Ok(tcp.call(uri).await?.into_inner())
    }

    impl Service<Uri> for Connector {
        type Response = TlsConnection;
        type Error = BoxError;
        type Future = Connecting;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, uri: Uri) -> Connecting {
            let (mut tcp, tls) = (self.tcp.clone(), self.tls.clone());
            Box::pin(async move {
                let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
                let name = rustls::pki_types::ServerName::try_from(host)?;
                let connected = async {
                    let stream = connect(&mut tcp, uri).await?;
                    Ok::<_, BoxError>(tls.connect(name, stream).await?)
                };
                Ok(TlsConnection::new(timeout(CONNECT_TIMEOUT, connected).await??))
            })
        }
    }
}
