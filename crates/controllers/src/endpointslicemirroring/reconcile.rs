//! From Endpoints to the slices that mirror them: one per address family and set of ports.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use api::resource::{ENDPOINT_SLICES, ENDPOINTS};
use api::view::core::{EndpointAddress, EndpointSubset, Endpoints, Service};
use api::view::discovery::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use apimachinery::meta::ObjectMeta;
use apimachinery::{Value, json};

use super::CONTROLLER_NAME;
use crate::endpointslice::{MANAGED_BY, SERVICE_NAME};
use crate::ownership::controller_reference;
use crate::plan::{Action, Event, Plan, reference};

/// Addresses of one subset that are mirrored (upstream: `--mirroring-max-endpoints-per-subset`).
pub const ENDPOINTS_PER_SUBSET_MAX: usize = 1000;

const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";
/// Marks Endpoints that serve as a lock, not as addresses.
const LEADER: &str = "control-plane.alpha.kubernetes.io/leader";
/// Annotations that mean nothing on a mirror.
const NOT_MIRRORED: [&str; 2] =
    ["endpoints.kubernetes.io/last-change-trigger-time", "kubectl.kubernetes.io/last-applied-configuration"];

type Shape = (&'static str, Vec<EndpointPort>);

pub fn reconcile(
    endpoints: Option<&Endpoints>,
    service: Option<&Service>,
    slices: &[Arc<EndpointSlice>],
) -> Plan {
    let mut plan = Plan::default();
    let mirrored = endpoints.filter(|endpoints| is_mirrored(endpoints, service));
    let wanted = mirrored.map_or_else(BTreeMap::new, |endpoints| wanted(endpoints, slices, &mut plan));
    let mut kept = Vec::new();
    for ((family, ports), targets) in &wanted {
        let endpoints = mirrored.expect("only mirrored endpoints want slices");
        let present =
            slices.iter().find(|slice| slice.address_type == *family && sorted(&slice.ports) == *ports);
        let meta = present.map_or_else(ObjectMeta::default, |slice| slice.metadata.clone());
        let object = object(endpoints, meta, family, ports, targets);
        match present {
            None => plan.act(Action::create(ENDPOINT_SLICES, &endpoints.metadata.namespace, object)),
            Some(slice) => {
                kept.push(&slice.metadata.uid);
                let meta: Value = json!(slice.metadata);
                if object["metadata"] != meta || slice.endpoints != *targets {
                    plan.act(Action::update(ENDPOINT_SLICES, &slice.metadata, object));
                }
            }
        }
    }
    for slice in slices.iter().filter(|slice| !kept.contains(&&slice.metadata.uid)) {
        plan.act(Action::delete(ENDPOINT_SLICES, &slice.metadata));
    }
    plan
}

/// Upstream: `shouldMirror`, and that the Service leaves its endpoints to others.
fn is_mirrored(endpoints: &Endpoints, service: Option<&Service>) -> bool {
    let meta = &endpoints.metadata;
    service.is_some_and(|service| service.spec.selector.is_empty())
        && !meta.is_being_deleted()
        && meta.labels.get(SKIP_MIRROR).is_none_or(|skip| skip != "true")
        && !meta.annotations.contains_key(LEADER)
}

fn sorted(ports: &[EndpointPort]) -> Vec<EndpointPort> {
    let mut ports = ports.to_vec();
    ports.sort();
    ports
}

fn wanted(
    endpoints: &Endpoints,
    slices: &[Arc<EndpointSlice>],
    plan: &mut Plan,
) -> BTreeMap<Shape, Vec<Endpoint>> {
    let mut wanted: BTreeMap<Shape, Vec<Endpoint>> = BTreeMap::new();
    let (mut invalid, mut skipped) = (0, 0);
    for subset in &endpoints.subsets {
        let ports = ports(subset);
        let ready = subset.addresses.iter().map(|address| (address, true));
        let all: Vec<_> = ready.chain(subset.not_ready_addresses.iter().map(|a| (a, false))).collect();
        let (valid, broken): (Vec<_>, Vec<_>) =
            all.into_iter().partition(|(address, _)| address.ip.parse::<IpAddr>().is_ok());
        invalid += broken.len();
        skipped += valid.len().saturating_sub(ENDPOINTS_PER_SUBSET_MAX);
        for (address, is_ready) in valid.into_iter().take(ENDPOINTS_PER_SUBSET_MAX) {
            let family = if address.ip.contains(':') { "IPv6" } else { "IPv4" };
            wanted.entry((family, ports.clone())).or_default().push(endpoint(address, is_ready));
        }
    }
    // Told when the mirror is made, not at every look.
    if slices.is_empty() {
        complain(endpoints, invalid, skipped, plan);
    }
    wanted
}

fn complain(endpoints: &Endpoints, invalid: usize, skipped: usize, plan: &mut Plan) {
    let regarding = reference(ENDPOINTS, &endpoints.metadata);
    if invalid > 0 {
        let message = format!("Skipped {invalid} invalid IP addresses when mirroring to EndpointSlices");
        plan.events.push(Event::warning(regarding.clone(), "InvalidIPAddress", message));
    }
    if skipped > 0 {
        let message = format!(
            "A max of {ENDPOINTS_PER_SUBSET_MAX} addresses can be mirrored to EndpointSlices per Endpoints subset. \
             {skipped} addresses were skipped"
        );
        plan.events.push(Event::warning(regarding, "TooManyAddressesToMirror", message));
    }
}

fn ports(subset: &EndpointSubset) -> Vec<EndpointPort> {
    let ports = subset.ports.iter().map(|port| EndpointPort {
        name: Some(port.name.clone()),
        protocol: Some(port.protocol.clone()),
        port: Some(port.port),
        app_protocol: port.app_protocol.clone(),
    });
    sorted(&ports.collect::<Vec<_>>())
}

fn endpoint(address: &EndpointAddress, is_ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![address.ip.clone()],
        conditions: EndpointConditions { ready: Some(is_ready), ..EndpointConditions::default() },
        hostname: Some(address.hostname.clone()).filter(|hostname| !hostname.is_empty()),
        target_ref: address.target_ref.clone(),
        node_name: address.node_name.clone(),
        ..Endpoint::default()
    }
}

fn object(
    endpoints: &Endpoints,
    mut meta: ObjectMeta,
    family: &str,
    ports: &[EndpointPort],
    targets: &[Endpoint],
) -> Value {
    if meta.name.is_empty() {
        meta.generate_name = format!("{}-", endpoints.metadata.name);
        meta.namespace = endpoints.metadata.namespace.clone();
    }
    meta.labels = endpoints.metadata.labels.clone();
    meta.labels.insert(SERVICE_NAME.into(), endpoints.metadata.name.clone());
    meta.labels.insert(MANAGED_BY.into(), CONTROLLER_NAME.into());
    meta.annotations = endpoints.metadata.annotations.clone();
    meta.annotations.retain(|key, _| !NOT_MIRRORED.contains(&key.as_str()));
    meta.owner_references = vec![controller_reference(ENDPOINTS, &endpoints.metadata)];
    json!({
        "apiVersion": ENDPOINT_SLICES.api_version(), "kind": ENDPOINT_SLICES.kind, "metadata": meta,
        "addressType": family, "ports": ports, "endpoints": targets,
    })
}
