//! A node made of namespaces: the host, two pods to attach, and a machine outside, which the host
//! reaches by its default route.

use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::PathBuf;

use ipnet::IpNet;

use super::{Namespace, ip};
use crate::link::{Route, Veth};
use crate::netlink::{Family, Socket};
use crate::netns;
use crate::nftables::Listing;
use crate::pod_network::{Attach, Config, HostPort, PodNetwork};

pub const HOST: &str = "198.51.100.1";
pub const OUTSIDE: &str = "198.51.100.2";

/// MTU of the link to outside.
pub const MTU: u32 = 1400;

pub struct Node {
    pub host: Namespace,
    pub pods: [Namespace; 2],
    pub outside: Namespace,
    folder: PathBuf,
}

impl Node {
    /// `name` tells apart the tests of one process.
    pub fn new(name: &str) -> Node {
        let folder = std::env::temp_dir().join(format!("coxswain-network-{}-{name}", std::process::id()));
        let node = Node {
            host: Namespace::new(),
            pods: [Namespace::new(), Namespace::new()],
            outside: Namespace::new(),
            folder,
        };
        node.connect_outside();
        node
    }

    pub fn config(&self) -> Config {
        Config {
            cluster: "test".into(),
            pod_cidrs: vec!["10.244.0.0/24".parse().unwrap(), "fd00:244::/64".parse().unwrap()],
            cluster_cidrs: vec!["10.244.0.0/16".parse().unwrap()],
            service_cidrs: vec!["10.96.0.0/16".parse().unwrap(), "fd00:96::/112".parse().unwrap()],
            node_ip: Some(ip(HOST)),
            addresses: vec![],
            state_file: self.folder.join("pods.json"),
        }
    }

    pub fn start(&self) -> PodNetwork {
        let config = self.config();
        self.host.block_on(async move || PodNetwork::start(config).await.expect("the pod network starts"))
    }

    pub fn attach(&self, network: &PodNetwork, pod: usize, host_ports: Vec<HostPort>) -> Vec<IpAddr> {
        let (network, netns) = (network.clone(), self.pods[pod].path.clone());
        let request =
            Attach { sandbox_id: format!("sandbox-{pod}"), netns, host_ports, bandwidth: Default::default() };
        self.host.block_on(async move || network.attach(request).await.expect("the pod is attached"))
    }

    /// What a table of the host holds.
    pub fn listing(&self, table: &'static str) -> Option<Listing> {
        self.host.run(move || {
            let mut socket = Socket::open(Family::Netfilter).unwrap();
            Listing::of(&mut socket, table).unwrap()
        })
    }

    fn connect_outside(&self) {
        let namespace = netns::open(&self.outside.path).unwrap();
        let veth = Veth {
            host_name: "uplink",
            host_mac: [2, 0, 0, 0, 0, 1],
            pod_name: "uplink",
            pod_mac: [2, 0, 0, 0, 0, 2],
            mtu: MTU,
            pod_namespace: namespace.as_fd(),
        };
        self.host.links().add_veth(&veth).unwrap();
        for (side, own, other) in [(&self.host, HOST, OUTSIDE), (&self.outside, OUTSIDE, HOST)] {
            let mut links = side.links();
            let link = links.find("uplink").unwrap().unwrap();
            links.set_up(link.index, None).unwrap();
            links.add_address(link.index, ip(own)).unwrap();
            let destination = IpNet::from(ip(other));
            links
                .replace_route(&Route { destination, link: link.index, gateway: None, source: None })
                .unwrap();
        }
        let mut links = self.host.links();
        let link = links.find("uplink").unwrap().unwrap().index;
        let destination = "0.0.0.0/0".parse().unwrap();
        links.replace_route(&Route { destination, link, gateway: Some(ip(OUTSIDE)), source: None }).unwrap();
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.folder).ok();
    }
}
