//! Pods that nobody will miss.

use std::sync::Arc;

use api::view::core::Pod;
use apimachinery::{Value, json};

use super::reconcile::{NodeState, TERMINATED_PODS_MAX, World, reconcile};
use crate::plan::{Action, Plan};
use crate::testing::at;

fn pod(name: &str, node: &str, phase: &str, ending: bool) -> Arc<Pod> {
    let mut value = json!({"metadata": {"name": name, "namespace": "a", "uid": name}, "spec": {"nodeName": node},
        "status": {"phase": phase}});
    if ending {
        value["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    Arc::new(apimachinery::from_value::<Pod>(value).expect("a pod"))
}

fn deleted(plan: &Plan) -> Vec<&str> {
    let names = plan.steps.iter().filter_map(|step| match &step.action {
        Action::Delete { name, options, .. } => {
            assert_eq!(options.grace_period_seconds, Some(0));
            Some(name.as_str())
        }
        _ => None,
    });
    names.collect()
}

#[test]
fn only_pods_that_no_kubelet_will_end_are_given_up() {
    let nodes = [
        ("here".to_owned(), NodeState::Present),
        ("broken".to_owned(), NodeState::OutOfService),
        ("late".to_owned(), NodeState::MissingUntil(at(40))),
        ("gone".to_owned(), NodeState::Gone),
    ];
    let pods = vec![
        pod("fine", "here", "Running", false),
        pod("ending", "here", "Running", true),
        pod("broken", "broken", "Running", false),
        pod("broken-ending", "broken", "Running", true),
        pod("late", "late", "Running", false),
        pod("gone", "gone", "Running", false),
        pod("unscheduled", "", "Pending", false),
        pod("unscheduled-ending", "", "Pending", true),
    ];
    let plan = reconcile(&World { pods, nodes: nodes.into() }, at(0));
    assert_eq!(deleted(&plan), ["broken-ending", "gone", "unscheduled-ending"]);
    assert_eq!(plan.requeue_at, Some(at(40)));
    let orphan: Vec<&Value> = plan
        .steps
        .iter()
        .filter_map(|step| match &step.action {
            Action::Patch { name, patch, .. } if name == "gone" => Some(patch),
            _ => None,
        })
        .collect();
    assert_eq!(orphan[0]["status"]["phase"], "Failed");
    assert_eq!(orphan[0]["status"]["conditions"][0]["reason"], "DeletionByPodGC");
}

#[test]
fn ended_pods_are_kept_up_to_the_limit() {
    let nodes = || [("here".to_owned(), NodeState::Present)].into();
    let mut pods: Vec<Arc<Pod>> =
        (0..TERMINATED_PODS_MAX).map(|n| pod(&format!("p{n:05}"), "here", "Succeeded", false)).collect();
    assert!(reconcile(&World { pods: pods.clone(), nodes: nodes() }, at(0)).is_empty());
    pods.push(pod("a-first", "here", "Failed", false));
    let plan = reconcile(&World { pods, nodes: nodes() }, at(0));
    assert_eq!(deleted(&plan), ["a-first"]);
}
