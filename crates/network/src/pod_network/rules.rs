//! The pod network's nftables rules, decided from its configuration and what is attached: host
//! ports, masquerade of what leaves the cluster, and of what a pod sends to itself through a
//! translated address (else it would see its own address as the sender and drop the packet).

use ipnet::IpNet;

use super::state::Attachment;
use crate::nftables::{
    Concat, Data, DataType, Expression, Hook, IpFamily, Register, Rule, Ruleset, Set, Type, Verdict,
    any_local_destination, destination_translated, invalid_connection, new_connection, source_is_local,
};

/// Chain that translates what is addressed to a host port.
const HOST_PORTS: &str = "host-ports";

/// `inside` is reached under pods' own addresses.
pub(super) fn ruleset<'a>(
    table: &str,
    pod_cidrs: &[IpNet],
    inside: &[IpNet],
    attachments: impl Iterator<Item = &'a Attachment> + Clone,
) -> Ruleset {
    let mut rules = Ruleset::new(table);
    let (mut translate, mut masquerade, mut forward) = (Vec::new(), Vec::new(), Vec::new());
    let mut input = Vec::new();
    for family in IpFamily::ALL {
        if !pod_cidrs.iter().any(|cidr| IpFamily::of(cidr.addr()) == family) {
            continue;
        }
        add_sets(&mut rules, family, attachments.clone());
        translate.push(host_address_rule(family));
        translate.push(host_port_rule(family));
        masquerade.push(hairpin_rule(family));
        if family == IpFamily::V4 {
            masquerade.push(loopback_rule());
            input.push(stranger_rule());
        }
        masquerade.extend(outward_rules(family, pod_cidrs, inside));
        forward.extend(invalid_rules(family, pod_cidrs));
    }
    let jump = vec![vec![Expression::Verdict(Verdict::Jump(HOST_PORTS.into()))]];
    rules.chain(HOST_PORTS, None, translate);
    rules.chain("prerouting", Some(Hook::PREROUTING_NAT), jump.clone());
    rules.chain("output", Some(Hook::OUTPUT_NAT), jump);
    rules.chain("postrouting", Some(Hook::POSTROUTING_NAT), masquerade);
    rules.chain("forward", Some(Hook::FORWARD_FILTER), forward);
    rules.chain("input", Some(Hook::INPUT_FILTER), input);
    rules
}

fn add_sets<'a>(rules: &mut Ruleset, family: IpFamily, attachments: impl Iterator<Item = &'a Attachment>) {
    let address = family.address_type();
    let target = DataType::Value(vec![address, Type::Port]);
    let mut hairpin = Set::of(vec![address, address]);
    let mut by_port = Set::map(vec![Type::Protocol, Type::Port], target.clone());
    let mut by_address = Set::map(vec![address, Type::Protocol, Type::Port], target);
    for attachment in attachments {
        let Some(pod) = attachment.addresses.iter().copied().find(|ip| IpFamily::of(*ip) == family) else {
            continue;
        };
        hairpin.elements.insert(Concat::default().address(pod).address(pod).bytes(), Data::None);
        for port in &attachment.host_ports {
            let protocol = port.protocol.number();
            let target = Data::Value(Concat::default().address(pod).port(port.container_port).bytes());
            match port.host_ip.filter(|ip| !ip.is_unspecified()) {
                None => {
                    let key = Concat::default().protocol(protocol).port(port.host_port);
                    by_port.elements.insert(key.bytes(), target);
                }
                Some(host) if IpFamily::of(host) == family => {
                    let key = Concat::default().address(host).protocol(protocol).port(port.host_port);
                    by_address.elements.insert(key.bytes(), target);
                }
                Some(_) => {}
            }
        }
    }
    rules.set(hairpin_set(family), hairpin);
    rules.set(port_map(family), by_port);
    rules.set(address_map(family), by_address);
}

fn host_port_rule(family: IpFamily) -> Rule {
    let mut rule = family.matches();
    // There is no way from `::1` to a pod: the kernel knows `route_localnet` for IPv4 alone.
    rule.extend(match family {
        IpFamily::V4 => any_local_destination(),
        IpFamily::V6 => family.local_destination(),
    });
    rule.extend([Expression::protocol(Register(0)), Expression::destination_port(Register(1))]);
    rule.extend(translate_by(port_map(family), family));
    rule
}

fn host_address_rule(family: IpFamily) -> Rule {
    let after_address = family.address_type().registers();
    let mut rule = family.matches();
    rule.extend([
        family.destination(Register(0)),
        Expression::protocol(Register(after_address)),
        Expression::destination_port(Register(after_address + 1)),
    ]);
    rule.extend(translate_by(address_map(family), family));
    rule
}

fn translate_by(map: String, family: IpFamily) -> [Expression; 2] {
    let port = Register(family.address_type().registers());
    [
        Expression::Map { map, key: Register(0), to: Register(0) },
        Expression::DestinationNat { family, address: Register(0), port },
    ]
}

fn hairpin_rule(family: IpFamily) -> Rule {
    let mut rule = family.matches();
    rule.extend(destination_translated());
    rule.extend([
        family.source(Register(0)),
        family.destination(Register(family.address_type().registers())),
        Expression::Contains { set: hairpin_set(family), key: Register(0), contains: true },
        Expression::Masquerade,
    ]);
    rule
}

/// What this host sends to a host port on a loopback address comes from one, to which no pod can answer.
fn loopback_rule() -> Rule {
    let mut rule = IpFamily::V4.matches();
    rule.extend(destination_translated());
    rule.extend(IpFamily::V4.loopback_source());
    rule.push(Expression::Masquerade);
    rule
}

/// The answers to such packets need `route_localnet`, which lets others send to loopback addresses as well
/// (CVE-2020-8558).
fn stranger_rule() -> Rule {
    let mut rule = IpFamily::V4.matches();
    rule.extend(new_connection());
    rule.extend(IpFamily::V4.loopback_destination(true));
    rule.extend(source_is_local(false));
    rule.push(Expression::Verdict(Verdict::Drop));
    rule
}

/// From this node's pods to outside the cluster.
fn outward_rules(family: IpFamily, pod_cidrs: &[IpNet], inside: &[IpNet]) -> Vec<Rule> {
    let of_family = |cidr: &&IpNet| IpFamily::of(cidr.addr()) == family;
    let pods = pod_cidrs.iter().filter(of_family);
    pods.map(|pods| {
        let mut rule = family.matches();
        rule.extend(family.in_network(|to| family.source(to), *pods, true));
        for inside in [pods].into_iter().chain(inside.iter().filter(of_family)) {
            rule.extend(family.in_network(|to| family.destination(to), *inside, false));
        }
        rule.push(Expression::Masquerade);
        rule
    })
    .collect()
}

/// A pod's packets that connection tracking cannot place would leave untranslated, and make the
/// client reset a connection that is well.
fn invalid_rules(family: IpFamily, pod_cidrs: &[IpNet]) -> Vec<Rule> {
    let pods = pod_cidrs.iter().filter(|cidr| IpFamily::of(cidr.addr()) == family);
    pods.map(|pods| {
        let mut rule = family.matches();
        rule.extend(invalid_connection());
        rule.extend(family.in_network(|to| family.source(to), *pods, true));
        rule.push(Expression::Verdict(Verdict::Drop));
        rule
    })
    .collect()
}

fn hairpin_set(family: IpFamily) -> String {
    format!("hairpin-{}", family.suffix())
}

fn port_map(family: IpFamily) -> String {
    format!("host-ports-{}", family.suffix())
}

fn address_map(family: IpFamily) -> String {
    format!("host-addresses-{}", family.suffix())
}
