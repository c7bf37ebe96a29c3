//! Adoption and release of children by labels and controller references (follows upstream's `ControllerRefManager`).

use api::resource::Resource;
use api::view::View;
use apimachinery::meta::{LabelSelector, ObjectMeta, OwnerReference};
use apimachinery::{Value, json};
use client::Client;

use crate::plan::Action;

/// What an owner does with an object that it controls or that its selector matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is the owner's already.
    Keep,
    /// It has no controller and matches: becomes the owner's.
    Adopt,
    /// It is the owner's, but matches no longer.
    Release,
    Ignore,
}

/// Decides about one child. An owner being deleted changes nothing any more.
pub fn claim(owner: &ObjectMeta, selector: &LabelSelector, child: &ObjectMeta) -> Claim {
    let matches = selector.matches(&child.labels);
    match child.controller() {
        Some(controller) if controller.uid != owner.uid => Claim::Ignore,
        Some(_) if matches => Claim::Keep,
        Some(_) if owner.is_being_deleted() => Claim::Ignore,
        Some(_) => Claim::Release,
        None if matches && !owner.is_being_deleted() && !child.is_being_deleted() => Claim::Adopt,
        None => Claim::Ignore,
    }
}

/// Whether the server still has this very object, not being deleted. A cache may not know yet that it is going, and
/// what it adopts would go with it (upstream: `RecheckDeletionTimestamp`).
pub async fn is_alive<V: View>(client: &Client, owner: &ObjectMeta) -> client::error::Result<bool> {
    match client.get::<V>(V::RESOURCE, &owner.namespace, &owner.name).await {
        Ok(fresh) => Ok(fresh.meta().uid == owner.uid && !fresh.meta().is_being_deleted()),
        Err(error) if error.is_not_found() => Ok(false),
        Err(error) => Err(error),
    }
}

/// A reference that makes `owner` the controller, as upstream's `NewControllerRef`.
pub fn controller_reference(resource: Resource, owner: &ObjectMeta) -> OwnerReference {
    OwnerReference {
        api_version: resource.api_version(),
        kind: resource.kind.to_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub fn adopt(owner: (Resource, &ObjectMeta), child: (Resource, &ObjectMeta)) -> Action {
    Action::patch(child.0, child.1, json!({"metadata": {"ownerReferences": adopted(owner, child.1)}}))
}

/// Adopts what its owner keeps from going by a finalizer.
pub fn adopt_with_finalizer(
    owner: (Resource, &ObjectMeta),
    child: (Resource, &ObjectMeta),
    finalizer: &str,
) -> Action {
    let mut finalizers = without(&child.1.finalizers, finalizer);
    finalizers.push(finalizer);
    let metadata = json!({"ownerReferences": adopted(owner, child.1), "finalizers": finalizers});
    Action::patch(child.0, child.1, json!({"metadata": metadata}))
}

fn adopted(owner: (Resource, &ObjectMeta), child: &ObjectMeta) -> Vec<OwnerReference> {
    let mut owners = child.owner_references.clone();
    owners.retain(|o| o.uid != owner.1.uid);
    owners.push(controller_reference(owner.0, owner.1));
    owners
}

pub fn release(owner: &ObjectMeta, child: (Resource, &ObjectMeta)) -> Action {
    Action::patch(child.0, child.1, json!({"metadata": {"ownerReferences": released(owner, child.1)}}))
}

/// Releases what its owner kept from going by a finalizer.
pub fn release_with_finalizer(owner: &ObjectMeta, child: (Resource, &ObjectMeta), finalizer: &str) -> Action {
    let finalizers = without(&child.1.finalizers, finalizer);
    let metadata = json!({"ownerReferences": released(owner, child.1), "finalizers": finalizers});
    Action::patch(child.0, child.1, json!({"metadata": metadata}))
}

/// Null when no owner is left, which takes the field away.
fn released(owner: &ObjectMeta, child: &ObjectMeta) -> Value {
    let mut owners = child.owner_references.clone();
    owners.retain(|o| o.uid != owner.uid);
    if owners.is_empty() { Value::Null } else { json!(owners) }
}

fn without<'a>(finalizers: &'a [String], finalizer: &str) -> Vec<&'a str> {
    finalizers.iter().map(String::as_str).filter(|known| *known != finalizer).collect()
}

/// Under which values the index `CONTROLLER` finds an object: its controller's UID, or its namespace's orphans.
pub fn controller_index(meta: &ObjectMeta) -> Vec<String> {
    vec![meta.controller().map_or_else(|| orphans_of(&meta.namespace), |c| c.uid.clone())]
}

/// The name of the index by controller.
pub const CONTROLLER: &str = "controller";

pub fn orphans_of(namespace: &str) -> String {
    format!("orphan/{namespace}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(value: Value) -> ObjectMeta {
        apimachinery::from_value(value).expect("metadata")
    }

    fn check(owner: Value, child: Value, expect: Claim) {
        let selector = apimachinery::from_value(json!({"matchLabels": {"a": "b"}})).expect("a selector");
        assert_eq!(claim(&meta(owner), &selector, &meta(child.clone())), expect, "{child}");
    }

    #[test]
    fn an_owner_claims_what_matches_and_has_no_other() {
        let mine = json!([{"uid": "u", "controller": true}]);
        let other = json!([{"uid": "v", "controller": true}]);
        let owner = json!({"uid": "u"});
        let gone = json!({"uid": "u", "deletionTimestamp": "2026-01-01T00:00:00Z"});
        check(owner.clone(), json!({"labels": {"a": "b"}, "ownerReferences": mine}), Claim::Keep);
        check(owner.clone(), json!({"ownerReferences": mine}), Claim::Release);
        check(gone.clone(), json!({"ownerReferences": mine}), Claim::Ignore);
        check(owner.clone(), json!({"labels": {"a": "b"}, "ownerReferences": other}), Claim::Ignore);
        check(owner.clone(), json!({"labels": {"a": "b"}}), Claim::Adopt);
        check(gone, json!({"labels": {"a": "b"}}), Claim::Ignore);
        check(owner, json!({"labels": {"a": "c"}}), Claim::Ignore);
    }
}
