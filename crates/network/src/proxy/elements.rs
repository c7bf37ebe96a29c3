//! One frontend as elements of the proxy's maps, and the chains that those lead to. What is chosen says all of what
//! its chain does, so frontends that need the same share it.

use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;

use ipnet::IpNet;

use super::kind::Kind;
use super::plan::{Backends, Frontend, NoEndpoints};
use super::rules::{CHAINS, CHOICES, DROPPED, REFUSED, SOURCES};
use crate::nftables::{Concat, Data, Expression, IpFamily, Register, Rule, Verdict};

/// A set's name, a key, and the data there.
pub(super) type Element = (String, Vec<u8>, Data);

/// What is decided about a frontend, with a chain made when it is first needed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Choice {
    /// One of so many endpoints, at random or as before.
    Endpoint { kind: Kind, count: u32, affinity_seconds: Option<u32> },
    /// Lets through only these senders.
    Sources { family: IpFamily, sources: Vec<IpNet> },
}

/// What a frontend is in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rendered {
    pub elements: Vec<Element>,
    pub choices: Vec<Choice>,
}

pub(super) fn render(frontend: &Frontend, backends: &Backends) -> Rendered {
    let kind = Kind::of(frontend);
    let key = Kind::key_of(frontend);
    let mut rendered = Rendered::default();
    if !backends.sources.is_empty() && !kind.node_port {
        let choice = Choice::Sources { family: kind.family, sources: backends.sources.clone() };
        rendered.put(kind.name(SOURCES), key.clone(), Data::Verdict(Verdict::Goto(choice.name())));
        rendered.choices.push(choice);
    }
    if backends.endpoints.is_empty() {
        let set = match backends.otherwise {
            NoEndpoints::Reject => REFUSED,
            NoEndpoints::Drop => DROPPED,
        };
        rendered.put(kind.name(set), key, Data::None);
        return rendered;
    }
    let count = u32::try_from(backends.endpoints.len()).expect("fewer endpoints than addresses");
    let affinity_seconds = backends.affinity_seconds;
    // The first number says nothing.
    let numbers = add_choice(Concat::default().number(0), count, affinity_seconds);
    rendered.put(kind.name(CHOICES), key.clone(), Data::Value(numbers.bytes()));
    rendered.choices.push(Choice::Endpoint { kind, count, affinity_seconds });
    if backends.masquerade {
        rendered.put(kind.name("masquerade"), key.clone(), Data::None);
    }
    let target = |endpoint: &SocketAddr| {
        Data::Value(Concat::default().address(endpoint.ip()).port(endpoint.port()).bytes())
    };
    for (slot, endpoint) in (0..).zip(&backends.endpoints) {
        rendered.put(kind.name("endpoints"), key.clone().number(slot), target(endpoint));
    }
    if affinity_seconds.is_some() {
        for (slot, (endpoint, number)) in (0..).zip(numbered(&backends.endpoints)) {
            let remembered = Data::Value(Concat::default().number(0).number(0).number(number).bytes());
            rendered.put(kind.name("affinity-slots"), key.clone().number(slot), remembered);
            let numbered = Concat::default().number(number).then(&key);
            rendered.put(kind.name("affinity-endpoints"), numbered, target(endpoint));
        }
    }
    rendered
}

/// Endpoints with what is remembered of them: numbers that are theirs whatever others there are, but where two would have
/// the same.
fn numbered(endpoints: &[SocketAddr]) -> impl Iterator<Item = (&SocketAddr, u32)> {
    let mut taken = HashSet::new();
    endpoints.iter().map(move |endpoint| {
        let mut hasher = DefaultHasher::new();
        endpoint.hash(&mut hasher);
        let mut number = hasher.finish() as u32;
        while !taken.insert(number) {
            number = number.wrapping_add(1);
        }
        (endpoint, number)
    })
}

impl Rendered {
    fn put(&mut self, set: String, key: Concat, data: Data) {
        self.elements.push((set, key.bytes(), data));
    }
}

impl Choice {
    /// Of the chain.
    pub fn name(&self) -> String {
        match self {
            Choice::Endpoint { kind, count, affinity_seconds: None } => kind.name(&format!("choose-{count}")),
            Choice::Endpoint { kind, count, affinity_seconds: Some(seconds) } => {
                kind.name(&format!("choose-{count}-for-{seconds}s"))
            }
            Choice::Sources { sources, family } => {
                let mut hasher = DefaultHasher::new();
                sources.hash(&mut hasher);
                format!("sources-{:016x}-{}", hasher.finish(), family.suffix())
            }
        }
    }

    /// What leads from the numbers of a choice among endpoints to its chain.
    pub fn lead(&self) -> Option<Element> {
        let Choice::Endpoint { kind, count, affinity_seconds } = self else { return None };
        let numbers = add_choice(Concat::default(), *count, *affinity_seconds);
        Some((kind.name(CHAINS), numbers.bytes(), Data::Verdict(Verdict::Goto(self.name()))))
    }

    pub fn rules(&self) -> Vec<Rule> {
        match self {
            Choice::Endpoint { kind, count, affinity_seconds: None } => vec![choose(*kind, *count)],
            Choice::Endpoint { kind, count, affinity_seconds: Some(seconds) } => vec![
                choose_again(*kind, *seconds),
                remember_any(*kind, *count, *seconds),
                choose_again(*kind, *seconds),
                // When no more clients can be remembered, they are still served.
                choose(*kind, *count),
            ],
            Choice::Sources { family, sources } => {
                let allow = sources.iter().map(|source| {
                    let mut rule = family.in_network(|to| family.source(to), *source, true);
                    rule.push(Expression::Verdict(Verdict::Return));
                    rule
                });
                allow.chain([vec![Expression::Verdict(Verdict::Drop)]]).collect()
            }
        }
    }
}

/// The numbers of a choice among endpoints; no affinity is one of no duration.
fn add_choice(to: Concat, count: u32, affinity_seconds: Option<u32>) -> Concat {
    to.number(count).number(affinity_seconds.unwrap_or_default())
}

fn choose(kind: Kind, count: u32) -> Rule {
    let mut rule = kind.load_key();
    let to = kind.target_register();
    rule.push(Expression::Random { modulus: count, to });
    rule.push(Expression::Map { map: kind.name("endpoints"), key: kind.key_register(), to });
    rule.push(translate(kind));
    rule
}

/// Sends a client where it was sent before, if that is still an endpoint.
fn choose_again(kind: Kind, seconds: u32) -> Rule {
    let (affinity, client) = (kind.name("affinity"), kind.client_register());
    let found = |to| Expression::Map { map: affinity.clone(), key: client, to };
    let mut rule = kind.load_key();
    rule.extend([
        kind.family.source(client),
        // That the nft tool knows the register in which the number will be.
        kind.family.end_of_source(kind.number_register()),
        found(kind.target_register()),
        // What is there stays. If it has just expired, this is no endpoint's number, and another is remembered next.
        remember(kind, kind.chain_key_register(), seconds),
        found(Register(kind.number_register().0 - 1)),
        Expression::Map {
            map: kind.name("affinity-endpoints"),
            key: kind.number_register(),
            to: kind.target_register(),
        },
        translate(kind),
    ]);
    rule
}

/// Remembers any endpoint, in place of one that is gone.
fn remember_any(kind: Kind, count: u32, seconds: u32) -> Rule {
    let (client, to) = (kind.client_register(), kind.target_register());
    let remembered = Register(to.0 + 1);
    let mut rule = kind.load_key();
    rule.extend([
        Expression::Random { modulus: count, to },
        // That the nft tool knows the registers in which the second and the third number will be.
        kind.family.end_of_source(remembered),
        kind.family.end_of_source(Register(remembered.0 + 1)),
        Expression::Map { map: kind.name("affinity-slots"), key: kind.key_register(), to },
        kind.family.source(client),
        Expression::Remove { map: kind.name("affinity"), key: client, data: remembered },
        remember(kind, remembered, seconds),
    ]);
    rule
}

fn remember(kind: Kind, data: Register, seconds: u32) -> Expression {
    Expression::Update {
        map: kind.name("affinity"),
        key: kind.client_register(),
        data,
        timeout_ms: u64::from(seconds) * 1000,
    }
}

fn translate(kind: Kind) -> Expression {
    let address = kind.target_register();
    let port = Register(address.0 + kind.address_registers());
    Expression::DestinationNat { family: kind.family, address, port }
}
