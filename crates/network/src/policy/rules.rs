//! A [`Plan`] as the content of one nftables table: verdict maps lead each isolated pod to a chain
//! that tries the policies which hold for it and drops what none allows. Pods with the same
//! policies share that chain. Changes of pods are changes of map and set elements.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use apimachinery::meta::NamespacedName;

use super::plan::{Allowed, Block, Direction, Plan, Port};
use crate::nftables::{
    Concat, Data, DataType, Expression, Hook, IpFamily, Register, Rule, Ruleset, Set, Type, Verdict,
    known_connection,
};
use crate::protocol::Protocol;

pub(super) fn ruleset(table: &str, plan: &Plan) -> Ruleset {
    let mut rules = Ruleset::new(table);
    for direction in Direction::ALL {
        for family in IpFamily::ALL {
            rules.set(pods_map(direction, family), Set::map(vec![family.address_type()], DataType::Verdict));
            let address = family.address_type();
            rules.set(self_set(direction, family), Set::of(vec![address, address]));
        }
    }
    for ((direction, name), allowed) in &plan.policies {
        add_policy(&mut rules, *direction, name, allowed);
    }
    for ((direction, address), policies) in &plan.pods {
        add_pod(&mut rules, *direction, *address, policies);
    }
    add_base_chains(&mut rules);
    rules
}

/// An accepted packet leaves only the base chain that accepted it, so each direction has its own.
fn add_base_chains(rules: &mut Ruleset) {
    let hooks = [Hook::FORWARD_FILTER, Hook::FORWARD_FILTER.after()];
    for (direction, hook) in [Direction::Egress, Direction::Ingress].into_iter().zip(hooks) {
        let mut known = known_connection();
        known.push(Expression::Verdict(Verdict::Accept));
        let mut chain = vec![known];
        for family in IpFamily::ALL {
            chain.push(itself(direction, family));
            chain.push(lookup(direction, family));
        }
        rules.chain(direction_name(direction), Some(hook), chain);
    }
}

/// A pod reaches itself through a Service whatever policies say.
fn itself(direction: Direction, family: IpFamily) -> Rule {
    let mut rule = family.matches();
    rule.extend([
        family.source(Register(0)),
        family.destination(Register(family.address_type().registers())),
        Expression::Contains { set: self_set(direction, family), key: Register(0), contains: true },
        Expression::Verdict(Verdict::Accept),
    ]);
    rule
}

fn lookup(direction: Direction, family: IpFamily) -> Rule {
    let mut rule = family.matches();
    rule.push(match direction {
        Direction::Ingress => family.destination(Register(0)),
        Direction::Egress => family.source(Register(0)),
    });
    rule.push(Expression::VerdictMap { map: pods_map(direction, family), key: Register(0) });
    rule
}

fn add_pod(rules: &mut Ruleset, direction: Direction, pod: IpAddr, policies: &BTreeSet<NamespacedName>) {
    let family = IpFamily::of(pod);
    let chain = format!("{}-pods-{}", direction_name(direction), digest(policies));
    if !rules.chains.contains_key(&chain) {
        let jump = |name| vec![Expression::Verdict(Verdict::Jump(policy_chain(direction, name)))];
        let tried = policies.iter().map(jump).chain([vec![Expression::Verdict(Verdict::Drop)]]);
        rules.chain(chain.clone(), None, tried.collect());
    }
    let key = Concat::default().address(pod);
    put(rules, &self_set(direction, family), key.clone().address(pod), Data::None);
    put(rules, &pods_map(direction, family), key, Data::Verdict(Verdict::Goto(chain)));
}

fn add_policy(rules: &mut Ruleset, direction: Direction, name: &NamespacedName, allowed: &[Allowed]) {
    let chain = policy_chain(direction, name);
    let mut steps = Vec::new();
    for (number, rule) in allowed.iter().enumerate() {
        for family in IpFamily::ALL {
            let part = Part { direction, family, name: format!("{chain}-{number}") };
            let peers = part.peers(rules, rule);
            let ports = part.ports(rules, rule);
            for peer in &peers {
                for port in &ports {
                    let accept = [Expression::Verdict(Verdict::Accept)];
                    let whole = [&family.matches()[..], peer, port, &accept];
                    steps.push(whole.concat());
                }
            }
        }
    }
    rules.chain(chain, None, steps);
}

/// One rule of a policy in one family.
struct Part {
    direction: Direction,
    family: IpFamily,
    /// What its sets' names begin with.
    name: String,
}

impl Part {
    fn load_peer(&self, to: Register) -> Expression {
        match self.direction {
            Direction::Ingress => self.family.source(to),
            Direction::Egress => self.family.destination(to),
        }
    }

    /// Each matches some peers.
    fn peers(&self, rules: &mut Ruleset, rule: &Allowed) -> Vec<Rule> {
        let Some(peers) = &rule.peers else { return vec![vec![]] };
        let mut matches = Vec::new();
        if let Some(pods) = &peers.pods {
            let set = format!("{}-peers-{}", self.name, self.family.suffix());
            rules.set(set.clone(), Set::of(vec![self.family.address_type()]));
            for pod in pods.iter().filter(|pod| IpFamily::of(**pod) == self.family) {
                put(rules, &set, Concat::default().address(*pod), Data::None);
            }
            let contains = Expression::Contains { set, key: Register(0), contains: true };
            matches.push(vec![self.load_peer(Register(0)), contains]);
        }
        let of_family = |block: &&Block| IpFamily::of(block.cidr.addr()) == self.family;
        matches.extend(peers.blocks.iter().filter(of_family).map(|block| self.block(block)));
        matches
    }

    fn block(&self, block: &Block) -> Rule {
        let load = |to| self.load_peer(to);
        let mut rule = self.family.in_network(load, block.cidr, true);
        for except in block.except.iter().filter(|net| IpFamily::of(net.addr()) == self.family) {
            rule.extend(self.family.in_network(load, *except, false));
        }
        rule
    }

    /// Each matches some ports.
    fn ports(&self, rules: &mut Ruleset, rule: &Allowed) -> Vec<Rule> {
        let Some(ports) = &rule.ports else { return vec![vec![]] };
        let mut matches = Vec::new();
        for (number, port) in ports.iter().enumerate() {
            matches.push(match port {
                Port::Any(protocol) => is_protocol(*protocol),
                Port::Range(protocol, first, last) => in_range(*protocol, *first, *last),
                Port::Named(protocol, targets) => {
                    let set = format!("{}-port-{number}-{}", self.name, self.family.suffix());
                    let key = vec![self.family.address_type(), Type::Protocol, Type::Port];
                    rules.set(set.clone(), Set::of(key));
                    for (address, port) in targets.iter().filter(|(ip, _)| IpFamily::of(*ip) == self.family) {
                        let key = Concat::default().address(*address).protocol(protocol.number()).port(*port);
                        put(rules, &set, key, Data::None);
                    }
                    self.named(set)
                }
            });
        }
        matches
    }

    fn named(&self, set: String) -> Rule {
        let after = self.family.address_type().registers();
        vec![
            self.family.destination(Register(0)),
            Expression::protocol(Register(after)),
            Expression::destination_port(Register(after + 1)),
            Expression::Contains { set, key: Register(0), contains: true },
        ]
    }
}

fn is_protocol(protocol: Protocol) -> Rule {
    vec![
        Expression::protocol(Register(0)),
        Expression::Compare { from: Register(0), equal: true, value: vec![protocol.number()] },
    ]
}

fn in_range(protocol: Protocol, first: u16, last: u16) -> Rule {
    let mut rule = is_protocol(protocol);
    let from = Register(0);
    rule.push(Expression::destination_port(from));
    rule.push(if first == last {
        Expression::Compare { from, equal: true, value: first.to_be_bytes().to_vec() }
    } else {
        Expression::Range { from, first: first.to_be_bytes().to_vec(), last: last.to_be_bytes().to_vec() }
    });
    rule
}

fn put(rules: &mut Ruleset, set: &str, key: Concat, data: Data) {
    let set = rules.sets.get_mut(set).expect("every set was added before");
    set.elements.insert(key.bytes(), data);
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

fn pods_map(direction: Direction, family: IpFamily) -> String {
    format!("{}-pods-{}", direction_name(direction), family.suffix())
}

fn self_set(direction: Direction, family: IpFamily) -> String {
    format!("{}-self-{}", direction_name(direction), family.suffix())
}

/// A policy's name may be longer than a chain's.
fn policy_chain(direction: Direction, name: &NamespacedName) -> String {
    format!("{}-policy-{}", direction_name(direction), digest(name))
}

fn digest(what: &impl Hash) -> String {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}
