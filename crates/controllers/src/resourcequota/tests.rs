//! Counting and recounting.

use std::sync::Arc;

use api::quota::tracked_resources;
use api::resource::{CONFIG_MAPS, PODS, RESOURCE_QUOTAS, SERVICES};
use api::view::core::{Pod, ResourceQuota};
use apimachinery::{Value, json};

use super::has_shrunk;
use super::reconcile::{World, hard_limits, reconcile};
use crate::plan::Plan;
use crate::testing::{Cluster, at};

fn cluster(hard: Value, pods: &[Value]) -> Cluster {
    let mut cluster = Cluster::new();
    let quota = json!({"metadata": {"name": "q", "namespace": "a"}, "spec": {"hard": hard}});
    cluster.create(RESOURCE_QUOTAS, quota);
    pods.iter().for_each(|pod| drop(cluster.create(PODS, pod.clone())));
    cluster
}

fn pod(name: &str, cpu: &str, phase: &str) -> Value {
    json!({"metadata": {"name": name, "namespace": "a"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]}, "status": {"phase": phase}})
}

fn decide(cluster: &Cluster) -> Plan {
    let quota = cluster.get::<ResourceQuota>("a", "q").expect("it is there");
    let list = |name: &String| {
        let resource = [PODS, SERVICES, CONFIG_MAPS].into_iter().find(|r| r.plural == *name);
        let values = resource.map(|resource| cluster.values(resource)).unwrap_or_default();
        (name.clone(), values.into_iter().cloned().map(Arc::new).collect())
    };
    let objects = tracked_resources(&hard_limits(&quota)).iter().map(list).collect();
    reconcile(&quota, &World { objects, ..World::default() }, cluster.now)
}

fn used(cluster: &Cluster) -> Value {
    cluster.value(RESOURCE_QUOTAS, "a", "q").expect("it is there")["status"]["used"].clone()
}

#[test]
fn usage_is_counted_once_and_again_when_something_has_ended() {
    let hard = json!({"pods": "5", "requests.cpu": "2", "configmaps": "3", "count/services": "1"});
    let pods = [pod("x", "500m", "Running"), pod("y", "1", "Running"), pod("z", "1", "Succeeded")];
    let mut cluster = cluster(hard.clone(), &pods);
    cluster.create(CONFIG_MAPS, json!({"metadata": {"name": "m", "namespace": "a"}}));
    let plan = decide(&cluster);
    cluster.apply(&plan);
    let expect = json!({"pods": "2", "requests.cpu": "1500m", "configmaps": "1", "count/services": "0"});
    assert_eq!(used(&cluster), expect);
    assert_eq!(cluster.value(RESOURCE_QUOTAS, "a", "q").expect("it is there")["status"]["hard"], hard);
    assert!(decide(&cluster).is_empty());
    cluster.edit(PODS, "a", "y", |pod| pod["status"]["phase"] = "Failed".into());
    let plan = decide(&cluster);
    cluster.apply(&plan);
    assert_eq!(used(&cluster)["requests.cpu"], "500m");
    assert!(decide(&cluster).is_empty());
}

#[test]
fn limits_that_nobody_can_count_keep_no_usage_and_old_ones_go() {
    let mut cluster = cluster(json!({"pods": "5"}), &[]);
    cluster.edit(RESOURCE_QUOTAS, "a", "q", |quota| {
        quota["status"] =
            json!({"hard": {"pods": "5", "secrets": "1"}, "used": {"pods": "3", "secrets": "1"}});
    });
    let plan = decide(&cluster);
    cluster.apply(&plan);
    assert_eq!(used(&cluster), json!({"pods": "0"}));
}

#[test]
fn a_pod_that_does_not_end_in_time_is_given_up() {
    let mut ending = pod("x", "1", "Running");
    ending["metadata"]["deletionTimestamp"] = at(30).to_string().into();
    ending["metadata"]["deletionGracePeriodSeconds"] = 30.into();
    let mut cluster = cluster(json!({"pods": "5"}), &[ending]);
    let plan = decide(&cluster);
    cluster.apply(&plan);
    assert_eq!(used(&cluster)["pods"], "1");
    cluster.now = plan.requeue_at.expect("it looks again");
    let plan = decide(&cluster);
    cluster.apply(&plan);
    assert_eq!(used(&cluster)["pods"], "0");
}

#[test]
fn pods_make_room_by_ending_or_asking_for_less() {
    let view = |pod: Value| apimachinery::from_value::<Pod>(pod).expect("a pod");
    let check = |old: Value, new: Value, expect: bool| assert_eq!(has_shrunk(&view(old), &view(new)), expect);
    check(pod("x", "1", "Pending"), pod("x", "1", "Running"), false);
    check(pod("x", "1", "Running"), pod("x", "1", "Succeeded"), true);
    check(pod("x", "1", "Running"), pod("x", "2", "Running"), true);
}
