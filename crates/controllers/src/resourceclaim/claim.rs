//! What becomes of one claim when its users go: it loses them, then its devices, then its finalizer; one made for a pod
//! that is over is deleted (follows upstream's `syncClaim`).

use std::sync::Arc;

use api::resource::{PODS, RESOURCE_CLAIMS};
use api::view::core::Pod;
use api::view::dynamicresource::{FINALIZER, ResourceClaim, ResourceClaimConsumerReference};
use apimachinery::meta::{ObjectMeta, OwnerReference};
use apimachinery::{Value, json};
use client::PatchType;

use super::is_done;
use crate::plan::{Action, Plan};

pub struct World {
    /// Those of the claim's users that still are.
    pub consumers: Vec<ResourceClaimConsumerReference>,
    /// The pod of the name that the claim was made for, if it is known.
    pub owner: Option<Arc<Pod>>,
    /// The devices were given back just now.
    pub is_released: bool,
}

/// The plan, and whether it gives the claim's devices back while the claim goes on.
pub fn reconcile(claim: &ResourceClaim, world: &World) -> (Plan, bool) {
    let (mut plan, mut releases) = (Plan::default(), false);
    let has_finalizer = claim.metadata.finalizers.iter().any(|held| held == FINALIZER);
    let is_allocated = claim.status.allocation.is_some();
    let is_unused = world.consumers.is_empty();
    if world.consumers.len() < claim.status.reserved_for.len() {
        let mut status = json!({"reservedFor": world.consumers});
        if is_unused {
            status = json!({"reservedFor": null});
            if has_finalizer && is_allocated {
                status["allocation"] = Value::Null;
                status["devices"] = Value::Null;
                releases = true;
            }
        }
        plan.act(status_patch(claim, status));
    } else if has_finalizer && is_unused && claim.metadata.is_being_deleted() && is_allocated {
        plan.act(status_patch(claim, json!({"allocation": null, "devices": null})));
    } else if has_finalizer
        && is_unused
        && !is_allocated
        && (claim.metadata.is_being_deleted() || world.is_released)
    {
        plan.act(without_finalizer(claim));
    }
    if is_unused && !claim.metadata.is_being_deleted() && is_over(claim, world.owner.as_deref()) {
        plan.act(Action::delete(RESOURCE_CLAIMS, &claim.metadata));
    }
    (plan, releases)
}

/// Whether the pod that the claim was made for is there no more, or has run. One that is not known may only not be known
/// yet; then the garbage collector decides.
fn is_over(claim: &ResourceClaim, pod: Option<&Pod>) -> bool {
    let Some((owner, pod)) = owning_pod(claim).zip(pod) else { return false };
    pod.metadata.uid != owner.uid || is_done(pod)
}

/// The pod that the claim was made for.
pub fn owning_pod(claim: &ResourceClaim) -> Option<&OwnerReference> {
    let is_pod = |owner: &&OwnerReference| owner.api_version == PODS.api_version() && owner.kind == PODS.kind;
    claim.metadata.controller().filter(is_pod)
}

pub fn status_patch(claim: &ResourceClaim, status: Value) -> Action {
    patch(&claim.metadata, Some("status"), json!({"status": status}))
}

fn without_finalizer(claim: &ResourceClaim) -> Action {
    let finalizers: Vec<&String> =
        claim.metadata.finalizers.iter().filter(|held| *held != FINALIZER).collect();
    patch(&claim.metadata, None, json!({"metadata": {"finalizers": finalizers}}))
}

/// For the very version that was decided on.
fn patch(meta: &ObjectMeta, subresource: Option<&'static str>, mut patch: Value) -> Action {
    patch["metadata"]["uid"] = meta.uid.as_str().into();
    patch["metadata"]["resourceVersion"] = meta.resource_version.as_str().into();
    Action::Patch {
        resource: RESOURCE_CLAIMS,
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        subresource,
        kind: PatchType::Merge,
        patch,
    }
}
