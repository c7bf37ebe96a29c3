//! Pods made, removed, adopted and released.

use std::sync::Arc;

use api::resource::{PODS, REPLICA_SETS};
use api::view::apps::ReplicaSet;
use api::view::core::Pod;
use apimachinery::{Value, json};

use super::reconcile::BURST_REPLICAS;
use super::{World, reconcile};
use crate::plan::{Action, Plan};
use crate::testing::{Cluster, at};

fn replica_set(replicas: i32) -> Value {
    json!({
        "metadata": {"name": "web", "namespace": "a", "uid": "rs"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "annotations": {"note": "x"}},
                "spec": {"containers": [{"name": "c", "image": "i"}]},
            },
        },
    })
}

fn pod(name: &str, change: Value) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "a", "labels": {"app": "web"}, "uid": name,
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "rs", "controller": true}]},
        "spec": {"nodeName": "n"},
        "status": {"phase": "Running"},
    });
    for (section, fields) in change.as_object().expect("sections") {
        for (field, value) in fields.as_object().expect("fields") {
            pod[section][field] = value.clone();
        }
    }
    pod
}

fn decide(cluster: &Cluster, failure: Option<&str>) -> Plan {
    let replica_set = cluster.get::<ReplicaSet>("a", "web").expect("it is there");
    let pods: Vec<Arc<Pod>> = cluster.list();
    let world = World { related: pods.clone(), pods, may_adopt: true, failure: failure.map(str::to_owned) };
    reconcile(REPLICA_SETS, &replica_set, &world, cluster.now)
}

fn cluster(replicas: i32, pods: &[Value]) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.create(REPLICA_SETS, replica_set(replicas));
    for pod in pods {
        cluster.create(PODS, pod.clone());
    }
    cluster
}

fn settle(cluster: &mut Cluster) {
    for _ in 0..10 {
        let plan = decide(cluster, None);
        if plan.is_empty() {
            return;
        }
        cluster.apply(&plan);
    }
    panic!("the ReplicaSet does not settle: {:?}", decide(cluster, None));
}

fn deleted(plan: &Plan) -> Vec<&str> {
    let name = |action: &'_ Action| match action {
        Action::Delete { name, .. } => Some(name.clone()),
        _ => None,
    };
    let names = plan.steps.iter().filter(|step| name(&step.action).is_some());
    names
        .map(|step| match &step.action {
            Action::Delete { name, .. } => name.as_str(),
            _ => unreachable!("only deletions were kept"),
        })
        .collect()
}

#[test]
fn missing_pods_are_made_from_the_template() {
    let mut cluster = cluster(3, &[]);
    settle(&mut cluster);
    let pods: Vec<Arc<Pod>> = cluster.list();
    assert_eq!(pods.len(), 3);
    let made = cluster.value(PODS, "a", &pods[0].metadata.name).expect("it is there");
    assert_eq!(made["metadata"]["generateName"], "web-");
    assert_eq!(made["metadata"]["annotations"], json!({"note": "x"}));
    assert_eq!(made["spec"]["containers"][0]["image"], "i");
    assert!(pods[0].metadata.is_controlled_by("rs"));
    let told = cluster.told.iter().filter(|(reason, _)| reason == "SuccessfulCreate").count();
    assert_eq!(told, 3);
    assert!(cluster.told[0].1.starts_with("Created pod: web-"));
}

#[test]
fn a_large_change_is_made_in_bursts() {
    let plan = decide(&cluster(1200, &[]), None);
    let creates = plan.steps.iter().filter(|s| matches!(s.action, Action::Create { .. })).count();
    assert_eq!(creates, BURST_REPLICAS);
}

#[test]
fn status_counts_what_is_ready_available_and_ending() {
    let ready = json!({"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2025-12-31T23:59:55Z"}]});
    let pods = [
        pod("p1", json!({"status": ready})),
        pod("p2", json!({})),
        pod("p3", json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}})),
        pod("p4", json!({"status": {"phase": "Failed"}})),
    ];
    let mut cluster = cluster(2, &pods);
    cluster.edit(REPLICA_SETS, "a", "web", |rs| rs["spec"]["minReadySeconds"] = 10.into());
    let plan = decide(&cluster, None);
    assert_eq!(plan.requeue_at, Some(at(5)));
    cluster.apply(&plan);
    let status = cluster.get::<ReplicaSet>("a", "web").expect("it is there").status.clone();
    assert_eq!((status.replicas, status.ready_replicas, status.available_replicas), (2, 1, 0));
    assert_eq!((status.terminating_replicas, status.fully_labeled_replicas), (Some(1), 2));
    assert_eq!(status.observed_generation, 2);
    cluster.now = at(5);
    cluster.apply(&decide(&cluster, None));
    assert_eq!(cluster.get::<ReplicaSet>("a", "web").expect("it is there").status.available_replicas, 1);
}

#[test]
fn superfluous_pods_go_least_missed_first() {
    let ready = |since: &str| json!([{"type": "Ready", "status": "True", "lastTransitionTime": since}]);
    let old = ready("2025-12-01T00:00:00Z");
    let pods = [
        pod("a-old", json!({"status": {"conditions": old}})),
        pod("b-young", json!({"status": {"conditions": ready("2025-12-31T23:59:00Z")}})),
        pod(
            "c-cheap",
            json!({"status": {"conditions": old},
            "metadata": {"annotations": {"controller.kubernetes.io/pod-deletion-cost": "-1"}}}),
        ),
        pod("d-not-ready", json!({})),
        pod("e-pending", json!({"status": {"phase": "Pending"}})),
        pod("f-unassigned", json!({"spec": {"nodeName": ""}, "status": {"phase": "Pending"}})),
        pod(
            "g-alone",
            json!({"spec": {"nodeName": "m"}, "status": {"conditions": ready("2025-12-31T23:59:59Z")}}),
        ),
    ];
    let plan = decide(&cluster(0, &pods), None);
    assert_eq!(
        deleted(&plan),
        ["f-unassigned", "e-pending", "d-not-ready", "c-cheap", "b-young", "a-old", "g-alone"]
    );
    assert_eq!(deleted(&decide(&cluster(5, &pods), None)), ["f-unassigned", "e-pending"]);
}

#[test]
fn pods_are_adopted_and_released_by_their_labels() {
    let orphan = pod("orphan", json!({"metadata": {"ownerReferences": []}}));
    let stray = pod("stray", json!({"metadata": {"labels": {"app": "other"}}}));
    let mut cluster = cluster(1, &[orphan, stray]);
    settle(&mut cluster);
    assert!(cluster.get::<Pod>("a", "orphan").expect("it stays").metadata.is_controlled_by("rs"));
    assert!(cluster.get::<Pod>("a", "stray").expect("it stays").metadata.owner_references.is_empty());
    assert_eq!(cluster.list::<Pod>().len(), 2);
}

#[test]
fn a_replica_set_being_deleted_makes_nothing() {
    let mut cluster = cluster(3, &[]);
    cluster.edit(REPLICA_SETS, "a", "web", |rs| {
        rs["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    });
    settle(&mut cluster);
    assert!(cluster.list::<Pod>().is_empty());
}

#[test]
fn a_failure_shows_as_a_condition_until_it_is_over() {
    let mut cluster = cluster(1, &[]);
    cluster.apply(&decide(&cluster, Some("exceeded quota")));
    let status = cluster.get::<ReplicaSet>("a", "web").expect("it is there").status.clone();
    assert_eq!(status.conditions[0].kind, "ReplicaFailure");
    assert_eq!(
        (status.conditions[0].reason.as_str(), status.conditions[0].message.as_str()),
        ("FailedCreate", "exceeded quota")
    );
    settle(&mut cluster);
    assert!(cluster.get::<ReplicaSet>("a", "web").expect("it is there").status.conditions.is_empty());
}

proptest::proptest! {
    #[test]
    fn whatever_pods_there_are_it_settles_at_the_wanted_number(
        replicas in 0..8i32,
        phases in proptest::collection::vec(0..6usize, 0..10),
    ) {
        let pods: Vec<Value> = phases.iter().enumerate().map(|(index, phase)| {
            let change = match phase {
                0 => json!({"status": {"phase": "Pending"}}),
                1 => json!({"status": {"phase": "Failed"}}),
                2 => json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}),
                3 => json!({"metadata": {"ownerReferences": []}}),
                4 => json!({"metadata": {"labels": {}}}),
                _ => json!({}),
            };
            pod(&format!("p{index}"), change)
        }).collect();
        let mut cluster = cluster(replicas, &pods);
        settle(&mut cluster);
        let status = cluster.get::<ReplicaSet>("a", "web").expect("it is there").status.clone();
        proptest::prop_assert_eq!(status.replicas, replicas);
    }
}
