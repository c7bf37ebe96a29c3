//! Nodes that fall silent and come back.

use std::sync::Arc;

use api::resource::{NODES, PODS};
use api::view::core::{Node, Pod};
use apimachinery::{Value, json};

use super::{World, reconcile};
use crate::plan::Plan;
use crate::testing::{Cluster, at};

fn cluster(node: Value) -> Cluster {
    let mut cluster = Cluster::new();
    let mut object = json!({"metadata": {"name": "n"}, "spec": {}, "status": {}});
    for (section, fields) in node.as_object().expect("sections") {
        object[section] = fields.clone();
    }
    cluster.create(NODES, object);
    cluster
}

fn decide(cluster: &Cluster, heard: i64) -> Plan {
    let node: Arc<Node> = cluster.get("", "n").expect("it is there");
    reconcile(&node, &World { heard_at: at(heard), pods: cluster.list(), is_new: false }, cluster.now)
}

fn settle(cluster: &mut Cluster, heard: i64) {
    for _ in 0..5 {
        let plan = decide(cluster, heard);
        if plan.is_empty() {
            return;
        }
        cluster.apply(&plan);
    }
    panic!("the node does not settle: {:?}", decide(cluster, heard));
}

fn conditions(status: &str) -> Value {
    json!({"conditions": [{"type": "Ready", "status": status}, {"type": "MemoryPressure", "status": "False"}]})
}

fn taints(cluster: &Cluster) -> Vec<String> {
    let node: Arc<Node> = cluster.get("", "n").expect("it is there");
    let mut taints: Vec<String> = node
        .spec
        .taints
        .iter()
        .map(|t| format!("{}:{}", t.key.trim_start_matches("node.kubernetes.io/"), t.effect))
        .collect();
    taints.sort();
    taints
}

#[test]
fn a_node_that_reports_is_left_alone_until_its_deadline() {
    let mut cluster = cluster(json!({"status": conditions("True")}));
    cluster.now = at(40);
    let plan = decide(&cluster, 0);
    assert!(plan.is_empty());
    assert_eq!(plan.requeue_at, Some(at(50)));
}

#[test]
fn a_silent_node_becomes_unknown_and_unreachable_and_its_pods_unready() {
    let mut cluster = cluster(json!({"status": conditions("True")}));
    cluster.create(
        PODS,
        json!({"metadata": {"name": "p", "namespace": "a"}, "spec": {"nodeName": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
    );
    cluster.now = at(50);
    settle(&mut cluster, 0);
    let node: Arc<Node> = cluster.get("", "n").expect("it is there");
    assert!(node.status.conditions.iter().all(|c| c.status == "Unknown"));
    assert_eq!(node.status.conditions.len(), 4);
    assert_eq!(taints(&cluster), ["unreachable:NoExecute", "unreachable:NoSchedule"]);
    assert!(!cluster.get::<Pod>("a", "p").expect("it stays").is_ready());
    assert!(cluster.told.iter().any(|(reason, _)| reason == "NodeNotReady"));
    cluster.edit(NODES, "", "n", |node| node["status"] = conditions("True"));
    settle(&mut cluster, 50);
    assert!(taints(&cluster).is_empty());
}

#[test]
fn a_new_node_has_longer_to_report() {
    let mut cluster = cluster(json!({}));
    cluster.now = at(59);
    assert_eq!(decide(&cluster, 0).requeue_at, Some(at(60)));
    cluster.now = at(60);
    settle(&mut cluster, 0);
    let node: Arc<Node> = cluster.get("", "n").expect("it is there");
    assert_eq!(node.status.conditions[0].reason, "NodeStatusNeverUpdated");
}

#[test]
fn taints_follow_conditions_and_those_of_others_stay() {
    let others = json!([{"key": "mine", "effect": "NoSchedule"}, {"key": "node.kubernetes.io/disk-pressure", "effect": "NoSchedule"}]);
    let mut status = conditions("False");
    status["conditions"][1]["status"] = "True".into();
    let mut cluster = cluster(json!({"spec": {"taints": others, "unschedulable": true}, "status": status}));
    settle(&mut cluster, 0);
    assert_eq!(
        taints(&cluster),
        [
            "memory-pressure:NoSchedule",
            "mine:NoSchedule",
            "not-ready:NoExecute",
            "not-ready:NoSchedule",
            "unschedulable:NoSchedule"
        ]
    );
}
