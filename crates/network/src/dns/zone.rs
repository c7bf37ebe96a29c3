//! The cluster's zone: which records a name has, read straight from the informers' caches. Follows
//! the Kubernetes DNS-Based Service Discovery specification 1.1.0 and, where that is silent,
//! CoreDNS' `kubernetes` plugin with `pods insecure`.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use api::view::core::{Namespace, Service};
use api::view::discovery::{Endpoint, EndpointPort, EndpointSlice};
use client::Informer;
use client::informer::Delta;
use tokio::sync::mpsc::UnboundedReceiver;

use super::Name;
use super::wire::{Code, Data, Record, Response, kind};
use crate::protocol::Protocol;
use crate::service::{self, cluster_ips, service_name};

/// Seconds an answer may be kept; short, because clients of a headless Service follow its pods.
const TTL: u32 = 5;

/// The version of the specification, in `dns-version.DOMAIN`.
const SCHEMA_VERSION: &str = "1.1.0";

/// All SRV records weigh the same.
const SRV_WEIGHT: u16 = 100;

const BY_ADDRESS: &str = "dns/address";

/// Answers for the cluster's domain.
#[derive(Clone)]
pub struct Zone {
    domain: Name,
    services: Informer<Service>,
    slices: Informer<EndpointSlice>,
    namespaces: Informer<Namespace>,
    /// Addresses of the server itself, under `ns.dns`.
    own: Vec<IpAddr>,
}

/// What is to be done about a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Answer(Response),
    /// The alias to answer with, followed by whatever its target resolves to.
    Follow(Record, Name),
    /// Not ours: another resolver knows.
    Forward,
}

impl Zone {
    pub fn new(
        domain: Name,
        services: Informer<Service>,
        slices: Informer<EndpointSlice>,
        namespaces: Informer<Namespace>,
        own: Vec<IpAddr>,
    ) -> Zone {
        services
            .add_index(BY_ADDRESS, |service| cluster_ips(service).iter().map(IpAddr::to_string).collect());
        service::index_by_service(&slices);
        slices.add_index(BY_ADDRESS, |slice| {
            slice.endpoints.iter().flat_map(|endpoint| endpoint.addresses.clone()).collect()
        });
        Zone { domain, services, slices, namespaces, own }
    }

    pub fn domain(&self) -> &Name {
        &self.domain
    }

    /// Everything there is as added, then every change of what answers about Services are made from.
    pub(super) fn changes(
        &self,
    ) -> (UnboundedReceiver<Delta<Service>>, UnboundedReceiver<Delta<EndpointSlice>>) {
        (self.services.subscribe(), self.slices.subscribe())
    }

    /// Decides what a question of class IN gets.
    pub fn resolve(&self, name: &Name, kind: u16) -> Outcome {
        if !name.is_under(&self.domain) {
            return self.resolve_reverse(name, kind);
        }
        let labels = name.under(&self.domain).unwrap_or_else(|| vec![String::new()]);
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let found = match labels.as_slice() {
            [] => self.apex(kind),
            ["dns-version"] => Found::records([Data::Txt(SCHEMA_VERSION.into())]),
            ["dns" | "svc" | "pod"] => Found::nothing(),
            ["ns", "dns"] => Found::addresses(self.own.iter().copied()),
            [namespace, "svc" | "pod"] => {
                self.has_namespace(namespace).then(Found::nothing).unwrap_or_default()
            }
            [ip, namespace, "pod"] => self.pod(ip, namespace),
            [service, namespace, "svc"] => match self.services.get(namespace, service) {
                Some(service) if service.spec.kind == "ExternalName" => return self.alias(name, &service),
                Some(service) => self.service(&service, kind),
                None => Found::default(),
            },
            [first, service, namespace, "svc"] => self.endpoint(first, service, namespace),
            [port, protocol, service, namespace, "svc"] => self.port(port, protocol, service, namespace),
            _ => Found::default(),
        };
        Outcome::Answer(self.respond(name, kind, found))
    }

    fn respond(&self, name: &Name, kind: u16, found: Found) -> Response {
        let owned = |data: Data| Record { name: name.clone(), ttl: TTL, data };
        let answers: Vec<Record> =
            found.data.into_iter().filter(|data| data.kind() == kind).map(owned).collect();
        let code = if found.exists { Code::NoError } else { Code::NameError };
        let authority = if answers.is_empty() {
            self.soa().map(|data| self.record(data)).into_iter().collect()
        } else {
            vec![]
        };
        let additional = if answers.is_empty() { vec![] } else { found.additional };
        Response { code, authoritative: true, answers, authority, additional }
    }

    fn record(&self, data: Data) -> Record {
        Record { name: self.domain.clone(), ttl: TTL, data }
    }

    fn soa(&self) -> Option<Data> {
        let primary = self.nameserver()?;
        let mailbox = self.domain.child("hostmaster")?;
        Some(Data::Soa { primary, mailbox, serial: 1, minimum: TTL })
    }

    fn nameserver(&self) -> Option<Name> {
        self.domain.child("dns")?.child("ns")
    }

    fn apex(&self, kind: u16) -> Found {
        let data = match kind {
            kind::SOA => self.soa(),
            kind::NS => self.nameserver().map(Data::Ns),
            _ => None,
        };
        Found::records(data)
    }

    fn has_namespace(&self, namespace: &str) -> bool {
        self.namespaces.get("", namespace).is_some()
    }

    /// `10-244-0-2.NAMESPACE.pod`: whatever address the name spells.
    fn pod(&self, dashed: &str, namespace: &str) -> Found {
        match undashed(dashed) {
            Some(address) if self.has_namespace(namespace) => Found::addresses([address]),
            _ => Found::default(),
        }
    }

    fn alias(&self, name: &Name, service: &Service) -> Outcome {
        match Name::parse(&service.spec.external_name) {
            Some(target) => {
                let record = Record { name: name.clone(), ttl: TTL, data: Data::Cname(target.clone()) };
                Outcome::Follow(record, target)
            }
            None => Outcome::Answer(Response::of(Code::ServerFailure)),
        }
    }

    /// A headless Service without any endpoint has no name.
    fn service(&self, service: &Service, kind: u16) -> Found {
        let is_headless = service.spec.is_headless();
        let addresses: BTreeSet<IpAddr> = if is_headless {
            self.endpoints(service).iter().flat_map(|ready| ready.addresses()).collect()
        } else {
            cluster_ips(service).into_iter().collect()
        };
        if is_headless && addresses.is_empty() {
            return Found::default();
        }
        if kind != kind::SRV {
            return Found::addresses(addresses);
        }
        let mut found = Found::nothing();
        for port in &service.spec.ports {
            found.extend(self.srv(service, &port.name.to_ascii_lowercase(), &port.protocol));
        }
        found
    }

    /// `HOSTNAME.SERVICE.NAMESPACE.svc`, or `_tcp.SERVICE...`, which only has names beneath it.
    fn endpoint(&self, first: &str, service: &str, namespace: &str) -> Found {
        let Some(service) = self.services.get(namespace, service) else { return Found::default() };
        if first.starts_with('_') {
            let known = service.spec.ports.iter().any(|port| protocol_label(&port.protocol) == Some(first));
            return known.then(Found::nothing).unwrap_or_default();
        }
        let endpoints = self.endpoints(&service);
        let addresses: BTreeSet<IpAddr> = endpoints
            .iter()
            .flat_map(|ready| ready.named())
            .filter(|(hostname, _)| hostname == first)
            .map(|(_, address)| address)
            .collect();
        if addresses.is_empty() { Found::default() } else { Found::addresses(addresses) }
    }

    /// `_PORT._PROTOCOL.SERVICE.NAMESPACE.svc`.
    fn port(&self, port: &str, protocol: &str, service: &str, namespace: &str) -> Found {
        let Some(service) = self.services.get(namespace, service) else { return Found::default() };
        let Some(port) = port.strip_prefix('_') else { return Found::default() };
        let known = service.spec.ports.iter().find(|candidate| {
            candidate.name.eq_ignore_ascii_case(port) && protocol_label(&candidate.protocol) == Some(protocol)
        });
        let found = known.map(|known| self.srv(&service, port, &known.protocol));
        found.filter(|found| !found.data.is_empty()).unwrap_or_default()
    }

    fn srv(&self, service: &Service, port: &str, protocol: &str) -> Found {
        let mut found = Found::nothing();
        let Some(owner) = self.service_name(service) else { return found };
        if !service.spec.is_headless() {
            let matching = service.spec.ports.iter().filter(|candidate| {
                candidate.name.eq_ignore_ascii_case(port)
                    && service::protocol(&candidate.protocol) == service::protocol(protocol)
            });
            for port in matching {
                found.add_srv(port.port, &owner, cluster_ips(service));
            }
            return found;
        }
        for ready in self.endpoints(service) {
            for (hostname, address) in ready.named() {
                let Some(target) = owner.child(&hostname) else { continue };
                for number in ready.ports(port, protocol) {
                    found.add_srv(number, &target, [address]);
                }
            }
        }
        found
    }

    fn resolve_reverse(&self, name: &Name, kind: u16) -> Outcome {
        let Some(address) = name.reverse_address().filter(|_| kind == kind::PTR) else {
            return Outcome::Forward;
        };
        let services = self.services.by_index(BY_ADDRESS, &address.to_string());
        let mut targets: Vec<Name> =
            services.iter().filter_map(|service| self.service_name(service)).collect();
        if targets.is_empty() {
            targets = self.endpoint_names(address);
        }
        if targets.is_empty() {
            return Outcome::Forward;
        }
        Outcome::Answer(self.respond(name, kind, Found::records(targets.into_iter().map(Data::Ptr))))
    }

    fn endpoint_names(&self, address: IpAddr) -> Vec<Name> {
        let mut names = Vec::new();
        for slice in self.slices.by_index(BY_ADDRESS, &address.to_string()) {
            let service = service_name(&slice);
            let Some(service) = service.and_then(|name| self.services.get(&slice.metadata.namespace, name))
            else {
                continue;
            };
            let Some(owner) = self.service_name(&service) else { continue };
            let ready = Ready { slice, not_ready_too: service.spec.publish_not_ready_addresses };
            let found = ready.named().into_iter().filter(|(_, found)| *found == address);
            names.extend(found.filter_map(|(hostname, _)| owner.child(&hostname)));
        }
        names
    }

    fn service_name(&self, service: &Service) -> Option<Name> {
        self.domain.child("svc")?.child(&service.metadata.namespace)?.child(&service.metadata.name)
    }

    fn endpoints(&self, service: &Service) -> Vec<Ready> {
        let not_ready_too = service.spec.publish_not_ready_addresses;
        let metadata = &service.metadata;
        let slices = service::slices_of(&self.slices, &metadata.namespace, &metadata.name);
        slices.into_iter().map(|slice| Ready { slice, not_ready_too }).collect()
    }
}

/// What stands under a name, whatever type was asked for.
#[derive(Default)]
struct Found {
    /// Whether the name exists; one that exists may have no data.
    exists: bool,
    data: Vec<Data>,
    /// Addresses of SRV targets.
    additional: Vec<Record>,
}

impl Found {
    fn nothing() -> Found {
        Found { exists: true, ..Found::default() }
    }

    fn records(data: impl IntoIterator<Item = Data>) -> Found {
        Found { exists: true, data: data.into_iter().collect(), additional: vec![] }
    }

    fn addresses(addresses: impl IntoIterator<Item = IpAddr>) -> Found {
        Found::records(addresses.into_iter().map(Data::from))
    }

    fn extend(&mut self, other: Found) {
        self.data.extend(other.data);
        self.additional.extend(other.additional);
    }

    fn add_srv(&mut self, port: u16, target: &Name, addresses: impl IntoIterator<Item = IpAddr>) {
        self.data.push(Data::Srv { priority: 0, weight: SRV_WEIGHT, port, target: target.clone() });
        for data in addresses.into_iter().map(Data::from) {
            let record = Record { name: target.clone(), ttl: TTL, data };
            if !self.additional.contains(&record) {
                self.additional.push(record);
            }
        }
    }
}

/// The endpoints of one slice that DNS tells of.
struct Ready {
    slice: Arc<EndpointSlice>,
    not_ready_too: bool,
}

impl Ready {
    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.slice
            .endpoints
            .iter()
            .filter(|endpoint| self.not_ready_too || endpoint.conditions.ready.unwrap_or(true))
    }

    fn addresses(&self) -> Vec<IpAddr> {
        self.endpoints()
            .flat_map(|endpoint| &endpoint.addresses)
            .filter_map(|address| address.parse().ok())
            .collect()
    }

    /// Each address with its host name: the pod's, or its address in a form that is one label.
    fn named(&self) -> Vec<(String, IpAddr)> {
        let mut named = Vec::new();
        for endpoint in self.endpoints() {
            for address in endpoint.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok()) {
                let hostname = endpoint.hostname.clone().filter(|hostname| !hostname.is_empty());
                named.push((
                    hostname.map_or_else(|| dashed(address), |hostname| hostname.to_ascii_lowercase()),
                    address,
                ));
            }
        }
        named
    }

    fn ports(&self, name: &str, protocol: &str) -> Vec<u16> {
        let matching = |port: &&EndpointPort| {
            port.name.as_deref().unwrap_or_default().eq_ignore_ascii_case(name)
                && service::protocol(port.protocol.as_deref().unwrap_or_default())
                    == service::protocol(protocol)
        };
        self.slice.ports.iter().filter(matching).filter_map(|port| port.port).collect()
    }
}

fn protocol_label(name: &str) -> Option<&'static str> {
    service::protocol(name).map(Protocol::label)
}

fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

fn undashed(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse::<Ipv4Addr>().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse::<Ipv6Addr>().map(IpAddr::V6)).ok()
}
