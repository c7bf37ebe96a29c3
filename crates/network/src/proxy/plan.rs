//! What one Service asks of the proxy: which addresses and ports lead to which endpoints, decided
//! from the Service, its EndpointSlices and where the node is. Follows `newServiceInfo` and the
//! verdicts of upstream's `nftables.Proxier`.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::view::core::{Node, Service, ServicePort};
use api::view::discovery::EndpointSlice;
use apimachinery::meta::ObjectMeta;
use ipnet::IpNet;

use super::endpoints::Endpoints;
use crate::nftables::IpFamily;
use crate::protocol::Protocol;
use crate::service;

/// Leaves a Service, or a slice of its endpoints, to another proxy.
const LABEL_PROXY_NAME: &str = "service.kubernetes.io/service-proxy-name";

/// Marks a slice or Service as one no proxy serves.
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";

/// Names the zone a node is in.
const LABEL_ZONE: &str = "topology.kubernetes.io/zone";

/// Default of `sessionAffinityConfig.clientIP.timeoutSeconds`.
const AFFINITY_SECONDS_DEFAULT: i32 = 10_800;

/// Where the proxy is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// The node's name: endpoints that carry it are local.
    pub node: String,
    /// Empty while it is not known.
    pub zone: String,
    pub addresses: Vec<IpAddr>,
}

impl Place {
    /// What the node's own object says.
    pub fn of(node: &Node) -> Place {
        let addresses = node.status.addresses.iter().filter(|address| address.kind == "InternalIP");
        Place {
            node: node.metadata.name.clone(),
            zone: node.metadata.labels.get(LABEL_ZONE).cloned().unwrap_or_default(),
            addresses: addresses.filter_map(|address| address.address.parse().ok()).collect(),
        }
    }
}

/// Everything one Service asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServicePlan {
    pub frontends: BTreeMap<Frontend, Backends>,
    /// ClusterIPs: their other ports are refused.
    pub cluster_ips: BTreeSet<IpAddr>,
    /// Endpoints on this node, which may come to talk to themselves through the Service.
    pub local_endpoints: BTreeSet<IpAddr>,
    pub health_check: Option<HealthCheck>,
}

/// A port by which load balancers learn whether this node has endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    pub port: u16,
    pub local_endpoints: usize,
}

/// What a client sends to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    pub family: IpFamily,
    /// `None` for a node port: any address of this node.
    pub address: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: u16,
    pub origin: Origin,
}

/// Whose traffic a frontend takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    Anywhere,
    /// Pods and this node itself, before `Anywhere` is looked at: policy `Local` is for traffic from
    /// outside the cluster.
    Cluster,
}

/// What becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backends {
    /// In ascending order, without repetition.
    pub endpoints: Vec<SocketAddr>,
    /// What happens while there are none.
    pub otherwise: NoEndpoints,
    /// Replies must come back through this node, so its address is put as the sender; of origin
    /// `Cluster`, only where the sender is this node.
    pub masquerade: bool,
    /// Seconds for which a client keeps its endpoint.
    pub affinity_seconds: Option<u32>,
    /// Only these may send; all when empty.
    pub sources: Vec<IpNet>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoEndpoints {
    /// There are none anywhere: refused at once.
    Reject,
    /// There are some on other nodes, but the traffic policy is `Local`: dropped, so that a load
    /// balancer tries elsewhere.
    Drop,
}

/// Decides for one Service; `slices` are its own. Empty for one that no proxy serves.
pub fn plan(service: &Service, slices: &[Arc<EndpointSlice>], place: &Place) -> ServicePlan {
    let mut plan = ServicePlan::default();
    if !is_served(service) {
        return plan;
    }
    let slices: Vec<Arc<EndpointSlice>> =
        slices.iter().filter(|slice| is_for_proxies(&slice.metadata)).cloned().collect();
    let mut ready_here: BTreeSet<IpAddr> = BTreeSet::new();
    let cluster_ips = service::cluster_ips(service);
    for port in &service.spec.ports {
        let Some(protocol) = service::protocol(&port.protocol) else { continue };
        for cluster_ip in &cluster_ips {
            let family = IpFamily::of(*cluster_ip);
            let endpoints = Endpoints::of(&slices, family, port, protocol, place);
            plan.local_endpoints.extend(&endpoints.here);
            ready_here.extend(&endpoints.ready_here);
            let port =
                Port { service, port, protocol, cluster_ip: *cluster_ip, endpoints: &endpoints, place };
            port.add_to(&mut plan.frontends);
        }
    }
    plan.cluster_ips.extend(cluster_ips);
    plan.health_check =
        health_check_port(service).map(|port| HealthCheck { port, local_endpoints: ready_here.len() });
    plan
}

/// Whether no label takes the object from this proxy.
fn is_for_proxies(meta: &ObjectMeta) -> bool {
    !meta.labels.contains_key(LABEL_PROXY_NAME) && !meta.labels.contains_key(LABEL_HEADLESS)
}

fn is_served(service: &Service) -> bool {
    service.spec.kind != "ExternalName"
        && !service.spec.is_headless()
        && !service.spec.cluster_ip.is_empty()
        && is_for_proxies(&service.metadata)
}

fn health_check_port(service: &Service) -> Option<u16> {
    let spec = &service.spec;
    let port = u16::try_from(spec.health_check_node_port).ok().filter(|port| *port != 0)?;
    (spec.kind == "LoadBalancer" && spec.external_traffic_policy == "Local").then_some(port)
}

/// One port of a Service in one family.
struct Port<'a> {
    service: &'a Service,
    port: &'a ServicePort,
    protocol: Protocol,
    cluster_ip: IpAddr,
    endpoints: &'a Endpoints,
    place: &'a Place,
}

impl Port<'_> {
    fn add_to(&self, frontends: &mut BTreeMap<Frontend, Backends>) {
        let spec = &self.service.spec;
        let family = IpFamily::of(self.cluster_ip);
        let internal_local = spec.internal_traffic_policy.as_deref() == Some("Local");
        let internal = self.frontend(Some(self.cluster_ip), self.port.port);
        frontends.insert(internal, self.backends(internal_local, false));

        let of_family = |address: &IpAddr| IpFamily::of(*address) == family;
        let external_ips = spec.external_ips.iter().filter_map(|ip| ip.parse().ok()).filter(of_family);
        external_ips.for_each(|ip| self.add_external(frontends, Some(ip), self.port.port, &[]));
        let balanced: Vec<IpAddr> = load_balancer_ips(self.service).filter(of_family).collect();
        let sources = self.sources(&balanced);
        for ip in &balanced {
            self.add_external(frontends, Some(*ip), self.port.port, &sources);
        }
        if self.port.node_port != 0 {
            self.add_external(frontends, None, self.port.node_port, &[]);
        }
    }

    /// Traffic from inside the cluster to an external frontend of policy `Local` goes to any
    /// endpoint, as if it had come through the load balancer.
    fn add_external(
        &self,
        frontends: &mut BTreeMap<Frontend, Backends>,
        address: Option<IpAddr>,
        port: u16,
        sources: &[IpNet],
    ) {
        let local = self.service.spec.external_traffic_policy == "Local";
        let frontend = self.frontend(address, port);
        let backends = Backends { sources: sources.to_vec(), ..self.backends(local, !local) };
        frontends.entry(frontend).or_insert(backends);
        if local && !self.endpoints.cluster.is_empty() {
            let inside = Frontend { origin: Origin::Cluster, ..frontend };
            frontends.entry(inside).or_insert(self.backends(false, true));
        }
    }

    fn frontend(&self, address: Option<IpAddr>, port: u16) -> Frontend {
        let family = IpFamily::of(self.cluster_ip);
        Frontend { family, address, protocol: self.protocol, port, origin: Origin::Anywhere }
    }

    fn backends(&self, local: bool, masquerade: bool) -> Backends {
        let chosen = if local { &self.endpoints.local } else { &self.endpoints.cluster };
        Backends {
            endpoints: chosen.clone(),
            otherwise: if self.endpoints.is_empty() { NoEndpoints::Reject } else { NoEndpoints::Drop },
            masquerade,
            affinity_seconds: affinity_seconds(self.service),
            sources: Vec::new(),
        }
    }

    /// `loadBalancerSourceRanges` of the family. A node that may send reaches a balanced address
    /// that is its own with that address as the sender, so it must be allowed too.
    fn sources(&self, balanced: &[IpAddr]) -> Vec<IpNet> {
        let ranges = &self.service.spec.load_balancer_source_ranges;
        let family = IpFamily::of(self.cluster_ip);
        let mut sources: BTreeSet<IpNet> = ranges
            .iter()
            .filter_map(|range| range.trim().parse::<IpNet>().ok())
            .filter(|range| IpFamily::of(range.addr()) == family)
            .map(|range| range.trunc())
            .collect();
        let node_may = self.place.addresses.iter().any(|own| sources.iter().any(|range| range.contains(own)));
        if node_may {
            sources.extend(balanced.iter().map(|ip| IpNet::from(*ip)));
        }
        sources.into_iter().collect()
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
