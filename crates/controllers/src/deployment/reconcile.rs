//! From a Deployment and the ReplicaSets around it to their sizes and its status (follows `syncDeployment`).

use std::sync::Arc;

use api::resource::{DEPLOYMENTS, REPLICA_SETS};
use api::view::apps::{Deployment, ReplicaSet};
use api::view::core::Pod;
use jiff::Timestamp;

use super::draft::Draft;
use super::replicas::{desired, is_active, is_rolling_update, new_size};
use super::{revision, rollout, scale, status, template};
use crate::ownership::{Claim, adopt, claim, release};
use crate::plan::{Event, Plan, reference};

#[derive(Clone, Debug)]
pub struct World {
    /// All of the namespace.
    pub replica_sets: Vec<Arc<ReplicaSet>>,
    claims: Claims,
    /// The pods of the Deployment's ReplicaSets.
    pub pods: Vec<Arc<Pod>>,
    /// The server has confirmed that the Deployment is not being deleted.
    pub may_adopt: bool,
}

/// The ReplicaSets that concern the Deployment.
#[derive(Clone, Debug, Default)]
struct Claims {
    own: Vec<Arc<ReplicaSet>>,
    adoptable: Vec<Arc<ReplicaSet>>,
    /// Its own that it selects no more.
    lost: Vec<Arc<ReplicaSet>>,
}

impl Claims {
    fn of(deployment: &Deployment, replica_sets: &[Arc<ReplicaSet>]) -> Self {
        let mut claims = Claims::default();
        for replica_set in replica_sets {
            let into = match claim(&deployment.metadata, &deployment.spec.selector, &replica_set.metadata) {
                Claim::Keep => &mut claims.own,
                Claim::Adopt => &mut claims.adoptable,
                Claim::Release => &mut claims.lost,
                Claim::Ignore => continue,
            };
            into.push(replica_set.clone());
        }
        claims
    }

    fn settle(&self, deployment: &Deployment, may_adopt: bool, plan: &mut Plan) {
        let owner = &deployment.metadata;
        for replica_set in self.adoptable.iter().filter(|_| may_adopt) {
            plan.act(adopt((DEPLOYMENTS, owner), (REPLICA_SETS, &replica_set.metadata)));
        }
        for replica_set in &self.lost {
            plan.act(release(owner, (REPLICA_SETS, &replica_set.metadata)));
        }
    }
}

impl World {
    /// What of it may be adopted is not adopted yet.
    pub fn new(deployment: &Deployment, replica_sets: Vec<Arc<ReplicaSet>>, pods: Vec<Arc<Pod>>) -> Self {
        let claims = Claims::of(deployment, &replica_sets);
        World { replica_sets, claims, pods, may_adopt: false }
    }

    pub fn has_adoptable(&self) -> bool {
        !self.claims.adoptable.is_empty()
    }
}

pub fn reconcile(deployment: &Deployment, world: &World, now: Timestamp) -> Plan {
    if deployment.spec.selector.is_empty() {
        return refuse(deployment);
    }
    let mut plan = Plan::default();
    world.claims.settle(deployment, world.may_adopt, &mut plan);
    if world.may_adopt && world.has_adoptable() {
        // What is adopted may be the new ReplicaSet itself. It is counted when it shows as adopted: one write to it at
        // a time.
        return plan;
    }
    let replica_sets = world.claims.own.iter().map(|own| ReplicaSet::clone(own)).collect();
    let mut draft = Draft::new(deployment, replica_sets, plan, now);
    if deployment.metadata.is_being_deleted() {
        sync_revision(&mut draft);
        status::sync(&mut draft);
        return draft.finish();
    }
    status::note_pause(&mut draft);
    sync_revision(&mut draft);
    if deployment.spec.paused || is_scaling_event(&draft) {
        scale::scale(&mut draft);
        if deployment.spec.paused {
            rollout::clean_up(&mut draft);
        }
        status::sync(&mut draft);
    } else {
        if is_rolling_update(deployment) {
            rollout::rolling(&mut draft, &world.replica_sets);
        } else {
            rollout::recreate(&mut draft, world);
        }
        status::sync_rollout(&mut draft);
    }
    draft.finish()
}

/// Validation does not let this in; upstream still says so.
fn refuse(deployment: &Deployment) -> Plan {
    let message = "This deployment is selecting all pods. A non-empty selector is required.";
    let regarding = reference(DEPLOYMENTS, &deployment.metadata);
    let is_new = deployment.status.observed_generation < deployment.metadata.generation;
    let mut draft = Draft::new(deployment, Vec::new(), Plan::default(), Timestamp::UNIX_EPOCH);
    if is_new {
        draft.plan.events.push(Event::warning(regarding, "SelectingAll", message));
        draft.status.observed_generation = deployment.metadata.generation;
    }
    draft.finish()
}

/// Keeps annotations of the new ReplicaSet and of the Deployment in step (upstream: `getNewReplicaSet`, where it exists).
fn sync_revision(draft: &mut Draft) {
    let next = revision::next(&draft.old);
    let deployment = draft.deployment;
    let Some(new) = &mut draft.new else { return };
    revision::annotate_new(deployment, new, next);
    new.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
    draft.revision = new.metadata.annotations.get(revision::REVISION).cloned();
    let message = format!("Found new replica set {:?}", new.metadata.name);
    status::note_found(draft, message);
}

/// Plans the new ReplicaSet where there is none. A ReplicaSet of that name that is not ours means that two templates
/// have one hash: then the count of collisions grows, and with it the next name changes.
pub fn create_new(draft: &mut Draft, namespace: &[Arc<ReplicaSet>]) {
    let deployment = draft.deployment;
    let mut new = template::replica_set(deployment);
    if namespace.iter().any(|rs| rs.metadata.name == new.metadata.name) {
        draft.status.collision_count = Some(draft.status.collision_count.unwrap_or(0) + 1);
        return;
    }
    let next = revision::next(&draft.old);
    new.spec.replicas = Some(new_size(deployment, draft.total(), 0));
    revision::annotate_new(deployment, &mut new, next);
    revision::annotate_size(deployment, &mut new);
    draft.revision = Some(next.to_string());
    let message = format!("Created new replica set {:?}", new.metadata.name);
    draft.new = Some(new);
    status::note_created(draft, message);
}

/// Whether the Deployment's size changed since its ReplicaSets were last scaled.
fn is_scaling_event(draft: &Draft) -> bool {
    let noted = |rs: &ReplicaSet| revision::noted(rs, revision::DESIRED_REPLICAS);
    let mut active = draft.all().filter(|rs| is_active(rs));
    active.any(|rs| noted(rs).is_some_and(|noted| noted != desired(draft.deployment)))
}
