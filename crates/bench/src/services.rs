//! Services and EndpointSlices that benchmarks create. No pods stand behind them.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::{Value, json};

use crate::connection::Connection;
use crate::sandbox::Sandbox;

/// Connections over which objects are created.
pub const CONCURRENCY: usize = 32;

/// The one port of every Service.
pub const PORT: u16 = 80;

/// A Service's protocol, in the API's words.
#[derive(Clone, Copy, Debug)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    fn word(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
        }
    }
}

pub fn name(n: usize) -> String {
    format!("service-{n}")
}

/// A Service that selects nothing, so that its slices are ours.
pub fn service(name: &str, protocol: Protocol) -> Bytes {
    let port = json!({ "name": "main", "port": PORT, "protocol": protocol.word() });
    let object = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": name },
        "spec": { "ports": [port] },
    });
    Bytes::from(object.to_string())
}

/// A slice of the Service with these endpoints, which share a port.
pub fn slice(service: &str, protocol: Protocol, addresses: &[IpAddr], port: u16) -> Bytes {
    let endpoint = |address: &IpAddr| json!({ "addresses": [address], "conditions": { "ready": true } });
    let object = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": { "name": service, "labels": { "kubernetes.io/service-name": service } },
        "addressType": if addresses.iter().all(IpAddr::is_ipv4) { "IPv4" } else { "IPv6" },
        "ports": [{ "name": "main", "port": port, "protocol": protocol.word() }],
        "endpoints": addresses.iter().map(endpoint).collect::<Vec<_>>(),
    });
    Bytes::from(object.to_string())
}

pub fn slices_path(sandbox: &Sandbox) -> String {
    format!("/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices", sandbox.namespace)
}

/// Creates a Service and tells where it is reached.
pub async fn create(
    sandbox: &Sandbox,
    connection: &mut Connection,
    name: &str,
    protocol: Protocol,
) -> Result<SocketAddr> {
    let created = connection.post(&sandbox.path("services"), service(name, protocol)).await?;
    let created: Value = serde_json::from_slice(&created)?;
    let address = created["spec"]["clusterIP"].as_str().and_then(|ip| ip.parse().ok());
    Ok(SocketAddr::new(address.with_context(|| format!("service {name} got no address"))?, PORT))
}
