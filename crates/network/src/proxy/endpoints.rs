//! Which endpoints a Service port has, as seen from one node: those for everybody, and those on the
//! node itself. Follows `CategorizeEndpoints` and `topologyModeFromHints`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use api::view::core::ServicePort;
use api::view::discovery::{Endpoint, EndpointSlice, HintTarget};

use super::plan::Place;
use crate::nftables::IpFamily;
use crate::protocol::Protocol;
use crate::service;

/// The usable endpoints of one Service port in one family. Ready ones, or, while there are none,
/// those that still serve while they terminate; decided for all and for this node apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Endpoints {
    /// For policy `Cluster`, as near as hints allow; in ascending order.
    pub cluster: Vec<SocketAddr>,
    /// On this node, for policy `Local`.
    pub local: Vec<SocketAddr>,
    /// All of the above that are on this node.
    pub here: BTreeSet<IpAddr>,
    /// Addresses of ready endpoints on this node, for health checks.
    pub ready_here: BTreeSet<IpAddr>,
}

struct Candidate<'a> {
    address: SocketAddr,
    is_ready: bool,
    is_here: bool,
    endpoint: &'a Endpoint,
}

impl Endpoints {
    pub fn of(
        slices: &[Arc<EndpointSlice>],
        family: IpFamily,
        port: &ServicePort,
        protocol: Protocol,
        place: &Place,
    ) -> Endpoints {
        let candidates = candidates(slices, family, port, protocol, place);
        let choose = |usable: &dyn Fn(&Candidate<'_>) -> bool| -> BTreeSet<SocketAddr> {
            candidates.iter().filter(|candidate| usable(candidate)).map(|found| found.address).collect()
        };
        let nearest = Nearest::of(&candidates, place);
        let mut cluster = choose(&|found| found.is_ready && nearest.takes(found.endpoint, place));
        if cluster.is_empty() {
            cluster = choose(&|found| !found.is_ready);
        }
        let mut local = choose(&|found| found.is_here && found.is_ready);
        if local.is_empty() {
            local = choose(&|found| found.is_here);
        }
        let on_node = |found: &&Candidate<'_>| found.is_here;
        let here = candidates
            .iter()
            .filter(on_node)
            .filter(|found| cluster.contains(&found.address) || local.contains(&found.address));
        Endpoints {
            here: here.map(|found| found.address.ip()).collect(),
            ready_here: candidates
                .iter()
                .filter(on_node)
                .filter(|found| found.is_ready)
                .map(|found| found.address.ip())
                .collect(),
            cluster: cluster.into_iter().collect(),
            local: local.into_iter().collect(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.local.is_empty()
    }
}

/// Every endpoint that is ready, or serves while it terminates.
fn candidates<'a>(
    slices: &'a [Arc<EndpointSlice>],
    family: IpFamily,
    port: &ServicePort,
    protocol: Protocol,
    place: &Place,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().filter(|candidate| {
            candidate.name.as_deref().unwrap_or_default() == port.name
                && service::protocol(candidate.protocol.as_deref().unwrap_or_default()) == Some(protocol)
        });
        for target in ports.filter_map(|candidate| candidate.port) {
            for endpoint in &slice.endpoints {
                let conditions = &endpoint.conditions;
                let is_ready = conditions.ready.unwrap_or(true);
                let lingers = conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false);
                let Some(address) = address_of(endpoint, family).filter(|_| is_ready || lingers) else {
                    continue;
                };
                let is_here = endpoint.node_name.as_deref() == Some(place.node.as_str());
                candidates.push(Candidate {
                    address: SocketAddr::new(address, target),
                    is_ready,
                    is_here,
                    endpoint,
                });
            }
        }
    }
    candidates
}

/// All addresses of one endpoint are taken to be equal; like upstream, the first is used.
fn address_of(endpoint: &Endpoint, family: IpFamily) -> Option<IpAddr> {
    let address: IpAddr = endpoint.addresses.first()?.parse().ok()?;
    (IpFamily::of(address) == family).then_some(address)
}

/// How near an endpoint must be. Hints count only when every ready endpoint has one and one names
/// this node or zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Nearest {
    Anywhere,
    Zone,
    Node,
}

impl Nearest {
    fn of(candidates: &[Candidate<'_>], place: &Place) -> Nearest {
        let hinted = |hints: fn(&Endpoint) -> &[HintTarget], name: &str| {
            let mut ready = candidates.iter().filter(|candidate| candidate.is_ready).peekable();
            ready.peek().is_some()
                && ready.clone().all(|candidate| !hints(candidate.endpoint).is_empty())
                && ready.any(|candidate| names(hints(candidate.endpoint), name))
        };
        if hinted(node_hints, &place.node) {
            Nearest::Node
        } else if hinted(zone_hints, &place.zone) {
            Nearest::Zone
        } else {
            Nearest::Anywhere
        }
    }

    fn takes(self, endpoint: &Endpoint, place: &Place) -> bool {
        match self {
            Nearest::Anywhere => true,
            Nearest::Zone => names(zone_hints(endpoint), &place.zone),
            Nearest::Node => names(node_hints(endpoint), &place.node),
        }
    }
}

fn names(hints: &[HintTarget], name: &str) -> bool {
    hints.iter().any(|hint| hint.name == name)
}

fn node_hints(endpoint: &Endpoint) -> &[HintTarget] {
    endpoint.hints.as_ref().map(|hints| hints.for_nodes.as_slice()).unwrap_or_default()
}

fn zone_hints(endpoint: &Endpoint) -> &[HintTarget] {
    endpoint.hints.as_ref().map(|hints| hints.for_zones.as_slice()).unwrap_or_default()
}
