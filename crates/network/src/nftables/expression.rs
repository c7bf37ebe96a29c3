//! The expressions a rule is made of, and how each is written for the kernel. Attribute numbers
//! are those of `linux/netfilter/nf_tables.h`.

use super::IpFamily;
use crate::netlink::Message;

const LIST_ELEM: u16 = 1;
const DATA_VALUE: u16 = 1;
const DATA_VERDICT: u16 = 2;

/// `NFT_REG32_00`: the sixteen four-byte registers follow it.
const REG32_FIRST: u32 = 8;

/// `NFT_FIB_RESULT_ADDRTYPE`, looking up the source (`NFTA_FIB_F_SADDR`) or the destination.
const FIB_RESULT_ADDRTYPE: u32 = 3;
const FIB_SOURCE: u32 = 1;
const FIB_DESTINATION: u32 = 2;

/// `NFT_NG_RANDOM`.
const NUMGEN_RANDOM: u32 = 1;

/// `NFT_DYNSET_OP_UPDATE`: add the element, or restart its timeout.
const DYNSET_UPDATE: u32 = 1;

/// `NFT_DYNSET_OP_DELETE`.
const DYNSET_DELETE: u32 = 2;

/// `NFT_REJECT_ICMPX_UNREACH` with `NFT_REJECT_ICMPX_PORT_UNREACH`.
const REJECT_ICMPX: u32 = 2;
const REJECT_PORT_UNREACHABLE: u8 = 1;

/// One of the sixteen four-byte registers. A longer value takes the ones that follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Register(pub u32);

impl Register {
    fn number(self) -> u32 {
        REG32_FIRST + self.0
    }
}

/// Where a payload offset counts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PayloadBase {
    Network = 1,
    Transport = 2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaKey {
    /// IPv4 or IPv6, one byte.
    NfProto = 15,
    /// TCP, UDP, ..., one byte.
    L4Proto = 16,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CtKey {
    /// New, established, ... as bits, four bytes in machine order.
    State,
    /// `IPS_*` bits, four bytes in machine order.
    Status,
    /// What the connection's first packet was addressed to, before translation.
    OriginalDestinationV4,
    OriginalDestinationV6,
    OriginalDestinationPort,
}

/// What becomes of the packet, in a rule or as a map's data.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    Accept,
    Drop,
    /// Goes on after the jump that led to the chain.
    Return,
    Jump(String),
    Goto(String),
}

/// One step of a rule. A rule ends at the first step that does not match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expression {
    Payload {
        base: PayloadBase,
        offset: u32,
        len: u32,
        to: Register,
    },
    Meta {
        key: MetaKey,
        to: Register,
    },
    Ct {
        key: CtKey,
        to: Register,
    },
    /// Continues if the register equals the value (or differs from it).
    Compare {
        from: Register,
        equal: bool,
        value: Vec<u8>,
    },
    /// `register & mask`, in place.
    Mask {
        register: Register,
        mask: Vec<u8>,
    },
    /// Continues if the register is between the two values, both included, as bytes are ordered.
    Range {
        from: Register,
        first: Vec<u8>,
        last: Vec<u8>,
    },
    /// The source's address type (`RTN_LOCAL`, ...), four bytes in machine order.
    FibSourceType {
        to: Register,
    },
    /// The destination's address type.
    FibDestinationType {
        to: Register,
    },
    /// A random number below the modulus, four bytes in machine order.
    Random {
        modulus: u32,
        to: Register,
    },
    /// Continues if the set has (or has not) the key.
    Contains {
        set: String,
        key: Register,
        contains: bool,
    },
    /// Continues if the map has the key, with its data in the register.
    Map {
        map: String,
        key: Register,
        to: Register,
    },
    /// Continues if the map has the key, with its verdict.
    VerdictMap {
        map: String,
        key: Register,
    },
    /// Removes the key from a dynamic map, if it is there. The kernel wants data, and does not look at it.
    Remove {
        map: String,
        key: Register,
        data: Register,
    },
    /// Puts key and data into a dynamic map. Of an element that is there, the timeout starts again and the data stays.
    Update {
        map: String,
        key: Register,
        data: Register,
        timeout_ms: u64,
    },
    DestinationNat {
        family: IpFamily,
        address: Register,
        port: Register,
    },
    Masquerade,
    /// Answers with "port unreachable".
    Reject,
    Verdict(Verdict),
}

impl Expression {
    pub(super) fn encode(&self, message: &mut Message) {
        message.nest(LIST_ELEM, |element| {
            element.text(1, self.name()).nest(2, |data| self.encode_data(data));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Expression::Payload { .. } => "payload",
            Expression::Meta { .. } => "meta",
            Expression::Ct { .. } => "ct",
            Expression::Compare { .. } => "cmp",
            Expression::Mask { .. } => "bitwise",
            Expression::Range { .. } => "range",
            Expression::FibSourceType { .. } | Expression::FibDestinationType { .. } => "fib",
            Expression::Random { .. } => "numgen",
            Expression::Contains { .. } | Expression::Map { .. } | Expression::VerdictMap { .. } => "lookup",
            Expression::Remove { .. } | Expression::Update { .. } => "dynset",
            Expression::DestinationNat { .. } => "nat",
            Expression::Masquerade => "masq",
            Expression::Reject => "reject",
            Expression::Verdict(_) => "immediate",
        }
    }

    fn encode_data(&self, data: &mut Message) {
        match self {
            Expression::Payload { base, offset, len, to } => {
                data.u32_be(1, to.number()).u32_be(2, *base as u32).u32_be(3, *offset).u32_be(4, *len);
            }
            Expression::Meta { key, to } => {
                data.u32_be(1, to.number()).u32_be(2, *key as u32);
            }
            Expression::Ct { key, to } => encode_ct(*key, *to, data),
            Expression::Compare { from, equal, value } => {
                data.u32_be(1, from.number()).u32_be(2, u32::from(!equal));
                encode_value(3, value, data);
            }
            Expression::Mask { register, mask } => {
                data.u32_be(1, register.number()).u32_be(2, register.number()).u32_be(3, mask.len() as u32);
                encode_value(4, mask, data);
                encode_value(5, &vec![0; mask.len()], data);
            }
            Expression::Range { from, first, last } => {
                data.u32_be(1, from.number()).u32_be(2, 0);
                encode_value(3, first, data);
                encode_value(4, last, data);
            }
            Expression::FibSourceType { to } => {
                data.u32_be(1, to.number()).u32_be(2, FIB_RESULT_ADDRTYPE).u32_be(3, FIB_SOURCE);
            }
            Expression::FibDestinationType { to } => {
                data.u32_be(1, to.number()).u32_be(2, FIB_RESULT_ADDRTYPE).u32_be(3, FIB_DESTINATION);
            }
            Expression::Random { modulus, to } => {
                data.u32_be(1, to.number()).u32_be(2, *modulus).u32_be(3, NUMGEN_RANDOM).u32_be(4, 0);
            }
            Expression::Contains { set, key, contains } => {
                data.text(1, set).u32_be(2, key.number()).u32_be(5, u32::from(!contains));
            }
            Expression::Map { map, key, to } => {
                data.text(1, map).u32_be(2, key.number()).u32_be(3, to.number());
            }
            Expression::VerdictMap { map, key } => {
                data.text(1, map).u32_be(2, key.number()).u32_be(3, 0);
            }
            Expression::Remove { map, key, data: value } => {
                data.text(1, map).u32_be(3, DYNSET_DELETE).u32_be(4, key.number()).u32_be(5, value.number());
            }
            Expression::Update { map, key, data: value, timeout_ms } => {
                data.text(1, map).u32_be(3, DYNSET_UPDATE).u32_be(4, key.number());
                data.u32_be(5, value.number()).u64_be(6, *timeout_ms);
            }
            Expression::DestinationNat { family, address, port } => {
                data.u32_be(1, 1).u32_be(2, family.number());
                data.u32_be(3, address.number()).u32_be(5, port.number());
            }
            Expression::Masquerade => {}
            Expression::Reject => {
                data.u32_be(1, REJECT_ICMPX).u8(2, REJECT_PORT_UNREACHABLE);
            }
            Expression::Verdict(verdict) => {
                data.u32_be(1, 0);
                encode_verdict(2, verdict, data);
            }
        }
    }
}

fn encode_ct(key: CtKey, to: Register, data: &mut Message) {
    let (number, original) = match key {
        CtKey::State => (0, false),
        CtKey::Status => (2, false),
        CtKey::OriginalDestinationV4 => (20, true),
        CtKey::OriginalDestinationV6 => (22, true),
        CtKey::OriginalDestinationPort => (12, true),
    };
    data.u32_be(1, to.number()).u32_be(2, number);
    if original {
        data.u8(3, 0);
    }
}

pub(super) fn encode_value(kind: u16, value: &[u8], message: &mut Message) {
    message.nest(kind, |nested| {
        nested.bytes(DATA_VALUE, value);
    });
}

pub(super) fn encode_verdict(kind: u16, verdict: &Verdict, message: &mut Message) {
    let (code, chain) = match verdict {
        Verdict::Drop => (0, None),
        Verdict::Accept => (1, None),
        Verdict::Return => (-5i32 as u32, None),
        Verdict::Jump(chain) => (-3i32 as u32, Some(chain)),
        Verdict::Goto(chain) => (-4i32 as u32, Some(chain)),
    };
    message.nest(kind, |nested| {
        nested.nest(DATA_VERDICT, |verdict| {
            verdict.u32_be(1, code);
            if let Some(chain) = chain {
                verdict.text(2, chain);
            }
        });
    });
}
