//! The pod network against the real kernel, in namespaces of its own.

use std::net::SocketAddr;

use super::*;
use crate::netlink::{Family, Socket};
use crate::nftables::{Listing, tables};
use crate::protocol::Protocol;
use crate::testing::node::{HOST, Node as World, OUTSIDE};
use crate::testing::{at, ip};

#[test]
fn pods_reach_each_other_and_the_host_under_their_own_addresses() {
    let world = World::new("reach");
    let network = world.start();
    let (first, second) = (world.attach(&network, 0, vec![]), world.attach(&network, 1, vec![]));
    assert_eq!(first, [ip("10.244.0.2"), ip("fd00:244::2")]);
    assert_eq!(second, [ip("10.244.0.3"), ip("fd00:244::3")]);
    for family in 0..2 {
        world.pods[1].serve_tcp(second[family], 80, "second");
        let answer = world.pods[0].ask_tcp(SocketAddr::new(second[family], 80)).unwrap();
        assert_eq!(answer, (first[family], "second".into()));
        let answer = world.host.ask_tcp(SocketAddr::new(second[family], 80)).unwrap();
        assert_eq!(answer.0, ipam::gateway(world.config().pod_cidrs[family]));
    }
    world.host.serve_tcp(ip("10.244.0.1"), 53, "host");
    assert_eq!(world.pods[0].ask_tcp(at("10.244.0.1:53")).unwrap(), (first[0], "host".into()));
}

#[test]
fn what_leaves_the_cluster_carries_the_hosts_address() {
    let world = World::new("outward");
    let network = world.start();
    world.attach(&network, 0, vec![]);
    world.outside.serve_tcp(ip(OUTSIDE), 80, "outside");
    let answer = world.pods[0].ask_tcp(SocketAddr::new(ip(OUTSIDE), 80)).unwrap();
    assert_eq!(answer, (ip(HOST), "outside".into()));
    let mtu = world.pods[0].links().find("eth0").unwrap().unwrap().mtu;
    assert_eq!(mtu, crate::testing::node::MTU, "taken from the link of the default route");
}

#[test]
fn host_ports_lead_to_the_pod_from_outside_host_and_the_pod_itself() {
    let world = World::new("hostport");
    let network = world.start();
    let port = |host_ip: Option<&str>, host_port, protocol| HostPort {
        host_ip: host_ip.map(ip),
        host_port,
        container_port: 80,
        protocol,
    };
    let ports = vec![
        port(None, 8080, Protocol::Tcp),
        port(Some(HOST), 8081, Protocol::Tcp),
        port(None, 8080, Protocol::Udp),
    ];
    let pod = world.attach(&network, 0, ports)[0];
    world.attach(&network, 1, vec![]);
    world.pods[0].serve_tcp(pod, 80, "pod");
    world.pods[0].serve_udp(pod, 80, "pod-udp");
    for port in [8080, 8081] {
        let to = SocketAddr::new(ip(HOST), port);
        for from in [&world.outside, &world.host, &world.pods[0], &world.pods[1]] {
            assert_eq!(from.ask_tcp(to).unwrap().1, "pod");
        }
    }
    assert_eq!(
        world.outside.ask_tcp(SocketAddr::new(ip(HOST), 8080)).unwrap().0,
        ip(OUTSIDE),
        "the client's address is kept"
    );
    assert_eq!(
        world.outside.ask_udp(SocketAddr::new(ip(HOST), 8080), crate::testing::PATIENCE).unwrap().1,
        "pod-udp"
    );
    assert!(world.host.ask_tcp(at("10.244.0.1:8081")).is_err(), "bound to another address");
}

#[test]
fn a_restart_disturbs_no_pod_and_remembers_addresses() {
    let world = World::new("restart");
    let network = world.start();
    let first = world.attach(&network, 0, vec![]);
    world.pods[0].serve_tcp(first[0], 80, "first");
    drop(network);
    let network = world.start();
    assert_eq!(network.addresses("sandbox-0"), first);
    assert_eq!(world.attach(&network, 0, vec![]), first, "attaching again changes nothing");
    assert_eq!(world.attach(&network, 1, vec![])[0], ip("10.244.0.3"));
    assert_eq!(world.pods[1].ask_tcp(SocketAddr::new(first[0], 80)).unwrap().1, "first");
}

#[test]
fn a_detached_sandbox_frees_its_address_which_rests() {
    let world = World::new("detach");
    let network = world.start();
    world.attach(&network, 0, vec![]);
    let detach = network.clone();
    world.host.block_on(async move || {
        detach.detach("sandbox-0").await.unwrap();
        detach.detach("sandbox-0").await.unwrap();
        detach.detach("never-attached").await.unwrap();
    });
    assert!(network.sandboxes().is_empty());
    assert_eq!(world.attach(&network, 1, vec![])[0], ip("10.244.0.3"));
}

#[test]
fn teardown_leaves_nothing() {
    let world = World::new("teardown");
    let before = (world.host.links().list().unwrap(), world.listing("coxswain-test-pods"));
    let network = world.start();
    world.attach(&network, 0, vec![]);
    assert!(world.listing("coxswain-test-pods").is_some());
    let forward = || std::fs::read_to_string("/proc/sys/net/ipv4/ip_forward").unwrap();
    assert_eq!(world.host.run(forward), "1\n");
    drop(network);
    let state_file = world.config().state_file;
    world.host.run(move || {
        teardown("test", &state_file).unwrap();
        teardown("test", &state_file).unwrap();
    });
    assert_eq!((world.host.links().list().unwrap(), world.listing("coxswain-test-pods")), before);
    assert_eq!(world.host.run(forward), "0\n");
    assert!(!world.config().state_file.exists());
}

#[test]
fn a_flushed_ruleset_is_put_back() {
    let world = World::new("flush");
    let network = world.start();
    world.attach(&network, 0, vec![]);
    let before = world.listing("coxswain-test-pods");
    let listing = world.host.block_on(async move || {
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let keeper = tokio::spawn({
            let network = network.clone();
            async move { network.keep(async { stopped.await.unwrap_or(()) }).await }
        });
        tokio::task::yield_now().await;
        let mut socket = Socket::open(Family::Netfilter).unwrap();
        crate::nftables::delete_tables(&mut socket, &["coxswain-test-pods"]).unwrap();
        assert!(tables(&mut socket).unwrap().is_empty());
        let restored = tokio::time::timeout(crate::testing::PATIENCE, async {
            while Listing::of(&mut socket, "coxswain-test-pods").unwrap().is_none() {
                tokio::task::yield_now().await;
            }
        });
        restored.await.expect("restored in time");
        stop.send(()).unwrap();
        keeper.await.unwrap().unwrap();
        Listing::of(&mut socket, "coxswain-test-pods").unwrap()
    });
    assert_eq!(listing, before);
}

#[test]
fn a_full_network_says_so() {
    let world = World::new("full");
    let mut config = world.config();
    config.pod_cidrs = vec!["10.244.0.0/30".parse().unwrap()];
    let paths = [world.pods[0].path.clone(), world.pods[1].path.clone()];
    world.host.block_on(async move || {
        let network = PodNetwork::start(config).await.unwrap();
        let request = |id: &str, netns| Attach { sandbox_id: id.into(), netns, host_ports: vec![] };
        let [first, second] = paths;
        network.attach(request("a", first)).await.unwrap();
        let error = network.attach(request("b", second)).await.unwrap_err();
        assert_eq!(error.to_string(), "no free address left in 10.244.0.0/30: 1 are in use");
    });
}

#[test]
fn several_clusters_share_a_machine() {
    let world = World::new("several");
    let network = world.start();
    let first = world.attach(&network, 0, vec![])[0];
    world.pods[0].serve_tcp(first, 80, "first");
    let mut config = world.config();
    config.cluster = "other".into();
    config.pod_cidrs = vec!["10.245.0.0/24".parse().unwrap()];
    config.service_cidrs = vec!["10.97.0.0/16".parse().unwrap()];
    config.state_file = world.config().state_file.with_file_name("other.json");
    let state_file = config.state_file.clone();
    let netns = world.pods[1].path.clone();
    let other = world.host.block_on(async move || {
        let network = PodNetwork::start(config).await.unwrap();
        let request = Attach { sandbox_id: "sandbox-0".into(), netns, host_ports: vec![] };
        network.attach(request).await.unwrap()
    });
    assert_eq!(other, [ip("10.245.0.2")]);
    world.host.run(move || teardown("other", &state_file).unwrap());
    assert!(world.listing("coxswain-test-pods").is_some() && world.listing("coxswain-other-pods").is_none());
    assert_eq!(
        world.host.ask_tcp(SocketAddr::new(first, 80)).unwrap().1,
        "first",
        "still routed and forwarded"
    );
}
