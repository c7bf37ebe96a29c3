//! From a ReplicaSet, or a ReplicationController seen as one, and the pods around it to pods to create, delete, adopt and release, and its status
//! (follows `syncReplicaSet`).

use std::sync::Arc;

use api::resource::{PODS, Resource};
use api::view::apps::{ReplicaSet, ReplicaSetStatus};
use api::view::core::Pod;
use apimachinery::meta::{Condition, find_condition, value_at};
use apimachinery::{Text, Value};
use jiff::Timestamp;

use super::ranking::{is_active, sort_for_deletion};
use crate::ownership::{Claim, adopt, claim, release};
use crate::plan::{Action, ERROR, Event, NAME, Plan, Step, reference};
use crate::podavailability::{self, is_available};
use crate::podtemplate::from_template;

/// Pods made or deleted in one go (upstream: `BurstReplicas`).
pub const BURST_REPLICAS: usize = 500;

const REPLICA_FAILURE: &str = "ReplicaFailure";

#[derive(Clone, Debug, Default)]
pub struct World {
    /// The pods it controls, and the namespace's pods without controller.
    pub pods: Vec<Arc<Pod>>,
    /// Pods of all ReplicaSets under the same owner.
    pub related: Vec<Arc<Pod>>,
    /// The server has confirmed that the ReplicaSet is not being deleted.
    pub may_adopt: bool,
    /// Why pods could not be created or deleted last time.
    pub failure: Option<String>,
}

impl World {
    pub fn has_adoptable(&self, replica_set: &ReplicaSet) -> bool {
        let claims = |pod: &Pod| claim(&replica_set.metadata, &replica_set.spec.selector, &pod.metadata);
        self.pods.iter().any(|pod| is_active(pod) && claims(pod) == Claim::Adopt)
    }
}

/// `resource` is what the set is: a ReplicaSet or a ReplicationController.
pub fn reconcile(resource: Resource, replica_set: &ReplicaSet, world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    let active = claim_pods(resource, replica_set, world, &mut plan);
    let status = status(replica_set, world, &active, now);
    if status != replica_set.status {
        let status = apimachinery::to_value(&status).expect("a status encodes");
        plan.act(Action::update_status(resource, &replica_set.metadata, status));
    }
    if !replica_set.metadata.is_being_deleted() {
        plan.steps.extend(manage_replicas(resource, replica_set, active.clone(), &world.related, now));
    }
    let pods = active.iter().map(|pod| &**pod);
    if let Some(at) = podavailability::next(pods, replica_set.spec.min_ready_seconds, now) {
        plan.requeue(at);
    }
    plan
}

/// The pods that count, after adopting and releasing what the plan says.
fn claim_pods(resource: Resource, replica_set: &ReplicaSet, world: &World, plan: &mut Plan) -> Vec<Arc<Pod>> {
    let owner = &replica_set.metadata;
    let mut claimed = Vec::new();
    for pod in world.pods.iter().filter(|pod| is_active(pod)) {
        match claim(owner, &replica_set.spec.selector, &pod.metadata) {
            Claim::Keep => claimed.push(pod.clone()),
            Claim::Adopt if world.may_adopt => {
                plan.act(adopt((resource, owner), (PODS, &pod.metadata)));
                claimed.push(pod.clone());
            }
            Claim::Release => plan.act(release(owner, (PODS, &pod.metadata))),
            Claim::Adopt | Claim::Ignore => {}
        }
    }
    claimed
}

fn wanted(replica_set: &ReplicaSet) -> usize {
    usize::try_from(replica_set.spec.replicas.unwrap_or(1)).unwrap_or(0)
}

fn manage_replicas(
    resource: Resource,
    replica_set: &ReplicaSet,
    mut active: Vec<Arc<Pod>>,
    related: &[Arc<Pod>],
    now: Timestamp,
) -> Vec<Step> {
    let wanted = wanted(replica_set);
    if active.len() < wanted {
        let count = (wanted - active.len()).min(BURST_REPLICAS);
        return (0..count).map(|_| create_pod(resource, replica_set)).collect();
    }
    let count = (active.len() - wanted).min(BURST_REPLICAS);
    if count > 0 {
        let related = if related.is_empty() { active.clone() } else { related.to_vec() };
        sort_for_deletion(&mut active, &related, now);
    }
    active[..count].iter().map(|pod| delete_pod(resource, replica_set, pod)).collect()
}

fn create_pod(resource: Resource, replica_set: &ReplicaSet) -> Step {
    let regarding = reference(resource, &replica_set.metadata);
    let pod = from_template(resource, &replica_set.metadata, &replica_set.spec.template);
    Step {
        action: Action::create(PODS, &replica_set.metadata.namespace, pod),
        done: Some(Event::normal(regarding.clone(), "SuccessfulCreate", format!("Created pod: {NAME}"))),
        failed: Some(Event::warning(regarding, "FailedCreate", format!("Error creating: {ERROR}"))),
    }
}

fn delete_pod(resource: Resource, replica_set: &ReplicaSet, pod: &Pod) -> Step {
    let regarding = reference(resource, &replica_set.metadata);
    Step {
        action: Action::delete(PODS, &pod.metadata),
        done: Some(Event::normal(regarding.clone(), "SuccessfulDelete", format!("Deleted pod: {NAME}"))),
        failed: Some(Event::warning(regarding, "FailedDelete", format!("Error deleting: {ERROR}"))),
    }
}

fn status(replica_set: &ReplicaSet, world: &World, active: &[Arc<Pod>], now: Timestamp) -> ReplicaSetStatus {
    let count = |holds: &dyn Fn(&Pod) -> bool| active.iter().filter(|pod| holds(pod)).count() as i32;
    let template_labels = value_at(&replica_set.spec.template, &["metadata", "labels"]);
    let has_template_labels = |pod: &Pod| {
        let labels = template_labels.and_then(Value::as_object);
        let held = |(key, value): (&Text, &Value)| {
            pod.metadata.labels.get(key.as_str()).map(String::as_str) == value.as_str()
        };
        labels.is_none_or(|labels| labels.iter().all(held))
    };
    ReplicaSetStatus {
        replicas: active.len() as i32,
        fully_labeled_replicas: count(&has_template_labels),
        ready_replicas: count(&Pod::is_ready),
        available_replicas: count(&|pod| is_available(pod, replica_set.spec.min_ready_seconds, now)),
        terminating_replicas: Some(terminating(replica_set, world)),
        observed_generation: replica_set.metadata.generation,
        conditions: conditions(replica_set, world, active, now),
    }
}

fn terminating(replica_set: &ReplicaSet, world: &World) -> i32 {
    let is_ours = |pod: &Pod| {
        pod.metadata.is_controlled_by(&replica_set.metadata.uid)
            && replica_set.spec.selector.matches(&pod.metadata.labels)
    };
    let ending = |pod: &&Arc<Pod>| pod.metadata.is_being_deleted() && !pod.is_terminal() && is_ours(pod);
    world.pods.iter().filter(ending).count() as i32
}

fn conditions(
    replica_set: &ReplicaSet,
    world: &World,
    active: &[Arc<Pod>],
    now: Timestamp,
) -> Vec<Condition> {
    let mut conditions = replica_set.status.conditions.clone();
    let failed_before = find_condition(&conditions, REPLICA_FAILURE).is_some();
    match &world.failure {
        Some(message) if !failed_before => conditions.push(Condition {
            kind: REPLICA_FAILURE.into(),
            status: "True".into(),
            reason: if active.len() < wanted(replica_set) { "FailedCreate" } else { "FailedDelete" }.into(),
            message: message.clone(),
            last_transition_time: Some(now),
            ..Condition::default()
        }),
        Some(_) => {}
        None => conditions.retain(|c| c.kind != REPLICA_FAILURE),
    }
    conditions
}
