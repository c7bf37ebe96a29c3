//! Who may reach whom, decided from NetworkPolicies, pods and namespaces. Every address of a pod
//! stands for it; pods on the host's network are nobody's peer and no policy selects them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use api::view::core::{ContainerPort, Pod};
use api::view::networking::{NetworkPolicy, NetworkPolicyPeer, NetworkPolicyPort};
use apimachinery::meta::{NamespacedName, StringMap};
use ipnet::IpNet;

use crate::protocol::Protocol;
use crate::service;

/// What policies go by, of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFacts {
    pub namespace: String,
    pub labels: StringMap,
    pub addresses: Vec<IpAddr>,
    /// It runs on this node.
    pub is_here: bool,
    ports: Vec<NamedPort>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct NamedPort {
    name: String,
    protocol: Protocol,
    port: u16,
}

impl PodFacts {
    /// `None` for a pod without addresses of its own.
    pub fn of(pod: &Pod, node: &str) -> Option<PodFacts> {
        let addresses: Vec<IpAddr> = pod.status.pod_ips.iter().filter_map(|ip| ip.ip.parse().ok()).collect();
        if pod.spec.host_network || pod.is_terminal() || addresses.is_empty() {
            return None;
        }
        let named = |port: &ContainerPort| {
            let protocol = service::protocol(&port.protocol).filter(|_| !port.name.is_empty())?;
            Some(NamedPort { name: port.name.clone(), protocol, port: port.container_port })
        };
        let containers = pod.spec.init_containers.iter().chain(&pod.spec.containers);
        Some(PodFacts {
            namespace: pod.metadata.namespace.clone(),
            labels: pod.metadata.labels.clone(),
            addresses,
            is_here: pod.spec.node_name == node,
            ports: containers.flat_map(|container| container.ports.iter().filter_map(named)).collect(),
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    Ingress,
    Egress,
}

impl Direction {
    pub const ALL: [Direction; 2] = [Direction::Ingress, Direction::Egress];

    fn name(self) -> &'static str {
        match self {
            Direction::Ingress => "Ingress",
            Direction::Egress => "Egress",
        }
    }
}

/// Everything that is to be enforced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Policies that select a pod of this node.
    pub policies: BTreeMap<(Direction, NamespacedName), Vec<Allowed>>,
    /// By address of a pod of this node, the policies that hold for it: it may do what any allows.
    pub pods: BTreeMap<(Direction, IpAddr), BTreeSet<NamespacedName>>,
}

/// What one rule of a policy allows: these peers on these ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// `None` is everybody.
    pub peers: Option<Peers>,
    /// `None` is every port.
    pub ports: Option<Vec<Port>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Of pods; `None` when the rule names no pods at all.
    pub pods: Option<BTreeSet<IpAddr>>,
    pub blocks: Vec<Block>,
}

/// `ipBlock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    pub cidr: IpNet,
    pub except: Vec<IpNet>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// Every port of a protocol.
    Any(Protocol),
    /// From the first to the last, both included.
    Range(Protocol, u16, u16),
    /// What the name means to each pod that may be addressed.
    Named(Protocol, BTreeSet<(IpAddr, u16)>),
}

/// Decides everything. `namespaces` gives each one's labels.
pub fn plan(
    policies: &[Arc<NetworkPolicy>],
    pods: &[&PodFacts],
    namespaces: &BTreeMap<String, StringMap>,
) -> Plan {
    let world = World { pods, namespaces };
    let mut plan = Plan::default();
    for policy in policies {
        let selected = world.selected(policy);
        for direction in Direction::ALL {
            if selected.is_empty() || !concerns(policy, direction) {
                continue;
            }
            let name = policy.metadata.namespaced_name();
            for address in selected.iter().flat_map(|pod| &pod.addresses) {
                plan.pods.entry((direction, *address)).or_default().insert(name.clone());
            }
            plan.policies.insert((direction, name), world.allowed(policy, direction, &selected));
        }
    }
    plan
}

/// `policyTypes`, with the API's own default for an object that lacks it.
fn concerns(policy: &NetworkPolicy, direction: Direction) -> bool {
    let spec = &policy.spec;
    if spec.policy_types.is_empty() {
        return direction == Direction::Ingress || !spec.egress.is_empty();
    }
    spec.policy_types.iter().any(|kind| kind == direction.name())
}

struct World<'a> {
    pods: &'a [&'a PodFacts],
    namespaces: &'a BTreeMap<String, StringMap>,
}

impl<'a> World<'a> {
    /// Pods of this node that the policy is for.
    fn selected(&self, policy: &NetworkPolicy) -> Vec<&'a PodFacts> {
        let own = |pod: &&&PodFacts| pod.is_here && pod.namespace == policy.metadata.namespace;
        let selector = &policy.spec.pod_selector;
        self.pods.iter().filter(own).filter(|pod| selector.matches(&pod.labels)).copied().collect()
    }

    fn allowed(
        &self,
        policy: &NetworkPolicy,
        direction: Direction,
        selected: &[&'a PodFacts],
    ) -> Vec<Allowed> {
        let namespace = &policy.metadata.namespace;
        match direction {
            Direction::Ingress => {
                let rules = policy.spec.ingress.iter();
                rules.map(|rule| self.rule(namespace, &rule.from, &rule.ports, Some(selected))).collect()
            }
            Direction::Egress => {
                let rules = policy.spec.egress.iter();
                rules.map(|rule| self.rule(namespace, &rule.to, &rule.ports, None)).collect()
            }
        }
    }

    /// A named port is one of the `targets`; without them, of the peers.
    fn rule(
        &self,
        namespace: &str,
        peers: &[NetworkPolicyPeer],
        ports: &[NetworkPolicyPort],
        targets: Option<&[&'a PodFacts]>,
    ) -> Allowed {
        let peer_pods: Vec<&PodFacts> = if peers.is_empty() {
            self.pods.to_vec()
        } else {
            let is_peer = |pod: &&&PodFacts| peers.iter().any(|peer| self.matches(peer, namespace, pod));
            self.pods.iter().filter(is_peer).copied().collect()
        };
        let parse = |port| parse_port(port, targets.unwrap_or(&peer_pods));
        Allowed {
            peers: (!peers.is_empty()).then(|| collect(peers, &peer_pods)),
            ports: (!ports.is_empty()).then(|| ports.iter().filter_map(parse).collect()),
        }
    }

    fn matches(&self, peer: &NetworkPolicyPeer, namespace: &str, pod: &PodFacts) -> bool {
        if peer.ip_block.is_some() || (peer.pod_selector.is_none() && peer.namespace_selector.is_none()) {
            return false;
        }
        let in_namespace = match &peer.namespace_selector {
            Some(selector) => {
                self.namespaces.get(&pod.namespace).is_some_and(|labels| selector.matches(labels))
            }
            None => pod.namespace == namespace,
        };
        in_namespace && peer.pod_selector.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
    }
}

fn collect(peers: &[NetworkPolicyPeer], pods: &[&PodFacts]) -> Peers {
    let names_pods = peers.iter().any(|peer| peer.ip_block.is_none());
    let blocks = peers.iter().filter_map(|peer| {
        let block = peer.ip_block.as_ref()?;
        let except = block.except.iter().filter_map(|cidr| cidr.parse().ok());
        Some(Block { cidr: block.cidr.parse().ok()?, except: except.collect() })
    });
    Peers {
        pods: names_pods.then(|| pods.iter().flat_map(|pod| pod.addresses.iter().copied()).collect()),
        blocks: blocks.collect(),
    }
}

/// `None` for one that can match nothing.
fn parse_port(port: &NetworkPolicyPort, targets: &[&PodFacts]) -> Option<Port> {
    let protocol = service::protocol(port.protocol.as_deref().unwrap_or_default())?;
    if port.port.is_null() {
        return Some(Port::Any(protocol));
    }
    if let Some(number) = port.port.as_u64() {
        let first = u16::try_from(number).ok()?;
        return Some(Port::Range(protocol, first, port.end_port.unwrap_or(first)));
    }
    let name = port.port.as_str()?;
    let mut found = BTreeSet::new();
    for pod in targets {
        for named in pod.ports.iter().filter(|named| named.name == name && named.protocol == protocol) {
            found.extend(pod.addresses.iter().map(|address| (*address, named.port)));
        }
    }
    Some(Port::Named(protocol, found))
}
