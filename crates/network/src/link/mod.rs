//! Links, addresses, routes and neighbours over rtnetlink: the dozen requests a routed pod network
//! needs. Every `add` succeeds when the thing is there already, every `delete` when it is gone.

mod request;

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use ipnet::IpNet;

use crate::netlink::{Attributes, Error, Reply, Socket, text};

/// Used where no default route tells better.
pub const DEFAULT_MTU: u32 = 1500;

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

    /// The MTU of the link with the default route.
    pub fn default_route_mtu(&mut self) -> Result<u32, Error> {
        let routes = self.socket.dump("list routes", &request::list_routes())?;
        let Some(index) = routes.iter().find_map(request::default_route_link) else {
            return Ok(DEFAULT_MTU);
        };
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
