//! The proxy's rules carrying real packets between namespaces.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;

use api::view::core::Service;
use api::view::discovery::EndpointSlice;
use client::{CancellationToken, Informer};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{endpoint, service, slice};
use crate::netlink::{Family, Socket};
use crate::nftables::{Batch, Listing, Programmed, tables};
use crate::pod_network::PodNetwork;
use crate::proxy::rules::ruleset;
use crate::proxy::{Config, Tables, conntrack, plan, shell};
use crate::testing::node::{HOST, Node, OUTSIDE};
use crate::testing::{Namespace, PATIENCE, ask_connected, at, ip};

const TABLE: &str = "coxswain-test-proxy";

/// A node with two attached pods, both serving on 8080, and the proxy's table.
struct World {
    node: Node,
    network: PodNetwork,
    pods: [Vec<IpAddr>; 2],
    table: Option<Programmed>,
}

impl World {
    fn new(name: &str) -> World {
        let node = Node::new(name);
        let network = node.start();
        let pods = [0, 1].map(|pod| node.attach(&network, pod, vec![]));
        for (pod, name) in [(0, "zero"), (1, "one")] {
            for address in &pods[pod] {
                node.pods[pod].serve_tcp(*address, 8080, name);
            }
            node.pods[pod].serve_udp(pods[pod][0], 8080, name);
        }
        let table = node.host.run(|| Programmed::open(TABLE).unwrap());
        World { node, network, pods, table: Some(table) }
    }

    fn program(&mut self, services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) {
        let planned = plan(services, slices, "here");
        let mut table = self.table.take().unwrap();
        self.table = Some(self.node.host.run(move || {
            table.apply(ruleset(TABLE, &planned)).unwrap();
            conntrack::delete_stale(&planned).unwrap();
            table
        }));
    }

    /// One service over the pods given, by index.
    fn serve(&mut self, spec: Value, protocol: &str, pods: &[usize]) {
        let endpoints: Vec<Value> =
            pods.iter().map(|pod| endpoint(&self.pods[*pod][0].to_string())).collect();
        self.program(&[service("web", spec)], &[slice("web", protocol, &endpoints)]);
    }
}

/// The names of those who answer, in many attempts.
fn answers(from: &Namespace, to: SocketAddr) -> BTreeSet<String> {
    const ATTEMPTS: usize = 40;
    (0..ATTEMPTS).map(|_| from.ask_tcp(to).unwrap().1).collect()
}

fn both() -> BTreeSet<String> {
    BTreeSet::from(["zero".to_string(), "one".to_string()])
}

#[test]
fn a_cluster_ip_reaches_all_endpoints_from_pods_and_host() {
    let mut world = World::new("cluster-ip");
    world.serve(json!({}), "TCP", &[0, 1]);
    assert_eq!(
        answers(&world.node.pods[0], at("10.96.0.10:80")),
        both(),
        "a pod, itself among the endpoints"
    );
    assert_eq!(answers(&world.node.host, at("10.96.0.10:80")), both());
    world.serve(json!({}), "TCP", &[1]);
    let (sender, name) = world.node.pods[0].ask_tcp(at("10.96.0.10:80")).unwrap();
    assert_eq!((sender, name.as_str()), (world.pods[0][0], "one"), "the client's address is kept");
    assert!(!world.network.sandboxes().is_empty());
}

#[test]
fn an_endpoint_may_be_the_node_itself() {
    let mut world = World::new("node-endpoint");
    world.node.host.serve_tcp(ip(HOST), 8080, "apiserver");
    world.program(&[service("kubernetes", json!({}))], &[slice("kubernetes", "TCP", &[endpoint(HOST)])]);
    let to = at("10.96.0.10:80");
    assert_eq!(world.node.pods[0].ask_tcp(to).unwrap(), (world.pods[0][0], "apiserver".into()));
    assert_eq!(world.node.host.ask_tcp(to).unwrap().1, "apiserver");
}

#[test]
fn services_work_over_ipv6() {
    let mut world = World::new("ipv6");
    let spec = json!({"clusterIP": "fd00:96::10"});
    let endpoints = [0, 1].map(|pod: usize| endpoint(&world.pods[pod][1].to_string()));
    world.program(&[service("web", spec)], &[slice("web", "TCP", &endpoints)]);
    assert_eq!(answers(&world.node.pods[0], at("[fd00:96::10]:80")), both());
    assert_eq!(answers(&world.node.host, at("[fd00:96::10]:80")), both());
}

#[test]
fn a_node_port_is_open_on_every_address_of_the_node() {
    let mut world = World::new("node-port");
    let spec = |policy: &str| {
        json!({"type": "NodePort", "externalTrafficPolicy": policy,
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]})
    };
    world.serve(spec("Cluster"), "TCP", &[0, 1]);
    let node = SocketAddr::new(ip(HOST), 30080);
    for from in [&world.node.outside, &world.node.host, &world.node.pods[0]] {
        assert_eq!(answers(from, node), both());
    }
    assert_eq!(answers(&world.node.pods[0], at("10.244.0.1:30080")), both());
    assert_ne!(world.node.outside.ask_tcp(node).unwrap().0, ip(OUTSIDE), "masqueraded under policy Cluster");
    world.serve(spec("Local"), "TCP", &[0, 1]);
    assert_eq!(world.node.outside.ask_tcp(node).unwrap().0, ip(OUTSIDE), "kept under policy Local");
}

#[test]
fn a_service_without_endpoints_and_other_ports_are_refused_at_once() {
    let mut world = World::new("refused");
    world.serve(
        json!({"type": "NodePort", "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]}),
        "TCP",
        &[],
    );
    let node_port = SocketAddr::new(ip(HOST), 30080);
    for from in [&world.node.pods[0], &world.node.host] {
        for to in [at("10.96.0.10:80"), at("10.96.0.10:81"), node_port] {
            assert_eq!(from.ask_tcp(to).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{to}");
        }
    }
    assert_eq!(world.node.outside.ask_tcp(node_port).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn session_affinity_keeps_a_client_until_its_endpoint_goes() {
    let mut world = World::new("affinity");
    let spec = json!({"sessionAffinity": "ClientIP", "type": "NodePort",
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]});
    world.serve(spec.clone(), "TCP", &[0, 1]);
    let to = at("10.96.0.10:80");
    let kept = answers(&world.node.pods[0], to);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(answers(&world.node.outside, SocketAddr::new(ip(HOST), 30080)).len(), 1);
    let (other, name) = if kept.contains("zero") { (1, "one") } else { (0, "zero") };
    world.serve(spec, "TCP", &[other]);
    assert_eq!(answers(&world.node.pods[0], to), BTreeSet::from([name.to_string()]));
}

#[test]
fn a_busy_udp_client_moves_when_its_endpoint_goes() {
    let mut world = World::new("udp");
    let spec = json!({"ports": [{"port": 80, "protocol": "UDP"}]});
    world.serve(spec.clone(), "UDP", &[0]);
    let client = world.node.host.run(|| {
        let socket = UdpSocket::bind(("0.0.0.0", 0)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(at("10.96.0.10:80")).unwrap();
        socket
    });
    assert_eq!(ask_connected(&client).unwrap().1, "zero");
    world.serve(spec, "UDP", &[1]);
    assert_eq!(ask_connected(&client).unwrap().1, "one");
}

#[test]
fn an_established_connection_outlives_its_endpoint_in_the_tables() {
    let mut world = World::new("established");
    let address = world.pods[0][0];
    let listener = world.node.pods[0].run(move || TcpListener::bind((address, 9090)).unwrap());
    let planned = |world: &mut World, endpoints: &[Value]| {
        let mut slice = (*slice("web", "TCP", endpoints)).clone();
        slice.ports[0].port = Some(9090);
        world.program(&[service("web", json!({}))], &[slice.into()]);
    };
    planned(&mut world, &[endpoint(&address.to_string())]);
    let mut client =
        world.node.pods[1].run(|| TcpStream::connect_timeout(&at("10.96.0.10:80"), PATIENCE).unwrap());
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut server, _) = listener.accept().unwrap();
    planned(&mut world, &[]);
    let mut received = [0; 4];
    client.write_all(b"ping").unwrap();
    server.read_exact(&mut received).unwrap();
    server.write_all(b"pong").unwrap();
    client.read_exact(&mut received).unwrap();
    assert_eq!(&received, b"pong");
}

#[test]
fn no_connection_is_lost_while_endpoints_change() {
    const CHANGES: usize = 60;
    let mut world = World::new("rolling");
    world.serve(json!({}), "TCP", &[0]);
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let client = world.node.host.spawn(move || {
        let mut served = 0;
        while let Err(std::sync::mpsc::TryRecvError::Empty) = stopped.try_recv() {
            let mut stream = TcpStream::connect_timeout(&at("10.96.0.10:80"), PATIENCE).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with("zero") || answer.ends_with("one"));
            served += 1;
        }
        served
    });
    for change in 0..CHANGES {
        world.serve(json!({}), "TCP", [&[0, 1][..], &[1], &[0, 1], &[0]][change % 4]);
    }
    drop(stop);
    let served: usize = client.join().expect("no request failed");
    assert!(served > 0);
}

/// Waits, with the runtime running, until the table is as `expected` says.
async fn until(socket: &mut Socket, expected: impl Fn(Option<&Listing>) -> bool) {
    let waited = tokio::time::timeout(PATIENCE, async {
        while !expected(Listing::of(socket, TABLE).unwrap().as_ref()) {
            tokio::task::yield_now().await;
        }
    });
    waited.await.expect("the table follows in time");
}

#[test]
fn the_shell_follows_informers_and_puts_back_a_flushed_ruleset() {
    let host = Namespace::new();
    host.block_on(async || {
        let (services, service_feed) = Informer::<Service>::detached();
        let (slices, slice_feed) = Informer::<EndpointSlice>::detached();
        let config = Config { cluster: "test".into(), node_name: "here".into() };
        let stop = CancellationToken::new();
        let proxy = tokio::spawn(shell::run_with(services, slices, config, stop.clone()));
        let mut socket = Socket::open(Family::Netfilter).unwrap();
        let has = |set: &'static str, count: usize| {
            // A listing taken while the table is being made may lack its sets.
            move |listing: Option<&Listing>| {
                listing.is_some_and(|listing| listing.elements.get(set) == Some(&count))
            }
        };
        service_feed.apply((*service("web", json!({}))).clone());
        until(&mut socket, has("service-no-endpoints-ip", 1)).await;
        let two = slice("web", "TCP", &[endpoint("10.244.0.2"), endpoint("10.244.0.3")]);
        slice_feed.apply((*two).clone());
        until(&mut socket, has("service-endpoints-ip", 2)).await;
        let before = Listing::of(&mut socket, TABLE).unwrap();
        Batch::remove(TABLE).commit(&mut socket).unwrap();
        until(&mut socket, |listing| listing == before.as_ref()).await;
        stop.cancel();
        proxy.await.unwrap().unwrap();
        assert_eq!(Listing::of(&mut socket, TABLE).unwrap(), before, "services outlive the process");
        shell::teardown("test").unwrap();
        assert!(tables(&mut socket).unwrap().is_empty());
    });
}

#[test]
fn a_change_of_one_service_among_many_is_a_small_transaction() {
    const SERVICES: usize = 200;
    let services: Vec<_> = (0..SERVICES)
        .map(|number| service_named(number, json!({"clusterIP": format!("10.96.1.{number}")})))
        .collect();
    let mut slices: Vec<_> = (0..SERVICES)
        .map(|number| slice(&format!("s{number}"), "TCP", &[endpoint(&format!("10.244.1.{number}"))]))
        .collect();
    let before = ruleset(TABLE, &plan(&services, &slices, "here"));
    slices[7] = slice("s7", "TCP", &[endpoint("10.244.2.1"), endpoint("10.244.2.2")]);
    let after = ruleset(TABLE, &plan(&services, &slices, "here"));
    // Verdict, endpoints and hairpin change; a chain for two endpoints is new.
    assert_eq!(Batch::between(&before, &after).len(), 8);
}

/// Up to five services with up to four endpoints each.
fn any_tables() -> impl Strategy<Value = Tables> {
    let service = (any::<bool>(), any::<bool>(), proptest::collection::btree_set(2u8..9, 0..4));
    proptest::collection::vec(service, 0..5).prop_map(|services| {
        let (mut objects, mut slices) = (Vec::new(), Vec::new());
        for (number, (node_port, affinity, endpoints)) in services.into_iter().enumerate() {
            let port = if node_port { 30000 + number } else { 0 };
            let affinity = if affinity { "ClientIP" } else { "None" };
            let spec = json!({"clusterIP": format!("10.96.0.{}", number + 1), "sessionAffinity": affinity,
                "ports": [{"port": 80, "protocol": "TCP", "nodePort": port}]});
            let endpoints: Vec<Value> =
                endpoints.iter().map(|last| endpoint(&format!("10.244.0.{last}"))).collect();
            objects.push(service_named(number, spec));
            slices.push(slice(&format!("s{number}"), "TCP", &endpoints));
        }
        plan(&objects, &slices, "here")
    })
}

fn service_named(number: usize, spec: Value) -> Arc<Service> {
    service(&format!("s{number}"), spec)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_kernel_takes_every_difference_and_ends_as_if_programmed_anew(history in proptest::collection::vec(any_tables(), 1..5)) {
        let host = Namespace::new();
        let (changed, anew) = host.run(move || {
            let mut socket = Socket::open(Family::Netfilter).unwrap();
            let mut current = ruleset(TABLE, &Tables::default());
            Batch::replace(&current).commit(&mut socket).unwrap();
            for tables in &history {
                let desired = ruleset(TABLE, tables);
                Batch::between(&current, &desired).commit(&mut socket).unwrap();
                assert!(Batch::between(&desired, &desired).is_empty());
                current = desired;
            }
            let changed = Listing::of(&mut socket, TABLE).unwrap();
            Batch::replace(&current).commit(&mut socket).unwrap();
            (changed, Listing::of(&mut socket, TABLE).unwrap())
        });
        prop_assert_eq!(changed, anew);
    }
}
