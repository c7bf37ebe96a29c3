//! The rtnetlink messages themselves (`linux/rtnetlink.h`, `if_link.h`, `neighbour.h`).

use std::net::IpAddr;
use std::os::fd::AsRawFd;

use ipnet::IpNet;

use super::{Mac, Route, Tunnel, Veth, Way};
use crate::netlink::{Attributes, Message, Reply};

/// Lengths of `ifinfomsg` and `rtmsg`.
pub(super) const LINK_HEADER_LEN: usize = 16;
const ROUTE_HEADER_LEN: usize = 12;

/// `IFLA_INFO_KIND` and `IFLA_INFO_DATA`, inside `IFLA_LINKINFO`.
const INFO_KIND: u16 = 1;
const INFO_DATA: u16 = 2;

/// `VETH_INFO_PEER`: `ifinfomsg` and attributes of the other end.
const VETH_INFO_PEER: u16 = 1;

/// `NUD_PERMANENT`.
const NEIGHBOUR_PERMANENT: u16 = 0x80;

/// `NDA_DST` and `NDA_LLADDR`.
const NEIGHBOUR_DESTINATION: u16 = 1;
const NEIGHBOUR_MAC: u16 = 2;

/// `NTF_SELF`: the link's own forwarding table, not that of a bridge it may be a port of.
const NEIGHBOUR_SELF: u8 = 2;

/// `IFLA_VXLAN_*`.
const VXLAN_ID: u16 = 1;
const VXLAN_LOCAL: u16 = 4;
const VXLAN_LEARNING: u16 = 7;
const VXLAN_PORT: u16 = 15;
const VXLAN_LOCAL6: u16 = 17;

/// `RTA_VIA`: a next hop of the other family.
const RTA_VIA: u16 = 18;

/// `TC_H_ROOT`, `TCA_KIND`, `TCA_OPTIONS`, `TCA_TBF_*` and `TC_LINKLAYER_ETHERNET`.
const QDISC_ROOT: u32 = 0xffff_ffff;
const QDISC_KIND: u16 = 1;
const QDISC_OPTIONS: u16 = 2;
const TBF_PARAMETERS: u16 = 1;
const TBF_RATE64: u16 = 4;
const TBF_BURST: u16 = 6;
const LINK_LAYER_ETHERNET: u8 = 1;

/// `RTNH_F_ONLINK`: take the gateway to be on the link without a route to it.
const ROUTE_ONLINK: u32 = 4;

/// `RTPROT_STATIC`: marks a route as an administrator's, which routing daemons leave alone.
const ROUTE_PROTOCOL_STATIC: u8 = 4;

const CREATE: i32 = libc::NLM_F_CREATE | libc::NLM_F_EXCL;
const REPLACE: i32 = libc::NLM_F_CREATE | libc::NLM_F_REPLACE;

pub(super) fn get_link(name: &str) -> Message {
    let mut message = Message::new(libc::RTM_GETLINK, 0);
    message.header(&link_header(0, 0)).text(libc::IFLA_IFNAME, name);
    message
}

pub(super) fn list_links() -> Message {
    let mut message = Message::new(libc::RTM_GETLINK, 0);
    message.header(&link_header(0, 0));
    message
}

pub(super) fn add_bridge(name: &str) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, CREATE as u16);
    message.header(&link_header(0, 0)).text(libc::IFLA_IFNAME, name);
    message.nest(libc::IFLA_LINKINFO, |info| {
        info.text(INFO_KIND, "bridge");
    });
    message
}

pub(super) fn add_veth(veth: &Veth<'_>) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, CREATE as u16);
    message.header(&link_header(0, 0)).text(libc::IFLA_IFNAME, veth.host_name);
    message.bytes(libc::IFLA_ADDRESS, &veth.host_mac).u32(libc::IFLA_MTU, veth.mtu);
    message.nest(libc::IFLA_LINKINFO, |info| {
        info.text(INFO_KIND, "veth").nest(INFO_DATA, |data| {
            data.nest(VETH_INFO_PEER, |peer| {
                peer.header(&link_header(0, 0)).text(libc::IFLA_IFNAME, veth.pod_name);
                peer.bytes(libc::IFLA_ADDRESS, &veth.pod_mac).u32(libc::IFLA_MTU, veth.mtu);
                peer.u32(libc::IFLA_NET_NS_FD, veth.pod_namespace.as_raw_fd() as u32);
            });
        });
    });
    message
}

pub(super) fn add_tunnel(tunnel: &Tunnel<'_>) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, CREATE as u16);
    message.header(&link_header(0, 0)).text(libc::IFLA_IFNAME, tunnel.name);
    message.bytes(libc::IFLA_ADDRESS, &tunnel.mac).u32(libc::IFLA_MTU, tunnel.mtu);
    message.nest(libc::IFLA_LINKINFO, |info| {
        info.text(INFO_KIND, "vxlan").nest(INFO_DATA, |data| {
            let local = if tunnel.local.is_ipv4() { VXLAN_LOCAL } else { VXLAN_LOCAL6 };
            data.u32(VXLAN_ID, tunnel.id).bytes(local, &octets(tunnel.local)).u8(VXLAN_LEARNING, 0);
            data.bytes(VXLAN_PORT, &tunnel.port.to_be_bytes());
        });
    });
    message
}

/// Frames for the hardware address go to the node, through the tunnel.
pub(super) fn replace_forwarding(index: u32, mac: Mac, node: IpAddr) -> Message {
    let mut header = vec![libc::AF_BRIDGE as u8, 0, 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    header.extend_from_slice(&NEIGHBOUR_PERMANENT.to_ne_bytes());
    header.extend_from_slice(&[NEIGHBOUR_SELF, 0]);
    let mut message = Message::new(libc::RTM_NEWNEIGH, REPLACE as u16);
    message.header(&header).bytes(NEIGHBOUR_DESTINATION, &octets(node)).bytes(NEIGHBOUR_MAC, &mac);
    message
}

/// A token bucket in front of the link, of so many bytes; `limit` of what does not fit wait.
pub(super) fn limit_rate(index: u32, bytes_per_second: u64, burst: u32, limit: u32) -> Message {
    let mut header = vec![libc::AF_UNSPEC as u8, 0, 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    header.extend_from_slice(&0u32.to_ne_bytes());
    header.extend_from_slice(&QDISC_ROOT.to_ne_bytes());
    header.extend_from_slice(&0u32.to_ne_bytes());
    // `tc_tbf_qopt`: two rates, of which the second (peak) is absent, then limit, buffer and MTU.
    let rate = u32::try_from(bytes_per_second).unwrap_or(u32::MAX);
    let mut options = vec![0, LINK_LAYER_ETHERNET, 0, 0, 0, 0, 0, 0];
    options.extend_from_slice(&rate.to_ne_bytes());
    options.extend_from_slice(&[0; 12]);
    options.extend_from_slice(&limit.to_ne_bytes());
    options.extend_from_slice(&[0; 8]);
    let mut message = Message::new(libc::RTM_NEWQDISC, REPLACE as u16);
    message.header(&header).text(QDISC_KIND, "tbf").nest(QDISC_OPTIONS, |nested| {
        nested.bytes(TBF_PARAMETERS, &options).u32(TBF_BURST, burst);
        nested.bytes(TBF_RATE64, &bytes_per_second.to_ne_bytes());
    });
    message
}

/// Asks by which route a packet to the address would go.
pub(super) fn get_route(to: IpAddr) -> Message {
    let mut header = [0; ROUTE_HEADER_LEN];
    (header[0], header[1]) = (family(to), prefix_len(to));
    let mut message = Message::new(libc::RTM_GETROUTE, 0);
    message.header(&header).bytes(libc::RTA_DST, &octets(to));
    message
}

/// The link and the next hop of the answer; `None` where it leads nowhere, or to this host itself.
pub(super) fn parse_way(reply: &Reply) -> Option<Way> {
    let header = reply.body.get(..ROUTE_HEADER_LEN)?;
    let attributes = Attributes(&reply.body[ROUTE_HEADER_LEN..]);
    let link = u32::from_ne_bytes(attributes.find(libc::RTA_OIF)?.try_into().ok()?);
    let gateway = attributes.find(libc::RTA_GATEWAY).or_else(|| attributes.find(RTA_VIA)).is_some();
    (header[7] == libc::RTN_UNICAST).then_some(Way { link, gateway })
}

/// Destination and link of a route in the main table; `None` for others, and for default routes.
pub(super) fn parse_route(reply: &Reply) -> Option<(IpNet, u32)> {
    let header = reply.body.get(..ROUTE_HEADER_LEN)?;
    let attributes = Attributes(&reply.body[ROUTE_HEADER_LEN..]);
    let link = u32::from_ne_bytes(attributes.find(libc::RTA_OIF)?.try_into().ok()?);
    let destination = attributes.find(libc::RTA_DST)?;
    let address = match <[u8; 4]>::try_from(destination) {
        Ok(octets) => IpAddr::from(octets),
        Err(_) => IpAddr::from(<[u8; 16]>::try_from(destination).ok()?),
    };
    (header[4] == libc::RT_TABLE_MAIN).then_some((IpNet::new(address, header[1]).ok()?, link))
}

pub(super) fn delete_route(destination: IpNet) -> Message {
    let network = destination.network();
    let mut header = vec![family(network), destination.prefix_len(), 0, 0];
    header.extend_from_slice(&[libc::RT_TABLE_MAIN, ROUTE_PROTOCOL_STATIC, libc::RT_SCOPE_NOWHERE, 0]);
    header.extend_from_slice(&0u32.to_ne_bytes());
    let mut message = Message::new(libc::RTM_DELROUTE, 0);
    message.header(&header).bytes(libc::RTA_DST, &octets(network));
    message
}

pub(super) fn set_up(index: u32, alias: Option<&str>) -> Message {
    let mut message = Message::new(libc::RTM_NEWLINK, 0);
    message.header(&link_header(index, libc::IFF_UP as u32));
    if let Some(alias) = alias {
        message.text(libc::IFLA_IFALIAS, alias);
    }
    message
}

pub(super) fn delete_link(name: &str) -> Message {
    let mut message = Message::new(libc::RTM_DELLINK, 0);
    message.header(&link_header(0, 0)).text(libc::IFLA_IFNAME, name);
    message
}

/// The address alone on the link: /32, or /128 without duplicate detection, which would delay it.
pub(super) fn add_address(index: u32, address: IpAddr) -> Message {
    let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
    let mut header = vec![family(address), prefix_len(address), flags, libc::RT_SCOPE_UNIVERSE];
    header.extend_from_slice(&index.to_ne_bytes());
    let mut message = Message::new(libc::RTM_NEWADDR, CREATE as u16);
    message
        .header(&header)
        .bytes(libc::IFA_LOCAL, &octets(address))
        .bytes(libc::IFA_ADDRESS, &octets(address));
    message
}

pub(super) fn replace_route(route: &Route) -> Message {
    let destination = route.destination.network();
    let scope = if route.gateway.is_some() || destination.is_ipv6() {
        libc::RT_SCOPE_UNIVERSE
    } else {
        libc::RT_SCOPE_LINK
    };
    let mut header = vec![family(destination), route.destination.prefix_len(), 0, 0];
    header.extend_from_slice(&[libc::RT_TABLE_MAIN, ROUTE_PROTOCOL_STATIC, scope, libc::RTN_UNICAST]);
    let flags = if route.gateway.is_some() { ROUTE_ONLINK } else { 0 };
    header.extend_from_slice(&flags.to_ne_bytes());
    let mut message = Message::new(libc::RTM_NEWROUTE, REPLACE as u16);
    message.header(&header).u32(libc::RTA_OIF, route.link);
    if route.destination.prefix_len() > 0 {
        message.bytes(libc::RTA_DST, &octets(destination));
    }
    if let Some(gateway) = route.gateway {
        message.bytes(libc::RTA_GATEWAY, &octets(gateway));
    }
    if let Some(source) = route.source {
        message.bytes(libc::RTA_PREFSRC, &octets(source));
    }
    message
}

pub(super) fn replace_neighbour(index: u32, address: IpAddr, mac: Mac) -> Message {
    let mut header = vec![family(address), 0, 0, 0];
    header.extend_from_slice(&index.to_ne_bytes());
    header.extend_from_slice(&NEIGHBOUR_PERMANENT.to_ne_bytes());
    header.extend_from_slice(&[0, libc::RTN_UNICAST]);
    let mut message = Message::new(libc::RTM_NEWNEIGH, REPLACE as u16);
    message.header(&header).bytes(NEIGHBOUR_DESTINATION, &octets(address)).bytes(NEIGHBOUR_MAC, &mac);
    message
}

pub(super) fn list_routes(family: i32) -> Message {
    let mut header = [0; ROUTE_HEADER_LEN];
    header[0] = family as u8;
    let mut message = Message::new(libc::RTM_GETROUTE, 0);
    message.header(&header);
    message
}

/// The link of a default route in the main table.
pub(super) fn default_route_link(reply: &Reply) -> Option<u32> {
    let header = reply.body.get(..ROUTE_HEADER_LEN)?;
    let is_default = header[1] == 0 && header[4] == libc::RT_TABLE_MAIN && header[7] == libc::RTN_UNICAST;
    let link = Attributes(&reply.body[ROUTE_HEADER_LEN..]).find(libc::RTA_OIF)?;
    is_default.then_some(u32::from_ne_bytes(link.try_into().ok()?))
}

fn link_header(index: u32, flags: u32) -> [u8; LINK_HEADER_LEN] {
    let mut header = [0; LINK_HEADER_LEN];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..16].copy_from_slice(&flags.to_ne_bytes());
    header
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => libc::AF_INET as u8,
        IpAddr::V6(_) => libc::AF_INET6 as u8,
    }
}

fn prefix_len(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
