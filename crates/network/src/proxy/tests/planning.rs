//! Tables decided from Services and EndpointSlices.

use serde_json::{Value, json};

use super::{endpoint, service, slice};
use crate::proxy::{NoEndpoints, Tables, plan};

/// The plan in words: `FRONTEND -> ENDPOINTS [flags]`, one frontend per line.
fn words(tables: &Tables) -> Vec<String> {
    let mut lines = Vec::new();
    for (frontend, backends) in &tables.frontends {
        let address = frontend.address.map_or("node".to_string(), |address| address.to_string());
        let endpoints: Vec<String> = backends.endpoints.iter().map(ToString::to_string).collect();
        let to = match (endpoints.is_empty(), backends.otherwise) {
            (false, _) => endpoints.join(" "),
            (true, NoEndpoints::Reject) => "reject".into(),
            (true, NoEndpoints::Drop) => "drop".into(),
        };
        let masquerade = if backends.masquerade { " masquerade" } else { "" };
        let affinity = backends.affinity_seconds.map_or(String::new(), |seconds| format!(" for {seconds}s"));
        lines.push(format!(
            "{address} {:?} {} -> {to}{masquerade}{affinity}",
            frontend.protocol, frontend.port
        ));
    }
    lines
}

fn check(spec: Value, endpoints: &[Value], expected: &[&str]) {
    let tables = plan(&[service("web", spec)], &[slice("web", "TCP", endpoints)], "here");
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
            "10.96.0.10 Tcp 80 -> 10.244.0.2:8080 10.244.1.2:8080",
            "203.0.113.7 Tcp 80 -> 10.244.0.2:8080",
        ],
    );
    check(
        spec("Local"),
        &endpoints[1..],
        &["node Tcp 30080 -> drop", "10.96.0.10 Tcp 80 -> 10.244.1.2:8080", "203.0.113.7 Tcp 80 -> drop"],
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
    let tables = plan(&[balanced.into()], &[slice("web", "TCP", &[endpoint("10.244.0.2")])], "here");
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
    assert_eq!(words(&plan(&[service("web", spec)], &slices, "here")), expected);
}
