//! The part of the proxy's nftables table that does not depend on Services: sets, maps, and the
//! rules that look frontends up in them.
//!
//! A verdict map sends each frontend to a chain that chooses among N endpoints; there is one such
//! chain per N, not per Service, so a change of Services is a change of map elements. The choice
//! is a random slot below N, which with the frontend is the key into the map of endpoints. Nothing
//! is marked: what must be masqueraded is found by what the connection was addressed to.
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
pub(super) const REJECT: &str = "reject";

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
    rules.set(kind.name("verdicts"), Set::map(key.clone(), DataType::Verdict));
    rules.set(kind.name("masquerade"), Set::of(key.clone()));
    rules.set(kind.name("endpoints"), Set::map(with(None, vec![Type::Number]), target.clone()));
    let client = Some(kind.family.address_type());
    rules.set(kind.name("affinity"), Set::dynamic_map(with(client, vec![]), target));
    rules.set(kind.name("affinity-endpoints"), Set::of(with(None, kind.target())));
    if kind.origin == Origin::Anywhere {
        rules.set(kind.name("no-endpoints"), Set::map(key.clone(), DataType::Verdict));
        if !kind.node_port {
            rules.set(kind.name("sources"), Set::map(key, DataType::Verdict));
        }
    }
}

fn jump(chain: &str) -> Expression {
    Expression::Verdict(Verdict::Jump(chain.into()))
}

/// Rules that look frontends of these kinds up in a verdict map.
fn by_verdict(kinds: impl Iterator<Item = Kind>, map: &str, networks: &Networks) -> Vec<Rule> {
    let mut rules = Vec::new();
    for kind in kinds {
        for mut rule in kind.matches(&networks.node_ports) {
            rule.extend(kind.load_key());
            rule.push(Expression::VerdictMap { map: kind.name(map), key: kind.key_register() });
            rules.push(rule);
        }
    }
    rules
}

fn add_translation(rules: &mut Ruleset, networks: &Networks) {
    let mut services = Vec::new();
    for family in IpFamily::ALL {
        let inside = format!("{SERVICES}-inside-{}", family.suffix());
        let kinds = Kind::of_origin(Origin::Cluster).filter(move |kind| kind.family == family);
        rules.chain(inside.clone(), None, by_verdict(kinds, "verdicts", networks));
        let pods = Networks::of_family(&networks.pods, family)
            .map(|pods| family.in_network(|to| family.source(to), pods, true));
        for source in pods.chain([family.local_source()]) {
            services.push(family.matches().into_iter().chain(source).chain([jump(&inside)]).collect());
        }
    }
    services.extend(by_verdict(Kind::of_origin(Origin::Anywhere), "verdicts", networks));
    rules.chain(SERVICES, None, services);
    for (name, hook) in [("prerouting", Hook::PREROUTING_NAT), ("output", Hook::OUTPUT_NAT)] {
        rules.chain(name, Some(hook), vec![vec![jump(SERVICES)]]);
        rules.chain(format!("{name}-again"), Some(hook.after()), vec![vec![jump(SERVICES)]]);
    }
}

fn add_filters(rules: &mut Ruleset, networks: &Networks) {
    rules.chain(REJECT, None, vec![vec![Expression::Reject]]);
    let mut refused = by_verdict(Kind::of_origin(Origin::Anywhere), "no-endpoints", networks);
    for family in IpFamily::ALL {
        refused.push(refuse_other_ports(family));
        refused.extend(Networks::of_family(&networks.services, family).map(|net| drop_unknown(family, net)));
    }
    rules.chain(NO_ENDPOINTS, None, refused);
    let addressed = Kind::of_origin(Origin::Anywhere).filter(|kind| !kind.node_port);
    rules.chain(FIREWALL, None, by_verdict(addressed, "sources", networks));
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
