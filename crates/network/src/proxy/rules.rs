//! The proxy's [`Tables`] as the content of one nftables table.
//!
//! A verdict map sends each frontend to a chain that chooses among N endpoints; there is one such
//! chain per N, not per Service, so a change of Services is a change of map elements. The choice
//! is a random slot below N, which with the frontend is the key into the map of endpoints. Nothing
//! is marked: what must be masqueraded is found by what the connection was addressed to.
//!
//! Everything is tried twice. A transaction is atomic for each lookup, but a packet makes several:
//! it may find its frontend before a change and miss the endpoint after it. The second base chain
//! sees only the new state, so that no connection is refused while endpoints change.
//!
//! Registers during a choice: `[client][frontend key][slot, then endpoint address][endpoint port]`.

use super::plan::{Backends, Frontend, NoEndpoints, Tables};
use crate::nftables::{
    Concat, CtKey, Data, DataType, Expression, Hook, IpFamily, Register, Rule, Ruleset, Set, Type, Verdict,
    destination_translated, new_connection,
};

const SERVICES: &str = "services";
const NO_ENDPOINTS: &str = "no-endpoints";
const REJECT: &str = "reject";

/// Frontends with an address, and node ports, have keys of different form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    family: IpFamily,
    node_port: bool,
}

impl Kind {
    const ALL: [Kind; 4] = [
        Kind { family: IpFamily::V4, node_port: false },
        Kind { family: IpFamily::V4, node_port: true },
        Kind { family: IpFamily::V6, node_port: false },
        Kind { family: IpFamily::V6, node_port: true },
    ];

    fn of(frontend: &Frontend) -> Kind {
        Kind { family: frontend.family, node_port: frontend.address.is_none() }
    }

    fn name(self, what: &str) -> String {
        let kind = if self.node_port { "nodeport" } else { "service" };
        format!("{kind}-{what}-{}", self.family.suffix())
    }

    fn key(self) -> Vec<Type> {
        let address = (!self.node_port).then_some(self.family.address_type());
        address.into_iter().chain([Type::Protocol, Type::Port]).collect()
    }

    fn target(self) -> Vec<Type> {
        vec![self.family.address_type(), Type::Port]
    }

    /// Registers that an address takes; the frontend's key begins after the client's.
    fn address_registers(self) -> u32 {
        self.family.address_type().registers()
    }

    fn key_register(self) -> Register {
        Register(self.address_registers())
    }

    /// Where slot or endpoint go.
    fn target_register(self) -> Register {
        Register(self.address_registers() + registers(&self.key()))
    }

    /// Loads what the packet is addressed to.
    fn load_key(self) -> Vec<Expression> {
        self.load(|to| self.family.destination(to), Expression::destination_port)
    }

    /// Loads what the connection's first packet was addressed to.
    fn load_original_key(self) -> Vec<Expression> {
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

    /// Matches packets that frontends of this kind can be addressed by.
    fn matches(self) -> Rule {
        let mut rule = self.family.matches();
        if self.node_port {
            rule.extend(self.family.local_destination());
        }
        rule
    }
}

fn registers(types: &[Type]) -> u32 {
    types.iter().map(|part| part.registers()).sum()
}

pub(super) fn ruleset(table: &str, tables: &Tables) -> Ruleset {
    let mut rules = Ruleset::new(table);
    add_sets(&mut rules);
    for (frontend, backends) in &tables.frontends {
        add_frontend(&mut rules, frontend, backends);
    }
    for family in IpFamily::ALL {
        let ips = tables.cluster_ips.iter().filter(|ip| IpFamily::of(**ip) == family);
        put_all(&mut rules, &cluster_ips(family), ips.map(|ip| Concat::default().address(*ip)));
        let local = tables.local_endpoints.iter().filter(|ip| IpFamily::of(**ip) == family);
        put_all(&mut rules, &hairpin(family), local.map(|ip| Concat::default().address(*ip).address(*ip)));
    }
    add_chains(&mut rules);
    rules
}

fn add_sets(rules: &mut Ruleset) {
    for kind in Kind::ALL {
        let (key, target) = (kind.key(), DataType::Value(kind.target()));
        let with =
            |front: Option<Type>, back: Vec<Type>| front.into_iter().chain(key.clone()).chain(back).collect();
        rules.set(kind.name("verdicts"), Set::map(key.clone(), DataType::Verdict));
        rules.set(kind.name("no-endpoints"), Set::map(key.clone(), DataType::Verdict));
        rules.set(kind.name("masquerade"), Set::of(key.clone()));
        rules.set(kind.name("endpoints"), Set::map(with(None, vec![Type::Number]), target.clone()));
        rules.set(
            kind.name("affinity"),
            Set::dynamic_map(with(Some(kind.family.address_type()), vec![]), target),
        );
        rules.set(kind.name("affinity-endpoints"), Set::of(with(None, kind.target())));
    }
    for family in IpFamily::ALL {
        let address = family.address_type();
        rules.set(cluster_ips(family), Set::of(vec![address]));
        rules.set(hairpin(family), Set::of(vec![address, address]));
    }
}

fn add_frontend(rules: &mut Ruleset, frontend: &Frontend, backends: &Backends) {
    let kind = Kind::of(frontend);
    let key = frontend.address.map_or(Concat::default(), |ip| Concat::default().address(ip));
    let key = key.protocol(frontend.protocol.number()).port(frontend.port);
    if backends.endpoints.is_empty() {
        let verdict = match backends.otherwise {
            NoEndpoints::Reject => Verdict::Goto(REJECT.into()),
            NoEndpoints::Drop => Verdict::Drop,
        };
        put(rules, &kind.name("no-endpoints"), key, Data::Verdict(verdict));
        return;
    }
    let chain = choice_chain(rules, kind, backends);
    put(rules, &kind.name("verdicts"), key.clone(), Data::Verdict(Verdict::Goto(chain)));
    if backends.masquerade {
        put(rules, &kind.name("masquerade"), key.clone(), Data::None);
    }
    for (slot, endpoint) in (0..).zip(&backends.endpoints) {
        let target = Concat::default().address(endpoint.ip()).port(endpoint.port()).bytes();
        put(rules, &kind.name("endpoints"), key.clone().number(slot), Data::Value(target));
        if backends.affinity_seconds.is_some() {
            let member = key.clone().address(endpoint.ip()).port(endpoint.port());
            put(rules, &kind.name("affinity-endpoints"), member, Data::None);
        }
    }
}

fn put(rules: &mut Ruleset, set: &str, key: Concat, data: Data) {
    let set = rules.sets.get_mut(set).expect("every set was added before");
    set.elements.insert(key.bytes(), data);
}

fn put_all(rules: &mut Ruleset, set: &str, keys: impl Iterator<Item = Concat>) {
    keys.for_each(|key| put(rules, set, key, Data::None));
}

/// The chain that chooses among that many endpoints, made when first needed.
fn choice_chain(rules: &mut Ruleset, kind: Kind, backends: &Backends) -> String {
    let count = u32::try_from(backends.endpoints.len()).expect("fewer endpoints than addresses");
    let (name, steps) = match backends.affinity_seconds {
        None => (kind.name(&format!("choose-{count}")), vec![choose(kind, count, None)]),
        Some(seconds) => (
            kind.name(&format!("choose-{count}-for-{seconds}s")),
            vec![
                choose_again(kind, seconds),
                choose(kind, count, Some(seconds)),
                // When no more clients can be remembered, they are still served.
                choose(kind, count, None),
            ],
        ),
    };
    if !rules.chains.contains_key(&name) {
        rules.chain(name.clone(), None, steps);
    }
    name
}

fn choose(kind: Kind, count: u32, affinity_seconds: Option<u32>) -> Rule {
    let mut rule = kind.load_key();
    let map = kind.name("endpoints");
    rule.push(Expression::Random { modulus: count, to: kind.target_register() });
    rule.push(Expression::Map { map, key: kind.key_register(), to: kind.target_register() });
    if let Some(seconds) = affinity_seconds {
        rule.push(kind.family.source(Register(0)));
        rule.push(remember(kind, seconds));
    }
    rule.push(translate(kind));
    rule
}

/// Sends a client where it was sent before, if that is still an endpoint.
fn choose_again(kind: Kind, seconds: u32) -> Rule {
    let mut rule = vec![kind.family.source(Register(0))];
    rule.extend(kind.load_key());
    rule.extend([
        Expression::Map { map: kind.name("affinity"), key: Register(0), to: kind.target_register() },
        Expression::Contains {
            set: kind.name("affinity-endpoints"),
            key: kind.key_register(),
            contains: true,
        },
        remember(kind, seconds),
        translate(kind),
    ]);
    rule
}

fn remember(kind: Kind, seconds: u32) -> Expression {
    Expression::Update {
        map: kind.name("affinity"),
        key: Register(0),
        data: kind.target_register(),
        timeout_ms: u64::from(seconds) * 1000,
    }
}

fn translate(kind: Kind) -> Expression {
    let address = kind.target_register();
    let port = Register(address.0 + kind.address_registers());
    Expression::DestinationNat { family: kind.family, address, port }
}

fn add_chains(rules: &mut Ruleset) {
    let jump = |chain: &str| vec![Expression::Verdict(Verdict::Jump(chain.into()))];
    let by_verdict = |what: &'static str| {
        Kind::ALL.map(|kind| {
            let mut rule = kind.matches();
            rule.extend(kind.load_key());
            rule.push(Expression::VerdictMap { map: kind.name(what), key: kind.key_register() });
            rule
        })
    };
    rules.chain(SERVICES, None, by_verdict("verdicts").to_vec());
    for (name, hook) in [("prerouting", Hook::PREROUTING_NAT), ("output", Hook::OUTPUT_NAT)] {
        rules.chain(name, Some(hook), vec![jump(SERVICES)]);
        rules.chain(format!("{name}-again"), Some(hook.after()), vec![jump(SERVICES)]);
    }

    let refused = by_verdict("no-endpoints").into_iter().chain(IpFamily::ALL.map(refuse_other_ports));
    rules.chain(REJECT, None, vec![vec![Expression::Reject]]);
    rules.chain(NO_ENDPOINTS, None, refused.collect());
    let filters = [Hook::INPUT_FILTER, Hook::FORWARD_FILTER, Hook::OUTPUT_FILTER];
    for (name, hook) in ["filter-input", "filter-forward", "filter-output"].into_iter().zip(filters) {
        let rule = new_connection().into_iter().chain(jump(NO_ENDPOINTS)).collect();
        rules.chain(name, Some(hook), vec![rule]);
    }

    let masquerade =
        Kind::ALL.map(masquerade_external).into_iter().chain(IpFamily::ALL.map(masquerade_hairpin));
    rules.chain("postrouting", Some(Hook::POSTROUTING_NAT), masquerade.collect());
}

fn refuse_other_ports(family: IpFamily) -> Rule {
    let mut rule = family.matches();
    rule.extend([
        family.destination(Register(0)),
        Expression::Contains { set: cluster_ips(family), key: Register(0), contains: true },
        Expression::Reject,
    ]);
    rule
}

fn masquerade_external(kind: Kind) -> Rule {
    let mut rule = kind.family.matches();
    rule.extend(destination_translated());
    rule.extend(kind.load_original_key());
    rule.extend([
        Expression::Contains { set: kind.name("masquerade"), key: kind.key_register(), contains: true },
        Expression::Masquerade,
    ]);
    rule
}

fn masquerade_hairpin(family: IpFamily) -> Rule {
    let mut rule = family.matches();
    rule.extend(destination_translated());
    rule.extend([
        family.source(Register(0)),
        family.destination(Register(family.address_type().registers())),
        Expression::Contains { set: hairpin(family), key: Register(0), contains: true },
        Expression::Masquerade,
    ]);
    rule
}

fn cluster_ips(family: IpFamily) -> String {
    format!("cluster-ips-{}", family.suffix())
}

fn hairpin(family: IpFamily) -> String {
    format!("hairpin-{}", family.suffix())
}
