//! What one pod needs of its claims: those of its templates made and told of, and a pod that was bound by others
//! entered as a user (follows upstream's `syncPod` and `handleClaim`).

use std::sync::Arc;

use api::resource::{PODS, RESOURCE_CLAIM_TEMPLATES, RESOURCE_CLAIMS};
use api::view::core::{Pod, PodResourceClaim};
use api::view::dynamicresource::{
    POD_CLAIM_NAME, ResourceClaim, ResourceClaimConsumerReference, ResourceClaimTemplate, claim_name,
};
use apimachinery::{Value, json};
use client::PatchType;

use super::claim::status_patch;
use super::is_done;
use crate::plan::{Action, ERROR, Event, Plan, Step, reference};

const FAILED: &str = "FailedResourceClaimCreation";
/// How long the base of a generated name may be: with a hyphen and 5 random characters it makes 63.
const BASE_MAX: usize = 57;

type Find<'a, V> = &'a (dyn Fn(&str) -> Option<Arc<V>> + Sync);

/// What is in the pod's namespace, by name.
pub struct World<'a> {
    pub claim: Find<'a, ResourceClaim>,
    pub template: Find<'a, ResourceClaimTemplate>,
    /// The claims that the pod owns.
    pub made: Vec<Arc<ResourceClaim>>,
}

pub fn reconcile(pod: &Pod, world: &World<'_>) -> Plan {
    let mut plan = Plan::default();
    if pod.metadata.is_being_deleted() || is_done(pod) {
        return plan;
    }
    let mut statuses = Vec::new();
    for claim in pod.spec.resource_claims.iter().filter(|claim| needs_making(pod, claim, world)) {
        match find_made(claim, world) {
            Some(made) => {
                statuses.push(json!({"name": claim.name, "resourceClaimName": made.metadata.name}));
            }
            None => make(pod, claim, world, &mut plan),
        }
    }
    if !statuses.is_empty() {
        plan.act(tell(pod, &statuses));
    }
    if !pod.spec.node_name.is_empty() {
        reserve(pod, world, &mut plan);
    }
    plan
}

/// Whether the claim comes from a template and is not known, or is gone, or is not the pod's.
fn needs_making(pod: &Pod, claim: &PodResourceClaim, world: &World<'_>) -> bool {
    claim.resource_claim_template_name.is_some()
        && match claim_name(pod, claim) {
            Err(_) => true,
            Ok(None) => false,
            Ok(Some(name)) => {
                (world.claim)(name).is_none_or(|claim| claim.check_made_for(&pod.metadata).is_err())
            }
        }
}

/// A claim that was made before, but not told of.
fn find_made<'a>(claim: &PodResourceClaim, world: &'a World<'_>) -> Option<&'a Arc<ResourceClaim>> {
    world.made.iter().find(|made| made.metadata.annotations.get(POD_CLAIM_NAME) == Some(&claim.name))
}

fn make(pod: &Pod, claim: &PodResourceClaim, world: &World<'_>, plan: &mut Plan) {
    let regarding = reference(PODS, &pod.metadata);
    let failed = |why: String| {
        Event::warning(regarding.clone(), FAILED, format!("PodResourceClaim {}: {why}", claim.name))
    };
    let template_name = claim.resource_claim_template_name.as_deref().unwrap_or_default();
    let Some(template) = (world.template)(template_name) else {
        let (kind, group) = (RESOURCE_CLAIM_TEMPLATES.singular, RESOURCE_CLAIM_TEMPLATES.group);
        let why =
            format!("resource claim template {template_name:?}: {kind}.{group} {template_name:?} not found");
        plan.events.push(failed(why));
        return;
    };
    plan.steps.push(Step {
        action: Action::create(RESOURCE_CLAIMS, &pod.metadata.namespace, copy(pod, claim, &template)),
        done: None,
        failed: Some(failed(format!("create ResourceClaim : {ERROR}"))),
    });
}

fn copy(pod: &Pod, claim: &PodResourceClaim, template: &ResourceClaimTemplate) -> Value {
    let mut annotations = template.spec.metadata["annotations"].clone();
    if !annotations.is_object() {
        annotations = json!({});
    }
    annotations[POD_CLAIM_NAME] = claim.name.as_str().into();
    let owner = json!({
        "apiVersion": PODS.api_version(), "kind": PODS.kind, "name": pod.metadata.name, "uid": pod.metadata.uid,
        "controller": true,
    });
    json!({
        "apiVersion": RESOURCE_CLAIMS.api_version(), "kind": RESOURCE_CLAIMS.kind,
        "metadata": {
            "generateName": generate_name(&pod.metadata.name, &claim.name),
            "namespace": pod.metadata.namespace, "annotations": annotations,
            "labels": template.spec.metadata["labels"], "ownerReferences": [owner],
        },
        "spec": template.spec.spec,
    })
}

/// Pod and claim, each shortened alike where both together are too long.
pub fn generate_name(pod: &str, claim: &str) -> String {
    let whole = format!("{pod}-{claim}-");
    if whole.len() <= BASE_MAX {
        return whole;
    }
    let share = |part: &str| part[..part.len() * BASE_MAX / whole.len()].to_owned();
    format!("{}-{}", share(pod), share(claim))
}

fn tell(pod: &Pod, statuses: &[Value]) -> Action {
    let meta = &pod.metadata;
    Action::Patch {
        resource: PODS,
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        subresource: Some("status"),
        kind: PatchType::Strategic,
        patch: json!({"metadata": {"uid": meta.uid}, "status": {"resourceClaimStatuses": statuses}}),
    }
}

/// The scheduler reserves the claims of pods that it places; somebody else may not have.
fn reserve(pod: &Pod, world: &World<'_>, plan: &mut Plan) {
    for claim in &pod.spec.resource_claims {
        let Ok(Some(name)) = claim_name(pod, claim) else { continue };
        let Some(found) = (world.claim)(name) else { return };
        let is_made = claim.resource_claim_template_name.is_some();
        if is_made && found.check_made_for(&pod.metadata).is_err() {
            return;
        }
        let is_allocated = found.status.allocation.is_some();
        if is_allocated && !found.is_reserved_for(&pod.metadata.uid) && found.can_be_reserved() {
            let mut consumers = found.status.reserved_for.clone();
            consumers.push(ResourceClaimConsumerReference::pod(&pod.metadata));
            plan.act(status_patch(&found, json!({"reservedFor": consumers})));
        }
    }
}
