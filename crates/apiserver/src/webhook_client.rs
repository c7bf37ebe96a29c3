//! Calls of webhooks: a JSON document posted over HTTPS to a URL or a Service, and the JSON it answers with.
//! Follows `k8s.io/apiserver/pkg/util/webhook.ClientManager`.

use std::sync::Arc;
use std::time::Duration;

use apiextensions::definition::ClientConfig;
use apimachinery::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HOST};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::core::Core;
use crate::draft::to_json;

/// A longer answer is none (upstream: the limit of request bodies).
const ANSWER_BYTES_MAX: usize = 3 << 20;

/// Where Debian, and many others, keep the authorities that everybody trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

const HTTPS_PORT: u16 = 443;

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("unable to parse webhook URL: {0:?}")]
    Url(String),
    #[error("neither a URL nor a Service is given")]
    NoAddress,
    #[error("service {0:?} not found")]
    NoService(String),
    #[error("Post {url:?}: unable to load root certificates: {why}")]
    Authorities { url: String, why: String },
    #[error("Post {url:?}: {why}")]
    Transport { url: String, why: String },
    #[error("Post {url:?}: context deadline exceeded")]
    Deadline { url: String },
    #[error("the server answered {code}: {text}")]
    Refused { code: u16, text: String },
    #[error("Post {url:?}: the answer is no JSON: {why}")]
    Answer { url: String, why: String },
}

/// Where a webhook is.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    /// As messages and the request name it.
    url: String,
    /// The name its certificate must bear.
    host: String,
    /// Where to connect: `10.96.0.7:443`.
    connect: String,
    path: String,
}

/// Posts `body` and waits for the answer.
pub async fn post(
    core: &Core,
    to: &ClientConfig,
    body: &Value,
    within: Duration,
) -> Result<Value, CallError> {
    let address = address(core, to)?;
    let url = address.url.clone();
    match timeout(within, exchange(&address, to, body)).await {
        Ok(answer) => answer,
        Err(_) => Err(CallError::Deadline { url }),
    }
}

fn address(core: &Core, to: &ClientConfig) -> Result<Address, CallError> {
    if let Some(url) = &to.url {
        return of_url(url);
    }
    let service = to.service.as_ref().ok_or(CallError::NoAddress)?;
    let host = format!("{}.{}.svc", service.name, service.namespace);
    let port = service.port.unwrap_or(HTTPS_PORT);
    let path = service.path.clone().unwrap_or_else(|| "/".to_owned());
    let found = core.object(api::resource::SERVICES, &service.namespace, &service.name);
    let ip = found.as_ref().and_then(|object| object["spec"]["clusterIP"].as_str());
    let ip = ip.filter(|ip| !ip.is_empty() && *ip != "None");
    let ip = ip.ok_or_else(|| CallError::NoService(service.name.clone()))?;
    let connect = if ip.contains(':') { format!("[{ip}]:{port}") } else { format!("{ip}:{port}") };
    let slash = if path.starts_with('/') { "" } else { "/" };
    let path = format!("{slash}{path}");
    Ok(Address { url: format!("https://{host}:{port}{path}"), host, connect, path })
}

fn of_url(url: &str) -> Result<Address, CallError> {
    let unreadable = || CallError::Url(url.to_owned());
    let uri: Uri = url.parse().map_err(|_| unreadable())?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https")).ok_or_else(unreadable)?;
    Ok(Address {
        url: url.to_owned(),
        host: host.trim_matches(['[', ']']).to_owned(),
        connect: format!("{host}:{}", uri.port_u16().unwrap_or(HTTPS_PORT)),
        path: uri.path_and_query().map_or("/", |path| path.as_str()).to_owned(),
    })
}

async fn exchange(address: &Address, to: &ClientConfig, body: &Value) -> Result<Value, CallError> {
    let url = || address.url.clone();
    let failed = |why: &dyn std::fmt::Display| CallError::Transport { url: url(), why: why.to_string() };
    let tls = tls(to.ca_bundle.as_deref()).await.map_err(|why| CallError::Authorities { url: url(), why })?;
    let name = ServerName::try_from(address.host.clone()).map_err(|_| CallError::Url(url()))?;
    let stream = TcpStream::connect(&address.connect).await.map_err(|error| failed(&error))?;
    let stream = TlsConnector::from(tls).connect(name, stream).await.map_err(|error| failed(&error))?;
    let (mut sender, connection) =
        http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
    let driver = tokio::spawn(connection);
    let request = Request::post(&address.path)
        .header(HOST, &address.host)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .body(Full::new(Bytes::from(to_json(body))))
        .map_err(|error| failed(&error))?;
    let response = sender.send_request(request).await.map_err(|error| failed(&error))?;
    let (parts, body) = response.into_parts();
    let answer =
        Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| failed(&error))?.to_bytes();
    driver.abort();
    if !parts.status.is_success() {
        let text = String::from_utf8_lossy(&answer).into_owned();
        return Err(CallError::Refused { code: parts.status.as_u16(), text });
    }
    serde_json::from_slice(&answer).map_err(|error| CallError::Answer { url: url(), why: error.to_string() })
}

/// Trusts the given authorities, PEM in base64, or else those of the system.
async fn tls(ca_bundle: Option<&str>) -> Result<Arc<rustls::ClientConfig>, String> {
    let pem = match ca_bundle {
        Some(bundle) => STANDARD.decode(bundle).map_err(|error| error.to_string())?,
        None => tokio::fs::read(SYSTEM_AUTHORITIES).await.map_err(|error| error.to_string())?,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_to_connect_and_whom_to_expect() {
        let address = of_url("https://hooks.example.com/convert?x=1").expect("is one");
        assert_eq!((&*address.host, &*address.connect), ("hooks.example.com", "hooks.example.com:443"));
        assert_eq!(address.path, "/convert?x=1");
        let address = of_url("https://[fd00::1]:8443").expect("is one");
        assert_eq!((&*address.host, &*address.connect, &*address.path), ("fd00::1", "[fd00::1]:8443", "/"));
        for text in ["http://example.com", "example.com", "::"] {
            assert!(of_url(text).is_err(), "{text}");
        }
    }
}
