//! Policies decided by table, and their rules holding up and letting through real packets.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use api::view::core::{Namespace as CoreNamespace, Pod};
use api::view::networking::NetworkPolicy;
use apimachinery::{Value, json};
use client::{CancellationToken, Informer};

use super::plan::{Allowed, Block, Direction, Peers, Plan, PodFacts, Port, plan};
use super::rules::ruleset;
use super::shell::{self, Config};
use crate::netlink::{Family, Socket};
use crate::nftables::{Batch, Listing, Programmed};
use crate::pod_network::PodNetwork;
use crate::protocol::Protocol;
use crate::testing::node::{Node, OUTSIDE};
use crate::testing::{Namespace, PATIENCE, at, ip};

/// How long a test waits for a datagram that must not come.
const SILENCE: Duration = Duration::from_millis(250);

const TABLE: &str = "coxswain-test-policy";

fn policy(name: &str, spec: Value) -> Arc<NetworkPolicy> {
    let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
    Arc::new(apimachinery::from_value(object).expect("a NetworkPolicy"))
}

fn pod(namespace: &str, name: &str, addresses: &[IpAddr]) -> Pod {
    let ips: Vec<Value> = addresses.iter().map(|address| json!({"ip": address.to_string()})).collect();
    let ports = json!([{"name": "web", "containerPort": 8080, "protocol": "UDP"}]);
    let object = json!({
        "metadata": {"namespace": namespace, "name": name, "labels": {"app": name}},
        "spec": {"nodeName": "here", "containers": [{"name": "c", "ports": ports}]},
        "status": {"phase": "Running", "podIPs": ips},
    });
    apimachinery::from_value(object).expect("a Pod")
}

/// `zero` in `default`, `one` in `other`, whose label is `team: blue`.
fn decide(policies: &[Arc<NetworkPolicy>], zero: &[IpAddr], one: &[IpAddr]) -> Plan {
    let pods = [("default", "zero", zero), ("other", "one", one)]
        .map(|(namespace, name, ips)| PodFacts::of(&pod(namespace, name, ips), "here").expect("facts"));
    let labels = |value: &str| [("team".to_owned(), value.to_owned())].into_iter().collect();
    let namespaces =
        BTreeMap::from([("default".to_owned(), labels("red")), ("other".to_owned(), labels("blue"))]);
    plan(policies, &pods.each_ref()[..], &namespaces)
}

#[test]
fn a_policy_isolates_the_pods_it_selects_in_its_directions() {
    let (zero, one) = ([ip("10.244.0.2"), ip("fd00::2")], [ip("10.244.0.3")]);
    let directions = |spec: Value| -> Vec<(Direction, IpAddr)> {
        decide(&[policy("p", spec)], &zero, &one).pods.into_keys().collect()
    };
    let (ingress, egress) = (Direction::Ingress, Direction::Egress);
    assert_eq!(directions(json!({"podSelector": {}})), [(ingress, zero[0]), (ingress, zero[1])]);
    let both = json!({"podSelector": {"matchLabels": {"app": "zero"}}, "egress": [{}]});
    assert_eq!(directions(both).len(), 4, "egress rules mean policyType Egress");
    let only = json!({"podSelector": {}, "policyTypes": ["Egress"]});
    assert_eq!(directions(only), [(egress, zero[0]), (egress, zero[1])]);
    assert!(directions(json!({"podSelector": {"matchLabels": {"app": "one"}}})).is_empty());
}

#[test]
fn rules_name_peers_and_ports() {
    let (zero, one) = (ip("10.244.0.2"), ip("10.244.0.3"));
    let allowed = |rule: Value| -> Allowed {
        let plan = decide(&[policy("p", json!({"podSelector": {}, "ingress": [rule]}))], &[zero], &[one]);
        plan.policies.into_values().next().expect("one policy")[0].clone()
    };
    let pods =
        |addresses: &[IpAddr]| Peers { pods: Some(addresses.iter().copied().collect()), blocks: vec![] };
    assert_eq!(allowed(json!({})), Allowed { peers: None, ports: None });
    for (peer, expected) in [
        (json!({"podSelector": {}}), vec![zero]),
        (json!({"namespaceSelector": {}}), vec![zero, one]),
        (json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}}), vec![one]),
        (json!({"namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "zero"}}}), vec![zero]),
        (json!({"podSelector": {"matchLabels": {"app": "one"}}}), vec![]),
    ] {
        assert_eq!(allowed(json!({"from": [peer]})).peers, Some(pods(&expected)), "{peer}");
    }
    let block = json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]});
    let cidr = |text: &str| text.parse().expect("a network");
    let blocks = vec![Block { cidr: cidr("10.0.0.0/8"), except: vec![cidr("10.1.0.0/16")] }];
    assert_eq!(allowed(block).peers, Some(Peers { pods: None, blocks }));
    let ports = json!({"ports": [{"port": 80}, {"protocol": "UDP"}, {"protocol": "SCTP", "port": 1, "endPort": 9},
        {"protocol": "UDP", "port": "web"}, {"port": "web"}]});
    let expected = vec![
        Port::Range(Protocol::Tcp, 80, 80),
        Port::Any(Protocol::Udp),
        Port::Range(Protocol::Sctp, 1, 9),
        Port::Named(Protocol::Udp, [(zero, 8080)].into()),
        Port::Named(Protocol::Tcp, [].into()),
    ];
    assert_eq!(allowed(ports).ports, Some(expected));
}

/// A node with two attached pods that serve, and the policies' table.
struct World {
    node: Node,
    _network: PodNetwork,
    pods: [Vec<IpAddr>; 2],
    table: Option<Programmed>,
}

impl World {
    fn new(name: &str) -> World {
        let node = Node::new(&format!("policy-{name}"));
        let network = node.start();
        let pods = [0, 1].map(|pod| node.attach(&network, pod, vec![]));
        for (pod, name) in [(0, "zero"), (1, "one")] {
            for port in [8080, 8081] {
                node.pods[pod].serve_udp(pods[pod][0], port, name);
            }
            node.pods[pod].serve_tcp(pods[pod][0], 8080, name);
            node.pods[pod].serve_tcp(pods[pod][1], 8080, name);
        }
        node.outside.serve_udp(ip(OUTSIDE), 8080, "outside");
        let table = node.host.run(|| Programmed::open(TABLE).unwrap());
        World { node, _network: network, pods, table: Some(table) }
    }

    fn enforce(&mut self, specs: &[Value]) {
        let policies: Vec<_> = specs
            .iter()
            .enumerate()
            .map(|(number, spec)| policy(&number.to_string(), spec.clone()))
            .collect();
        let plan = decide(&policies, &self.pods[0], &self.pods[1]);
        let mut table = self.table.take().unwrap();
        self.table = Some(self.node.host.run(move || {
            table.apply(ruleset(TABLE, &plan)).unwrap();
            table
        }));
    }

    /// Whether pod `zero` is reached by `from` on 8080 and 8081.
    fn check_reached(&self, from: &Namespace, expected: [bool; 2]) {
        for (port, expected) in [8080, 8081].into_iter().zip(expected) {
            let answer = from.ask_udp(SocketAddr::new(self.pods[0][0], port), patience(expected));
            assert_eq!(answer.is_ok(), expected, "on port {port}");
        }
    }

    /// Whether pod `zero` reaches pod `one` and outside.
    fn check_reaches(&self, expected: [bool; 2]) {
        for (to, expected) in [self.pods[1][0], ip(OUTSIDE)].into_iter().zip(expected) {
            let answer = self.node.pods[0].ask_udp(SocketAddr::new(to, 8080), patience(expected));
            assert_eq!(answer.is_ok(), expected, "{to}");
        }
    }
}

/// What must come may take its time on a busy machine; what must not is not waited for long.
fn patience(expected: bool) -> Duration {
    if expected { PATIENCE } else { SILENCE }
}

#[test]
fn ingress_is_limited_to_what_rules_allow_and_the_node_itself() {
    let mut world = World::new("ingress");
    let check = |world: &World, expected| world.check_reached(&world.node.pods[1], expected);
    check(&world, [true, true]);
    let all = json!({"podSelector": {}});
    world.enforce(std::slice::from_ref(&all));
    check(&world, [false, false]);
    // The kubelet's probes.
    world.check_reached(&world.node.host, [true, true]);
    let from_blue = json!({"podSelector": {}, "ingress": [{
        "from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}}}],
        "ports": [{"protocol": "UDP", "port": "web"}]}]});
    world.enforce(&[all.clone(), from_blue]);
    check(&world, [true, false]);
    let range = json!({"podSelector": {}, "ingress": [{"ports": [{"protocol": "UDP", "port": 8081, "endPort": 9000}]}]});
    world.enforce(&[all.clone(), range]);
    check(&world, [false, true]);
    let block = |except: &str| {
        let block = json!({"cidr": "10.244.0.0/16", "except": [except]});
        json!({"podSelector": {}, "ingress": [{"from": [{"ipBlock": block}]}]})
    };
    world.enforce(&[block("10.244.0.2/32")]);
    check(&world, [true, true]);
    world.enforce(&[block("10.244.0.3/32")]);
    check(&world, [false, false]);
    world.enforce(&[]);
    check(&world, [true, true]);
}

#[test]
fn egress_is_limited_and_answers_come_back() {
    let mut world = World::new("egress");
    let to = |peer: Value| json!({"podSelector": {}, "policyTypes": ["Egress"], "egress": [{"to": [peer]}]});
    world.enforce(&[json!({"podSelector": {}, "policyTypes": ["Egress"]})]);
    world.check_reaches([false, false]);
    // Answers to what was let in go out.
    world.check_reached(&world.node.pods[1], [true, true]);
    world.node.host.serve_udp(ip("10.244.0.1"), 5353, "dns");
    let dns = world.node.pods[0].ask_udp(at("10.244.0.1:5353"), PATIENCE);
    assert_eq!(dns.unwrap().1, "dns", "the node itself is always reached");
    world.enforce(&[to(json!({"namespaceSelector": {"matchLabels": {"team": "blue"}}}))]);
    world.check_reaches([true, false]);
    world.enforce(&[to(json!({"ipBlock": {"cidr": format!("{OUTSIDE}/32")}}))]);
    world.check_reaches([false, true]);
}

#[test]
fn policies_hold_over_ipv6_and_spare_connections_that_exist() {
    let mut world = World::new("v6");
    let addresses = world.pods[0].clone();
    let connects = |world: &World, expected: bool| {
        for to in &world.pods[0] {
            let to = SocketAddr::new(*to, 8080);
            let connect = move || TcpStream::connect_timeout(&to, patience(expected)).map(drop);
            assert_eq!(world.node.pods[1].run(connect).is_ok(), expected, "{to}");
        }
    };
    connects(&world, true);
    let listener = world.node.pods[0].run({
        let address = addresses[1];
        move || std::net::TcpListener::bind((address, 9090)).unwrap()
    });
    let to = SocketAddr::new(addresses[1], 9090);
    let mut client = world.node.pods[1].run(move || TcpStream::connect_timeout(&to, PATIENCE).unwrap());
    let (mut server, _) = listener.accept().unwrap();
    world.enforce(&[json!({"podSelector": {}})]);
    connects(&world, false);
    std::io::Write::write_all(&mut client, b"more").unwrap();
    let mut received = [0; 4];
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    std::io::Read::read_exact(&mut server, &mut received).unwrap();
}

#[test]
fn the_shell_follows_policies_and_pods_and_puts_its_table_back() {
    let elements = |listing: Option<&Listing>, set: &str| {
        listing.and_then(|listing| listing.elements.get(set)).copied().unwrap_or_default()
    };
    Namespace::new().block_on(async move || {
        let (policies, policy_feed) = Informer::<NetworkPolicy>::detached();
        let (pods, pod_feed) = Informer::<Pod>::detached();
        let (namespaces, _namespace_feed) = Informer::<CoreNamespace>::detached();
        let config = Config { cluster: "test".into(), node_name: "here".into() };
        let stop = CancellationToken::new();
        let running = tokio::spawn(shell::run_with(policies, || (pods, namespaces), config, stop.clone()));
        let mut socket = Socket::open(Family::Netfilter).unwrap();
        let mut until = async |count: usize| {
            let waited = tokio::time::timeout(PATIENCE, async {
                while elements(Listing::of(&mut socket, TABLE).unwrap().as_ref(), "ingress-pods-ip") != count
                {
                    tokio::task::yield_now().await;
                }
            });
            waited.await.expect("the table follows in time");
        };
        let all = policy("all", json!({"podSelector": {}}));
        pod_feed.apply(pod("default", "zero", &[ip("10.244.0.2")]));
        policy_feed.apply((*all).clone());
        until(1).await;
        pod_feed.apply(pod("default", "two", &[ip("10.244.0.3")]));
        until(2).await;
        Batch::remove(TABLE).commit(&mut Socket::open(Family::Netfilter).unwrap()).unwrap();
        until(2).await;
        policy_feed.remove((*all).clone());
        until(0).await;
        stop.cancel();
        running.await.unwrap().unwrap();
        shell::teardown("test").unwrap();
    });
}
