//! What differs between IPv4 and IPv6 in rules: where addresses are, how long, what is local.

use std::net::IpAddr;

use ipnet::IpNet;

use super::{CtKey, Expression, MetaKey, PayloadBase, Register, Type};

/// `IPS_DST_NAT` in a connection's status.
const STATUS_DESTINATION_TRANSLATED: u32 = 1 << 5;

/// `NF_CT_STATE_BIT(IP_CT_NEW)`.
const STATE_NEW: u32 = 8;

/// `NF_CT_STATE_BIT` of `IP_CT_ESTABLISHED` and `IP_CT_RELATED`.
const STATES_KNOWN: u32 = 2 | 4;

/// `NF_CT_STATE_INVALID_BIT`.
const STATE_INVALID: u32 = 1;

/// `RTN_LOCAL`: an address of this host.
const ADDRESS_LOCAL: u32 = 2;

/// A field of the same place in TCP, UDP and SCTP headers.
const DESTINATION_PORT_OFFSET: u32 = 2;

/// IPv4 or IPv6, as in a Service's `ipFamilies`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum IpFamily {
    V4,
    V6,
}

impl IpFamily {
    pub const ALL: [IpFamily; 2] = [IpFamily::V4, IpFamily::V6];

    pub fn of(address: IpAddr) -> IpFamily {
        match address {
            IpAddr::V4(_) => IpFamily::V4,
            IpAddr::V6(_) => IpFamily::V6,
        }
    }

    /// What names of sets and chains of this family end in.
    pub fn suffix(self) -> &'static str {
        match self {
            IpFamily::V4 => "ip",
            IpFamily::V6 => "ip6",
        }
    }

    pub fn address_type(self) -> Type {
        match self {
            IpFamily::V4 => Type::Ipv4Address,
            IpFamily::V6 => Type::Ipv6Address,
        }
    }

    /// `NFPROTO_IPV4` or `NFPROTO_IPV6`.
    pub(super) fn number(self) -> u32 {
        match self {
            IpFamily::V4 => libc::NFPROTO_IPV4 as u32,
            IpFamily::V6 => libc::NFPROTO_IPV6 as u32,
        }
    }

    /// Matches packets of this family; every other match of the family needs it before.
    pub fn matches(self) -> Vec<Expression> {
        let to = Register(0);
        vec![
            Expression::Meta { key: MetaKey::NfProto, to },
            Expression::Compare { from: to, equal: true, value: vec![self.number() as u8] },
        ]
    }

    pub fn source(self, to: Register) -> Expression {
        let offset = if self == IpFamily::V4 { 12 } else { 8 };
        self.address(offset, to)
    }

    /// The last register of the source.
    pub fn end_of_source(self, to: Register) -> Expression {
        let offset = if self == IpFamily::V4 { 12 } else { 20 };
        Expression::Payload { base: PayloadBase::Network, offset, len: 4, to }
    }

    pub fn destination(self, to: Register) -> Expression {
        let offset = if self == IpFamily::V4 { 16 } else { 24 };
        self.address(offset, to)
    }

    /// What the connection was addressed to before translation.
    pub fn original_destination(self, to: Register) -> Expression {
        let key = match self {
            IpFamily::V4 => CtKey::OriginalDestinationV4,
            IpFamily::V6 => CtKey::OriginalDestinationV6,
        };
        Expression::Ct { key, to }
    }

    /// Matches if the address `load`ed is inside the network (or outside it).
    pub fn in_network(
        self,
        load: impl Fn(Register) -> Expression,
        network: IpNet,
        inside: bool,
    ) -> Vec<Expression> {
        let register = Register(0);
        vec![
            load(register),
            Expression::Mask { register, mask: octets(network.netmask()) },
            Expression::Compare { from: register, equal: inside, value: octets(network.network()) },
        ]
    }

    /// Matches packets addressed to this host, loopback addresses apart: what comes from those
    /// could not be routed to a pod.
    pub fn local_destination(self) -> Vec<Expression> {
        let mut steps = any_local_destination();
        steps.extend(self.loopback_destination(false));
        steps
    }

    /// Matches packets addressed to a loopback address, or to none.
    pub fn loopback_destination(self, is_loopback: bool) -> Vec<Expression> {
        self.in_network(|to| self.destination(to), self.loopback(), is_loopback)
    }

    /// Matches packets from a loopback address.
    pub fn loopback_source(self) -> Vec<Expression> {
        self.in_network(|to| self.source(to), self.loopback(), true)
    }

    fn loopback(self) -> IpNet {
        match self {
            IpFamily::V4 => ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8).into(),
            IpFamily::V6 => ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128).into(),
        }
    }

    /// Matches packets that this host itself sends.
    pub fn local_source(self) -> Vec<Expression> {
        source_is_local(true)
    }

    fn address(self, offset: u32, to: Register) -> Expression {
        let len = self.address_type().padded_len() as u32;
        Expression::Payload { base: PayloadBase::Network, offset, len, to }
    }
}

impl Expression {
    /// The transport protocol's number.
    pub fn protocol(to: Register) -> Expression {
        Expression::Meta { key: MetaKey::L4Proto, to }
    }

    /// The destination port of TCP, UDP and SCTP.
    pub fn destination_port(to: Register) -> Expression {
        Expression::Payload { base: PayloadBase::Transport, offset: DESTINATION_PORT_OFFSET, len: 2, to }
    }
}

/// Matches packets addressed to this host, by whichever address.
pub fn any_local_destination() -> Vec<Expression> {
    let to = Register(0);
    vec![
        Expression::FibDestinationType { to },
        Expression::Compare { from: to, equal: true, value: ADDRESS_LOCAL.to_ne_bytes().to_vec() },
    ]
}

/// Matches packets from an address of this host, or from others.
pub fn source_is_local(is_local: bool) -> Vec<Expression> {
    let to = Register(0);
    vec![
        Expression::FibSourceType { to },
        Expression::Compare { from: to, equal: is_local, value: ADDRESS_LOCAL.to_ne_bytes().to_vec() },
    ]
}

/// Matches packets of connections whose destination was translated.
pub fn destination_translated() -> Vec<Expression> {
    has_bit(CtKey::Status, STATUS_DESTINATION_TRANSLATED)
}

/// Matches the first packet of a connection.
pub fn new_connection() -> Vec<Expression> {
    has_bit(CtKey::State, STATE_NEW)
}

/// Matches packets of connections that exist, and of those that belong to one.
pub fn known_connection() -> Vec<Expression> {
    let to = Register(0);
    vec![
        Expression::Ct { key: CtKey::State, to },
        Expression::Mask { register: to, mask: STATES_KNOWN.to_ne_bytes().to_vec() },
        Expression::Compare { from: to, equal: false, value: 0u32.to_ne_bytes().to_vec() },
    ]
}

/// Matches packets that connection tracking cannot place.
pub fn invalid_connection() -> Vec<Expression> {
    has_bit(CtKey::State, STATE_INVALID)
}

fn has_bit(key: CtKey, bit: u32) -> Vec<Expression> {
    let to = Register(0);
    vec![
        Expression::Ct { key, to },
        Expression::Mask { register: to, mask: bit.to_ne_bytes().to_vec() },
        Expression::Compare { from: to, equal: true, value: bit.to_ne_bytes().to_vec() },
    ]
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
