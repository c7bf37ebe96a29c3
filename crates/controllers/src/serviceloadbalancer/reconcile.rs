//! Which addresses a Service of type LoadBalancer has: those of the nodes that may take its traffic.

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::resource::SERVICES;
use api::view::core::{Node, Service};
use api::view::discovery::EndpointSlice;
use apimachinery::meta::find_condition;
use apimachinery::{Value, json};
use client::PatchType;

use crate::plan::{Action, Event, Plan, Step, reference};

/// Keeps a node out (upstream: `LabelNodeExcludeBalancers`).
const LABEL_EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Put on a node by the cluster autoscaler before it deletes it.
const TAINT_TO_BE_DELETED: &str = "ToBeDeletedByClusterAutoscaler";

/// What there is beside the Service.
pub struct World {
    pub nodes: Vec<Arc<Node>>,
    pub services: Vec<Arc<Service>>,
    /// The Service's own.
    pub slices: Vec<Arc<EndpointSlice>>,
}

/// Whether this controller serves it.
pub fn is_balanced(service: &Service) -> bool {
    let spec = &service.spec;
    spec.kind == "LoadBalancer" && spec.load_balancer_class.is_none() && !service.metadata.is_being_deleted()
}

pub fn holds_addresses(service: &Service) -> bool {
    !service.status["loadBalancer"]["ingress"].as_array().is_none_or(Vec::is_empty)
}

/// What Services are told of a node: its addresses, none while it may not take traffic. External ones are preferred.
pub fn announces(node: &Node) -> Vec<IpAddr> {
    let ready = find_condition(&node.status.conditions, "Ready").is_some_and(|c| c.is_true());
    let leaves = node.metadata.is_being_deleted()
        || node.metadata.labels.contains_key(LABEL_EXCLUDE)
        || node.spec.taints.iter().any(|taint| taint.key == TAINT_TO_BE_DELETED);
    if !ready || leaves {
        return Vec::new();
    }
    let of_kind = |kind: &str| -> Vec<IpAddr> {
        let addresses = node.status.addresses.iter().filter(|address| address.kind == kind);
        addresses.filter_map(|address| address.address.parse().ok()).collect()
    };
    let external = of_kind("ExternalIP");
    if external.is_empty() { of_kind("InternalIP") } else { external }
}

pub fn reconcile(service: &Service, world: &World) -> Plan {
    let mut plan = Plan::default();
    if service.spec.load_balancer_class.is_some() || service.metadata.is_being_deleted() {
        return plan;
    }
    let taken = is_balanced(service).then(|| taken_by_another(service, &world.services)).flatten();
    let desired =
        if is_balanced(service) && taken.is_none() { addresses(service, world) } else { Vec::new() };
    if present(service) == desired {
        return plan;
    }
    let meta = &service.metadata;
    let told = |reason, message: &str| Event::normal(reference(SERVICES, meta), reason, message);
    let done = match (present(service).is_empty(), &taken) {
        (_, Some(other)) => Some(Event::warning(
            reference(SERVICES, meta),
            "SyncLoadBalancerFailed",
            format!("Error syncing load balancer: {other}"),
        )),
        (true, None) => Some(told("EnsuredLoadBalancer", "Ensured load balancer")),
        (false, None) if is_balanced(service) => {
            Some(told("UpdatedLoadBalancer", "Updated load balancer with new hosts"))
        }
        (false, None) => Some(told("DeletedLoadBalancer", "Deleted load balancer")),
    };
    let mut action = Action::patch(SERVICES, meta, json!({"status": {"loadBalancer": status(&desired)}}));
    if let Action::Patch { subresource, kind, .. } = &mut action {
        (*subresource, *kind) = (Some("status"), PatchType::Merge);
    }
    plan.steps.push(Step { action, done, failed: None });
    plan
}

fn status(addresses: &[String]) -> Value {
    let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip, "ipMode": "VIP"})).collect();
    if ingress.is_empty() { json!({"ingress": null}) } else { json!({"ingress": ingress}) }
}

fn present(service: &Service) -> Vec<String> {
    let ingress = service.status["loadBalancer"]["ingress"].as_array().map(Vec::as_slice).unwrap_or_default();
    ingress.iter().filter_map(|one| one["ip"].as_str().map(str::to_owned)).collect()
}

/// Of the Service's families in its order, each node's first.
fn addresses(service: &Service, world: &World) -> Vec<String> {
    let local = service.spec.external_traffic_policy == "Local";
    let with_endpoints: HashSet<&str> = world
        .slices
        .iter()
        .flat_map(|slice| &slice.endpoints)
        .filter(|endpoint| endpoint.conditions.ready.unwrap_or(true))
        .filter_map(|endpoint| endpoint.node_name.as_deref())
        .collect();
    let nodes: Vec<Vec<IpAddr>> = world
        .nodes
        .iter()
        .filter(|node| !local || with_endpoints.contains(node.metadata.name.as_str()))
        .map(|node| announces(node))
        .collect();
    let mut found = Vec::new();
    for family in &service.spec.ip_families {
        let first = |addresses: &Vec<IpAddr>| {
            addresses.iter().find(|address| address.is_ipv6() == (family == "IPv6")).copied()
        };
        let of_family: BTreeSet<IpAddr> = nodes.iter().filter_map(first).collect();
        found.extend(of_family.iter().map(IpAddr::to_string));
    }
    found
}

/// Nodes have each port once: of two Services that want it, the older has it.
fn taken_by_another(service: &Service, services: &[Arc<Service>]) -> Option<String> {
    let age = |service: &Service| (service.metadata.creation_timestamp, service.metadata.namespaced_name());
    let ports = |service: &Service| -> HashSet<(u16, String)> {
        service.spec.ports.iter().map(|port| (port.port, port.protocol.clone())).collect()
    };
    let own = ports(service);
    let older = services.iter().filter(|other| is_balanced(other) && age(other) < age(service));
    older
        .filter_map(|other| {
            let (port, protocol) = ports(other).intersection(&own).min()?.clone();
            let name = other.metadata.namespaced_name();
            Some((port, format!("port {port}/{protocol} of the nodes is taken by Service {name}")))
        })
        .min()
        .map(|(_, message)| message)
}
