//! What the proxy and DNS both read off Services and EndpointSlices.

use std::net::IpAddr;
use std::sync::Arc;

use api::view::core::Service;
use api::view::discovery::EndpointSlice;
use client::Informer;

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

/// Index of EndpointSlices by `NAMESPACE/SERVICE`, which all who read slices share.
const BY_SERVICE: &str = "network/service";

/// Lets [`slices_of`] be asked.
pub fn index_by_service(slices: &Informer<EndpointSlice>) {
    slices.add_index(BY_SERVICE, |slice| {
        let name = service_name(slice).map(|service| index_key(&slice.metadata.namespace, service));
        name.into_iter().collect()
    });
}

/// The EndpointSlices of a Service.
pub fn slices_of(
    slices: &Informer<EndpointSlice>,
    namespace: &str,
    service: &str,
) -> Vec<Arc<EndpointSlice>> {
    slices.by_index(BY_SERVICE, &index_key(namespace, service))
}

fn index_key(namespace: &str, service: &str) -> String {
    format!("{namespace}/{service}")
}
