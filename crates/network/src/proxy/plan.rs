//! Which addresses and ports lead to which endpoints, decided from Services and EndpointSlices.
//! Follows `newServiceInfo`, `CategorizeEndpoints` and the no-endpoint verdicts of upstream's
//! `nftables.Proxier`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::view::core::{Service, ServicePort};
use api::view::discovery::{Endpoint, EndpointSlice};

use crate::nftables::IpFamily;
use crate::protocol::Protocol;
use crate::service::{self, service_name};

/// Leaves a Service to another proxy.
const LABEL_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Marks a slice or Service as one no proxy serves.
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";

/// Default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS_DEFAULT: i32 = 10_800;

/// Everything the proxy programs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tables {
    pub frontends: BTreeMap<Frontend, Backends>,
    /// All ClusterIPs: their other ports are refused.
    pub cluster_ips: BTreeSet<IpAddr>,
    /// Endpoints on this node, which may come to talk to themselves through a Service.
    pub local_endpoints: BTreeSet<IpAddr>,
}

/// What a client sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    pub family: IpFamily,
    /// `None` for a node port: any address of this node.
    pub address: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: u16,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backends {
    /// In ascending order, without repetition.
    pub endpoints: Vec<SocketAddr>,
    /// What happens while there are none.
    pub otherwise: NoEndpoints,
    /// Replies must come back through this node, so its address is put as the sender.
    pub masquerade: bool,
    /// Seconds for which a client keeps its endpoint.
    pub affinity_seconds: Option<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEndpoints {
    /// There are none anywhere: refused at once.
    Reject,
    /// There are some on other nodes, but the traffic policy is `Local`: dropped, so that a load
    /// balancer tries elsewhere.
    Drop,
}

/// Decides everything anew. Of two Services that claim the same frontend, the first by namespace
/// and name has it.
pub fn plan(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>], node: &str) -> Tables {
    let mut by_service: HashMap<(&str, &str), Vec<&EndpointSlice>> = HashMap::new();
    for slice in slices {
        if let Some(service) = service_name(slice) {
            by_service.entry((slice.metadata.namespace.as_str(), service)).or_default().push(slice);
        }
    }
    let mut tables = Tables::default();
    for service in services.iter().filter(|service| is_served(service)) {
        let key = (service.metadata.namespace.as_str(), service.metadata.name.as_str());
        let slices = by_service.get(&key).map(Vec::as_slice).unwrap_or_default();
        add_service(&mut tables, service, slices, node);
    }
    tables
}

fn is_served(service: &Service) -> bool {
    let labels = &service.metadata.labels;
    service.spec.kind != "ExternalName"
        && !service.spec.is_headless()
        && !service.spec.cluster_ip.is_empty()
        && !labels.contains_key(LABEL_PROXY_NAME)
        && !labels.contains_key(LABEL_HEADLESS)
}

fn add_service(tables: &mut Tables, service: &Service, slices: &[&EndpointSlice], node: &str) {
    let cluster_ips = service::cluster_ips(service);
    for port in &service.spec.ports {
        let Some(protocol) = service::protocol(&port.protocol) else { continue };
        for cluster_ip in &cluster_ips {
            tables.cluster_ips.insert(*cluster_ip);
            let family = IpFamily::of(*cluster_ip);
            let endpoints = Endpoints::of(slices, family, port, protocol, node);
            tables.local_endpoints.extend(endpoints.local.iter().map(|endpoint| endpoint.ip()));
            add_port(tables, service, port, *cluster_ip, protocol, &endpoints);
        }
    }
}

fn add_port(
    tables: &mut Tables,
    service: &Service,
    port: &ServicePort,
    cluster_ip: IpAddr,
    protocol: Protocol,
    endpoints: &Endpoints,
) {
    let spec = &service.spec;
    let affinity_seconds = affinity_seconds(service);
    let backends = |local: bool, external: bool| {
        let (chosen, otherwise) = endpoints.under_policy(local);
        Backends { endpoints: chosen, otherwise, masquerade: external && !local, affinity_seconds }
    };
    let family = IpFamily::of(cluster_ip);
    let mut add = |address: Option<IpAddr>, port: u16, backends: Backends| {
        tables.frontends.entry(Frontend { family, address, protocol, port }).or_insert(backends);
    };
    let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
    add(Some(cluster_ip), port.port, backends(internal_local, false));
    let external = backends(spec.external_traffic_policy == "Local", true);
    let external_ips = spec.external_ips.iter().filter_map(|ip| ip.parse().ok());
    for address in external_ips.chain(load_balancer_ips(service)).filter(|ip| IpFamily::of(*ip) == family) {
        add(Some(address), port.port, external.clone());
    }
    if port.node_port != 0 {
        add(None, port.node_port, external);
    }
}

/// Addresses a load balancer announced, those it wants to see the traffic of itself apart.
fn load_balancer_ips(service: &Service) -> impl Iterator<Item = IpAddr> {
    let ingress = service.status["loadBalancer"]["ingress"].as_array().map(Vec::as_slice).unwrap_or_default();
    ingress
        .iter()
        .filter(|ingress| ingress["ipMode"].as_str() != Some("Proxy"))
        .filter_map(|ingress| ingress["ip"].as_str()?.parse().ok())
}

fn affinity_seconds(service: &Service) -> Option<u32> {
    if service.spec.session_affinity != "ClientIP" {
        return None;
    }
    let config = service.spec.session_affinity_config.as_ref().and_then(|config| config.client_ip.as_ref());
    let seconds = config.and_then(|config| config.timeout_seconds).unwrap_or(AFFINITY_SECONDS_DEFAULT);
    u32::try_from(seconds).ok().filter(|seconds| *seconds > 0)
}

/// The usable endpoints of one Service port in one family.
struct Endpoints {
    all: Vec<SocketAddr>,
    /// Those on this node.
    local: Vec<SocketAddr>,
}

impl Endpoints {
    fn of(
        slices: &[&EndpointSlice],
        family: IpFamily,
        port: &ServicePort,
        protocol: Protocol,
        node: &str,
    ) -> Endpoints {
        let (mut all, mut local) = (Preferred::default(), Preferred::default());
        for slice in slices {
            let ports = slice.ports.iter().filter(|candidate| {
                candidate.name.as_deref().unwrap_or_default() == port.name
                    && service::protocol(candidate.protocol.as_deref().unwrap_or_default()) == Some(protocol)
            });
            for target in ports.filter_map(|candidate| candidate.port) {
                for endpoint in &slice.endpoints {
                    let Some(address) = address_of(endpoint, family) else { continue };
                    let address = SocketAddr::new(address, target);
                    all.add(endpoint, address);
                    if endpoint.node_name.as_deref() == Some(node) {
                        local.add(endpoint, address);
                    }
                }
            }
        }
        Endpoints { all: all.chosen(), local: local.chosen() }
    }

    fn under_policy(&self, local: bool) -> (Vec<SocketAddr>, NoEndpoints) {
        let otherwise = if self.all.is_empty() { NoEndpoints::Reject } else { NoEndpoints::Drop };
        (if local { self.local.clone() } else { self.all.clone() }, otherwise)
    }
}

/// All addresses of one endpoint are taken to be equal; like upstream, the first is used.
fn address_of(endpoint: &Endpoint, family: IpFamily) -> Option<IpAddr> {
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    (IpFamily::of(address) == family).then_some(address)
}

/// Ready endpoints, or, while there are none, those that still serve while they terminate.
#[derive(Default)]
struct Preferred {
    ready: BTreeSet<SocketAddr>,
    terminating: BTreeSet<SocketAddr>,
}

impl Preferred {
    fn add(&mut self, endpoint: &Endpoint, address: SocketAddr) {
        let conditions = &endpoint.conditions;
        if conditions.ready.unwrap_or(true) {
            self.ready.insert(address);
        } else if conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false) {
            self.terminating.insert(address);
        }
    }

    fn chosen(self) -> Vec<SocketAddr> {
        let chosen = if self.ready.is_empty() { self.terminating } else { self.ready };
        chosen.into_iter().collect()
    }
}
