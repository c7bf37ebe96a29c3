//! The links themselves: the host's link with the gateway address, and a veth pair per pod.

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::Path;

use ipnet::IpNet;

use super::{Bandwidth, Config, Error};
use crate::link::{Link, Links, Mac, Route, Veth};
use crate::names::Names;
use crate::{ipam, netns, sysctl};

/// The pod's interface.
const POD_LINK: &str = "eth0";

/// Every host end has this hardware address: pods know it, so none ever resolves the gateway. It
/// is locally administered; the two ends of a pair form a network of their own, so it may repeat.
const HOST_MAC: Mac = [0x0a, 0x58, 0xee, 0xee, 0xee, 0xee];

/// One pod's connection.
pub(super) struct Pair<'a> {
    pub host_name: &'a str,
    pub alias: &'a str,
    pub netns: &'a Path,
    pub mtu: u32,
    /// One address per gateway, of the same family.
    pub addresses: &'a [IpAddr],
    pub gateways: &'a [IpAddr],
    pub bandwidth: Bandwidth,
    pub has_host_ports: bool,
}

/// Lets the host forward for its pods.
pub(super) fn set_sysctls(config: &Config, previous: &mut sysctl::Previous) -> Result<(), sysctl::Error> {
    sysctl::set("net/ipv4/ip_forward", "1", previous)?;
    if config.pod_cidrs.iter().any(|cidr| cidr.addr().is_ipv6()) {
        sysctl::set("net/ipv6/conf/all/forwarding", "1", previous)?;
    }
    Ok(())
}

/// How long connections are remembered that are idle, and such that one side has closed: as long as upstream's proxy has
/// it, so that a side that takes its time can still send (kube-proxy's `--conntrack-tcp-timeout-*`).
const TRACKING_SECONDS: [(&str, u64); 2] = [
    ("net/netfilter/nf_conntrack_tcp_timeout_established", 24 * 60 * 60),
    ("net/netfilter/nf_conntrack_tcp_timeout_close_wait", 60 * 60),
];
/// How many at least (kube-proxy's `--conntrack-max-per-core` and `--conntrack-min`).
const TRACKED_MAX: &str = "net/netfilter/nf_conntrack_max";
const TRACKED_PER_CORE: u64 = 32 * 1024;
const TRACKED_MIN: u64 = 128 * 1024;

/// Makes connection tracking fit for a node. Its size belongs to the machine: elsewhere it cannot be changed.
pub(super) fn set_tracking(previous: &mut sysctl::Previous) -> Result<(), sysctl::Error> {
    for (key, seconds) in TRACKING_SECONDS {
        sysctl::set(key, &seconds.to_string(), previous)?;
    }
    let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
    let wanted = (TRACKED_PER_CORE * cores).max(TRACKED_MIN);
    if let Err(error) = sysctl::raise(TRACKED_MAX, wanted, previous) {
        tracing::warn!(%error, "fewer connections can be tracked than a node should");
    }
    Ok(())
}

/// The host's link: gateway and other addresses, and the way to services for the host itself.
pub(super) fn set_up(links: &mut Links, names: &Names, config: &Config) -> Result<(), Error> {
    let name = names.host_link();
    links.add_bridge(&name)?;
    let link = found(links, &name)?;
    links.set_up(link.index, None)?;
    let gateways: Vec<IpAddr> = config.pod_cidrs.iter().map(|cidr| ipam::gateway(*cidr)).collect();
    for address in gateways.iter().chain(&config.addresses) {
        links.add_address(link.index, *address)?;
    }
    for destination in &config.service_cidrs {
        let source =
            gateways.iter().find(|gateway| gateway.is_ipv4() == destination.addr().is_ipv4()).copied();
        links.replace_route(&Route { destination: *destination, link: link.index, gateway: None, source })?;
    }
    Ok(())
}

/// The host ends of the cluster's pods, of earlier processes too.
pub(super) fn veths(links: &mut Links, names: &Names) -> Result<HashSet<String>, Error> {
    let prefix = names.veth_alias_prefix();
    Ok(links
        .list()?
        .into_iter()
        .filter(|link| link.alias.starts_with(&prefix))
        .map(|link| link.name)
        .collect())
}

/// Creates the pair, the pod's end directly in its namespace, and routes both ways.
pub(super) fn connect(links: &mut Links, pair: &Pair<'_>) -> Result<(), Error> {
    let namespace = netns::open(pair.netns)?;
    let pod_mac = mac_of(pair.addresses.first().copied());
    links.add_veth(&Veth {
        host_name: pair.host_name,
        host_mac: HOST_MAC,
        pod_name: POD_LINK,
        pod_mac,
        mtu: pair.mtu,
        pod_namespace: namespace.as_fd(),
    })?;
    let host = found(links, pair.host_name)?;
    links.set_up(host.index, Some(pair.alias))?;
    if let Some(rate) = pair.bandwidth.ingress {
        links.limit_rate(host.index, rate)?;
    }
    configure_pod(&mut Links::new(netns::route_socket(pair.netns)?), pair)?;
    if pair.has_host_ports && pair.addresses.iter().any(IpAddr::is_ipv4) {
        // What is sent to a host port on a loopback address leaves by this link, and its answers come back by it.
        sysctl::write(&format!("net/ipv4/conf/{}/route_localnet", pair.host_name), "1")?;
    }
    for (address, gateway) in pair.addresses.iter().zip(pair.gateways) {
        let destination = IpNet::from(*address);
        links.replace_neighbour(host.index, *address, pod_mac)?;
        links.replace_route(&Route {
            destination,
            link: host.index,
            gateway: None,
            source: Some(*gateway),
        })?;
    }
    Ok(())
}

fn configure_pod(links: &mut Links, pair: &Pair<'_>) -> Result<(), Error> {
    let loopback = found(links, "lo")?;
    links.set_up(loopback.index, None)?;
    let link = found(links, POD_LINK)?;
    links.set_up(link.index, None)?;
    // At the pod's own end, where what waits holds nobody else up; undoing it takes rights over the
    // network that containers have only when they are given them.
    if let Some(rate) = pair.bandwidth.egress {
        links.limit_rate(link.index, rate)?;
    }
    for (address, gateway) in pair.addresses.iter().zip(pair.gateways) {
        links.add_address(link.index, *address)?;
        links.replace_neighbour(link.index, *gateway, HOST_MAC)?;
        let everywhere = IpNet::new_assert(unspecified(*gateway), 0);
        links.replace_route(&Route {
            destination: everywhere,
            link: link.index,
            gateway: Some(*gateway),
            source: None,
        })?;
    }
    Ok(())
}

fn found(links: &mut Links, name: &str) -> Result<Link, Error> {
    links.find(name)?.ok_or_else(|| Error::Vanished { name: name.into() })
}

fn unspecified(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A locally administered address ending in the pod's own address.
pub(super) fn mac_of(address: Option<IpAddr>) -> Mac {
    let tail = match address {
        Some(IpAddr::V4(v4)) => v4.octets(),
        Some(IpAddr::V6(v6)) => {
            let octets = v6.octets();
            [octets[12], octets[13], octets[14], octets[15]]
        }
        None => [0; 4],
    };
    [0x0a, 0x58, tail[0], tail[1], tail[2], tail[3]]
}
