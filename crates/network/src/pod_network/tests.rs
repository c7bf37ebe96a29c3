//! The pod network against the real kernel, in namespaces of its own.

use std::net::{SocketAddr, UdpSocket};

use nix::sys::socket::{setsockopt, sockopt::BindToDevice};

use super::*;
use crate::link::Route;
use crate::netlink::{Family, Socket};
use crate::nftables::{Listing, tables};
use crate::protocol::Protocol;
use crate::testing::node::{HOST, Node as World, OUTSIDE};
use crate::testing::{Namespace, at, ip};

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
fn a_default_route_over_loopback_leaves_pods_the_largest_packets_that_their_links_take() {
    let world = World::new("loopback");
    let mut links = world.host.links();
    let loopback = links.find("lo").unwrap().unwrap();
    assert!(loopback.mtu > VETH_MTU_MAX);
    let destination = "0.0.0.0/0".parse().unwrap();
    links.replace_route(&Route { destination, link: loopback.index, gateway: None, source: None }).unwrap();
    let network = world.start();
    world.attach(&network, 0, vec![]);
    let mtu = world.pods[0].links().find("eth0").unwrap().unwrap().mtu;
    assert_eq!(mtu, VETH_MTU_MAX);
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
    assert_eq!(world.host.ask_tcp(at("127.0.0.1:8080")).expect("loopback is the host too").1, "pod");
    let answer = world.host.ask_udp(at("127.0.0.1:8080"), crate::testing::PATIENCE);
    assert_eq!(answer.expect("with either protocol").1, "pod-udp");
}

#[test]
fn nobody_but_the_host_reaches_its_loopback_addresses() {
    let world = World::new("stranger");
    let network = world.start();
    let port = HostPort { host_ip: None, host_port: 8080, container_port: 80, protocol: Protocol::Tcp };
    world.attach(&network, 0, vec![port]);
    let socket = world.host.run(|| UdpSocket::bind("127.0.0.1:0").expect("a port is free"));
    let to = socket.local_addr().expect("bound");
    world.pods[0].run(move || {
        let stranger = UdpSocket::bind("0.0.0.0:0").expect("a port is free");
        // Past the pod's own loopback, as a packet socket would get.
        setsockopt(&stranger, BindToDevice, &"eth0".into()).expect("tests are root");
        stranger.send_to(b"stranger", to).expect("leaves the pod");
    });
    world.host.run(move || UdpSocket::bind("127.0.0.1:0")?.send_to(b"host", to)).expect("is sent");
    let mut message = [0; 16];
    let (length, _) = socket.recv_from(&mut message).expect("comes");
    assert_eq!(&message[..length], b"host");
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
    // A new network namespace has what the machine has, where a cluster may run.
    world.host.run(|| std::fs::write("/proc/sys/net/ipv4/ip_forward", "0")).expect("writes");
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
        let request = |id: &str, netns| Attach {
            sandbox_id: id.into(),
            netns,
            host_ports: vec![],
            bandwidth: Bandwidth::default(),
        };
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
        let request = Attach {
            sandbox_id: "sandbox-0".into(),
            netns,
            host_ports: vec![],
            bandwidth: Bandwidth::default(),
        };
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

#[test]
fn half_closed_connections_are_remembered_for_an_hour_while_there_is_a_network() {
    let world = World::new("tracking");
    let timeout = || {
        let path = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
        world.host.run(move || std::fs::read_to_string(path).unwrap().trim().to_owned())
    };
    let before = timeout();
    let network = world.start();
    assert_eq!(timeout(), "3600");
    drop(network);
    let state_file = world.config().state_file;
    world.host.run(move || teardown("test", &state_file).unwrap());
    assert_eq!(timeout(), before);
}

/// Two nodes with a pod each; with a router between them or on one network.
struct Pair {
    hosts: [Namespace; 2],
    router: Option<Namespace>,
    pods: [Namespace; 2],
    folder: PathBuf,
}

impl Pair {
    fn new(name: &str, routed: bool) -> Pair {
        let folder = std::env::temp_dir().join(format!("coxswain-nodes-{}-{name}", std::process::id()));
        let new = || [Namespace::new(), Namespace::new()];
        let pair = Pair { hosts: new(), router: routed.then(Namespace::new), pods: new(), folder };
        match &pair.router {
            None => join(&pair.hosts[0], "up0", NODES[0], &pair.hosts[1], "up0", NODES[1], "192.0.2.0/24"),
            Some(router) => {
                router.run(|| sysctl::set("net/ipv4/ip_forward", "1", &mut Default::default()).unwrap());
                let sides = ["192.0.2.0/31", "192.0.2.2/31"];
                let middle = ["192.0.2.0", "192.0.2.3"];
                for side in 0..2 {
                    let host = &pair.hosts[side];
                    let name = ["left", "right"][side];
                    join(host, "up0", NODES[side], router, name, middle[side], sides[side]);
                    let mut links = host.links();
                    let link = links.find("up0").unwrap().unwrap().index;
                    let gateway = Some(ip(middle[side]));
                    let destination = "0.0.0.0/0".parse().unwrap();
                    links
                        .replace_route(&crate::link::Route { destination, link, gateway, source: None })
                        .unwrap();
                }
            }
        }
        pair
    }

    fn start(&self, node: usize) -> (PodNetwork, Vec<IpAddr>) {
        let config = Config {
            cluster: "test".into(),
            pod_cidrs: CIDRS[node].map(|cidr| cidr.parse().unwrap()).into(),
            cluster_cidrs: vec![],
            service_cidrs: vec![],
            node_ip: Some(ip(NODES[node])),
            addresses: vec![],
            state_file: self.folder.join(format!("{node}.json")),
        };
        let other = 1 - node;
        let peer = Peer {
            addresses: vec![ip(NODES[other])],
            pod_cidrs: CIDRS[other].map(|cidr| cidr.parse().unwrap()).into(),
        };
        let netns = self.pods[node].path.clone();
        self.hosts[node].block_on(async move || {
            let network = PodNetwork::start(config).await.unwrap();
            network.set_peers(vec![peer.clone()]).await.unwrap();
            network.set_peers(vec![peer]).await.unwrap();
            let request = Attach {
                sandbox_id: "pod".into(),
                netns,
                host_ports: vec![],
                bandwidth: Bandwidth::default(),
            };
            let addresses = network.attach(request).await.unwrap();
            (network, addresses)
        })
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

const NODES: [&str; 2] = ["192.0.2.1", "192.0.2.2"];
const CIDRS: [[&str; 2]; 2] = [["10.42.0.0/24", "fd00:42:0::/64"], ["10.42.1.0/24", "fd00:42:1::/64"]];

fn join(
    left: &Namespace,
    left_name: &str,
    left_ip: &str,
    right: &Namespace,
    right_name: &str,
    right_ip: &str,
    network: &str,
) {
    let namespace = netns::open(&right.path).unwrap();
    let tail: u8 = right_name.bytes().fold(0, u8::wrapping_add);
    let veth = crate::link::Veth {
        host_name: left_name,
        host_mac: [2, 0, 0, 0, 1, tail],
        pod_name: right_name,
        pod_mac: [2, 0, 0, 0, 2, tail],
        mtu: 1500,
        pod_namespace: std::os::fd::AsFd::as_fd(&namespace),
    };
    left.links().add_veth(&veth).unwrap();
    for (side, name, own) in [(left, left_name, left_ip), (right, right_name, right_ip)] {
        let mut links = side.links();
        let link = links.find(name).unwrap().unwrap();
        links.set_up(link.index, None).unwrap();
        links.add_address(link.index, ip(own)).unwrap();
        let destination = network.parse().unwrap();
        let route = crate::link::Route { destination, link: link.index, gateway: None, source: None };
        links.replace_route(&route).unwrap();
    }
}

fn pods_of_two_nodes_talk(name: &str, routed: bool) {
    let pair = Pair::new(name, routed);
    let (first, second) = (pair.start(0), pair.start(1));
    let tunnel = Names::of("test").tunnel();
    for family in 0..2 {
        pair.pods[1].serve_tcp(second.1[family], 80, "second");
        let to = SocketAddr::new(second.1[family], 80);
        let seen = pair.pods[0].ask_tcp(to).unwrap();
        assert_eq!(seen, (first.1[family], "second".into()), "under the pod's own address");
        assert_eq!(pair.hosts[0].ask_tcp(to).unwrap().1, "second", "from the node itself");
    }
    let way = pair.hosts[0].links().way_to(second.1[0]).unwrap().unwrap();
    let through = pair.hosts[0].links().find(&tunnel).unwrap().unwrap().index;
    assert_eq!(way.link == through, routed);
    let network = first.0;
    pair.hosts[0].block_on(async move || network.set_peers(vec![]).await.unwrap());
    assert_ne!(pair.hosts[0].links().way_to(second.1[0]).unwrap(), Some(way), "a node that is gone");
    let state = pair.folder.join("1.json");
    pair.hosts[1].run(move || teardown("test", &state).unwrap());
    assert_eq!(pair.hosts[1].links().find(&tunnel).unwrap(), None);
    let way = pair.hosts[1].links().way_to(first.1[0]).unwrap();
    assert_eq!(way.map(|way| way.gateway), routed.then_some(true), "only the default route is left");
}

#[test]
fn pods_reach_another_nodes_directly_on_a_common_network() {
    pods_of_two_nodes_talk("direct", false);
}

#[test]
fn pods_reach_another_nodes_through_a_tunnel_across_a_router() {
    pods_of_two_nodes_talk("tunnel", true);
}

#[test]
fn bandwidth_annotations_slow_a_pod_down() {
    const BITS: u64 = 8_000_000;
    const BYTES: usize = 600_000;
    let world = World::new("bandwidth");
    let network = world.start();
    let netns = world.pods[0].path.clone();
    let bandwidth = Bandwidth { ingress: Some(BITS), egress: Some(BITS) };
    let request = Attach { sandbox_id: "slow".into(), netns, host_ports: vec![], bandwidth };
    let pod = world.host.block_on(async move || network.attach(request).await.unwrap())[0];
    let listener = world.pods[0].run(move || std::net::TcpListener::bind((pod, 80)).unwrap());
    let to = SocketAddr::new(pod, 80);
    let connect = move || std::net::TcpStream::connect_timeout(&to, crate::testing::PATIENCE).unwrap();
    let client = world.host.run(connect);
    let (server, _) = listener.accept().unwrap();
    for (from, to) in [(&client, &server), (&server, &client)] {
        let started = std::time::Instant::now();
        std::thread::scope(|scope| {
            scope.spawn(|| std::io::Write::write_all(&mut &*from, &vec![0; BYTES]).unwrap());
            std::io::Read::read_exact(&mut &*to, &mut vec![0; BYTES]).unwrap();
        });
        // At 1 MB/s, the burst apart, this takes some 0.45 s; unlimited a few milliseconds.
        assert!(started.elapsed() > std::time::Duration::from_millis(250), "{:?}", started.elapsed());
    }
}
