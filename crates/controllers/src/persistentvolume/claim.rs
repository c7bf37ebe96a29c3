//! What a claim needs next (follows `syncClaim`).

use std::sync::Arc;

use api::resource::PERSISTENT_VOLUME_CLAIMS;
use api::view::core::ObjectReference;
use api::view::core::PersistentVolume;
use api::view::core::persistentvolume::{
    BIND_COMPLETED, BOUND_BY_CONTROLLER, Reach, SELECTED_NODE, find_matching, mismatch,
};
use api::view::storage::{StorageClass, default_class};

use super::bind::{bind, claim_status, rewritten};
use super::provision::provision;
use super::{Claim, Volume, World};
use crate::plan::{Event, Plan, reference};

const FAILED_BINDING: &str = "FailedBinding";
const VOLUME_MISMATCH: &str = "VolumeMismatch";
const LOST_REFERENCE: &str =
    "Bound claim has lost reference to PersistentVolume. Data on the volume is lost!";
const LOST_VOLUME: &str = "Bound claim has lost its PersistentVolume. Data on the volume is lost!";
const MISBOUND: &str = "Two claims are bound to the same volume, this one is bound incorrectly";
const NO_VOLUME: &str = "no persistent volumes available for this claim and no storage class is set";

pub fn reconcile(claim: &Claim, world: &World<'_>) -> Plan {
    let mut plan = Plan::default();
    let named = claim.view.spec.volume_name.as_str();
    let volume = world.volumes.iter().find(|volume| volume.view.metadata.name == named);
    match (claim.view.metadata.annotations.contains_key(BIND_COMPLETED), named, volume) {
        (true, "", _) => lose(claim, "ClaimLost", LOST_REFERENCE, &mut plan),
        (true, _, None) => lose(claim, "ClaimLost", LOST_VOLUME, &mut plan),
        (true, _, Some(volume)) => keep_bound(claim, volume, &mut plan),
        (false, "", _) => find(claim, world, &mut plan),
        (false, _, None) => stay_pending(claim, &mut plan),
        (false, _, Some(volume)) => take_named(claim, volume, &mut plan),
    }
    plan
}

/// Who an event about the claim regards.
pub fn regarding(claim: &Claim) -> ObjectReference {
    reference(PERSISTENT_VOLUME_CLAIMS, &claim.view.metadata)
}

/// A bound claim: its volume must still be its own.
fn keep_bound(claim: &Claim, volume: &Volume, plan: &mut Plan) {
    match &volume.view.spec.claim_ref {
        Some(held) if held.uid != claim.view.metadata.uid => lose(claim, "ClaimMisbound", MISBOUND, plan),
        _ => bind(volume, claim, plan),
    }
}

fn lose(claim: &Claim, reason: &'static str, message: &str, plan: &mut Plan) {
    if claim.view.status.phase != "Lost" {
        plan.events.push(Event::warning(regarding(claim), reason, message));
        claim_status(claim, "Lost", None).into_iter().for_each(|action| plan.act(action));
    }
}

fn stay_pending(claim: &Claim, plan: &mut Plan) {
    claim_status(claim, "Pending", None).into_iter().for_each(|action| plan.act(action));
}

/// An unbound claim that asks for one volume by name.
fn take_named(claim: &Claim, volume: &Volume, plan: &mut Plan) {
    let name = &volume.view.metadata.name;
    if volume.view.is_bound_to(&claim.view) {
        return bind(volume, claim, plan);
    }
    let (reason, message) = if volume.view.spec.claim_ref.is_some() {
        (FAILED_BINDING, format!("volume {name:?} already bound to a different claim."))
    } else if let Some(why) = mismatch(&volume.view, &claim.view) {
        (VOLUME_MISMATCH, format!("Cannot bind to requested volume {name:?}: {why}"))
    } else {
        return bind(volume, claim, plan);
    };
    plan.events.push(Event::warning(regarding(claim), reason, message));
    if !claim.view.metadata.annotations.contains_key(BOUND_BY_CONTROLLER) {
        stay_pending(claim, plan);
    }
}

/// An unbound claim that takes what suits it: a volume that is there, a default class, or a volume to be made.
fn find(claim: &Claim, world: &World<'_>, plan: &mut Plan) {
    let class = class_of(claim, world.classes);
    let waits = class.is_some_and(|class| class.waits_for_first_consumer());
    let reach = if waits { Reach::OnlyPromised } else { Reach::Anywhere };
    if let Some(volume) = best(claim, world.volumes, reach) {
        return bind(volume, claim, plan);
    }
    if !claim.view.has_class()
        && let Some(class) = default_class(world.classes.iter().map(AsRef::as_ref))
    {
        let name = class.metadata.name.as_str();
        return plan.act(rewritten(claim, |object| object["spec"]["storageClassName"] = name.into()));
    }
    if waits && !claim.view.metadata.annotations.contains_key(SELECTED_NODE) {
        plan.events.push(waiting(claim, world));
    } else if !claim.view.class().is_empty() {
        // A provisioner's failure leaves the claim pending too.
        provision(claim, class, world, plan);
    } else {
        plan.events.push(Event::normal(regarding(claim), FAILED_BINDING, NO_VOLUME));
    }
    stay_pending(claim, plan);
}

pub fn class_of<'a>(claim: &Claim, classes: &'a [Arc<StorageClass>]) -> Option<&'a StorageClass> {
    classes.iter().map(AsRef::as_ref).find(|class| class.metadata.name == claim.view.class())
}

fn best<'a>(claim: &Claim, volumes: &'a [Arc<Volume>], reach: Reach<'_>) -> Option<&'a Volume> {
    let found: &PersistentVolume =
        find_matching(&claim.view, volumes.iter().map(|volume| &volume.view), reach)?;
    volumes.iter().map(AsRef::as_ref).find(|volume| volume.view.metadata.name == found.metadata.name)
}

/// Upstream: `emitEventForUnboundDelayBindingClaim`.
fn waiting(claim: &Claim, world: &World<'_>) -> Event {
    let pending = world.pods.iter().filter(|pod| !pod.is_terminal() && pod.spec.node_name.is_empty());
    let names: Vec<&str> = pending.map(|pod| pod.metadata.name.as_str()).collect();
    let (reason, message) = match names.as_slice() {
        [] => ("WaitForFirstConsumer", "waiting for first consumer to be created before binding".to_owned()),
        [name] => ("WaitForPodScheduled", format!("waiting for pod {name} to be scheduled")),
        names => ("WaitForPodScheduled", format!("waiting for pods {} to be scheduled", names.join(","))),
    };
    Event::normal(regarding(claim), reason, message)
}
