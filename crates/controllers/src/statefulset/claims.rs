//! The PersistentVolumeClaims of a StatefulSet's pods: made with them, and kept or let go as the set's retention policy
//! says.

use std::sync::Arc;

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PODS, Resource, STATEFUL_SETS};
use api::view::Object;
use api::view::apps::StatefulSet;
use api::view::core::Pod;
use apimachinery::meta::{ObjectMeta, OwnerReference, str_at};
use apimachinery::{Map, Value};
use serde::{Deserialize, Serialize};

use super::pod;
use crate::ownership::controller_reference;
use crate::plan::{Action, ERROR, Event, Plan, Step, reference};

/// A claim with all that is written in it: the controller may update claims, but not patch them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VolumeClaim {
    #[serde(default)]
    pub metadata: ObjectMeta,
    #[serde(flatten)]
    rest: Map,
}

impl Object for VolumeClaim {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// Volume and claim of each template, for one pod.
pub fn names(set: &StatefulSet, ordinal: i32) -> impl Iterator<Item = (&str, String)> {
    let pod = pod::name(set, ordinal);
    let templates = set.spec.volume_claim_templates.iter();
    templates
        .map(|template| str_at(template, &["metadata", "name"]))
        .map(move |name| (name, format!("{name}-{pod}")))
}

/// Whether a claim is one of the set's, by its name.
pub fn is_of(set: &StatefulSet, claim: &str) -> bool {
    set.spec.volume_claim_templates.iter().any(|template| {
        let rest = claim.strip_prefix(str_at(template, &["metadata", "name"]));
        let pod = rest.and_then(|rest| rest.strip_prefix('-'));
        pod.is_some_and(|name| pod::ordinal(&set.metadata.name, name).is_some())
    })
}

/// Whether a pod that is to be made must wait: a claim is to go with the pod that was there before (upstream:
/// `PodClaimIsStale`).
pub fn is_stale(set: &StatefulSet, ordinal: i32, claims: &[Arc<VolumeClaim>]) -> bool {
    let name = pod::name(set, ordinal);
    let is_of_pod = |owner: &OwnerReference| refers(owner, PODS, &name);
    let mut own =
        names(set, ordinal).filter_map(|(_, claim)| claims.iter().find(|c| c.metadata.name == claim));
    goes_with_scale(set) && own.any(|claim| claim.metadata.owner_references.iter().any(is_of_pod))
}

fn goes_with_scale(set: &StatefulSet) -> bool {
    set.spec.persistent_volume_claim_retention_policy.as_ref().is_some_and(|p| p.when_scaled == "Delete")
}

fn goes_with_set(set: &StatefulSet) -> bool {
    set.spec.persistent_volume_claim_retention_policy.as_ref().is_some_and(|p| p.when_deleted == "Delete")
}

/// Plans the claims of a pod that are missing; one that is being deleted must be gone first, which the answer tells.
pub fn create(set: &StatefulSet, ordinal: i32, claims: &[Arc<VolumeClaim>], plan: &mut Plan) -> bool {
    let mut all_can_be_used = true;
    for (template, (_, name)) in set.spec.volume_claim_templates.iter().zip(names(set, ordinal)) {
        match claims.iter().find(|claim| claim.metadata.name == name) {
            Some(claim) => all_can_be_used &= !claim.metadata.is_being_deleted(),
            None => plan.steps.push(creation(set, ordinal, template, &name)),
        }
    }
    all_can_be_used
}

fn creation(set: &StatefulSet, ordinal: i32, template: &Value, name: &str) -> Step {
    let mut claim = template.clone();
    let metadata = &mut claim["metadata"];
    metadata["name"] = name.into();
    metadata["namespace"] = set.metadata.namespace.as_str().into();
    for (key, value) in &set.spec.selector.match_labels {
        metadata["labels"][key] = value.as_str().into();
    }
    if let Some(map) = claim.as_object_mut() {
        map.remove("status");
    }
    let (regarding, pod) = (reference(STATEFUL_SETS, &set.metadata), pod::name(set, ordinal));
    let told = format!("Create Claim {name} Pod {pod} in StatefulSet {}", set.metadata.name);
    Step {
        action: Action::create(PERSISTENT_VOLUME_CLAIMS, &set.metadata.namespace, claim),
        done: Some(Event::normal(regarding.clone(), "SuccessfulCreate", format!("{told} success"))),
        failed: Some(Event::warning(regarding, "FailedCreate", format!("{told} failed error: {ERROR}"))),
    }
}

/// Who a claim goes with: the set, its pod, or nobody (upstream: `updateClaimOwnerRefForSetAndPod`).
pub fn retain(set: &StatefulSet, pod: &Pod, condemned: bool, claims: &[Arc<VolumeClaim>], plan: &mut Plan) {
    let Some(ordinal) = pod::ordinal(&set.metadata.name, &pod.metadata.name) else { return };
    let with_pod = goes_with_scale(set) && condemned;
    let with_set = goes_with_set(set) && !with_pod;
    let of = |owner: &OwnerReference, resource, meta: &ObjectMeta| refers(owner, resource, &meta.name);
    let is_ours =
        |owner: &OwnerReference| of(owner, STATEFUL_SETS, &set.metadata) || of(owner, PODS, &pod.metadata);
    let is_former = |owner: &OwnerReference| {
        (of(owner, STATEFUL_SETS, &set.metadata) && owner.uid != set.metadata.uid)
            || (of(owner, PODS, &pod.metadata) && owner.uid != pod.metadata.uid)
    };
    for (_, name) in names(set, ordinal) {
        let Some(claim) = claims.iter().find(|claim| claim.metadata.name == name) else { continue };
        let owners = &claim.metadata.owner_references;
        // What belongs to a set or a pod that was there before is the garbage collector's.
        if owners.iter().any(is_former) {
            continue;
        }
        let mut next: Vec<OwnerReference> = owners.iter().filter(|owner| !is_ours(owner)).cloned().collect();
        let is_foreign = next.iter().any(|owner| owner.controller == Some(true));
        if is_foreign && (goes_with_set(set) || goes_with_scale(set)) {
            plan.events.push(conflict(set, &name));
        } else if with_set {
            next.push(controller_reference(STATEFUL_SETS, &set.metadata));
        } else if with_pod {
            next.push(controller_reference(PODS, &pod.metadata));
        }
        let ours = |owners: &[OwnerReference]| -> Vec<(String, Option<bool>)> {
            let ours = owners.iter().filter(|owner| is_ours(owner));
            ours.map(|owner| (owner.uid.clone(), owner.controller)).collect()
        };
        if ours(&next) != ours(owners) {
            plan.act(with_owners(claim, next));
        }
    }
}

fn refers(owner: &OwnerReference, resource: Resource, name: &str) -> bool {
    owner.api_version == resource.api_version() && owner.kind == resource.kind && owner.name == name
}

fn with_owners(claim: &VolumeClaim, owners: Vec<OwnerReference>) -> Action {
    let mut claim = claim.clone();
    claim.metadata.owner_references = owners;
    let mut object = apimachinery::to_value(&claim).expect("a claim encodes");
    object["apiVersion"] = PERSISTENT_VOLUME_CLAIMS.api_version().into();
    object["kind"] = PERSISTENT_VOLUME_CLAIMS.kind.into();
    Action::update(PERSISTENT_VOLUME_CLAIMS, &claim.metadata, object)
}

fn conflict(set: &StatefulSet, claim: &str) -> Event {
    let message = format!(
        "PersistentVolumeClaim {claim} has a conflicting OwnerReference that acts as a manging controller, the retention \
         policy is ignored for this claim"
    );
    Event::warning(reference(STATEFUL_SETS, &set.metadata), "ConflictingController", message)
}
