//! Connection tracking entries that would keep sending UDP clients to endpoints that are gone: UDP
//! has no end of connection, so a busy client never makes a new one. Follows upstream's
//! `conntrack.CleanStaleEntries`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use parking_lot::RwLock;

use super::plan::{Backends, Frontend, Origin};
use super::tables::{Changes, Tables};
use crate::netlink::{Attributes, Error, Family, Message, Reply, Socket};
use crate::nftables::IpFamily;
use crate::protocol::Protocol;

/// `NFNL_SUBSYS_CTNETLINK` with `IPCTNL_MSG_CT_GET` and `IPCTNL_MSG_CT_DELETE`.
const GET: u16 = 1 << 8 | 1;
const DELETE: u16 = 1 << 8 | 2;

/// `CTA_TUPLE_ORIG`, `CTA_TUPLE_REPLY`, and what a tuple has inside.
const TUPLE_ORIGINAL: u16 = 1;
const TUPLE_REPLY: u16 = 2;
const TUPLE_IP: u16 = 1;
const TUPLE_PROTO: u16 = 2;

/// `CTA_FILTER`: which parts of the tuples given an entry must match, here its protocol.
const FILTER: u16 = 25;
const FILTER_ORIGINAL: u16 = 1;
const FILTER_REPLY: u16 = 2;
const FILTER_PROTOCOL: u32 = 1 << 3;

/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// Length of `nfgenmsg`.
const HEADER_LEN: usize = 4;

/// One tracked UDP flow.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Flow {
    /// Where the client sends.
    to: SocketAddr,
    /// Who answers.
    answers: SocketAddr,
    /// The original tuple as the kernel wrote it, by which the entry is deleted.
    original: Vec<u8>,
}

/// Frontends whose flows may lead to none of their present endpoints.
#[derive(Debug, Default)]
pub(super) struct Stale {
    /// Of those that may have left such flows. The kernel goes through all it tracks to list them, which takes it
    /// several milliseconds however few there are, so it is asked only then.
    families: BTreeSet<IpFamily>,
    /// All of UDP that changed.
    frontends: BTreeSet<Frontend>,
}

impl Stale {
    /// `tables` are as they were programmed with `changes`.
    pub fn of(tables: &Tables, changes: Changes) -> Stale {
        let mut stale = Stale::default();
        for (frontend, was) in changes.frontends {
            if frontend.protocol == Protocol::Udp {
                if may_be_stale(&frontend, was.as_ref(), tables) {
                    stale.families.insert(frontend.family);
                }
                stale.frontends.insert(frontend);
            }
        }
        stale
    }

    pub fn extend(&mut self, other: Stale) {
        self.families.extend(other.families);
        self.frontends.extend(other.frontends);
    }

    /// Deletes the flows that lead astray by the tables of that moment; tells how many.
    pub fn delete(&self, tables: &RwLock<Tables>) -> Result<usize, Error> {
        if self.families.is_empty() {
            return Ok(0);
        }
        let mut socket = Socket::open(Family::Netfilter)?;
        let mut deleted = 0;
        for family in &self.families {
            let family = match family {
                IpFamily::V4 => libc::AF_INET,
                IpFamily::V6 => libc::AF_INET6,
            };
            let replies = socket.dump("list tracked connections", &list_udp(family))?;
            let mut flows: Vec<Flow> = replies.iter().filter_map(udp_flow).collect();
            let tables = tables.read();
            flows.retain(|flow| is_stale(flow, &tables, &self.frontends));
            drop(tables);
            for flow in flows {
                let mut delete = message(DELETE, family);
                delete.bytes(TUPLE_ORIGINAL | NESTED, &flow.original);
                match socket.request(&format!("delete tracked connection to {}", flow.to), delete) {
                    Err(error) if !error.is_absent() => return Err(error),
                    _ => deleted += 1,
                }
            }
        }
        Ok(deleted)
    }
}

/// Lists UDP entries only; kernels before 5.8 list all.
fn list_udp(family: i32) -> Message {
    let mut list = message(GET, family);
    list.nest(TUPLE_ORIGINAL, |tuple| {
        tuple.nest(TUPLE_PROTO, |proto| {
            proto.u8(1, libc::IPPROTO_UDP as u8);
        });
    });
    list.nest(FILTER, |filter| {
        filter.u32(FILTER_ORIGINAL, FILTER_PROTOCOL).u32(FILTER_REPLY, 0);
    });
    list
}

/// Whether there may be flows that the frontend would not lead where they go. Those whose endpoints stay are none, and
/// while there are no endpoints nobody is let through.
pub(super) fn may_be_stale(frontend: &Frontend, was: Option<&Backends>, tables: &Tables) -> bool {
    let is = tables.backends(frontend).map_or(&[][..], |is| &is.endpoints);
    frontend.protocol == Protocol::Udp
        && match was {
            Some(was) => was.endpoints.iter().any(|endpoint| !is.contains(endpoint)),
            // Of unknown addresses, only ClusterIPs lead nowhere.
            None => !is.is_empty() || !frontend.address.is_some_and(|ip| tables.has_cluster_ip(&ip)),
        }
}

/// A node port has no address of its own: only what was translated is known to have been meant for
/// it, the rest may be anybody's traffic to that port elsewhere. The same goes for what no frontend
/// takes any more.
fn is_stale(flow: &Flow, tables: &Tables, changed: &BTreeSet<Frontend>) -> bool {
    let frontend = |address: Option<IpAddr>, origin: Origin| {
        let family = IpFamily::of(flow.to.ip());
        Frontend { family, address, protocol: Protocol::Udp, port: flow.to.port(), origin }
    };
    let both = |address: Option<IpAddr>| [Origin::Anywhere, Origin::Cluster].map(|of| frontend(address, of));
    let backends = |address: Option<IpAddr>| -> Vec<&Backends> {
        both(address).iter().filter_map(|frontend| tables.backends(frontend)).collect()
    };
    let leads = |all: &[&Backends]| all.iter().any(|one| one.endpoints.contains(&flow.answers));
    let (addressed, node_port) = (backends(Some(flow.to.ip())), backends(None));
    let translated = flow.answers != flow.to;
    if !addressed.is_empty() {
        !leads(&addressed)
    } else if !node_port.is_empty() {
        translated && !leads(&node_port)
    } else {
        let gone = both(Some(flow.to.ip())).into_iter().chain(both(None));
        translated && gone.into_iter().any(|frontend| changed.contains(&frontend))
    }
}

fn udp_flow(reply: &Reply) -> Option<Flow> {
    let attributes = Attributes(reply.body.get(HEADER_LEN..)?);
    let original = attributes.nested(TUPLE_ORIGINAL);
    if original.nested(TUPLE_PROTO).find(1)? != [libc::IPPROTO_UDP as u8] {
        return None;
    }
    let answers = attributes.nested(TUPLE_REPLY);
    Some(Flow {
        to: SocketAddr::new(address(original, 2, 4)?, port(original, 3)?),
        answers: SocketAddr::new(address(answers, 1, 3)?, port(answers, 2)?),
        original: original.0.to_vec(),
    })
}

fn address(tuple: Attributes<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    let ip = tuple.nested(TUPLE_IP);
    if let Some(octets) = ip.find(v4) {
        return Some(IpAddr::from(<[u8; 4]>::try_from(octets).ok()?));
    }
    Some(IpAddr::from(<[u8; 16]>::try_from(ip.find(v6)?).ok()?))
}

fn port(tuple: Attributes<'_>, attribute: u16) -> Option<u16> {
    Some(u16::from_be_bytes(tuple.nested(TUPLE_PROTO).find(attribute)?.try_into().ok()?))
}

fn message(kind: u16, family: i32) -> Message {
    let mut message = Message::new(kind, 0);
    message.header(&[family as u8, 0, 0, 0]);
    message
}
