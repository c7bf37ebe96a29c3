//! DaemonSets in a simulated cluster.

use std::collections::HashMap;

use api::resource::{DAEMON_SETS, NODES, PODS};
use api::view::apps::{ControllerRevision, DaemonSet};
use api::view::core::{Node, Pod};
use apimachinery::{Value, json};
use proptest::prelude::*;

use super::*;
use crate::testing::Cluster;

fn daemon_set(strategy: Value) -> Value {
    json!({"metadata": {"namespace": "n", "name": "d"}, "spec": {
        "selector": {"matchLabels": {"a": "b"}}, "updateStrategy": strategy, "revisionHistoryLimit": 1,
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i:1"}]}}}})
}

fn rolling(unavailable: Value, surge: Value) -> Value {
    json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": unavailable, "maxSurge": surge}})
}

fn cluster(nodes: usize, strategy: Value) -> Cluster {
    let mut cluster = Cluster::new();
    for number in 0..nodes {
        cluster.create(
            NODES,
            json!({"metadata": {"name": format!("node-{number}"), "labels": {"n": number.to_string()}}}),
        );
    }
    cluster.create(DAEMON_SETS, daemon_set(strategy));
    cluster
}

fn world(cluster: &Cluster) -> World {
    World {
        pods: cluster.list::<Pod>(),
        nodes: cluster.list::<Node>(),
        revisions: cluster.list::<ControllerRevision>(),
        may_adopt: true,
        paused_nodes: HashMap::new(),
    }
}

fn set(cluster: &Cluster) -> std::sync::Arc<DaemonSet> {
    cluster.get("n", "d").expect("is there")
}

/// One turn; says whether anything was to do.
fn turn(cluster: &mut Cluster) -> bool {
    let plan = reconcile(&set(cluster), &world(cluster), cluster.now);
    cluster.apply(&plan);
    !plan.is_empty()
}

/// Places waiting pods, and makes all ready.
fn kubelets_act(cluster: &mut Cluster) {
    for pod in cluster.list::<Pod>() {
        let node = super::nodes::target(&pod).expect("is for a node").to_owned();
        let ready =
            json!([{"type": "Ready", "status": "True", "lastTransitionTime": cluster.now.to_string()}]);
        cluster.edit(PODS, "n", &pod.metadata.name, |object| {
            object["spec"]["nodeName"] = node.as_str().into();
            object["status"] = json!({"phase": "Running", "conditions": ready});
        });
    }
}

fn settle(cluster: &mut Cluster) {
    for _ in 0..60 {
        if !turn(cluster) {
            return;
        }
        kubelets_act(cluster);
    }
    panic!("does not come to rest: {:?}", cluster.told);
}

fn images(cluster: &Cluster) -> Vec<String> {
    let image = |pod: &Value| pod["spec"]["containers"][0]["image"].as_str().unwrap_or_default().to_owned();
    cluster.values(PODS).into_iter().map(image).collect()
}

#[test]
fn every_node_gets_a_pod_and_a_new_one_too() {
    let mut cluster = cluster(3, rolling(json!(1), json!(0)));
    settle(&mut cluster);
    let status = &set(&cluster).status;
    assert_eq!(
        (status.desired_number_scheduled, status.number_available, status.updated_number_scheduled),
        (3, 3, 3)
    );
    cluster.create(NODES, json!({"metadata": {"name": "late"}}));
    settle(&mut cluster);
    assert_eq!(set(&cluster).status.number_ready, 4);
}

#[test]
fn taints_keep_pods_away_and_drive_them_off() {
    let mut cluster = cluster(2, rolling(json!(1), json!(0)));
    cluster.edit(NODES, "", "node-0", |node| {
        node["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}])
    });
    settle(&mut cluster);
    assert_eq!(cluster.list::<Pod>().len(), 1);
    cluster.edit(NODES, "", "node-1", |node| {
        node["spec"]["taints"] = json!([{"key": "k", "effect": "NoSchedule"}])
    });
    settle(&mut cluster);
    assert_eq!((cluster.list::<Pod>().len(), set(&cluster).status.number_misscheduled), (1, 1));
    cluster.edit(NODES, "", "node-1", |node| {
        node["spec"]["taints"] = json!([{"key": "k", "effect": "NoExecute"}])
    });
    settle(&mut cluster);
    assert_eq!(cluster.list::<Pod>().len(), 0);
}

#[test]
fn a_cordoned_node_keeps_its_pod() {
    let mut cluster = cluster(1, rolling(json!(1), json!(0)));
    let taint = json!([{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]);
    cluster.edit(NODES, "", "node-0", |node| node["spec"]["taints"] = taint);
    settle(&mut cluster);
    assert_eq!(set(&cluster).status.number_ready, 1);
}

#[test]
fn failed_pods_are_replaced_when_their_pause_is_over() {
    let mut cluster = cluster(1, rolling(json!(1), json!(0)));
    settle(&mut cluster);
    let name = cluster.list::<Pod>()[0].metadata.name.clone();
    cluster.edit(PODS, "n", &name, |pod| pod["status"] = json!({"phase": "Failed"}));
    let mut paused = world(&cluster);
    let until = crate::testing::at(5);
    paused.paused_nodes.insert("node-0".to_owned(), until);
    assert_eq!(reconcile(&set(&cluster), &paused, cluster.now).requeue_at, Some(until));
    settle(&mut cluster);
    assert!(cluster.told.iter().any(|(reason, _)| reason == "FailedDaemonPod"));
    assert_ne!(cluster.list::<Pod>()[0].metadata.name, name);
}

#[test]
fn a_template_of_old_is_the_newest_revision_again() {
    let mut cluster = cluster(1, rolling(json!(1), json!(0)));
    for image in ["i:1", "i:2", "i:1", "i:3", "i:4"] {
        cluster.edit(DAEMON_SETS, "n", "d", |set| {
            set["spec"]["template"]["spec"]["containers"][0]["image"] = image.into();
        });
        settle(&mut cluster);
        assert_eq!(images(&cluster), [image]);
    }
    let mut revisions: Vec<i64> = cluster.list::<ControllerRevision>().iter().map(|r| r.revision).collect();
    revisions.sort_unstable();
    assert_eq!(revisions, [4, 5], "one beside the present one is kept");
}

proptest! {
    #[test]
    fn a_rollout_reaches_every_node_within_its_bounds(nodes in 1_usize..7, unavailable in 0_i64..4, surge in 0_i64..4) {
        prop_assume!((unavailable == 0) != (surge == 0));
        let mut cluster = cluster(nodes, rolling(json!(unavailable), json!(surge)));
        settle(&mut cluster);
        cluster.edit(DAEMON_SETS, "n", "d", |set| {
            set["spec"]["template"]["spec"]["containers"][0]["image"] = "i:2".into();
        });
        for _ in 0..60 {
            if !turn(&mut cluster) {
                break;
            }
            let ready = cluster.list::<Pod>().iter().filter(|pod| pod.is_ready()).count() as i64;
            prop_assert!(ready >= nodes as i64 - unavailable, "{} ready of {}", ready, nodes);
            prop_assert!(cluster.list::<Pod>().len() as i64 <= nodes as i64 + surge);
            kubelets_act(&mut cluster);
        }
        prop_assert_eq!(images(&cluster), vec!["i:2".to_owned(); nodes]);
    }
}
