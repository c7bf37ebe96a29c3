//! The PersistentVolumeClaims of a StatefulSet's pods: made with them, and kept or let go as the set's retention policy
//! says.

use std::sync::Arc;

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PODS, Resource, STATEFUL_SETS};
use api::view::PartialObject;
use api::view::apps::StatefulSet;
use api::view::core::Pod;
use apimachinery::meta::{ObjectMeta, OwnerReference, str_at};
use apimachinery::{Value, json};

use super::pod;
use crate::plan::{Action, ERROR, Event, Plan, Step, reference};

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

/// Plans the claims of a pod that are missing; one that is being deleted must be gone first, which the answer tells.
pub fn create(set: &StatefulSet, ordinal: i32, claims: &[Arc<PartialObject>], plan: &mut Plan) -> bool {
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
pub fn retain(set: &StatefulSet, pod: &Pod, condemned: bool, claims: &[Arc<PartialObject>], plan: &mut Plan) {
    let Some(ordinal) = pod::ordinal(&set.metadata.name, &pod.metadata.name) else { return };
    let policy = set.spec.persistent_volume_claim_retention_policy.clone().unwrap_or_default();
    let with_pod = policy.when_scaled == "Delete" && condemned;
    let with_set = policy.when_deleted == "Delete" && !with_pod;
    for (_, name) in names(set, ordinal) {
        let Some(claim) = claims.iter().find(|claim| claim.metadata.name == name) else { continue };
        let mut owners = claim.metadata.owner_references.clone();
        let user_manages =
            owners.iter().any(|owner| owner.controller == Some(true) && owner.uid != set.metadata.uid);
        if user_manages {
            continue;
        }
        set_owner(&mut owners, STATEFUL_SETS, &set.metadata, with_set);
        set_owner(&mut owners, PODS, &pod.metadata, with_pod);
        // A pod of this name that was there before owns nothing any more.
        owners.retain(|owner| {
            owner.kind != PODS.kind || owner.name != pod.metadata.name || owner.uid == pod.metadata.uid
        });
        if owners != claim.metadata.owner_references {
            let patch = json!({"metadata": {"ownerReferences": owners}});
            plan.act(Action::patch(PERSISTENT_VOLUME_CLAIMS, &claim.metadata, patch));
        }
    }
}

fn set_owner(owners: &mut Vec<OwnerReference>, resource: Resource, owner: &ObjectMeta, wanted: bool) {
    let there = owners.iter().any(|known| known.uid == owner.uid);
    if wanted && !there {
        owners.push(OwnerReference {
            api_version: resource.api_version(),
            kind: resource.kind.to_owned(),
            name: owner.name.clone(),
            uid: owner.uid.clone(),
            ..OwnerReference::default()
        });
    } else if !wanted && there {
        owners.retain(|known| known.uid != owner.uid);
    }
}
