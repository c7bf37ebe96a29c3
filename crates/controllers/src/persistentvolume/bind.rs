//! The writes that join a volume and a claim, or part them.

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use api::view::core::persistentvolume::{BIND_COMPLETED, BOUND_BY_CONTROLLER};
use api::view::{View, Whole};
use apimachinery::{Value, json};

use super::{Claim, Volume};
use crate::plan::{Action, Plan, reference};

/// Has a volume's size before it was grown, while its file system is still of that size (upstream:
/// `AnnPreResizeCapacity`).
const PRE_RESIZE_CAPACITY: &str = "volume.alpha.kubernetes.io/pre-resize-capacity";

/// Plans what is missing of the binding: the references first, the states when both are known to be written.
pub fn bind(volume: &Volume, claim: &Claim, plan: &mut Plan) {
    let references = [bind_volume(volume, claim), bind_claim(claim, volume)];
    let states = [volume_phase(volume, "Bound", ""), claim_status(claim, "Bound", Some(volume))];
    let is_referred = references.iter().all(Option::is_none);
    let due = if is_referred { states } else { references };
    due.into_iter().flatten().for_each(|action| plan.act(action));
}

/// Upstream: `GetBindVolumeToClaim`.
fn bind_volume(volume: &Volume, claim: &Claim) -> Option<Action> {
    let meta = &claim.view.metadata;
    let is_promised = volume.view.is_bound_to(&claim.view);
    if is_promised && volume.view.spec.claim_ref.as_ref().is_some_and(|held| held.uid == meta.uid) {
        return None;
    }
    Some(rewritten(volume, |object| {
        object["spec"]["claimRef"] = json!(reference(PERSISTENT_VOLUME_CLAIMS, meta));
        if !is_promised {
            annotate(object, BOUND_BY_CONTROLLER, "yes");
        }
    }))
}

/// Upstream: `bindClaimToVolume`.
fn bind_claim(claim: &Claim, volume: &Volume) -> Option<Action> {
    let name = volume.view.metadata.name.as_str();
    let names_it = claim.view.spec.volume_name == name;
    if names_it && claim.view.metadata.annotations.contains_key(BIND_COMPLETED) {
        return None;
    }
    Some(rewritten(claim, |object| {
        if !names_it {
            object["spec"]["volumeName"] = name.into();
            annotate(object, BOUND_BY_CONTROLLER, "yes");
        }
        annotate(object, BIND_COMPLETED, "yes");
    }))
}

/// Gives the volume back: to everybody when the controller chose the claim, else to claims of that name.
pub fn unbind(volume: &Volume) -> Action {
    rewritten(volume, |object| {
        if volume.view.metadata.annotations.contains_key(BOUND_BY_CONTROLLER) {
            remove(&mut object["spec"], "claimRef");
            remove(&mut object["metadata"]["annotations"], BOUND_BY_CONTROLLER);
        } else {
            remove(&mut object["spec"]["claimRef"], "uid");
        }
    })
}

pub fn volume_phase(volume: &Volume, phase: &str, message: &str) -> Option<Action> {
    if volume.view.status.phase == phase {
        return None;
    }
    let mut status = volume.object["status"].clone();
    status["phase"] = phase.into();
    if message.is_empty() {
        remove(&mut status, "message");
    } else {
        status["message"] = message.into();
    }
    Some(Action::update_status(PERSISTENT_VOLUMES, &volume.view.metadata, status))
}

/// Upstream: `updateClaimStatus`. What a bound claim holds is taken over once; from then on resizing keeps it.
pub fn claim_status(claim: &Claim, phase: &str, volume: Option<&Volume>) -> Option<Action> {
    let before = &claim.object["status"];
    let mut status = before.clone();
    let is_new = claim.view.status.phase != phase;
    status["phase"] = phase.into();
    match volume.map(|volume| (&volume.object, &volume.view.metadata.annotations)) {
        None => {
            for field in ["accessModes", "capacity", "currentVolumeAttributesClassName"] {
                remove(&mut status, field);
            }
        }
        Some((volume, annotations)) => {
            status["accessModes"] = volume["spec"]["accessModes"].clone();
            if is_new {
                status["capacity"] = volume["spec"]["capacity"].clone();
                if let Some(size) = annotations.get(PRE_RESIZE_CAPACITY) {
                    status["capacity"]["storage"] = size.as_str().into();
                }
                if let Some(class) = volume["spec"].get("volumeAttributesClassName") {
                    status["currentVolumeAttributesClassName"] = class.clone();
                }
            }
        }
    }
    let action = || Action::update_status(PERSISTENT_VOLUME_CLAIMS, &claim.view.metadata, status.clone());
    (status != *before).then(action)
}

/// The whole object, changed.
pub fn rewritten<V: View>(whole: &Whole<V>, change: impl FnOnce(&mut Value)) -> Action {
    let mut object = whole.object.clone();
    change(&mut object);
    Action::update(V::RESOURCE, whole.view.meta(), object)
}

pub fn annotate(object: &mut Value, key: &str, value: &str) {
    object["metadata"]["annotations"][key] = value.into();
}

pub fn remove(object: &mut Value, field: &str) {
    if let Some(fields) = object.as_object_mut() {
        fields.remove(field);
    }
}
