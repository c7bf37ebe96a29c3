//! What goes with its owners, and what stays.

use std::sync::Arc;

use api::resource::{CONFIG_MAPS, NAMESPACES, PODS, REPLICA_SETS, Resource};
use api::view::PartialObject;
use apimachinery::{Value, json};
use client::Delta;

use super::graph::{Coordinates, Graph};
use super::reconcile::{OwnerState, World, reconcile};
use crate::plan::Action;

fn object(uid: &str, owners: &[(&str, bool)], finalizers: &[&str], deleted: bool) -> Arc<PartialObject> {
    let reference = |(uid, blocks): &(&str, bool)| {
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": uid, "uid": uid,
        "blockOwnerDeletion": blocks})
    };
    let mut meta = json!({"name": uid, "namespace": "a", "uid": uid, "finalizers": finalizers, "resourceVersion": "1",
        "ownerReferences": owners.iter().map(reference).collect::<Vec<Value>>()});
    if deleted {
        meta["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    }
    Arc::new(apimachinery::from_value(json!({"metadata": meta})).expect("metadata"))
}

fn graph(objects: &[(Resource, Arc<PartialObject>)]) -> Graph {
    let mut graph = Graph::default();
    for (resource, object) in objects {
        graph.apply(*resource, &Delta::Added(object.clone()));
    }
    graph
}

/// What is done about `uid`; owners that the graph lacks are taken to be `unseen`.
fn decide(graph: &Graph, uid: &str, unseen: OwnerState) -> Vec<String> {
    let node = graph.get(uid).expect("it is there").clone();
    let state = |owner| match graph.owner_state(&node, owner) {
        OwnerState::Unseen => unseen,
        state => state,
    };
    let owners = node.meta().owner_references.iter().map(|owner| (owner.clone(), state(owner))).collect();
    let plan = reconcile(&node, &World { owners, dependents: graph.dependents(uid) });
    let one = |action: &Action| match action {
        Action::Delete { name, options, .. } => {
            assert_eq!(options.resource_version.as_deref(), Some("1"));
            format!("delete {name} {}", options.propagation_policy.expect("a policy"))
        }
        Action::Patch { name, patch, .. } => {
            let mut patch = patch["metadata"].clone();
            let fields = patch.as_object_mut().expect("metadata");
            fields.retain(|field, _| field != "uid" && field != "resourceVersion");
            format!("patch {name} {}", fields.keys().cloned().collect::<Vec<_>>().join(","))
        }
        other => format!("{other:?}"),
    };
    plan.steps.iter().map(|step| one(&step.action)).collect()
}

#[test]
fn an_object_goes_with_its_last_owner() {
    let pod = object("p", &[("rs", true)], &[], false);
    let owner = object("rs", &[], &[], false);
    let mut graph = graph(&[(PODS, pod), (REPLICA_SETS, owner.clone())]);
    assert!(decide(&graph, "p", OwnerState::Dangling).is_empty());
    assert_eq!(graph.apply(REPLICA_SETS, &Delta::Deleted(owner)), ["p"]);
    assert_eq!(decide(&graph, "p", OwnerState::Solid), ["delete p Background"]);
}

#[test]
fn an_owner_that_only_the_server_knows_counts() {
    let graph = graph(&[(PODS, object("p", &[("rs", true)], &[], false))]);
    assert!(decide(&graph, "p", OwnerState::Solid).is_empty());
    assert!(decide(&graph, "p", OwnerState::Unknown).is_empty());
    assert_eq!(decide(&graph, "p", OwnerState::Dangling), ["delete p Background"]);
}

#[test]
fn a_false_reference_to_an_owner_elsewhere_harms_only_itself() {
    let pod = object("p", &[("rs", true)], &[], false);
    let owner = object("rs", &[], &[], false);
    let mut graph = graph(&[(PODS, pod.clone())]);
    let reference = &pod.metadata.owner_references[0];
    graph.note_gone(Coordinates::new(reference, "elsewhere"));
    assert!(decide(&graph, "p", OwnerState::Solid).is_empty());
    graph.apply(REPLICA_SETS, &Delta::Added(owner));
    assert!(decide(&graph, "p", OwnerState::Dangling).is_empty());
    graph.note_gone(Coordinates::new(reference, "a"));
    assert_eq!(decide(&graph, "p", OwnerState::Solid), ["delete p Background"]);
}

#[test]
fn a_lost_owner_is_struck_off_while_another_holds() {
    let pod = object("p", &[("rs", true), ("lost", true)], &[], false);
    let graph = graph(&[(PODS, pod), (REPLICA_SETS, object("rs", &[], &[], false))]);
    assert_eq!(decide(&graph, "p", OwnerState::Dangling), ["patch p ownerReferences"]);
}

#[test]
fn foreground_deletion_goes_from_the_leaves_up() {
    let root = object("root", &[], &["foregroundDeletion"], true);
    let middle = object("middle", &[("root", true)], &[], false);
    let leaf = object("leaf", &[("middle", true)], &[], false);
    let free = object("free", &[("root", false)], &[], false);
    let mut graph = graph(&[
        (REPLICA_SETS, middle.clone()),
        (PODS, leaf.clone()),
        (PODS, free),
        (REPLICA_SETS, root.clone()),
    ]);
    assert!(decide(&graph, "root", OwnerState::Dangling).is_empty());
    assert_eq!(decide(&graph, "middle", OwnerState::Dangling), ["delete middle Foreground"]);
    assert_eq!(decide(&graph, "free", OwnerState::Dangling), ["delete free Background"]);
    let waiting = object("middle", &[("root", true)], &["foregroundDeletion"], true);
    let concerned = graph.apply(REPLICA_SETS, &Delta::Updated { old: middle, new: waiting.clone() });
    assert!(concerned.contains(&"leaf".to_owned()) && concerned.contains(&"root".to_owned()));
    assert_eq!(decide(&graph, "leaf", OwnerState::Dangling), ["delete leaf Background"]);
    assert_eq!(graph.apply(PODS, &Delta::Deleted(leaf)), ["middle"]);
    assert_eq!(decide(&graph, "middle", OwnerState::Dangling), ["patch middle finalizers"]);
    assert_eq!(graph.apply(REPLICA_SETS, &Delta::Deleted(waiting)), ["root"]);
    assert_eq!(decide(&graph, "root", OwnerState::Dangling), ["patch root finalizers"]);
}

#[test]
fn orphans_are_let_go_before_their_owner() {
    let owner = object("rs", &[], &["orphan"], true);
    let graph = graph(&[(REPLICA_SETS, owner), (PODS, object("p", &[("rs", true)], &[], false))]);
    assert!(decide(&graph, "p", OwnerState::Dangling).is_empty());
    assert_eq!(
        decide(&graph, "rs", OwnerState::Dangling),
        ["patch p ownerReferences", "patch rs finalizers"]
    );
}

#[test]
fn a_circle_is_broken_by_unblocking() {
    let first = object("x", &[("y", true)], &["foregroundDeletion"], true);
    let second = object("y", &[("x", true)], &[], false);
    let graph = graph(&[(REPLICA_SETS, first), (REPLICA_SETS, second)]);
    assert_eq!(decide(&graph, "y", OwnerState::Dangling), ["patch y ownerReferences"]);
}

#[test]
fn what_has_no_owner_or_is_going_anyway_is_left_alone() {
    let graph = graph(&[
        (CONFIG_MAPS, object("m", &[], &[], false)),
        (PODS, object("p", &[("lost", true)], &["other"], true)),
        (NAMESPACES, object("n", &[], &["foregroundDeletion"], false)),
    ]);
    for uid in ["m", "p", "n"] {
        assert!(decide(&graph, uid, OwnerState::Dangling).is_empty());
    }
}
