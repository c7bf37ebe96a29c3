//! From a Service and its pods to its Endpoints (follows upstream's `syncService`).

use std::sync::Arc;

use api::resource::ENDPOINTS;
use api::view::core::{EndpointAddress, EndpointSubset, Endpoints, EndpointsPort, Pod, Service};
use apimachinery::json;
use apimachinery::meta::{ObjectMeta, StringMap};

use super::subsets::{Target, pack, truncate};
use super::{CONTROLLER_NAME, MANAGED_BY};
use crate::endpointslice::{HEADLESS, hostname, named_ports_of, target};
use crate::plan::{Action, Plan};

/// Says that addresses were left out.
const OVER_CAPACITY: &str = "endpoints.kubernetes.io/over-capacity";

pub fn reconcile(service: &Service, pods: &[Arc<Pod>], current: Option<&Endpoints>) -> Plan {
    let mut plan = Plan::default();
    let is_selective = !service.spec.selector.is_empty() && service.spec.kind != "ExternalName";
    if !is_selective || service.metadata.is_being_deleted() {
        return plan;
    }
    let mut subsets = pack(pods.iter().filter_map(|pod| endpoint(service, pod)).collect());
    let is_truncated = truncate(&mut subsets);
    let labels = labels(service);
    let capacity = is_truncated.then_some("truncated");
    match current {
        None => {
            let meta = ObjectMeta {
                name: service.metadata.name.clone(),
                namespace: service.metadata.namespace.clone(),
                ..ObjectMeta::default()
            };
            let object = object(meta, labels, capacity, &subsets);
            plan.act(Action::create(ENDPOINTS, &service.metadata.namespace, object));
        }
        Some(current) => {
            let meta = &current.metadata;
            let noted = meta.annotations.get(OVER_CAPACITY).map(String::as_str);
            if current.subsets != subsets || meta.labels != labels || noted != capacity {
                let object = object(meta.clone(), labels, capacity, &subsets);
                plan.act(Action::update(ENDPOINTS, meta, object));
            }
        }
    }
    plan
}

fn object(
    mut meta: ObjectMeta,
    labels: StringMap,
    capacity: Option<&str>,
    subsets: &[EndpointSubset],
) -> apimachinery::Value {
    meta.labels = labels;
    match capacity {
        Some(capacity) => meta.annotations.insert(OVER_CAPACITY.into(), capacity.into()),
        None => meta.annotations.remove(OVER_CAPACITY),
    };
    json!({"apiVersion": "v1", "kind": ENDPOINTS.kind, "metadata": meta, "subsets": subsets})
}

fn labels(service: &Service) -> StringMap {
    let mut labels = service.metadata.labels.clone();
    labels.remove(HEADLESS);
    if service.spec.is_headless() {
        labels.insert(HEADLESS.into(), String::new());
    }
    labels.insert(MANAGED_BY.into(), CONTROLLER_NAME.into());
    labels
}

/// The pod as a target of the Service, if it is one; a pod that is ending is one only if readiness does not matter.
fn endpoint(service: &Service, pod: &Pod) -> Option<Target> {
    let is_ending = pod.metadata.is_being_deleted() && !service.spec.publish_not_ready_addresses;
    if pod.is_terminal() || is_ending {
        return None;
    }
    let ports: Vec<_> = named_ports_of(service, pod);
    if ports.is_empty() && !(service.spec.ports.is_empty() && service.spec.is_headless()) {
        return None;
    }
    let ports = ports.into_iter().map(|port| EndpointsPort {
        name: port.name.unwrap_or_default(),
        port: port.port.unwrap_or_default(),
        protocol: port.protocol.unwrap_or_default(),
        app_protocol: port.app_protocol,
    });
    let address = EndpointAddress {
        ip: address(service, pod)?,
        hostname: hostname(service, pod).unwrap_or_default(),
        node_name: Some(pod.spec.node_name.clone()).filter(|name| !name.is_empty()),
        target_ref: Some(target(pod)),
    };
    let is_ready = service.spec.publish_not_ready_addresses || pod.is_ready();
    Some(Target { address, is_ready, ports: ports.collect() })
}

/// The pod's address in the Service's first family (upstream: `podToEndpointAddressForService`).
fn address(service: &Service, pod: &Pod) -> Option<String> {
    let is_ipv6 = match service.spec.ip_families.first() {
        Some(family) => family == "IPv6",
        None if service.spec.is_headless() => pod.status.pod_ip.contains(':'),
        None => service.spec.cluster_ip.contains(':'),
    };
    let mut ips = pod.status.pod_ips.iter().map(|ip| &ip.ip);
    ips.find(|ip| ip.contains(':') == is_ipv6).cloned()
}
