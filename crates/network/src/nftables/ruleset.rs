//! What one table should hold, as plain data that can be compared and printed in tests.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::{Expression, Verdict};

/// The whole content of one `inet` table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ruleset {
    pub table: String,
    pub sets: BTreeMap<String, Set>,
    pub chains: BTreeMap<String, Chain>,
}

/// A set, or a map when it has data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// The parts of the concatenated key.
    pub key: Vec<Type>,
    pub data: Option<DataType>,
    /// Filled by rules, not by us; elements expire.
    pub dynamic: bool,
    pub elements: BTreeMap<Vec<u8>, Data>,
}

/// What each element of a map carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataType {
    Verdict,
    Value(Vec<Type>),
}

/// The data of one element.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// The element of a plain set.
    None,
    Verdict(Verdict),
    Value(Vec<u8>),
}

/// Types of key and data parts; each takes whole four-byte registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    Ipv4Address,
    Ipv6Address,
    Protocol,
    Port,
    /// A number in machine order.
    Number,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    /// Where the kernel enters it; `None` for a chain that rules jump to.
    pub hook: Option<Hook>,
    pub rules: Vec<Rule>,
}

pub type Rule = Vec<Expression>;

/// A base chain's place in the packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    pub kind: HookType,
    /// `NF_INET_*`: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub number: u32,
    pub priority: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookType {
    Nat,
    Filter,
}

impl Hook {
    /// `NF_IP_PRI_NAT_DST`, `NF_IP_PRI_NAT_SRC`, `NF_IP_PRI_FILTER`.
    /// What must see where a packet was addressed to comes before `NF_IP_PRI_NAT_DST`.
    pub const PREROUTING_FIREWALL: Hook = Hook { kind: HookType::Filter, number: 0, priority: -110 };
    pub const OUTPUT_FIREWALL: Hook = Hook { kind: HookType::Filter, number: 3, priority: -110 };
    pub const PREROUTING_NAT: Hook = Hook { kind: HookType::Nat, number: 0, priority: -100 };
    pub const OUTPUT_NAT: Hook = Hook { kind: HookType::Nat, number: 3, priority: -100 };
    pub const POSTROUTING_NAT: Hook = Hook { kind: HookType::Nat, number: 4, priority: 100 };
    pub const INPUT_FILTER: Hook = Hook { kind: HookType::Filter, number: 1, priority: 0 };
    pub const FORWARD_FILTER: Hook = Hook { kind: HookType::Filter, number: 2, priority: 0 };
    pub const OUTPUT_FILTER: Hook = Hook { kind: HookType::Filter, number: 3, priority: 0 };

    /// The next place on the same way.
    pub const fn after(self) -> Hook {
        Hook { priority: self.priority + 1, ..self }
    }
}

impl Ruleset {
    pub fn new(table: impl Into<String>) -> Ruleset {
        Ruleset { table: table.into(), ..Ruleset::default() }
    }

    pub fn chain(&mut self, name: impl Into<String>, hook: Option<Hook>, rules: Vec<Rule>) {
        self.chains.insert(name.into(), Chain { hook, rules });
    }

    pub fn set(&mut self, name: impl Into<String>, set: Set) {
        self.sets.insert(name.into(), set);
    }
}

impl Set {
    pub fn of(key: Vec<Type>) -> Set {
        Set { key, data: None, dynamic: false, elements: BTreeMap::new() }
    }

    pub fn map(key: Vec<Type>, data: DataType) -> Set {
        Set { data: Some(data), ..Set::of(key) }
    }

    pub fn dynamic_map(key: Vec<Type>, data: DataType) -> Set {
        Set { dynamic: true, ..Set::map(key, data) }
    }

    /// Same type of set, whatever its elements.
    pub fn same_shape(&self, other: &Set) -> bool {
        self.key == other.key && self.data == other.data && self.dynamic == other.dynamic
    }
}

impl Type {
    /// Bytes it takes in a concatenation, padded to whole registers.
    pub fn padded_len(self) -> usize {
        match self {
            Type::Ipv6Address => 16,
            _ => 4,
        }
    }

    /// Registers it takes.
    pub fn registers(self) -> u32 {
        self.padded_len() as u32 / 4
    }

    /// The type's number in the nft tool, so that it can list our sets in readable form.
    pub(super) fn number(self) -> u32 {
        match self {
            Type::Ipv4Address => 7,
            Type::Ipv6Address => 8,
            Type::Protocol => 12,
            Type::Port => 13,
            Type::Number => 19,
        }
    }

    /// The address type of the family.
    pub fn of_address(address: IpAddr) -> Type {
        match address {
            IpAddr::V4(_) => Type::Ipv4Address,
            IpAddr::V6(_) => Type::Ipv6Address,
        }
    }
}

/// Builds keys and data: each part padded to whole registers.
#[derive(Clone, Debug, Default)]
pub struct Concat(Vec<u8>);

impl Concat {
    pub fn address(mut self, address: IpAddr) -> Concat {
        match address {
            IpAddr::V4(v4) => self.0.extend_from_slice(&v4.octets()),
            IpAddr::V6(v6) => self.0.extend_from_slice(&v6.octets()),
        }
        self
    }

    pub fn protocol(mut self, protocol: u8) -> Concat {
        self.0.extend_from_slice(&[protocol, 0, 0, 0]);
        self
    }

    pub fn port(mut self, port: u16) -> Concat {
        let [high, low] = port.to_be_bytes();
        self.0.extend_from_slice(&[high, low, 0, 0]);
        self
    }

    pub fn number(mut self, number: u32) -> Concat {
        self.0.extend_from_slice(&number.to_ne_bytes());
        self
    }

    /// All parts of another.
    pub fn then(mut self, other: &Concat) -> Concat {
        self.0.extend_from_slice(&other.0);
        self
    }

    pub fn bytes(self) -> Vec<u8> {
        self.0
    }
}

/// How the nft tool numbers a concatenation: six bits per part, the first highest.
pub(super) fn concatenated(types: &[Type]) -> (u32, u32) {
    let number = types.iter().fold(0, |number, part| number << 6 | part.number());
    let length = types.iter().map(|part| part.padded_len()).sum::<usize>();
    (number, length as u32)
}
