//! What becomes of one object, given its owners and dependents (follows `attemptToDeleteItem`,
//! `processDeletingDependentsItem` and `attemptToOrphan`).

use apimachinery::meta::{ObjectMeta, OwnerReference};
use apimachinery::{Value, json};
use client::DeleteOptions;

use super::graph::Node;
use crate::plan::{Action, Plan};

/// The object stays until its dependents are orphaned.
pub const ORPHAN: &str = "orphan";
/// The object stays until the dependents that block its deletion are gone.
pub const FOREGROUND_DELETION: &str = "foregroundDeletion";

#[derive(Clone, Debug, Default)]
pub struct World {
    pub owners: Vec<(OwnerReference, OwnerState)>,
    pub dependents: Vec<Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerState {
    /// Not in the graph; the server must be asked.
    Unseen,
    /// Neither can tell: its kind is not served. The object stays.
    Unknown,
    Solid,
    Dangling,
    /// It waits for its dependents to be deleted.
    Waiting,
}

fn has_finalizer(meta: &ObjectMeta, finalizer: &str) -> bool {
    meta.finalizers.iter().any(|f| f == finalizer)
}

/// It is being deleted once its dependents are.
pub fn is_waiting(meta: &ObjectMeta) -> bool {
    meta.is_being_deleted() && has_finalizer(meta, FOREGROUND_DELETION)
}

/// It is being deleted once its dependents do not refer to it any more.
pub fn is_orphaning(meta: &ObjectMeta) -> bool {
    meta.is_being_deleted() && has_finalizer(meta, ORPHAN)
}

pub fn reconcile(node: &Node, world: &World) -> Plan {
    let mut plan = Plan::default();
    let meta = node.meta();
    if is_orphaning(meta) {
        orphan_dependents(node, world, &mut plan);
    } else if is_waiting(meta) {
        if !world.dependents.iter().any(|dependent| blocks(dependent, &meta.uid)) {
            plan.act(remove_finalizer(node, FOREGROUND_DELETION));
        }
    } else if !meta.is_being_deleted() && !world.owners.is_empty() {
        collect(node, world, &mut plan);
    }
    plan
}

fn blocks(dependent: &Node, owner: &str) -> bool {
    let mut references = dependent.meta().owner_references.iter();
    references.any(|reference| reference.uid == owner && reference.block_owner_deletion == Some(true))
}

fn orphan_dependents(node: &Node, world: &World, plan: &mut Plan) {
    let uid = &node.meta().uid;
    for dependent in &world.dependents {
        let kept = dependent.meta().owner_references.iter().filter(|reference| reference.uid != *uid);
        plan.act(set_owners(dependent, kept.cloned().collect()));
    }
    plan.act(remove_finalizer(node, ORPHAN));
}

fn collect(node: &Node, world: &World, plan: &mut Plan) {
    let is = |wanted: OwnerState| world.owners.iter().any(|(_, state)| *state == wanted);
    if is(OwnerState::Solid) || is(OwnerState::Unknown) || is(OwnerState::Unseen) {
        // Some owner holds it; references to the others would only hold those up.
        let holds = |state: &OwnerState| !matches!(state, OwnerState::Dangling | OwnerState::Waiting);
        let kept: Vec<OwnerReference> =
            world.owners.iter().filter(|(_, state)| holds(state)).map(|(owner, _)| owner.clone()).collect();
        if kept.len() < world.owners.len() {
            plan.act(set_owners(node, kept));
        }
    } else if is(OwnerState::Waiting) && !world.dependents.is_empty() {
        // Whoever depends on it and waits as well could close a circle: then this one must block no one.
        if world.dependents.iter().any(|dependent| is_waiting(dependent.meta())) && blocks_any(node) {
            plan.act(unblock(node));
        } else {
            plan.act(delete(node, "Foreground"));
        }
    } else if has_finalizer(node.meta(), ORPHAN) {
        plan.act(delete(node, "Orphan"));
    } else if has_finalizer(node.meta(), FOREGROUND_DELETION) {
        plan.act(delete(node, "Foreground"));
    } else {
        plan.act(delete(node, "Background"));
    }
}

fn blocks_any(node: &Node) -> bool {
    node.meta().owner_references.iter().any(|owner| owner.block_owner_deletion == Some(true))
}

/// Only the object as it was decided on: a new owner could have claimed it since.
fn delete(node: &Node, policy: &'static str) -> Action {
    let options = DeleteOptions {
        resource_version: Some(node.meta().resource_version.clone()),
        propagation_policy: Some(policy),
        ..DeleteOptions::default()
    };
    Action::delete_with(node.resource, node.meta(), options)
}

fn unblock(node: &Node) -> Action {
    let mut owners = node.meta().owner_references.clone();
    owners.iter_mut().for_each(|owner| owner.block_owner_deletion = Some(false));
    set_owners(node, owners)
}

fn set_owners(node: &Node, owners: Vec<OwnerReference>) -> Action {
    let owners = if owners.is_empty() { Value::Null } else { json!(owners) };
    Action::patch(node.resource, node.meta(), json!({"metadata": {"ownerReferences": owners}}))
}

fn remove_finalizer(node: &Node, finalizer: &str) -> Action {
    let kept: Vec<&String> = node.meta().finalizers.iter().filter(|f| *f != finalizer).collect();
    let kept = if kept.is_empty() { Value::Null } else { json!(kept) };
    Action::patch(node.resource, node.meta(), json!({"metadata": {"finalizers": kept}}))
}
