//! What the zone answers, name by name.

use apimachinery::json;

use super::World;
use crate::dns::wire::{Code, Data, Record, Response, kind};
use crate::dns::{Name, Outcome};

/// Outcome in words: `NAME TYPE DATA` per record, the code if there is none.
fn words(outcome: Outcome) -> Vec<String> {
    match outcome {
        Outcome::Forward => vec!["forward".into()],
        Outcome::Follow(record, _) => vec![word(&record)],
        Outcome::Answer(response) => response_words(&response),
    }
}

fn response_words(response: &Response) -> Vec<String> {
    if response.answers.is_empty() {
        let soa = response.authority.iter().any(|record| matches!(record.data, Data::Soa { minimum: 5, .. }));
        return vec![format!("{:?}{}", response.code, if soa { " soa" } else { "" })];
    }
    assert_eq!(response.code, Code::NoError);
    let additional = response.additional.iter().map(|record| format!("+ {}", word(record)));
    response.answers.iter().map(word).chain(additional).collect()
}

fn word(record: &Record) -> String {
    let data = match &record.data {
        Data::A(address) => format!("A {address}"),
        Data::Aaaa(address) => format!("AAAA {address}"),
        Data::Cname(name) => format!("CNAME {name}"),
        Data::Ns(name) => format!("NS {name}"),
        Data::Ptr(name) => format!("PTR {name}"),
        Data::Txt(text) => format!("TXT {text}"),
        Data::Srv { priority, weight, port, target } => format!("SRV {priority} {weight} {port} {target}"),
        Data::Soa { primary, .. } => format!("SOA {primary}"),
    };
    format!("{} {data}", record.name)
}

fn check(name: &str, kind: u16, expected: &[&str]) {
    let zone = World::with_services().zone;
    assert_eq!(words(zone.resolve(&Name::parse(name).expect("a name"), kind)), expected, "{name} {kind}");
}

#[test]
fn a_service_has_its_cluster_ips() {
    check("web.default.svc.cluster.local", kind::A, &["web.default.svc.cluster.local. A 10.96.0.20"]);
    check("web.default.svc.cluster.local", kind::AAAA, &["web.default.svc.cluster.local. AAAA fd00:96::20"]);
    check("WEB.Default.svc.CLUSTER.local.", kind::A, &["web.default.svc.cluster.local. A 10.96.0.20"]);
    check("web.default.svc.cluster.local", kind::TXT, &["NoError soa"]);
}

#[test]
fn a_headless_service_has_its_ready_endpoints() {
    let name = "redis.default.svc.cluster.local";
    let expected =
        ["redis.default.svc.cluster.local. A 10.244.0.5", "redis.default.svc.cluster.local. A 10.244.0.6"];
    check(name, kind::A, &expected);
    check(name, kind::AAAA, &["NoError soa"]);
}

#[test]
fn endpoints_have_names_of_their_own() {
    check(
        "redis-0.redis.default.svc.cluster.local",
        kind::A,
        &["redis-0.redis.default.svc.cluster.local. A 10.244.0.5"],
    );
    check(
        "10-244-0-6.redis.default.svc.cluster.local",
        kind::A,
        &["10-244-0-6.redis.default.svc.cluster.local. A 10.244.0.6"],
    );
    check("redis-1.redis.default.svc.cluster.local", kind::A, &["NameError soa"]);
}

#[test]
fn ports_have_srv_records_with_the_addresses_of_their_targets() {
    check(
        "_http._tcp.web.default.svc.cluster.local",
        kind::SRV,
        &[
            "_http._tcp.web.default.svc.cluster.local. SRV 0 100 80 web.default.svc.cluster.local.",
            "+ web.default.svc.cluster.local. A 10.96.0.20",
            "+ web.default.svc.cluster.local. AAAA fd00:96::20",
        ],
    );
    check(
        "_redis._tcp.redis.default.svc.cluster.local",
        kind::SRV,
        &[
            "_redis._tcp.redis.default.svc.cluster.local. SRV 0 100 6380 redis-0.redis.default.svc.cluster.local.",
            "_redis._tcp.redis.default.svc.cluster.local. SRV 0 100 6380 10-244-0-6.redis.default.svc.cluster.local.",
            "+ redis-0.redis.default.svc.cluster.local. A 10.244.0.5",
            "+ 10-244-0-6.redis.default.svc.cluster.local. A 10.244.0.6",
        ],
    );
    check("_http._udp.web.default.svc.cluster.local", kind::SRV, &["NameError soa"]);
    check("_tcp.web.default.svc.cluster.local", kind::SRV, &["NoError soa"]);
}

#[test]
fn addresses_have_names() {
    check(
        "20.0.96.10.in-addr.arpa",
        kind::PTR,
        &["20.0.96.10.in-addr.arpa. PTR web.default.svc.cluster.local."],
    );
    check(
        "5.0.244.10.in-addr.arpa",
        kind::PTR,
        &["5.0.244.10.in-addr.arpa. PTR redis-0.redis.default.svc.cluster.local."],
    );
    check("1.2.0.192.in-addr.arpa", kind::PTR, &["forward"]);
}

#[test]
fn pods_are_named_after_their_address() {
    check(
        "10-244-0-9.default.pod.cluster.local",
        kind::A,
        &["10-244-0-9.default.pod.cluster.local. A 10.244.0.9"],
    );
    check("10-244-0-9.nowhere.pod.cluster.local", kind::A, &["NameError soa"]);
    check("not-an-ip.default.pod.cluster.local", kind::A, &["NameError soa"]);
}

#[test]
fn names_that_do_not_exist_and_names_without_data_differ() {
    for absent in ["web.nowhere.svc", "nowhere.default.svc", "nowhere.svc", "anything", "a.b.c.d.e.svc"] {
        check(&format!("{absent}.cluster.local"), kind::A, &["NameError soa"]);
    }
    for empty in ["default.svc.", "svc.", "pod.", "default.pod.", ""] {
        check(&format!("{empty}cluster.local"), kind::A, &["NoError soa"]);
    }
}

#[test]
fn the_zone_describes_itself() {
    check("dns-version.cluster.local", kind::TXT, &["dns-version.cluster.local. TXT 1.1.0"]);
    check("cluster.local", kind::NS, &["cluster.local. NS ns.dns.cluster.local."]);
    check("cluster.local", kind::SOA, &["cluster.local. SOA ns.dns.cluster.local."]);
    check("ns.dns.cluster.local", kind::A, &["ns.dns.cluster.local. A 10.244.0.1"]);
}

#[test]
fn an_external_name_is_an_alias_and_other_names_are_forwarded() {
    check(
        "outside.default.svc.cluster.local",
        kind::A,
        &["outside.default.svc.cluster.local. CNAME example.org."],
    );
    check("example.org", kind::A, &["forward"]);
    check("cluster.local.example.org", kind::A, &["forward"]);
}

#[test]
fn unready_endpoints_are_published_when_the_service_says_so() {
    let world = World::with_services();
    let spec = json!({"clusterIP": "None", "publishNotReadyAddresses": true, "ports": [{"name": "redis", "port": 6379}]});
    world.service("redis", spec);
    let outcome = world.zone.resolve(&Name::parse("redis.default.svc.cluster.local").unwrap(), kind::A);
    assert_eq!(words(outcome).len(), 3);
}

#[test]
fn a_headless_service_without_endpoints_has_no_name() {
    let world = World::with_services();
    world.slice("redis", json!([{"name": "redis", "port": 6380}]), json!([]));
    for name in ["redis.default.svc.cluster.local", "_redis._tcp.redis.default.svc.cluster.local"] {
        for kind in [kind::A, kind::SRV] {
            let outcome = world.zone.resolve(&Name::parse(name).unwrap(), kind);
            assert_eq!(words(outcome), ["NameError soa"], "{name} {kind}");
        }
    }
}
