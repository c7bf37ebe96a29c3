//! Table tests: a spec as a user writes it, and what becomes of it.

use apimachinery::{Value, json};
use jiff::Timestamp;

use super::*;
use crate::testing::expect_errors;

fn created(spec: Value) -> Value {
    let mut obj = json!({"metadata": {"name": "s"}, "spec": spec});
    Service.default(&mut obj);
    Service.prepare_for_create(&mut obj);
    obj
}

/// A created Service that was given this address.
fn allocated(spec: Value, address: &str) -> Value {
    let mut obj = created(spec);
    obj["spec"]["clusterIP"] = json!(address);
    obj["spec"]["clusterIPs"] = json!([address]);
    obj
}

fn web() -> Value {
    allocated(json!({"ports": [{"port": 80}], "selector": {"a": "b"}}), "10.96.0.7")
}

#[test]
fn a_plain_service_is_filled_in() {
    assert_eq!(
        web(),
        json!({"metadata": {"name": "s"}, "status": {"loadBalancer": {}}, "spec": {
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}], "selector": {"a": "b"},
            "sessionAffinity": "None", "type": "ClusterIP", "internalTrafficPolicy": "Cluster",
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7"]}})
    );
    expect_errors(&Service.validate(&web()), &[]);
}

fn check(spec: Value, expect: &[&str]) {
    expect_errors(&Service.validate(&allocated(spec, "10.96.0.7")), expect);
}

#[test]
fn ports_are_named_and_unique() {
    check(json!({}), &["spec.ports: Required value"]);
    check(
        json!({"ports": [{"port": 0}]}),
        &[
            "spec.ports[0].port: Invalid value: 0: must be between 1",
            "spec.ports[0].targetPort: Invalid value: 0: must be between 1",
        ],
    );
    check(
        json!({"ports": [{"port": 80}, {"name": "a", "port": 80}]}),
        &[
            "spec.ports[0].name: Required value",
            "spec.ports[1]: Duplicate value: {\"name\":\"\",\"port\":80,",
        ],
    );
    check(
        json!({"ports": [{"port": 1, "nodePort": 30000}]}),
        &["spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'"],
    );
    check(
        json!({"ports": [{"port": 1, "targetPort": "Bad_"}]}),
        &["spec.ports[0].targetPort: Invalid value: \"Bad_\""],
    );
}

#[test]
fn the_type_decides_what_else_may_be_set() {
    let ports = json!([{"port": 1}]);
    check(json!({"ports": ports, "type": "Magic"}), &["spec.type: Unsupported value: \"Magic\""]);
    check(json!({"ports": ports, "loadBalancerClass": "a/b"}), &["spec.loadBalancerClass: Forbidden"]);
    check(
        json!({"ports": ports, "externalTrafficPolicy": "Local"}),
        &["spec.externalTrafficPolicy: Invalid value: \"Local\": may only be set for externally-accessible"],
    );
    check(
        json!({"ports": ports, "sessionAffinity": "ClientIP", "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 100000}}}),
        &[
            "spec.sessionAffinityConfig.clientIP.timeoutSeconds: Invalid value: 100000: must be greater than 0",
        ],
    );
    check(
        json!({"ports": ports, "externalIPs": ["127.0.0.1"]}),
        &["spec.externalIPs[0]: Invalid value: \"127.0.0.1\": may not be in the loopback range"],
    );
    expect_errors(
        &Service.validate(&created(json!({"type": "ExternalName"}))),
        &["spec.externalName: Required value"],
    );
    expect_errors(
        &Service.validate(&created(json!({"type": "ExternalName", "externalName": "example.com."}))),
        &[],
    );
}

fn updated(mut new: Value, old: &Value) -> Value {
    Service.default(&mut new);
    Service.prepare_for_update(&mut new, old);
    new
}

#[test]
fn an_update_keeps_what_was_given_out() {
    let new = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "selector": {"a": "c"}}});
    let new = updated(new, &web());
    assert_eq!(new["spec"]["clusterIPs"], json!(["10.96.0.7"]));
    expect_errors(&Service.validate_update(&new, &web()), &[]);
    let mut node_port = web();
    node_port["spec"]["type"] = json!("NodePort");
    node_port["spec"]["ports"][0]["nodePort"] = json!(30001);
    let new = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
    assert_eq!(updated(new, &node_port)["spec"]["ports"][0]["nodePort"], 30001);
}

#[test]
fn the_address_does_not_change() {
    let mut new = web();
    new["spec"]["clusterIP"] = json!("10.96.0.8");
    let new = updated(new, &web());
    expect_errors(
        &Service.validate_update(&new, &web()),
        &["spec.clusterIPs[0]: Invalid value: [\"10.96.0.8\"]: may not change once set"],
    );
}

#[test]
fn a_change_of_type_clears_what_it_does_not_need() {
    let mut new = web();
    new["spec"]["type"] = json!("ExternalName");
    new["spec"]["externalName"] = json!("example.com");
    let new = updated(new, &web());
    for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
        assert_eq!(new["spec"].get(field), None, "{field}");
    }
    expect_errors(&Service.validate_update(&new, &web()), &[]);
    let mut node_port = web();
    node_port["spec"]["type"] = json!("NodePort");
    node_port["spec"]["externalTrafficPolicy"] = json!("Cluster");
    node_port["spec"]["ports"][0]["nodePort"] = json!(30001);
    let mut back = node_port.clone();
    back["spec"]["type"] = json!("ClusterIP");
    let back = updated(back, &node_port);
    expect_errors(&Service.validate_update(&back, &node_port), &[]);
    assert_eq!(back["spec"]["ports"][0].get("nodePort"), None);
}

#[test]
fn load_balancer_addresses_have_a_mode() {
    let balanced = |ingress: Value| json!({"spec": {"type": "LoadBalancer"}, "status": {"loadBalancer": {"ingress": [ingress]}}});
    let mut obj = balanced(json!({"ip": "10.0.0.1"}));
    let old = obj.clone();
    Service.prepare_for_status_update(&mut obj, &old);
    expect_errors(&Service.validate_status_update(&obj, &old), &[]);
    let obj = balanced(json!({"hostname": "10.0.0.1"}));
    expect_errors(
        &Service.validate_status_update(&obj, &obj),
        &["status.loadBalancer.ingress[0].hostname: Invalid value: \"10.0.0.1\": must be a DNS name"],
    );
}

#[test]
fn a_row_shows_how_the_service_is_reached() {
    let mut obj = web();
    obj["spec"]["type"] = json!("LoadBalancer");
    obj["spec"]["ports"][0]["nodePort"] = json!(30001);
    let cells = Service.row(&obj, Timestamp::UNIX_EPOCH);
    let text: Vec<&str> = cells.iter().filter_map(Value::as_str).collect();
    assert_eq!(text, ["s", "LoadBalancer", "10.96.0.7", "<pending>", "80:30001/TCP", "<unknown>", "a=b"]);
}
