//! The ways to other nodes' pods: a route to each node's pod CIDRs, directly where the node is on a
//! common network, through a VXLAN tunnel otherwise. Nodes agree on all of it without talking: the
//! tunnel's hardware addresses come from the nodes' addresses, its number from the pods' network.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::host::mac_of;
use super::{Config, Error};
use crate::ipam;
use crate::link::{Links, Route, Tunnel, Way};
use crate::names::Names;

/// UDP port of tunnels, the kernel's own default.
const TUNNEL_PORT: u16 = 8472;

/// What VXLAN puts around a packet, with IPv4 and with IPv6.
const OVERHEAD_V4: u32 = 50;
const OVERHEAD_V6: u32 = 70;

/// Network whose address gives the tunnel its number where the cluster's is not known.
const CLUSTER_PREFIX_LEN: u8 = 16;

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `InternalIP`s, the primary one first.
    pub addresses: Vec<IpAddr>,
    pub pod_cidrs: Vec<IpNet>,
}

/// How a node's pods are reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Hop {
    /// The node is on the link.
    Direct {
        node: IpAddr,
        link: u32,
    },
    Tunnel {
        node: IpAddr,
    },
}

/// Decides the way to every peer's pods; `way` says how this host sends to an address.
pub(super) fn plan(peers: &[Peer], mut way: impl FnMut(IpAddr) -> Option<Way>) -> BTreeMap<IpNet, Hop> {
    let mut hops = BTreeMap::new();
    for peer in peers {
        let Some(primary) = peer.addresses.first() else { continue };
        for cidr in &peer.pod_cidrs {
            let same_family = peer.addresses.iter().find(|ip| ip.is_ipv4() == cidr.addr().is_ipv4());
            let on_link = same_family.and_then(|node| Some((*node, way(*node).filter(|way| !way.gateway)?)));
            let hop = match on_link {
                Some((node, way)) => Hop::Direct { node, link: way.link },
                None => Hop::Tunnel { node: *primary },
            };
            hops.insert(*cidr, hop);
        }
    }
    hops
}

/// Whether the kernel sends to every peer's pods by the link that was decided.
pub(super) fn in_place(
    links: &mut Links,
    names: &Names,
    desired: &BTreeMap<IpNet, Hop>,
) -> Result<bool, Error> {
    let tunnel = links.find(&names.tunnel())?.map(|link| link.index);
    let routes = links.routes()?;
    Ok(desired.iter().all(|(cidr, hop)| {
        let link = match hop {
            Hop::Direct { link, .. } => Some(*link),
            Hop::Tunnel { .. } => tunnel,
        };
        link.is_some_and(|link| routes.contains(&(*cidr, link)))
    }))
}

/// Makes the kernel's routes `desired`, given those we made before.
pub(super) fn apply(
    links: &mut Links,
    names: &Names,
    config: &Config,
    mtu: u32,
    present: &BTreeMap<IpNet, Hop>,
    desired: &BTreeMap<IpNet, Hop>,
) -> Result<(), Error> {
    for gone in present.keys().filter(|cidr| !desired.contains_key(*cidr)) {
        links.delete_route(*gone)?;
    }
    // Others may need the tunnel to reach us even where we need none.
    let tunnel = match config.node_ip.filter(|_| !desired.is_empty()) {
        Some(local) => Some(tunnel(links, names, config, mtu, local)?),
        None => None,
    };
    for (cidr, hop) in desired {
        let source = config.pod_cidrs.iter().find(|own| own.addr().is_ipv4() == cidr.addr().is_ipv4());
        let source = source.map(|own| ipam::gateway(*own));
        let (link, gateway) = match hop {
            Hop::Direct { node, link } => (*link, *node),
            Hop::Tunnel { node } => {
                let Some(link) = tunnel else { continue };
                let (mac, gateway) = (mac_of(Some(*node)), ipam::gateway(*cidr));
                links.replace_forwarding(link, mac, *node)?;
                links.replace_neighbour(link, gateway, mac)?;
                (link, gateway)
            }
        };
        links.replace_route(&Route { destination: *cidr, link, gateway: Some(gateway), source })?;
    }
    Ok(())
}

/// The tunnel's link, made when first needed.
fn tunnel(links: &mut Links, names: &Names, config: &Config, mtu: u32, local: IpAddr) -> Result<u32, Error> {
    let name = names.tunnel();
    if let Some(link) = links.find(&name)? {
        return Ok(link.index);
    }
    let overhead = if local.is_ipv4() { OVERHEAD_V4 } else { OVERHEAD_V6 };
    links.add_tunnel(&Tunnel {
        name: &name,
        id: tunnel_id(config),
        mac: mac_of(Some(local)),
        mtu: mtu.saturating_sub(overhead),
        local,
        port: TUNNEL_PORT,
    })?;
    let link = links.find(&name)?.ok_or(Error::Vanished { name })?;
    links.set_up(link.index, None)?;
    Ok(link.index)
}

/// The same on every node of a cluster, most likely another in another cluster on the machine.
fn tunnel_id(config: &Config) -> u32 {
    let of_pods = config.pod_cidrs.first().map(|cidr| {
        let len = CLUSTER_PREFIX_LEN.min(cidr.prefix_len());
        IpNet::new(cidr.addr(), len).expect("no longer than the CIDR's own").trunc()
    });
    match config.cluster_cidrs.first().copied().or(of_pods).map(|network| network.network()) {
        // The upper 24 bits of an IPv4 network: where clusters on a machine differ.
        Some(IpAddr::V4(network)) => (u32::from(network) >> 8).max(1),
        Some(IpAddr::V6(network)) => ((u128::from(network) >> 64) as u32 & 0xff_ffff).max(1),
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ip;

    fn net(text: &str) -> IpNet {
        text.parse().expect("a network")
    }

    #[test]
    fn a_node_on_the_link_is_reached_directly_and_others_through_the_tunnel() {
        let peer = |addresses: &[&str], cidrs: &[&str]| Peer {
            addresses: addresses.iter().map(|address| ip(address)).collect(),
            pod_cidrs: cidrs.iter().map(|cidr| net(cidr)).collect(),
        };
        let peers = [
            peer(&["192.0.2.2"], &["10.42.1.0/24", "fd00:1::/64"]),
            peer(&["198.51.100.2"], &["10.42.2.0/24"]),
            peer(&["203.0.113.2"], &["10.42.3.0/24"]),
            peer(&[], &["10.42.4.0/24"]),
        ];
        let way = |to: IpAddr| match to.to_string().as_str() {
            "192.0.2.2" => Some(Way { link: 7, gateway: false }),
            "198.51.100.2" => Some(Way { link: 7, gateway: true }),
            _ => None,
        };
        let expected = BTreeMap::from([
            (net("10.42.1.0/24"), Hop::Direct { node: ip("192.0.2.2"), link: 7 }),
            (net("10.42.2.0/24"), Hop::Tunnel { node: ip("198.51.100.2") }),
            (net("10.42.3.0/24"), Hop::Tunnel { node: ip("203.0.113.2") }),
            (net("fd00:1::/64"), Hop::Tunnel { node: ip("192.0.2.2") }),
        ]);
        assert_eq!(plan(&peers, way), expected);
    }
}
