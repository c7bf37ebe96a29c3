//! What an Ingress names as a backend, resolved to addresses through the Service and its EndpointSlices.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use api::view::core::{Service, ServicePort};
use api::view::discovery::{Endpoint as SliceEndpoint, EndpointSlice};
use api::view::networking::ServiceBackendPort;

/// A Service's port, ready to be connected to.
#[derive(Debug, Default)]
pub struct Backend {
    pub protocol: Protocol,
    /// In ascending order, each once.
    pub endpoints: Vec<Endpoint>,
    /// A client's requests go to one endpoint as long as the endpoints stay the same.
    pub sticks_to_client: bool,
    /// Whose turn it is; no part of what was decided.
    turn: AtomicUsize,
}

/// What a backend speaks, as its port's `appProtocol` says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    #[default]
    Http1,
    /// HTTP/2 without TLS, which gRPC uses.
    H2c,
}

/// Who may be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Endpoint {
    Address(SocketAddr),
    /// Of a Service of type ExternalName; looked up when it is connected to.
    Name(Arc<str>, u16),
}

impl Protocol {
    fn of(port: &ServicePort) -> Protocol {
        match port.app_protocol.as_deref() {
            Some("kubernetes.io/h2c" | "grpc") => Protocol::H2c,
            _ => Protocol::Http1,
        }
    }
}

impl Backend {
    /// The backend of a port, if the Service has it.
    pub fn of(
        service: &Service,
        slices: &[Arc<EndpointSlice>],
        named: &ServiceBackendPort,
    ) -> Option<Backend> {
        let spec = &service.spec;
        if spec.kind == "ExternalName" {
            return external(service, named);
        }
        let port = spec.port_of(named)?;
        Some(Backend {
            protocol: Protocol::of(port),
            endpoints: endpoints(slices, port),
            sticks_to_client: spec.session_affinity == "ClientIP",
            turn: AtomicUsize::default(),
        })
    }

    /// Every endpoint once, beginning with the one whose turn it is.
    pub fn in_turn(&self, client: IpAddr) -> impl Iterator<Item = &Endpoint> {
        let turn = if self.sticks_to_client {
            hash(client)
        } else if self.endpoints.len() > 1 {
            self.turn.fetch_add(1, Ordering::Relaxed)
        } else {
            0
        };
        let first = turn.checked_rem(self.endpoints.len()).unwrap_or_default();
        self.endpoints[first..].iter().chain(&self.endpoints[..first])
    }
}

fn hash(client: IpAddr) -> usize {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    client.hash(&mut hasher);
    usize::try_from(hasher.finish() >> 33).unwrap_or_default()
}

/// Such a Service need not list the port it is reached at.
fn external(service: &Service, named: &ServiceBackendPort) -> Option<Backend> {
    let listed = service.spec.port_of(named);
    let number = listed.map(|port| port.port).or((named.number > 0).then_some(named.number))?;
    let name = service.spec.external_name.trim_end_matches('.');
    let endpoint = Endpoint::Name(name.into(), number);
    let protocol = listed.map(Protocol::of).unwrap_or_default();
    Some(Backend { protocol, endpoints: vec![endpoint], ..Backend::default() })
}

/// Ready ones, or, while there are none, those that still serve while they terminate.
fn endpoints(slices: &[Arc<EndpointSlice>], port: &ServicePort) -> Vec<Endpoint> {
    let (mut ready, mut lingering) = (Vec::new(), Vec::new());
    for slice in slices {
        let ports = slice.ports.iter().filter(|listed| {
            listed.name.as_deref().unwrap_or_default() == port.name
                && listed.protocol.as_deref().is_none_or(|protocol| protocol == "TCP")
        });
        for number in ports.filter_map(|listed| listed.port) {
            for endpoint in &slice.endpoints {
                let (conditions, found) = (&endpoint.conditions, address(slice, endpoint, number));
                if conditions.ready.unwrap_or(true) {
                    ready.extend(found);
                } else if conditions.serving.unwrap_or(true) && conditions.terminating.unwrap_or(false) {
                    lingering.extend(found);
                }
            }
        }
    }
    let mut usable = if ready.is_empty() { lingering } else { ready };
    usable.sort();
    usable.dedup();
    usable
}

/// All addresses of one endpoint are taken to be equal; like upstream, the first is used.
fn address(slice: &EndpointSlice, endpoint: &SliceEndpoint, port: u16) -> Option<Endpoint> {
    let address = endpoint.addresses.first()?;
    if slice.address_type == "FQDN" {
        return Some(Endpoint::Name(address.trim_end_matches('.').into(), port));
    }
    Some(Endpoint::Address(SocketAddr::new(address.parse().ok()?, port)))
}
