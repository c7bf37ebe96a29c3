//! TCP and TLS to a webhook for hyper's pool. A Service is looked up in the store at the moment of connecting: one of
//! its ready endpoints, or else its cluster address.

use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use api::resource;
use apimachinery::Value;
use apimachinery::meta::str_at;
use client::tls::TlsConnection;
use http::Uri;
use rustls_pki_types::ServerName;
use store::{Key, Store};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tower_service::Service;

use crate::conversion;

const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Where a webhook is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Host { host: String, port: u16 },
    Service { namespace: String, name: String, port: u16 },
}

impl Target {
    /// The name that the server's certificate must bear.
    fn server_name(&self) -> String {
        match self {
            Target::Host { host, .. } => host.clone(),
            Target::Service { namespace, name, .. } => format!("{name}.{namespace}.svc"),
        }
    }

    /// Upstream speaks HTTP/2 to its own machine only: elsewhere one connection would hinder the balancing of load.
    pub fn speaks_http2(&self) -> bool {
        let Target::Host { host, .. } = self else { return false };
        host.eq_ignore_ascii_case("localhost") || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    #[error("service {0:?} not found")]
    NoService(String),
    #[error("no service port {port} found for service {service:?}")]
    NoPort { service: String, port: u16 },
    #[error("no endpoints available for service {0:?}")]
    NoEndpoints(String),
    #[error("dial tcp {address}: {why}")]
    Dial { address: String, why: String },
    #[error("tls: failed to verify certificate: x509: {0}")]
    Certificate(String),
    #[error("remote error: tls: {0}")]
    Tls(String),
}

#[derive(Clone)]
pub struct Connector {
    store: Store,
    target: Target,
    tls: TlsConnector,
    /// Which endpoint is next.
    turn: Arc<AtomicUsize>,
}

impl Connector {
    pub fn new(store: Store, target: Target, tls: Arc<rustls::ClientConfig>) -> Connector {
        Connector { store, target, tls: TlsConnector::from(tls), turn: Arc::default() }
    }

    async fn connect(self) -> Result<TlsConnection, ConnectError> {
        let address = match &self.target {
            Target::Host { host, port } => {
                if host.contains(':') {
                    format!("[{host}]:{port}")
                } else {
                    format!("{host}:{port}")
                }
            }
            Target::Service { namespace, name, port } => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                resolve(&self.store, namespace, name, *port, turn)?.to_string()
            }
        };
        let name = self.target.server_name();
        let name =
            ServerName::try_from(name).map_err(|error| ConnectError::Certificate(error.to_string()))?;
        let dial =
            |error: std::io::Error| ConnectError::Dial { address: address.clone(), why: reason(&error) };
        let stream = TcpStream::connect(&address).await.map_err(dial)?;
        stream.set_nodelay(true).map_err(dial)?;
        let stream = self.tls.connect(name, stream).await.map_err(|error| tls_error(&error))?;
        Ok(TlsConnection::new(stream))
    }
}

fn reason(error: &std::io::Error) -> String {
    match error.kind() {
        std::io::ErrorKind::ConnectionRefused => "connect: connection refused".to_owned(),
        std::io::ErrorKind::HostUnreachable => "connect: no route to host".to_owned(),
        std::io::ErrorKind::NetworkUnreachable => "connect: network is unreachable".to_owned(),
        _ => error.to_string(),
    }
}

fn tls_error(error: &std::io::Error) -> ConnectError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        // Another authority of the same name is as unknown as one of another name.
        Some(rustls::Error::InvalidCertificate(
            rustls::CertificateError::UnknownIssuer | rustls::CertificateError::BadSignature,
        )) => ConnectError::Certificate("certificate signed by unknown authority".to_owned()),
        Some(rustls::Error::InvalidCertificate(why)) => ConnectError::Certificate(why.to_string()),
        _ => ConnectError::Tls(error.to_string()),
    }
}

/// Where a Service's port leads to at this moment.
pub fn resolve(
    store: &Store,
    namespace: &str,
    name: &str,
    port: u16,
    turn: usize,
) -> Result<SocketAddr, ConnectError> {
    let entry = store.get(&Key::new(resource::SERVICES.plural, namespace, name));
    let service = entry.map(|entry| conversion::decode(&entry.bytes));
    let service = service.ok_or_else(|| ConnectError::NoService(name.to_owned()))?;
    let ports = service["spec"]["ports"].as_array().map(Vec::as_slice).unwrap_or_default();
    let served = ports.iter().find(|served| served["port"].as_u64() == Some(port.into()));
    let served = served.ok_or_else(|| ConnectError::NoPort { service: name.to_owned(), port })?;
    let page = store.range("endpointslices.discovery.k8s.io", Some(namespace), None, None, 0, &|_| true);
    let slices = page.map(|page| page.entries).unwrap_or_default();
    let slices = slices.iter().map(|entry| conversion::decode(&entry.bytes));
    let of_service = slices.filter(|slice| str_at(slice, &["metadata", "labels", SERVICE_NAME]) == name);
    let endpoints: Vec<SocketAddr> =
        of_service.flat_map(|slice| ready_endpoints(&slice, str_at(served, &["name"]))).collect();
    if !endpoints.is_empty() {
        return Ok(endpoints[turn % endpoints.len()]);
    }
    let cluster_ip = str_at(&service, &["spec", "clusterIP"]).parse::<IpAddr>();
    cluster_ip.map(|ip| SocketAddr::new(ip, port)).map_err(|_| ConnectError::NoEndpoints(name.to_owned()))
}

fn ready_endpoints(slice: &Value, port_name: &str) -> Vec<SocketAddr> {
    let list = |field: &str| slice[field].as_array().cloned().unwrap_or_default();
    let ports = list("ports");
    let port = ports.iter().find(|port| str_at(port, &["name"]) == port_name);
    let port = port.and_then(|port| port["port"].as_u64()).and_then(|port| u16::try_from(port).ok());
    let Some(port) = port else { return Vec::new() };
    let ready = list("endpoints").into_iter().filter(|endpoint| endpoint["conditions"]["ready"] != false);
    let first = |endpoint: Value| endpoint["addresses"][0].as_str().and_then(|address| address.parse().ok());
    ready.filter_map(first).map(|ip: IpAddr| SocketAddr::new(ip, port)).collect()
}

type Connecting =
    Pin<Box<dyn Future<Output = Result<TlsConnection, Box<dyn std::error::Error + Send + Sync>>> + Send>>;

impl Service<Uri> for Connector {
    type Response = TlsConnection;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Connecting;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Connecting {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map_err(Into::into) })
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn only_ready_endpoints_of_the_named_port_are_called() {
        let slice = json!({"ports": [{"name": "web", "port": 80}, {"name": "hook", "port": 8443}],
            "endpoints": [
                {"addresses": ["10.0.0.1"], "conditions": {"ready": false}},
                {"addresses": ["10.0.0.2"], "conditions": {"ready": true}},
                {"addresses": ["fd00::3"]}]});
        let found: Vec<String> = ready_endpoints(&slice, "hook").iter().map(ToString::to_string).collect();
        assert_eq!(found, ["10.0.0.2:8443", "[fd00::3]:8443"]);
        assert!(ready_endpoints(&slice, "other").is_empty());
    }

    #[test]
    fn http_2_is_for_this_machine() {
        let host = |host: &str| Target::Host { host: host.to_owned(), port: 1 };
        assert!(host("localhost").speaks_http2() && host("127.0.0.1").speaks_http2());
        assert!(!host("example.com").speaks_http2());
    }
}
