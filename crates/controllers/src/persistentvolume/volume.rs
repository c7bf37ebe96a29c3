//! What a volume needs next: its phase, and its end (follows `syncVolume` and `reclaimVolume`).

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use api::view::core::persistentvolume::{PROVISIONED_BY, volume_mode};

use super::bind::{unbind, volume_phase};
use super::{Claim, Volume};
use crate::plan::{Action, Event, Plan, reference};

/// Volumes of plugins that live in Kubernetes itself begin so; others are their provisioners' to delete.
pub const IN_TREE_PREFIX: &str = "kubernetes.io/";

/// `claim` is the one that holds the volume, if that still exists.
pub fn reconcile(volume: &Volume, claim: Option<&Claim>) -> Plan {
    let mut plan = Plan::default();
    let view = &volume.view;
    let is_claimed = view.spec.claim_ref.as_ref().is_some_and(|held| !held.uid.is_empty());
    match claim.map(|claim| (claim, claim.view.spec.volume_name.as_str())) {
        _ if !is_claimed => phase(volume, "Available", &mut plan),
        None => reclaim(volume, &mut plan),
        // The claim's own turn finds the volume, if it suits.
        Some((claim, "")) => tell_mode_mismatch(volume, claim, &mut plan),
        Some((_, name)) if name == view.metadata.name => phase(volume, "Bound", &mut plan),
        Some(_) if view.metadata.annotations.contains_key(PROVISIONED_BY) && policy(volume) == "Delete" => {
            reclaim(volume, &mut plan);
        }
        Some(_) => plan.act(unbind(volume)),
    }
    plan
}

fn policy(volume: &Volume) -> &str {
    &volume.view.spec.persistent_volume_reclaim_policy
}

fn phase(volume: &Volume, phase: &str, plan: &mut Plan) {
    volume_phase(volume, phase, "").into_iter().for_each(|action| plan.act(action));
}

fn tell_mode_mismatch(volume: &Volume, claim: &Claim, plan: &mut Plan) {
    const REASON: &str = "VolumeMismatch";
    if volume_mode(volume.view.spec.volume_mode.as_ref()) == volume_mode(claim.view.spec.volume_mode.as_ref())
    {
        return;
    }
    let (held, asking) = (&volume.view.metadata, &claim.view.metadata);
    plan.events.push(Event::warning(
        reference(PERSISTENT_VOLUMES, held),
        REASON,
        format!(
            "Cannot bind PersistentVolume to requested PersistentVolumeClaim {:?} due to incompatible volumeMode.",
            asking.name
        ),
    ));
    plan.events.push(Event::warning(
        reference(PERSISTENT_VOLUME_CLAIMS, asking),
        REASON,
        format!(
            "Cannot bind PersistentVolume {:?} to requested PersistentVolumeClaim due to incompatible volumeMode.",
            held.name
        ),
    ));
}

/// Nobody holds the volume any more.
fn reclaim(volume: &Volume, plan: &mut Plan) {
    let meta = &volume.view.metadata;
    if !matches!(volume.view.status.phase.as_str(), "Released" | "Failed") {
        return phase(volume, "Released", plan);
    }
    let kept = || volume.view.spec.csi.is_some() || meta.is_being_deleted();
    match policy(volume) {
        "Retain" => {}
        "Recycle" => {
            fail(volume, "VolumeFailedRecycle", "No recycler plugin found for the volume!".to_owned(), plan);
        }
        "Delete" => match meta.annotations.get(PROVISIONED_BY) {
            Some(by) if by == api::storage::localpath::PROVISIONER && !meta.is_being_deleted() => {
                plan.act(Action::delete(PERSISTENT_VOLUMES, meta));
            }
            // Its own provisioner deletes it.
            Some(by) if !by.starts_with(IN_TREE_PREFIX) => {}
            Some(_) => {
                fail(volume, "VolumeFailedDelete", "no deletable volume plugin matched".to_owned(), plan)
            }
            None if kept() => {}
            None => fail(
                volume,
                "VolumeFailedDelete",
                format!(
                    "error getting deleter volume plugin for volume {:?}: no deletable volume plugin matched",
                    meta.name
                ),
                plan,
            ),
        },
        _ => fail(
            volume,
            "VolumeUnknownReclaimPolicy",
            "Volume has unrecognized PersistentVolumeReclaimPolicy".to_owned(),
            plan,
        ),
    }
}

fn fail(volume: &Volume, reason: &'static str, message: String, plan: &mut Plan) {
    if let Some(action) = volume_phase(volume, "Failed", &message) {
        plan.act(action);
        plan.events.push(Event::warning(
            reference(PERSISTENT_VOLUMES, &volume.view.metadata),
            reason,
            message,
        ));
    }
}
