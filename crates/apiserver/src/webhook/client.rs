//! Calls of webhooks: a JSON document posted over HTTPS to a URL or a Service, and the JSON it answers with, over
//! connections that are kept. Follows `k8s.io/apiserver/pkg/util/webhook.ClientManager`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use admission::webhook::{ClientConfig, ServiceReference};
use apimachinery::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{Request, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use parking_lot::Mutex;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use store::Store;
use tokio::time::timeout;

use super::connect::{Connector, Target};
use crate::draft::to_json;

/// More webhooks than this are not kept connected to (upstream: defaultCacheSize).
const CLIENTS_MAX: usize = 200;

/// A longer answer is none (upstream: the limit of request bodies).
const ANSWER_BYTES_MAX: usize = 3 << 20;

/// Where Debian, and many others, keep the authorities that everybody trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

const HTTPS_PORT: u16 = 443;

/// Why there is no answer, in the words of Go's client.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error("Unparsable URL: {0:?}")]
    Url(String),
    #[error("webhook configuration must have either service or URL")]
    NoAddress,
    #[error("Post {url:?}: unable to load root certificates: {why}")]
    Authorities { url: String, why: String },
    #[error("Post {url:?}: {why}")]
    Transport { url: String, why: String },
    #[error("Post {url:?}: context deadline exceeded")]
    Deadline { url: String },
    #[error("{text}")]
    Refused { code: u16, text: String },
    #[error("the answer is no JSON: {why}")]
    Answer { why: String },
}

impl CallError {
    /// The code under which the failure is counted.
    pub fn code(&self) -> u16 {
        match self {
            CallError::Refused { code, .. } => *code,
            CallError::Url(_) | CallError::NoAddress | CallError::Authorities { .. } => 500,
            CallError::Transport { .. } | CallError::Deadline { .. } | CallError::Answer { .. } => 503,
        }
    }
}

type Client = HyperClient<Connector, Full<Bytes>>;

/// The connections to webhooks, by where they are and whom they trust.
pub struct Clients {
    store: Store,
    pool: Mutex<HashMap<ClientConfig, Client>>,
}

impl Clients {
    pub fn new(store: Store) -> Clients {
        Clients { store, pool: Mutex::default() }
    }

    /// Posts `body` and waits for the answer.
    pub async fn post(&self, to: &ClientConfig, body: &Value, within: Duration) -> Result<Value, CallError> {
        let (base, _) = target(to)?;
        let separator = if base.contains('?') { '&' } else { '?' };
        let url = format!("{base}{separator}timeout={}s", within.as_secs());
        match timeout(within, self.exchange(to, &url, body)).await {
            Ok(answer) => answer,
            Err(_) => Err(CallError::Deadline { url }),
        }
    }

    async fn exchange(&self, to: &ClientConfig, url: &str, body: &Value) -> Result<Value, CallError> {
        let failed = |why: String| CallError::Transport { url: url.to_owned(), why };
        let client = self.client(to).await?;
        let uri: Uri = url.parse().map_err(|_| CallError::Url(url.to_owned()))?;
        let request = Request::post(uri)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json, */*")
            .body(Full::new(Bytes::from(to_json(body))))
            .map_err(|error| failed(error.to_string()))?;
        let response = client.request(request).await.map_err(|error| failed(root_cause(&error)))?;
        let (parts, body) = response.into_parts();
        let answer = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
        let answer = answer.map_err(|error| failed(error.to_string()))?.to_bytes();
        if !parts.status.is_success() {
            return Err(refused(parts.status.as_u16(), &answer));
        }
        serde_json::from_slice(&answer).map_err(|error| CallError::Answer { why: error.to_string() })
    }

    async fn client(&self, to: &ClientConfig) -> Result<Client, CallError> {
        if let Some(client) = self.pool.lock().get(to) {
            return Ok(client.clone());
        }
        let (url, target) = target(to)?;
        let tls = tls(to.ca_bundle.as_deref(), target.speaks_http2()).await;
        let tls = tls.map_err(|why| CallError::Authorities { url, why })?;
        let client = HyperClient::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .build(Connector::new(self.store.clone(), target, tls));
        let mut pool = self.pool.lock();
        if pool.len() >= CLIENTS_MAX {
            pool.clear();
        }
        pool.insert(to.clone(), client.clone());
        Ok(client)
    }
}

/// The URL that is posted to and where to connect for it.
fn target(to: &ClientConfig) -> Result<(String, Target), CallError> {
    if let Some(service) = &to.service {
        let ServiceReference { namespace, name, path, port } = service;
        let port = port.unwrap_or(HTTPS_PORT);
        let path = path.as_deref().unwrap_or("/");
        let slash = if path.starts_with('/') { "" } else { "/" };
        let url = format!("https://{name}.{namespace}.svc:{port}{slash}{path}");
        return Ok((url, Target::Service { namespace: namespace.clone(), name: name.clone(), port }));
    }
    let url = to.url.as_ref().ok_or(CallError::NoAddress)?;
    let uri: Uri = url.parse().map_err(|_| CallError::Url(url.clone()))?;
    let host = uri.host().filter(|_| uri.scheme_str() == Some("https"));
    let host = host.ok_or_else(|| CallError::Url(url.clone()))?;
    let target = Target::Host {
        host: host.trim_matches(['[', ']']).to_owned(),
        port: uri.port_u16().unwrap_or(HTTPS_PORT),
    };
    Ok((url.clone(), target))
}

/// What Go's client makes of an answer that is none.
fn refused(code: u16, body: &[u8]) -> CallError {
    let body = String::from_utf8_lossy(body);
    let body = body.trim();
    let text = match code {
        404 => "the server could not find the requested resource".to_owned(),
        401 => "the server has asked for the client to provide credentials".to_owned(),
        403 => format!("the server does not allow access to the requested resource: {body:?}"),
        500.. => format!("an error on the server ({body:?}) has prevented the request from succeeding"),
        _ => format!("the server responded with the status code {code} but did not return more information"),
    };
    CallError::Refused { code, text }
}

/// What lies at the bottom: hyper's own text says only "client error (Connect)".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause.to_string()
}

/// Those whom everybody trusts, PEM.
pub async fn system_authorities() -> Result<Vec<u8>, String> {
    tokio::fs::read(SYSTEM_AUTHORITIES).await.map_err(|error| error.to_string())
}

/// The authorities that a bundle (PEM in base64) names; without one, those that everybody trusts.
pub async fn authorities(ca_bundle: Option<&str>) -> Result<RootCertStore, String> {
    let pem = match ca_bundle.filter(|bundle| !bundle.is_empty()) {
        Some(bundle) => STANDARD.decode(bundle).map_err(|error| error.to_string())?,
        None => system_authorities().await?,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

async fn tls(ca_bundle: Option<&str>, http2: bool) -> Result<Arc<rustls::ClientConfig>, String> {
    let roots = authorities(ca_bundle).await?;
    let mut config = tls::client().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_says_where_to_connect_and_whom_to_expect() {
        let of_url =
            |url: &str| target(&ClientConfig { url: Some(url.to_owned()), ..ClientConfig::default() });
        let host = |host: &str, port| Target::Host { host: host.to_owned(), port };
        let url = "https://hooks.example.com/convert?x=1";
        assert_eq!(of_url(url).expect("is one"), (url.to_owned(), host("hooks.example.com", 443)));
        assert_eq!(of_url("https://[fd00::1]:8443").expect("is one").1, host("fd00::1", 8443));
        for text in ["http://example.com", "example.com", "::"] {
            assert!(of_url(text).is_err(), "{text}");
        }
        let service = ServiceReference {
            namespace: "ns".to_owned(),
            name: "hook".to_owned(),
            path: Some("x".to_owned()),
            port: None,
        };
        let (url, _) =
            target(&ClientConfig { service: Some(service), ..ClientConfig::default() }).expect("is one");
        assert_eq!(url, "https://hook.ns.svc:443/x");
    }
}
