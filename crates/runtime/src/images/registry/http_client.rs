//! A small HTTP client: GET with redirects, over TCP or TLS, one connection per request.

use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Uri, header};
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::tls::{self, TlsFiles};

pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const REDIRECTS_MAX: usize = 5;
/// Of requests that do not say otherwise.
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("coxswain/", env!("CARGO_PKG_VERSION")));
/// Headers that tell another host too much.
const PROOFS: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// Why no answer came; the text goes into `Error::Unreachable`.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

pub struct HttpClient {
    files: TlsFiles,
    /// Made of the files when it is first needed.
    tls: OnceLock<Result<TlsConnector, String>>,
}

impl HttpClient {
    pub fn new(files: TlsFiles) -> HttpClient {
        HttpClient { files, tls: OnceLock::new() }
    }

    /// Follows redirects; what proves who asks goes only to the host it is meant for.
    pub async fn get(&self, url: &str, headers: &HeaderMap) -> Result<Response<Incoming>, Failure> {
        let mut uri: Uri = url.parse()?;
        let origin = uri.authority().cloned();
        for _ in 0..=REDIRECTS_MAX {
            let mut headers = headers.clone();
            if uri.authority() != origin.as_ref() {
                PROOFS.iter().for_each(|name| drop(headers.remove(name)));
            }
            let response = tokio::time::timeout(IDLE_TIMEOUT, self.send(&uri, headers))
                .await
                .map_err(|_| format!("GET {uri}: timed out"))??;
            let location =
                response.headers().get(header::LOCATION).filter(|_| response.status().is_redirection());
            match location {
                None => return Ok(response),
                Some(location) => uri = redirected(&uri, location.to_str()?)?,
            }
        }
        Err(format!("GET {url}: more than {REDIRECTS_MAX} redirects").into())
    }

    async fn send(&self, uri: &Uri, headers: HeaderMap) -> Result<Response<Incoming>, Failure> {
        let authority = uri.authority().ok_or("URL has no host")?;
        let secure = uri.scheme_str() == Some("https");
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        let stream = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)))
            .await
            .map_err(|_| format!("connect to {host}:{port}: timed out"))?
            .map_err(|e| format!("connect to {host}:{port}: {e}"))?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = Request::get(path).body(Empty::new())?;
        *request.headers_mut() = headers;
        request.headers_mut().insert(header::HOST, authority.as_str().parse()?);
        request.headers_mut().entry(header::USER_AGENT).or_insert(USER_AGENT);
        if !secure {
            return exchange(stream, request).await;
        }
        let name = ServerName::try_from(host.to_owned())?;
        let tls =
            self.tls.get_or_init(|| tls::connector(&self.files)).as_ref().map_err(|reason| reason.clone())?;
        exchange(tls.connect(name, stream).await?, request).await
    }
}

async fn exchange<S>(stream: S, request: Request<Empty<Bytes>>) -> Result<Response<Incoming>, Failure>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the response's body; its errors are seen by who reads that.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection ended");
        }
    });
    Ok(sender.send_request(request).await?)
}

fn redirected(from: &Uri, location: &str) -> Result<Uri, Failure> {
    if location.starts_with('/') {
        let (scheme, authority) = (from.scheme_str().unwrap_or("https"), from.authority().ok_or("no host")?);
        return Ok(format!("{scheme}://{authority}{location}").parse()?);
    }
    let to: Uri = location.parse()?;
    if from.scheme_str() == Some("https") && to.scheme_str() != Some("https") {
        return Err(format!("redirect from https to {to}").into());
    }
    Ok(to)
}
