//! The kinds of frontends that need maps of their own, and where rules keep what they look up.
//!
//! Registers during a choice: `[client][frontend key][slot, then endpoint address][endpoint port]`.
//!
//! What is chosen for a frontend is written over the end of its key, one register before protocol and port, with a
//! number in that one that says nothing. Nobody needs the key again, and the nft tool can list it: of what a map gives
//! it does not know the length, and aborts when the first of it is looked up in turn. So it shows chains looked up by
//! protocol and port.

use ipnet::IpNet;

use super::plan::{Frontend, Origin};
use crate::nftables::{Concat, CtKey, Expression, IpFamily, Register, Rule, Type};

/// Frontends with an address, and node ports, have keys of different form; those for traffic of the
/// cluster alone come before the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kind {
    pub family: IpFamily,
    pub node_port: bool,
    pub origin: Origin,
}

impl Kind {
    pub fn all() -> impl Iterator<Item = Kind> {
        let origins = [Origin::Anywhere, Origin::Cluster];
        IpFamily::ALL.into_iter().flat_map(move |family| {
            origins.into_iter().flat_map(move |origin| {
                [false, true].into_iter().map(move |node_port| Kind { family, node_port, origin })
            })
        })
    }

    pub fn of_origin(origin: Origin) -> impl Iterator<Item = Kind> {
        Kind::all().filter(move |kind| kind.origin == origin)
    }

    pub fn of(frontend: &Frontend) -> Kind {
        let node_port = frontend.address.is_none();
        Kind { family: frontend.family, node_port, origin: frontend.origin }
    }

    /// Of a set, map or chain.
    pub fn name(self, what: &str) -> String {
        let inside = if self.origin == Origin::Cluster { "inside-" } else { "" };
        let kind = if self.node_port { "nodeport" } else { "service" };
        format!("{inside}{kind}-{what}-{}", self.family.suffix())
    }

    pub fn key(self) -> Vec<Type> {
        let address = (!self.node_port).then_some(self.family.address_type());
        address.into_iter().chain([Type::Protocol, Type::Port]).collect()
    }

    pub fn key_of(frontend: &Frontend) -> Concat {
        let key = frontend.address.map_or(Concat::default(), |ip| Concat::default().address(ip));
        key.protocol(frontend.protocol.number()).port(frontend.port)
    }

    /// Data of the map of choices: nothing, how many endpoints, and seconds of affinity.
    pub const CHOICE: [Type; 3] = [Type::Number; 3];

    /// Of those, what chains are found by.
    pub const CHAIN_KEY: [Type; 2] = [Type::Number; 2];

    /// What is remembered of a client: nothing, and the number of its endpoint.
    pub const REMEMBERED: [Type; 2] = [Type::Number; 2];

    /// The same after nothing.
    pub const TO_REMEMBER: [Type; 3] = [Type::Number; 3];

    pub fn target(self) -> Vec<Type> {
        vec![self.family.address_type(), Type::Port]
    }

    /// Registers that an address takes.
    pub fn address_registers(self) -> u32 {
        self.family.address_type().registers()
    }

    /// Where the client goes: one before it is free, for what says nothing.
    pub fn client_register(self) -> Register {
        Register(1)
    }

    /// After the client.
    pub fn key_register(self) -> Register {
        Register(self.client_register().0 + self.address_registers())
    }

    /// Where the number of an endpoint goes: before the frontend's key, over the end of the client.
    pub fn number_register(self) -> Register {
        Register(self.key_register().0 - 1)
    }

    /// Where slot or endpoint go.
    pub fn target_register(self) -> Register {
        let key: u32 = self.key().iter().map(|part| part.registers()).sum();
        Register(self.key_register().0 + key)
    }

    /// Where the choice goes: its last two numbers over protocol and port.
    pub fn choice_register(self) -> Register {
        Register(self.chain_key_register().0 - 1)
    }

    pub fn chain_key_register(self) -> Register {
        Register(self.target_register().0 - Kind::CHAIN_KEY.len() as u32)
    }

    /// Loads what the packet is addressed to.
    pub fn load_key(self) -> Vec<Expression> {
        self.load(|to| self.family.destination(to), Expression::destination_port)
    }

    /// Loads what the connection's first packet was addressed to.
    pub fn load_original_key(self) -> Vec<Expression> {
        self.load(
            |to| self.family.original_destination(to),
            |to| Expression::Ct { key: CtKey::OriginalDestinationPort, to },
        )
    }

    fn load(
        self,
        address: impl Fn(Register) -> Expression,
        port: impl Fn(Register) -> Expression,
    ) -> Vec<Expression> {
        let mut next = self.key_register();
        let mut steps = Vec::new();
        if !self.node_port {
            steps.push(address(next));
            next.0 += self.address_registers();
        }
        steps.extend([Expression::protocol(next), port(Register(next.0 + 1))]);
        steps
    }

    /// Each matches packets that frontends of this kind can be addressed by: node ports are on the
    /// node's addresses in these networks, on all without any.
    pub fn matches(self, node_port_addresses: &[IpNet]) -> Vec<Rule> {
        let mut rule = self.family.matches();
        if !self.node_port {
            return vec![rule];
        }
        rule.extend(self.family.local_destination());
        if node_port_addresses.is_empty() {
            return vec![rule];
        }
        let networks = node_port_addresses.iter().filter(|net| IpFamily::of(net.addr()) == self.family);
        networks
            .map(|network| {
                let mut rule = rule.clone();
                rule.extend(self.family.in_network(|to| self.family.destination(to), *network, true));
                rule
            })
            .collect()
    }
}
