//! From a pod to the endpoint it is for a Service (follows upstream's `podToEndpoint`).

use api::resource::PODS;
use api::view::core::{ObjectReference, Pod, Service};
use api::view::discovery::{Endpoint, EndpointConditions};
use apimachinery::meta::StringMap;

/// Whether a pod's change may change its endpoint.
pub fn differs(old: &Pod, new: &Pod) -> bool {
    old.metadata.labels != new.metadata.labels
        || old.metadata.deletion_timestamp != new.metadata.deletion_timestamp
        || old.status.pod_ips != new.status.pod_ips
        || old.status.phase != new.status.phase
        || old.is_ready() != new.is_ready()
        || (&old.spec.node_name, &old.spec.hostname, &old.spec.subdomain)
            != (&new.spec.node_name, &new.spec.hostname, &new.spec.subdomain)
}

/// A pod that has ended for good, or has no address yet, is no endpoint (upstream: `ShouldPodBeInEndpoints`).
pub fn is_endpoint(pod: &Pod) -> bool {
    !pod.is_terminal() && !pod.status.pod_ips.is_empty()
}

/// The pod's endpoint in one address family, if it has an address there.
pub fn endpoint(service: &Service, pod: &Pod, is_ipv6: bool, zones: &StringMap) -> Option<Endpoint> {
    let of_family = |ip: &&str| ip.contains(':') == is_ipv6;
    let addresses: Vec<String> =
        pod.status.pod_ips.iter().map(|ip| ip.ip.as_str()).filter(of_family).map(str::to_owned).collect();
    if addresses.is_empty() {
        return None;
    }
    let serving = pod.is_ready();
    let terminating = pod.metadata.is_being_deleted();
    let ready = service.spec.publish_not_ready_addresses || (serving && !terminating);
    let node_name = Some(pod.spec.node_name.clone()).filter(|name| !name.is_empty());
    Some(Endpoint {
        addresses,
        conditions: EndpointConditions {
            ready: Some(ready),
            serving: Some(serving),
            terminating: Some(terminating),
        },
        hostname: hostname(service, pod),
        target_ref: Some(target(pod)),
        deprecated_topology: StringMap::new(),
        hints: None,
        zone: node_name.as_ref().and_then(|node| zones.get(node)).cloned(),
        node_name,
    })
}

/// A pod that names the Service as its subdomain has a name of its own in DNS (upstream: `ShouldSetHostname`).
pub fn hostname(service: &Service, pod: &Pod) -> Option<String> {
    let is_named = !pod.spec.hostname.is_empty() && pod.spec.subdomain == service.metadata.name;
    is_named.then(|| pod.spec.hostname.clone())
}

pub fn target(pod: &Pod) -> ObjectReference {
    ObjectReference {
        kind: PODS.kind.to_owned(),
        namespace: pod.metadata.namespace.clone(),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
        ..ObjectReference::default()
    }
}
