//! Tables decided from Services and EndpointSlices.

use std::sync::Arc;

use api::view::core::Service;
use api::view::discovery::EndpointSlice;
use apimachinery::{Value, json};

use super::{endpoint, plan_into, service, slice};
use crate::proxy::{Changes, NoEndpoints, Origin, Tables};

/// The plan in words: `FRONTEND -> ENDPOINTS [flags]`, one frontend per line.
fn words(tables: &Tables) -> Vec<String> {
    let mut lines = Vec::new();
    for (frontend, backends) in tables.frontends() {
        let address = frontend.address.map_or("node".to_string(), |address| address.to_string());
        let endpoints: Vec<String> = backends.endpoints.iter().map(ToString::to_string).collect();
        let to = match (endpoints.is_empty(), backends.otherwise) {
            (false, _) => endpoints.join(" "),
            (true, NoEndpoints::Reject) => "reject".into(),
            (true, NoEndpoints::Drop) => "drop".into(),
        };
        let masquerade = if backends.masquerade { " masquerade" } else { "" };
        let affinity = backends.affinity_seconds.map_or(String::new(), |seconds| format!(" for {seconds}s"));
        let inside = if frontend.origin == Origin::Cluster { "inside " } else { "" };
        let sources: String = backends.sources.iter().map(|source| format!(" from {source}")).collect();
        lines.push(format!(
            "{inside}{address} {:?} {} -> {to}{masquerade}{affinity}{sources}",
            frontend.protocol, frontend.port
        ));
    }
    lines
}

fn tables(services: &[Arc<Service>], slices: &[Arc<EndpointSlice>]) -> Tables {
    let mut tables = Tables::default();
    plan_into(&mut tables, &mut Changes::default(), services, slices);
    tables
}

fn check(spec: Value, endpoints: &[Value], expected: &[&str]) {
    let tables = tables(&[service("web", spec)], &[slice("web", "TCP", endpoints)]);
    assert_eq!(words(&tables), expected);
}

#[test]
fn a_cluster_ip_leads_to_ready_endpoints() {
    let endpoints = [
        endpoint("10.244.0.3"),
        endpoint("10.244.0.2"),
        json!({"addresses": ["10.244.0.4"], "conditions": {"ready": false, "serving": false}}),
        json!({"addresses": ["10.244.0.5"], "conditions": {"ready": false, "serving": true, "terminating": true}}),
    ];
    check(json!({}), &endpoints, &["10.96.0.10 Tcp 80 -> 10.244.0.2:8080 10.244.0.3:8080"]);
}

#[test]
fn terminating_endpoints_serve_while_none_is_ready() {
    let endpoints = [
        json!({"addresses": ["10.244.0.4"], "conditions": {"ready": false, "serving": false, "terminating": true}}),
        json!({"addresses": ["10.244.0.5"], "conditions": {"ready": false, "serving": true, "terminating": true}}),
    ];
    check(json!({}), &endpoints, &["10.96.0.10 Tcp 80 -> 10.244.0.5:8080"]);
}

#[test]
fn external_frontends_masquerade_under_cluster_policy_only() {
    let spec = |policy: &str| {
        json!({"type": "NodePort", "externalIPs": ["203.0.113.7"], "externalTrafficPolicy": policy,
            "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]})
    };
    let endpoints = [endpoint("10.244.0.2"), json!({"addresses": ["10.244.1.2"], "nodeName": "there"})];
    check(
        spec("Cluster"),
        &endpoints,
        &[
            "node Tcp 30080 -> 10.244.0.2:8080 10.244.1.2:8080 masquerade",
            "10.96.0.10 Tcp 80 -> 10.244.0.2:8080 10.244.1.2:8080",
            "203.0.113.7 Tcp 80 -> 10.244.0.2:8080 10.244.1.2:8080 masquerade",
        ],
    );
    check(
        spec("Local"),
        &endpoints,
        &[
            "node Tcp 30080 -> 10.244.0.2:8080",
            "inside node Tcp 30080 -> 10.244.0.2:8080 10.244.1.2:8080 masquerade",
            "10.96.0.10 Tcp 80 -> 10.244.0.2:8080 10.244.1.2:8080",
            "203.0.113.7 Tcp 80 -> 10.244.0.2:8080",
            "inside 203.0.113.7 Tcp 80 -> 10.244.0.2:8080 10.244.1.2:8080 masquerade",
        ],
    );
    check(
        spec("Local"),
        &endpoints[1..],
        &[
            "node Tcp 30080 -> drop",
            "inside node Tcp 30080 -> 10.244.1.2:8080 masquerade",
            "10.96.0.10 Tcp 80 -> 10.244.1.2:8080",
            "203.0.113.7 Tcp 80 -> drop",
            "inside 203.0.113.7 Tcp 80 -> 10.244.1.2:8080 masquerade",
        ],
    );
}

#[test]
fn internal_policy_local_uses_this_nodes_endpoints_only() {
    let elsewhere = [json!({"addresses": ["10.244.1.2"], "nodeName": "there"})];
    check(json!({"internalTrafficPolicy": "Local"}), &elsewhere, &["10.96.0.10 Tcp 80 -> drop"]);
    check(json!({"internalTrafficPolicy": "Local"}), &[], &["10.96.0.10 Tcp 80 -> reject"]);
}

#[test]
fn session_affinity_has_upstreams_default_timeout() {
    let endpoints = [endpoint("10.244.0.2")];
    check(
        json!({"sessionAffinity": "ClientIP"}),
        &endpoints,
        &["10.96.0.10 Tcp 80 -> 10.244.0.2:8080 for 10800s"],
    );
    let config =
        json!({"sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}});
    check(config, &endpoints, &["10.96.0.10 Tcp 80 -> 10.244.0.2:8080 for 5s"]);
}

#[test]
fn load_balancer_addresses_are_frontends_unless_they_proxy() {
    let mut balanced = (*service("web", json!({"type": "LoadBalancer"}))).clone();
    balanced.status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}, {"ip": "203.0.113.10", "ipMode": "Proxy"}]}});
    let tables = tables(&[balanced.into()], &[slice("web", "TCP", &[endpoint("10.244.0.2")])]);
    let expected =
        ["10.96.0.10 Tcp 80 -> 10.244.0.2:8080", "203.0.113.9 Tcp 80 -> 10.244.0.2:8080 masquerade"];
    assert_eq!(words(&tables), expected);
}

#[test]
fn services_without_a_proxied_address_are_left_alone() {
    for spec in [
        json!({"clusterIP": "None"}),
        json!({"clusterIP": ""}),
        json!({"type": "ExternalName", "clusterIP": "", "externalName": "example.org"}),
    ] {
        check(spec, &[endpoint("10.244.0.2")], &[]);
    }
}

#[test]
fn slices_for_no_proxy_or_another_are_left_alone() {
    let reached = |label: &str| {
        let mut slice = EndpointSlice::clone(&slice("web", "TCP", &[endpoint("10.244.0.2")]));
        slice.metadata.labels.insert(label.to_owned(), String::new());
        words(&tables(&[service("web", json!({}))], &[Arc::new(slice)]))
    };
    assert_eq!(reached("any"), ["10.96.0.10 Tcp 80 -> 10.244.0.2:8080"]);
    for label in ["service.kubernetes.io/headless", "service.kubernetes.io/service-proxy-name"] {
        assert_eq!(reached(label), ["10.96.0.10 Tcp 80 -> reject"], "{label}");
    }
}

#[test]
fn ports_match_by_name_and_protocol() {
    let spec = json!({"ports": [
        {"name": "", "port": 80, "protocol": "TCP"},
        {"name": "", "port": 80, "protocol": "UDP"},
        {"name": "metrics", "port": 9090, "protocol": "TCP"},
    ]});
    let expected = [
        "10.96.0.10 Tcp 80 -> 10.244.0.2:8080",
        "10.96.0.10 Tcp 9090 -> reject",
        "10.96.0.10 Udp 80 -> reject",
    ];
    check(spec, &[endpoint("10.244.0.2")], &expected);
}

#[test]
fn a_dual_stack_service_uses_each_familys_endpoints() {
    let spec = json!({"clusterIPs": ["10.96.0.10", "fd00:96::10"], "type": "NodePort",
        "ports": [{"port": 80, "protocol": "TCP", "nodePort": 30080}]});
    let slices =
        [slice("web", "TCP", &[endpoint("10.244.0.2")]), slice("web", "TCP", &[endpoint("fd00:244::2")])];
    let expected = [
        "node Tcp 30080 -> 10.244.0.2:8080 masquerade",
        "10.96.0.10 Tcp 80 -> 10.244.0.2:8080",
        "node Tcp 30080 -> [fd00:244::2]:8080 masquerade",
        "fd00:96::10 Tcp 80 -> [fd00:244::2]:8080",
    ];
    assert_eq!(words(&tables(&[service("web", spec)], &slices)), expected);
}

#[test]
fn hints_keep_traffic_in_the_zone_or_on_the_node_while_they_can() {
    let hinted = |address: &str, zone: &str, node: &str| {
        json!({"addresses": [address], "nodeName": node, "hints": {
            "forZones": if zone.is_empty() { json!([]) } else { json!([{"name": zone}]) },
            "forNodes": if node.is_empty() { json!([]) } else { json!([{"name": node}]) }}})
    };
    let to = |last: &[u8]| {
        let endpoints: Vec<String> = last.iter().map(|last| format!("10.244.0.{last}:8080")).collect();
        format!("10.96.0.10 Tcp 80 -> {}", endpoints.join(" "))
    };
    for (endpoints, expected) in [
        (vec![hinted("10.244.0.2", "zone-a", ""), hinted("10.244.0.3", "zone-b", "")], to(&[2])),
        (vec![hinted("10.244.0.2", "zone-b", ""), hinted("10.244.0.3", "zone-b", "")], to(&[2, 3])),
        (vec![hinted("10.244.0.2", "zone-a", ""), hinted("10.244.0.3", "", "")], to(&[2, 3])),
        (vec![hinted("10.244.0.2", "zone-a", "there"), hinted("10.244.0.3", "zone-b", "here")], to(&[3])),
        (
            vec![hinted("10.244.0.2", "zone-a", "there"), hinted("10.244.0.3", "zone-b", "elsewhere")],
            to(&[2]),
        ),
    ] {
        check(json!({}), &endpoints, &[&expected]);
    }
}

#[test]
fn source_ranges_hold_for_load_balancer_addresses_alone() {
    let mut balanced = (*service("web", json!({"type": "LoadBalancer",
        "loadBalancerSourceRanges": ["198.51.100.0/24", " 192.0.2.9/28", "fd00::/8"], "externalIPs": ["203.0.113.7"]}))).clone();
    balanced.status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.9"}]}});
    let expected = [
        "10.96.0.10 Tcp 80 -> 10.244.0.2:8080",
        "203.0.113.7 Tcp 80 -> 10.244.0.2:8080 masquerade",
        "203.0.113.9 Tcp 80 -> 10.244.0.2:8080 masquerade from 192.0.2.0/28 from 198.51.100.0/24 from 203.0.113.9/32",
    ];
    let tables = tables(&[balanced.into()], &[slice("web", "TCP", &[endpoint("10.244.0.2")])]);
    assert_eq!(words(&tables), expected);
}

#[test]
fn a_health_check_port_tells_how_many_endpoints_are_ready_here() {
    let spec =
        json!({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32000});
    let endpoints = [
        endpoint("10.244.0.2"),
        json!({"addresses": ["10.244.1.2"], "nodeName": "there"}),
        json!({"addresses": ["10.244.0.5"], "conditions": {"ready": false, "serving": true, "terminating": true}}),
    ];
    let tables = tables(&[service("web", spec)], &[slice("web", "TCP", &endpoints)]);
    let checks: Vec<_> = tables.health_checks().into_values().collect();
    assert_eq!((checks.len(), checks[0].port, checks[0].local_endpoints), (1, 32000, 1));
}
