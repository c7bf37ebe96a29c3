//! What the proxy and DNS both read off Services and EndpointSlices.

use std::net::IpAddr;

use api::view::core::Service;
use api::view::discovery::EndpointSlice;

use crate::protocol::Protocol;

/// Names the Service a slice belongs to.
const LABEL_SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The Service a slice belongs to, in the slice's namespace.
pub fn service_name(slice: &EndpointSlice) -> Option<&str> {
    slice.metadata.labels.get(LABEL_SERVICE_NAME).map(String::as_str)
}

/// All ClusterIPs; none for a headless Service.
pub fn cluster_ips(service: &Service) -> Vec<IpAddr> {
    let listed: Vec<IpAddr> = service.spec.cluster_ips.iter().filter_map(|ip| ip.parse().ok()).collect();
    if listed.is_empty() { service.spec.cluster_ip.parse().into_iter().collect() } else { listed }
}

/// The protocol a port names; empty means the API's default.
pub fn protocol(name: &str) -> Option<Protocol> {
    if name.is_empty() { Some(Protocol::default()) } else { Protocol::parse(name) }
}
