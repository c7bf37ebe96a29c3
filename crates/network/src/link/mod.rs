//! Links, addresses, routes and neighbours over rtnetlink: the dozen requests a routed pod network
//! needs. Every `add` succeeds when the thing is there already, every `delete` when it is gone.

mod request;
mod watch;

use std::collections::HashSet;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ipnet::IpNet;
use nix::errno::Errno;

pub use watch::RouteChanges;

use crate::netlink::{Attributes, Error, Reply, Socket, text};

/// Used where no default route tells better.
pub const DEFAULT_MTU: u32 = 1500;

/// The largest a veth takes: the kernel's `ETH_MAX_MTU`. Loopback has one more.
pub const VETH_MTU_MAX: u32 = 65_535;

/// What may pass a rate limit at once: this long at the rate, and at least the largest packet.
const BURST_MS: u64 = 50;
const BURST_BYTES_MIN: u32 = 128 * 1024;

/// How long a packet may wait for its turn, as in the bandwidth plugin.
const LATENCY_MS: u64 = 25;

/// A hardware address.
pub type Mac = [u8; 6];

/// A link as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    pub index: u32,
    pub name: String,
    pub mtu: u32,
    pub alias: String,
}

/// The pair of links that joins a pod with the host.
#[derive(Clone, Copy, Debug)]
pub struct Veth<'a> {
    pub host_name: &'a str,
    pub host_mac: Mac,
    pub pod_name: &'a str,
    pub pod_mac: Mac,
    pub mtu: u32,
    /// Where the pod's end is created.
    pub pod_namespace: BorrowedFd<'a>,
}

/// A VXLAN link, whose frames go to the nodes that its forwarding table names.
#[derive(Clone, Copy, Debug)]
pub struct Tunnel<'a> {
    pub name: &'a str,
    pub id: u32,
    pub mac: Mac,
    pub mtu: u32,
    /// The address of this node from which it sends.
    pub local: IpAddr,
    /// UDP port of both sides.
    pub port: u16,
}

/// How this host would send to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    pub link: u32,
    /// Through a router; otherwise the address is on the link.
    pub gateway: bool,
}

/// Where packets for a network go.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub destination: IpNet,
    pub link: u32,
    /// Next hop, taken to be on the link; `None` if the destination itself is.
    pub gateway: Option<IpAddr>,
    /// Source address of what the host itself sends there.
    pub source: Option<IpAddr>,
}

/// Requests about links of the namespace that the socket belongs to.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
}

impl Links {
    pub fn new(socket: Socket) -> Links {
        Links { socket }
    }

    /// Starts listening for changes of routes that others than this make.
    pub fn route_changes(&self) -> Result<RouteChanges, Error> {
        RouteChanges::open(self.socket.port())
    }

    pub fn find(&mut self, name: &str) -> Result<Option<Link>, Error> {
        match self.socket.get(&format!("get link {name}"), request::get_link(name)) {
            Ok(reply) => Ok(parse_link(&reply)),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn list(&mut self) -> Result<Vec<Link>, Error> {
        let replies = self.socket.dump("list links", &request::list_links())?;
        Ok(replies.iter().filter_map(parse_link).collect())
    }

    /// A bridge without ports stands in for a dummy link, which not every kernel has.
    pub fn add_bridge(&mut self, name: &str) -> Result<(), Error> {
        present(self.socket.request(&format!("add bridge {name}"), request::add_bridge(name)))
    }

    pub fn add_veth(&mut self, veth: &Veth<'_>) -> Result<(), Error> {
        self.socket.request(&format!("add veth {}", veth.host_name), request::add_veth(veth))
    }

    /// Brings a link up, and gives it an alias.
    pub fn set_up(&mut self, index: u32, alias: Option<&str>) -> Result<(), Error> {
        self.socket.request(&format!("set link {index} up"), request::set_up(index, alias))
    }

    pub fn delete(&mut self, name: &str) -> Result<(), Error> {
        absent(self.socket.request(&format!("delete link {name}"), request::delete_link(name)))
    }

    pub fn add_address(&mut self, index: u32, address: IpAddr) -> Result<(), Error> {
        let operation = format!("add address {address} to link {index}");
        present(self.socket.request(&operation, request::add_address(index, address)))
    }

    /// Adds the route, or replaces the one to the same destination.
    pub fn replace_route(&mut self, route: &Route) -> Result<(), Error> {
        let operation = format!("add route to {} through link {}", route.destination, route.link);
        self.socket.request(&operation, request::replace_route(route))
    }

    /// A permanent neighbour: no address resolution takes place for it.
    pub fn replace_neighbour(&mut self, index: u32, address: IpAddr, mac: Mac) -> Result<(), Error> {
        let operation = format!("add neighbour {address} on link {index}");
        self.socket.request(&operation, request::replace_neighbour(index, address, mac))
    }

    /// A route that is gone already is no error.
    pub fn delete_route(&mut self, destination: IpNet) -> Result<(), Error> {
        absent(self.delete_present_route(destination))
    }

    /// One that is gone already is an error.
    pub fn delete_present_route(&mut self, destination: IpNet) -> Result<(), Error> {
        let operation = format!("delete route to {destination}");
        self.socket.request(&operation, request::delete_route(destination))
    }

    /// Destinations of the main table, the default ones apart, each with its link.
    pub fn routes(&mut self) -> Result<HashSet<(IpNet, u32)>, Error> {
        let mut routes = HashSet::new();
        for family in [libc::AF_INET, libc::AF_INET6] {
            let replies = self.socket.dump("list routes", &request::list_routes(family))?;
            routes.extend(replies.iter().filter_map(request::parse_route));
        }
        Ok(routes)
    }

    /// How a packet to the address would go; `None` where it would go nowhere.
    pub fn way_to(&mut self, address: IpAddr) -> Result<Option<Way>, Error> {
        match self.socket.get(&format!("find the route to {address}"), request::get_route(address)) {
            Ok(reply) => Ok(request::parse_way(&reply)),
            Err(Error::Refused { errno: Errno::ENETUNREACH | Errno::EHOSTUNREACH, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn add_tunnel(&mut self, tunnel: &Tunnel<'_>) -> Result<(), Error> {
        self.socket.request(&format!("add vxlan {}", tunnel.name), request::add_tunnel(tunnel))
    }

    /// Frames for the hardware address go through the tunnel to the node.
    pub fn replace_forwarding(&mut self, index: u32, mac: Mac, node: IpAddr) -> Result<(), Error> {
        let operation = format!("forward to node {node} on link {index}");
        self.socket.request(&operation, request::replace_forwarding(index, mac, node))
    }

    /// Sends no faster through the link than this, bursts apart.
    pub fn limit_rate(&mut self, index: u32, bits_per_second: u64) -> Result<(), Error> {
        let bytes_per_second = (bits_per_second / 8).max(1);
        let within = |ms: u64| u32::try_from(bytes_per_second.saturating_mul(ms) / 1000).unwrap_or(u32::MAX);
        let burst = within(BURST_MS).max(BURST_BYTES_MIN);
        let limit = burst.saturating_add(within(LATENCY_MS));
        let operation = format!("limit link {index} to {bits_per_second} bit/s");
        self.socket.request(&operation, request::limit_rate(index, bytes_per_second, burst, limit))
    }

    /// The MTU of the link with the default route, of IPv4 if there is one.
    pub fn default_route_mtu(&mut self) -> Result<u32, Error> {
        let mut index = None;
        for family in [libc::AF_INET, libc::AF_INET6] {
            let routes = self.socket.dump("list routes", &request::list_routes(family))?;
            index = index.or_else(|| routes.iter().find_map(request::default_route_link));
        }
        let Some(index) = index else { return Ok(DEFAULT_MTU) };
        let links = self.list()?;
        Ok(links.iter().find(|link| link.index == index).map_or(DEFAULT_MTU, |link| link.mtu))
    }
}

fn present(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if error.is_present() { Ok(()) } else { Err(error) })
}

fn absent(result: Result<(), Error>) -> Result<(), Error> {
    result.or_else(|error| if error.is_absent() { Ok(()) } else { Err(error) })
}

fn parse_link(reply: &Reply) -> Option<Link> {
    let index = u32::from_ne_bytes(reply.body.get(4..8)?.try_into().ok()?);
    let attributes = Attributes(reply.body.get(request::LINK_HEADER_LEN..)?);
    let mtu = attributes.find(libc::IFLA_MTU)?;
    Some(Link {
        index,
        name: attributes.find(libc::IFLA_IFNAME).map(text)?,
        mtu: u32::from_ne_bytes(mtu.try_into().ok()?),
        alias: attributes.find(libc::IFLA_IFALIAS).map(text).unwrap_or_default(),
    })
}
