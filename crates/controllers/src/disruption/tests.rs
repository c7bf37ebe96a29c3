//! Budgets against pods and owners.

use std::collections::BTreeMap;

use api::resource::{POD_DISRUPTION_BUDGETS, PODS};
use api::view::core::Pod;
use api::view::policy::PodDisruptionBudget;
use apimachinery::{Value, json};
use proptest::prelude::*;

use super::reconcile::{Scaled, World, reconcile};
use super::stale;
use crate::plan::Plan;
use crate::testing::{Cluster, at};

fn budget(spec: Value) -> Value {
    let mut budget = json!({"metadata": {"name": "b", "namespace": "a"}, "spec": spec});
    budget["spec"]["selector"] = json!({"matchLabels": {"app": "web"}});
    budget
}

fn pod(name: &str, owner: &str, ready: bool) -> Value {
    let owners = match owner {
        "" => json!([]),
        uid => {
            json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": uid, "controller": true}])
        }
    };
    let ready = if ready { "True" } else { "False" };
    json!({"metadata": {"name": name, "namespace": "a", "labels": {"app": "web"}, "ownerReferences": owners},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": ready}]}})
}

fn cluster(spec: Value, pods: &[Value]) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.create(POD_DISRUPTION_BUDGETS, budget(spec));
    pods.iter().for_each(|pod| drop(cluster.create(PODS, pod.clone())));
    cluster
}

fn decide(cluster: &Cluster, sizes: &[(&str, i32)]) -> Plan {
    let budget = cluster.get::<PodDisruptionBudget>("a", "b").expect("it is there");
    let scaled = |(uid, replicas): &(&str, i32)| {
        (uid.to_string(), Ok(Some(Scaled { uid: uid.to_string(), replicas: *replicas })))
    };
    let scales: BTreeMap<_, _> = sizes.iter().map(scaled).collect();
    let world = World { pods: cluster.list(), budgets: cluster.list(), scales };
    reconcile(&budget, &world, cluster.now)
}

/// Of the status: expected, desired, healthy, allowed, and the condition's reason.
fn check(spec: Value, pods: &[Value], sizes: &[(&str, i32)], expect: (i32, i32, i32, i32, &str)) {
    let mut cluster = cluster(spec, pods);
    let plan = decide(&cluster, sizes);
    cluster.apply(&plan);
    let budget = cluster.get::<PodDisruptionBudget>("a", "b").expect("it is there");
    let status = &budget.status;
    let found = (
        status.expected_pods,
        status.desired_healthy,
        status.current_healthy,
        status.disruptions_allowed,
        status.conditions[0].reason.as_str(),
    );
    assert_eq!(found, expect);
    assert!(decide(&cluster, sizes).steps.is_empty());
}

#[test]
fn a_budget_is_a_number_or_a_share_of_what_the_owners_want() {
    let three = [pod("x", "rs", true), pod("y", "rs", true), pod("z", "rs", false)];
    let sizes = [("rs", 4)];
    check(json!({"minAvailable": 1}), &three, &[], (3, 1, 2, 1, "SufficientPods"));
    check(json!({"minAvailable": 2}), &three, &[], (3, 2, 2, 0, "InsufficientPods"));
    check(json!({"minAvailable": "25%"}), &three, &sizes, (4, 1, 2, 1, "SufficientPods"));
    check(json!({"maxUnavailable": 1}), &three, &sizes, (4, 3, 2, 0, "InsufficientPods"));
    check(json!({"maxUnavailable": "60%"}), &three, &sizes, (4, 1, 2, 1, "SufficientPods"));
    check(json!({"maxUnavailable": 9}), &three, &sizes, (4, 0, 2, 2, "SufficientPods"));
    check(json!({"maxUnavailable": 1}), &[], &[], (0, 0, 0, 0, "InsufficientPods"));
}

#[test]
fn owners_of_several_sets_are_added_up_and_pods_without_one_are_told_of() {
    let pods = [pod("x", "one", true), pod("y", "two", true), pod("z", "", true)];
    let sizes = [("one", 1), ("two", 2)];
    check(json!({"maxUnavailable": 1}), &pods, &sizes, (3, 2, 3, 1, "SufficientPods"));
    let plan = decide(&cluster(json!({"maxUnavailable": 1}), &pods), &sizes);
    assert_eq!(plan.events[0].reason, "UnmanagedPods");
    let selector = "(selector: &LabelSelector{MatchLabels:map[string]string{app: web,},MatchExpressions:[]LabelSelectorRequirement{},})";
    assert!(plan.events[0].message.contains(selector), "{}", plan.events[0].message);
}

#[test]
fn when_nothing_is_known_of_an_owner_nothing_may_go() {
    let mut cluster = cluster(json!({"maxUnavailable": 1}), &[pod("x", "gone", true)]);
    let plan = decide(&cluster, &[]);
    assert_eq!(plan.events[0].reason, "CalculateExpectedPodCountFailed");
    cluster.apply(&plan);
    let budget = cluster.get::<PodDisruptionBudget>("a", "b").expect("it is there");
    let condition = &budget.status.conditions[0];
    assert_eq!((condition.status.as_str(), condition.reason.as_str()), ("False", "SyncFailed"));
    assert_eq!(condition.message, "found no controllers for pod \"x\"");
}

#[test]
fn an_eviction_that_was_granted_counts_until_it_begins_or_is_given_up() {
    let mut cluster = cluster(json!({"minAvailable": 1}), &[pod("x", "rs", true), pod("y", "rs", true)]);
    cluster.edit(POD_DISRUPTION_BUDGETS, "a", "b", |budget| {
        budget["status"] = json!({"disruptedPods": {"x": at(0).to_string(), "gone": at(0).to_string()}});
    });
    cluster.now = at(60);
    let plan = decide(&cluster, &[]);
    assert_eq!(plan.requeue_at, Some(at(120)));
    cluster.apply(&plan);
    let status =
        |cluster: &Cluster| cluster.get::<PodDisruptionBudget>("a", "b").expect("it is there").status.clone();
    assert_eq!(status(&cluster).disrupted_pods.keys().collect::<Vec<_>>(), ["x"]);
    assert_eq!((status(&cluster).current_healthy, status(&cluster).disruptions_allowed), (1, 0));
    cluster.now = at(121);
    let plan = decide(&cluster, &[]);
    assert_eq!(plan.events[0].reason, "NotDeleted");
    cluster.apply(&plan);
    assert!(status(&cluster).disrupted_pods.is_empty());
    assert_eq!(status(&cluster).disruptions_allowed, 1);
}

#[test]
fn a_pod_with_two_budgets_is_told_of_once() {
    let mut cluster = cluster(json!({"minAvailable": 1}), &[pod("x", "rs", true)]);
    let mut other = budget(json!({"minAvailable": 1}));
    other["metadata"]["name"] = "c".into();
    cluster.create(POD_DISRUPTION_BUDGETS, other);
    let events = decide(&cluster, &[]).events;
    assert_eq!(events[0].reason, "MultiplePodDisruptionBudgets");
    assert_eq!(events.len(), 1);
}

#[test]
fn an_announced_disruption_that_does_not_come_is_taken_back() {
    let announced = |reason: &str| {
        let mut pod = pod("x", "rs", true);
        let since = at(0).to_string();
        pod["status"]["conditions"] = json!([{"type": "DisruptionTarget", "status": "True", "reason": reason, "lastTransitionTime": since}]);
        apimachinery::from_value::<Pod>(pod).expect("a pod")
    };
    let early = stale::reconcile(&announced("EvictionByEvictionAPI"), at(119));
    assert!(early.is_empty() && early.requeue_at == Some(at(120)));
    assert_eq!(stale::reconcile(&announced("EvictionByEvictionAPI"), at(120)).steps.len(), 1);
    assert!(stale::reconcile(&announced("TerminationByKubelet"), at(120)).is_empty());
}

proptest! {
    #[test]
    fn a_budget_settles_at_once_and_never_allows_more_than_are_healthy(
        ready in prop::collection::vec(any::<bool>(), 0..8), size in 0_i32..8,
        limit in prop_oneof![(0_i32..9).prop_map(Value::from), (0_i32..=100).prop_map(|p| format!("{p}%").into())],
        is_max in any::<bool>(),
    ) {
        let pods: Vec<Value> = ready.iter().enumerate().map(|(n, ready)| pod(&format!("p{n}"), "rs", *ready)).collect();
        let mut cluster = cluster(json!({(if is_max { "maxUnavailable" } else { "minAvailable" }): limit}), &pods);
        let plan = decide(&cluster, &[("rs", size)]);
        cluster.apply(&plan);
        prop_assert!(decide(&cluster, &[("rs", size)]).steps.is_empty());
        let budget = cluster.get::<PodDisruptionBudget>("a", "b").expect("it is there");
        let allowed = budget.status.disruptions_allowed;
        prop_assert!(allowed >= 0 && allowed <= ready.iter().filter(|ready| **ready).count() as i32);
    }
}
