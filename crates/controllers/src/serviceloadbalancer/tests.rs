//! Which addresses Services get, and that a plan leads to a state that needs none.

use api::resource::{ENDPOINT_SLICES, NODES, SERVICES};
use api::view::core::Service;
use apimachinery::{Value, json};

use super::reconcile::{World, reconcile};
use crate::testing::Cluster;

fn node(name: &str, addresses: &[(&str, &str)], ready: &str) -> Value {
    let addresses: Vec<Value> =
        addresses.iter().map(|(kind, address)| json!({"type": kind, "address": address})).collect();
    json!({"metadata": {"name": name}, "status": {"addresses": addresses,
        "conditions": [{"type": "Ready", "status": ready}]}})
}

fn service(name: &str, spec: &Value) -> Value {
    let mut whole =
        json!({"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80, "protocol": "TCP"}]});
    for (key, value) in spec.as_object().expect("an object") {
        whole[key] = value.clone();
    }
    json!({"metadata": {"namespace": "default", "name": name}, "spec": whole})
}

fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.create(NODES, node("a", &[("InternalIP", "192.0.2.1"), ("InternalIP", "fd00::1")], "True"));
    cluster.create(NODES, node("b", &[("InternalIP", "192.0.2.2"), ("ExternalIP", "203.0.113.2")], "True"));
    cluster.create(NODES, node("c", &[("InternalIP", "192.0.2.3")], "False"));
    cluster
}

/// Decides and applies until nothing is left to do.
fn settle(cluster: &mut Cluster, name: &str) -> Vec<String> {
    let decide = |cluster: &Cluster| {
        let service = cluster.get::<Service>("default", name).expect("the Service");
        let world = World { nodes: cluster.list(), services: cluster.list(), slices: cluster.list() };
        reconcile(&service, &world)
    };
    let plan = decide(cluster);
    cluster.apply(&plan);
    assert!(decide(cluster).is_empty());
    let ingress =
        cluster.value(SERVICES, "default", name).expect("the Service")["status"]["loadBalancer"]["ingress"]
            .clone();
    let ingress = ingress.as_array().cloned().unwrap_or_default();
    ingress.iter().map(|one| one["ip"].as_str().expect("an address").to_owned()).collect()
}

fn check(spec: &Value, expected: &[&str]) {
    let mut cluster = cluster();
    cluster.create(SERVICES, service("web", spec));
    assert_eq!(settle(&mut cluster, "web"), expected, "{spec}");
}

#[test]
fn a_service_has_the_addresses_of_ready_nodes_in_its_families() {
    check(&json!({}), &["192.0.2.1", "203.0.113.2"]);
    check(&json!({"ipFamilies": ["IPv6", "IPv4"]}), &["fd00::1", "192.0.2.1", "203.0.113.2"]);
    check(&json!({"loadBalancerClass": "example.org/other"}), &[]);
    check(&json!({"type": "ClusterIP"}), &[]);
}

#[test]
fn policy_local_names_nodes_with_endpoints_only() {
    let mut cluster = cluster();
    cluster.create(SERVICES, service("web", &json!({"externalTrafficPolicy": "Local"})));
    assert!(settle(&mut cluster, "web").is_empty());
    let endpoints = json!([{"addresses": ["10.0.0.1"], "nodeName": "b"},
        {"addresses": ["10.0.0.2"], "nodeName": "a", "conditions": {"ready": false}}]);
    cluster.create(
        ENDPOINT_SLICES,
        json!({"metadata": {"namespace": "default", "name": "web-1"}, "endpoints": endpoints}),
    );
    assert_eq!(settle(&mut cluster, "web"), ["203.0.113.2"]);
}

#[test]
fn of_two_services_with_one_port_the_older_has_it() {
    let mut cluster = cluster();
    cluster.create(SERVICES, service("first", &json!({})));
    cluster.create(SERVICES, service("second", &json!({})));
    cluster.create(SERVICES, service("third", &json!({"ports": [{"port": 80, "protocol": "UDP"}]})));
    assert_eq!(settle(&mut cluster, "first").len(), 2);
    assert!(settle(&mut cluster, "second").is_empty());
    assert_eq!(settle(&mut cluster, "third").len(), 2, "another protocol");
    cluster.remove(SERVICES, "default", "first");
    assert_eq!(settle(&mut cluster, "second").len(), 2);
}

#[test]
fn a_service_that_is_balanced_no_more_loses_its_addresses() {
    let mut cluster = cluster();
    cluster.create(SERVICES, service("web", &json!({})));
    settle(&mut cluster, "web");
    cluster.edit(SERVICES, "default", "web", |service| service["spec"]["type"] = "ClusterIP".into());
    assert!(settle(&mut cluster, "web").is_empty());
    let told: Vec<&str> = cluster.told.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(told, ["EnsuredLoadBalancer", "DeletedLoadBalancer"]);
}
