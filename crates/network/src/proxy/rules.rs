//! The part of the proxy's nftables table that does not depend on Services: sets, maps, and the
//! rules that look frontends up in them.
//!
//! A map has for each frontend what is chosen for it, as numbers: one of N endpoints, say. A small verdict map leads
//! from there to the chain that does it; there is one such chain per N, not per Service, so a change of Services is a
//! change of map elements. The choice is a random slot below N, which with the frontend is the key into the map of
//! endpoints. Nothing is marked: what must be masqueraded is found by what the connection was addressed to.
//!
//! Frontends have no verdicts of their own, though that would spare a step: whenever one is added that leads to a
//! chain, the kernel goes through all verdicts of the table to find loops, which among ten thousand Services takes
//! longer than all else. Only who may send to a frontend is a verdict, as few frontends ask for that.
//!
//! Session affinity remembers for each client the number of an endpoint, which is the endpoint's own whatever others there
//! are. Like a choice it has other numbers before it that say nothing: Debian's nft 1.0.6 aborts, for all tables of the
//! machine, when what it lists begins a key, or data to remember, in the register in which a map put what it gave. What it
//! shows is what those after that register held before.
//!
//! Everything is tried twice. A transaction is atomic for each lookup, but a packet makes several:
//! it may find its frontend before a change and miss the endpoint after it. The second base chain
//! sees only the new state, so that no connection is refused while endpoints change.

use std::net::IpAddr;

use ipnet::IpNet;

use super::kind::Kind;
use super::plan::Origin;
use crate::nftables::{
    Concat, Data, DataType, Expression, Hook, IpFamily, Register, Rule, Ruleset, Set, Type, Verdict,
    destination_translated, new_connection,
};

const SERVICES: &str = "services";
const NO_ENDPOINTS: &str = "no-endpoints";
const FIREWALL: &str = "firewall";

/// Maps with what is chosen for frontends, from there to its chain, and from frontends to who may send to them.
pub(super) const CHOICES: &str = "choices";
pub(super) const CHAINS: &str = "chains";
pub(super) const SOURCES: &str = "sources";

/// Sets of frontends without endpoints.
pub(super) const REFUSED: &str = "refused";
pub(super) const DROPPED: &str = "dropped";

/// What the rules know about the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    /// Where pods are: others who reach a ClusterIP through this node are masqueraded.
    pub pods: Vec<IpNet>,
    /// Where ClusterIPs are: those that no Service has lead nowhere.
    pub services: Vec<IpNet>,
    /// Node ports are on the node's addresses in these networks; on all of them when empty.
    pub node_ports: Vec<IpNet>,
}

impl Networks {
    fn of_family(networks: &[IpNet], family: IpFamily) -> impl Iterator<Item = IpNet> {
        networks.iter().copied().filter(move |network| IpFamily::of(network.addr()) == family)
    }
}

/// The table without any Service.
pub(super) fn base(table: &str, networks: &Networks) -> Ruleset {
    let mut rules = Ruleset::new(table);
    Kind::all().for_each(|kind| add_maps(&mut rules, kind));
    for family in IpFamily::ALL {
        let address = family.address_type();
        rules.set(cluster_ips(family), Set::of(vec![address]));
        rules.set(hairpin(family), Set::of(vec![address, address]));
    }
    add_translation(&mut rules, networks);
    add_filters(&mut rules, networks);
    let external = Kind::all().map(masquerade_external);
    let outside = IpFamily::ALL.into_iter().filter_map(|family| masquerade_outside(family, &networks.pods));
    let hairpins = IpFamily::ALL.map(masquerade_hairpin);
    let masquerade = external.chain(outside).chain(hairpins).collect();
    rules.chain("postrouting", Some(Hook::POSTROUTING_NAT), masquerade);
    rules
}

/// The set of ClusterIPs, and an address's key there.
pub(super) fn cluster_ip_element(address: IpAddr) -> (String, Vec<u8>, Data) {
    (cluster_ips(IpFamily::of(address)), Concat::default().address(address).bytes(), Data::None)
}

/// The set of those who may talk to themselves, and an address's key there.
pub(super) fn hairpin_element(address: IpAddr) -> (String, Vec<u8>, Data) {
    let key = Concat::default().address(address).address(address).bytes();
    (hairpin(IpFamily::of(address)), key, Data::None)
}

fn add_maps(rules: &mut Ruleset, kind: Kind) {
    let (key, target) = (kind.key(), DataType::Value(kind.target()));
    let with =
        |front: Option<Type>, back: Vec<Type>| front.into_iter().chain(key.clone()).chain(back).collect();
    rules.set(kind.name(CHOICES), Set::map(key.clone(), DataType::Value(Kind::CHOICE.to_vec())));
    rules.set(kind.name(CHAINS), Set::map(Kind::CHAIN_KEY.to_vec(), DataType::Verdict));
    if kind.origin == Origin::Anywhere {
        rules.set(kind.name(REFUSED), Set::of(key.clone()));
        rules.set(kind.name(DROPPED), Set::of(key.clone()));
        if !kind.node_port {
            rules.set(kind.name(SOURCES), Set::map(key.clone(), DataType::Verdict));
        }
    }
    rules.set(kind.name("masquerade"), Set::of(key.clone()));
    rules.set(kind.name("endpoints"), Set::map(with(None, vec![Type::Number]), target.clone()));
    let client = Some(kind.family.address_type());
    let remembered = DataType::Value(Kind::REMEMBERED.to_vec());
    rules.set(kind.name("affinity"), Set::dynamic_map(with(client, vec![]), remembered));
    let to_remember = DataType::Value(Kind::TO_REMEMBER.to_vec());
    rules.set(kind.name("affinity-slots"), Set::map(with(None, vec![Type::Number]), to_remember));
    rules.set(kind.name("affinity-endpoints"), Set::map(with(Some(Type::Number), vec![]), target));
}

fn jump(chain: &str) -> Expression {
    Expression::Verdict(Verdict::Jump(chain.into()))
}

/// Rules that load what packets are addressed to, where that may be frontends of these kinds, and do what `then` says.
fn for_frontends(
    kinds: impl Iterator<Item = Kind>,
    networks: &Networks,
    then: impl Fn(Kind) -> Rule,
) -> Vec<Rule> {
    let mut rules = Vec::new();
    for kind in kinds {
        for mut rule in kind.matches(&networks.node_ports) {
            rule.extend(kind.load_key());
            rule.extend(then(kind));
            rules.push(rule);
        }
    }
    rules
}

fn go_as_chosen(kind: Kind) -> Rule {
    vec![
        Expression::Map { map: kind.name(CHOICES), key: kind.key_register(), to: kind.choice_register() },
        Expression::VerdictMap { map: kind.name(CHAINS), key: kind.chain_key_register() },
    ]
}

fn check_sources(kind: Kind) -> Rule {
    vec![Expression::VerdictMap { map: kind.name(SOURCES), key: kind.key_register() }]
}

fn is_in(set: &str, kind: Kind) -> Expression {
    Expression::Contains { set: kind.name(set), key: kind.key_register(), contains: true }
}

fn add_translation(rules: &mut Ruleset, networks: &Networks) {
    let mut services = Vec::new();
    for family in IpFamily::ALL {
        let inside = format!("{SERVICES}-inside-{}", family.suffix());
        let kinds = Kind::of_origin(Origin::Cluster).filter(move |kind| kind.family == family);
        rules.chain(inside.clone(), None, for_frontends(kinds, networks, go_as_chosen));
        let pods = Networks::of_family(&networks.pods, family)
            .map(|pods| family.in_network(|to| family.source(to), pods, true));
        for source in pods.chain([family.local_source()]) {
            services.push(family.matches().into_iter().chain(source).chain([jump(&inside)]).collect());
        }
    }
    services.extend(for_frontends(Kind::of_origin(Origin::Anywhere), networks, go_as_chosen));
    rules.chain(SERVICES, None, services);
    for (name, hook) in [("prerouting", Hook::PREROUTING_NAT), ("output", Hook::OUTPUT_NAT)] {
        rules.chain(name, Some(hook), vec![vec![jump(SERVICES)]]);
        rules.chain(format!("{name}-again"), Some(hook.after()), vec![vec![jump(SERVICES)]]);
    }
}

fn add_filters(rules: &mut Ruleset, networks: &Networks) {
    let anywhere = || Kind::of_origin(Origin::Anywhere);
    let mut refused =
        for_frontends(anywhere(), networks, |kind| vec![is_in(REFUSED, kind), Expression::Reject]);
    let drop = |kind| vec![is_in(DROPPED, kind), Expression::Verdict(Verdict::Drop)];
    refused.extend(for_frontends(anywhere(), networks, drop));
    for family in IpFamily::ALL {
        refused.push(refuse_other_ports(family));
        refused.extend(Networks::of_family(&networks.services, family).map(|net| drop_unknown(family, net)));
    }
    rules.chain(NO_ENDPOINTS, None, refused);
    let addressed = anywhere().filter(|kind| !kind.node_port);
    rules.chain(FIREWALL, None, for_frontends(addressed, networks, check_sources));
    let hooks = [
        ("filter-input", Hook::INPUT_FILTER, NO_ENDPOINTS),
        ("filter-forward", Hook::FORWARD_FILTER, NO_ENDPOINTS),
        ("filter-output", Hook::OUTPUT_FILTER, NO_ENDPOINTS),
        ("firewall-prerouting", Hook::PREROUTING_FIREWALL, FIREWALL),
        ("firewall-output", Hook::OUTPUT_FIREWALL, FIREWALL),
    ];
    for (name, hook, chain) in hooks {
        let rule = new_connection().into_iter().chain([jump(chain)]).collect();
        rules.chain(name, Some(hook), vec![rule]);
    }
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

fn drop_unknown(family: IpFamily, services: IpNet) -> Rule {
    let mut rule = family.matches();
    rule.extend(family.in_network(|to| family.destination(to), services, true));
    rule.push(Expression::Verdict(Verdict::Drop));
    rule
}

fn masquerade_external(kind: Kind) -> Rule {
    let mut rule = kind.family.matches();
    rule.extend(destination_translated());
    if kind.origin == Origin::Cluster {
        rule.extend(kind.family.local_source());
    }
    rule.extend(kind.load_original_key());
    rule.extend([
        Expression::Contains { set: kind.name("masquerade"), key: kind.key_register(), contains: true },
        Expression::Masquerade,
    ]);
    rule
}

/// Who is neither a pod nor anybody else in their networks, and comes through a ClusterIP.
fn masquerade_outside(family: IpFamily, pods: &[IpNet]) -> Option<Rule> {
    let mut pods = Networks::of_family(pods, family).peekable();
    pods.peek()?;
    let mut rule = family.matches();
    rule.extend(destination_translated());
    rule.extend([
        family.original_destination(Register(0)),
        Expression::Contains { set: cluster_ips(family), key: Register(0), contains: true },
    ]);
    rule.extend(pods.flat_map(|pods| family.in_network(|to| family.source(to), pods, false)));
    rule.push(Expression::Masquerade);
    Some(rule)
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
