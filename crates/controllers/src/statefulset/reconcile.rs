//! From a StatefulSet and its pods to the next step in their order (follows `updateStatefulSet`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::resource::{PODS, STATEFUL_SETS};
use api::view::apps::{ControllerRevision, StatefulSet, StatefulSetStatus};
use api::view::core::Pod;
use jiff::Timestamp;

use super::claims::{self, VolumeClaim};
use super::pod;
use crate::history::{self, History};
use crate::ownership::{Claim, adopt, claim, release};
use crate::plan::{Action, ERROR, Event, Plan, Step, reference};
use crate::podavailability::{self, is_available};

#[derive(Clone, Debug, Default)]
pub struct World {
    /// The pods it controls, and the namespace's pods without controller.
    pub pods: Vec<Arc<Pod>>,
    /// All of the namespace.
    pub revisions: Vec<Arc<ControllerRevision>>,
    /// The set's, by their names.
    pub claims: Vec<Arc<VolumeClaim>>,
    /// The server has confirmed that the StatefulSet is not being deleted.
    pub may_adopt: bool,
}

impl World {
    pub fn has_adoptable(&self, set: &StatefulSet) -> bool {
        let adoptable = |pod: &Arc<Pod>| of_set(set, pod) == Claim::Adopt;
        self.pods.iter().any(adoptable)
            || history::has_adoptable(&set.metadata, &set.spec.selector, &self.revisions)
    }
}

/// As any owner claims, but only pods whose names are the set's.
fn of_set(set: &StatefulSet, pod: &Pod) -> Claim {
    let claimed = claim(&set.metadata, &set.spec.selector, &pod.metadata);
    let named = pod::ordinal(&set.metadata.name, &pod.metadata.name).is_some();
    if claimed == Claim::Adopt && !named { Claim::Ignore } else { claimed }
}

/// What is decided about one StatefulSet at one time.
struct Sync<'a> {
    set: &'a StatefulSet,
    world: &'a World,
    now: Timestamp,
    current: ControllerRevision,
    update: ControllerRevision,
    /// Pods of the ordinals that are wanted.
    replicas: BTreeMap<i32, Arc<Pod>>,
    /// Pods of other ordinals, the highest last.
    condemned: BTreeMap<i32, Arc<Pod>>,
    plan: Plan,
}

/// Whether the next pod in order may be looked at.
#[derive(PartialEq, Eq)]
enum Then {
    GoOn,
    Wait,
}

pub fn reconcile(set: &StatefulSet, world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if set.metadata.is_being_deleted() {
        return plan;
    }
    let owner = history::Owner {
        resource: STATEFUL_SETS,
        meta: &set.metadata,
        selector: &set.spec.selector,
        template: &set.spec.template,
        collision_count: set.status.collision_count,
    };
    let history = history::sync(owner, &world.revisions, world.may_adopt, &mut plan);
    let pods = claim_pods(set, world, &mut plan);
    let wanted = ordinals(set);
    let (replicas, condemned) = pods.into_iter().partition(|(ordinal, _)| wanted.contains(ordinal));
    let update = history.update.clone();
    let is_current = |revision: &&ControllerRevision| revision.metadata.name == set.status.current_revision;
    let current = history.revisions.iter().find(is_current).unwrap_or(&update).clone();
    let mut sync = Sync { set, world, now, current, update, replicas, condemned, plan };
    // Before the rest, which may fail.
    sync.update_status(&history);
    if history.collision_count == set.status.collision_count {
        sync.act();
        sync.clean_up(&history);
    }
    sync.plan
}

fn ordinals(set: &StatefulSet) -> std::ops::Range<i32> {
    let start = set.spec.ordinals.as_ref().map_or(0, |ordinals| ordinals.start);
    start..start + set.spec.replicas.unwrap_or(1)
}

fn claim_pods(set: &StatefulSet, world: &World, plan: &mut Plan) -> BTreeMap<i32, Arc<Pod>> {
    let owner = &set.metadata;
    let mut claimed = BTreeMap::new();
    for pod in &world.pods {
        let ordinal = pod::ordinal(&owner.name, &pod.metadata.name);
        match (of_set(set, pod), ordinal) {
            (Claim::Keep, Some(ordinal)) => drop(claimed.insert(ordinal, pod.clone())),
            (Claim::Adopt, Some(ordinal)) if world.may_adopt => {
                plan.act(adopt((STATEFUL_SETS, owner), (PODS, &pod.metadata)));
                claimed.insert(ordinal, pod.clone());
            }
            (Claim::Release, _) => plan.act(release(owner, (PODS, &pod.metadata))),
            _ => {}
        }
    }
    claimed
}

impl Sync<'_> {
    /// One pod after the other unless they may go in parallel.
    fn in_order(&self) -> bool {
        self.set.spec.pod_management_policy != "Parallel"
    }

    fn is_healthy(&self, pod: &Pod) -> bool {
        pod::is_running_and_ready(pod) && !pod.metadata.is_being_deleted()
    }

    fn is_available(&self, pod: &Pod) -> bool {
        pod::is_running_and_ready(pod) && is_available(pod, self.set.spec.min_ready_seconds, self.now)
    }

    /// Creates what is missing, then removes what is too much, then replaces what is old; each only when what comes
    /// before is as it should be.
    fn act(&mut self) {
        for ordinal in ordinals(self.set) {
            let then = match self.replicas.get(&ordinal).cloned() {
                None => self.create(ordinal),
                Some(pod) => self.look_after(ordinal, &pod),
            };
            if then == Then::Wait {
                return;
            }
        }
        let first_unhealthy = self.first_unhealthy();
        let condemned: Vec<Arc<Pod>> = self.condemned.values().rev().cloned().collect();
        for pod in &condemned {
            claims::retain(self.set, pod, true, &self.world.claims, &mut self.plan);
        }
        for pod in condemned {
            if self.remove(&pod, first_unhealthy.as_deref()) == Then::Wait {
                return;
            }
        }
        if self.set.spec.update_strategy.kind == "RollingUpdate" {
            self.roll_out();
        }
    }

    fn first_unhealthy(&self) -> Option<String> {
        let mut all: Vec<(&i32, &Arc<Pod>)> = self.replicas.iter().chain(&self.condemned).collect();
        all.sort_by_key(|(ordinal, _)| **ordinal);
        all.into_iter().find(|(_, pod)| !self.is_healthy(pod)).map(|(_, pod)| pod.metadata.name.clone())
    }

    fn create(&mut self, ordinal: i32) -> Then {
        let wait = if self.in_order() { Then::Wait } else { Then::GoOn };
        if claims::is_stale(self.set, ordinal, &self.world.claims) {
            return wait;
        }
        let usable = claims::create(self.set, ordinal, &self.world.claims, &mut self.plan);
        if usable {
            let object = pod::object(self.set, self.revision_for(ordinal), ordinal);
            let (name, set) = (pod::name(self.set, ordinal), &self.set.metadata);
            let regarding = reference(STATEFUL_SETS, set);
            let told = format!("Create Pod {name} in StatefulSet {}", set.name);
            self.plan.steps.push(Step {
                action: Action::create(PODS, &set.namespace, object),
                done: Some(Event::normal(
                    regarding.clone(),
                    "SuccessfulCreate",
                    format!("{told} successful"),
                )),
                failed: Some(Event::warning(
                    regarding,
                    "FailedCreate",
                    format!("{told} failed error: {ERROR}"),
                )),
            });
        }
        wait
    }

    /// Pods below the partition are made as those that are there (upstream: `newVersionedStatefulSetPod`).
    fn revision_for(&self, ordinal: i32) -> &ControllerRevision {
        let start = ordinals(self.set).start;
        let strategy = &self.set.spec.update_strategy;
        let keeps = match &strategy.rolling_update {
            Some(rolling) => ordinal < start + rolling.partition.unwrap_or_default(),
            None => strategy.kind == "RollingUpdate" && ordinal < start + self.set.status.current_replicas,
        };
        if keeps { &self.current } else { &self.update }
    }

    fn look_after(&mut self, ordinal: i32, pod: &Pod) -> Then {
        let wait = if self.in_order() { Then::Wait } else { Then::GoOn };
        if pod.metadata.is_being_deleted() {
            return wait;
        }
        if pod.is_terminal() {
            self.delete(pod);
            return wait;
        }
        if pod.status.phase == "Pending" {
            claims::create(self.set, ordinal, &self.world.claims, &mut self.plan);
        }
        if let Some(patch) = pod::missing_labels(self.set, pod, ordinal) {
            self.plan.act(Action::patch(PODS, &pod.metadata, patch));
        }
        claims::retain(self.set, pod, false, &self.world.claims, &mut self.plan);
        if self.is_available(pod) { Then::GoOn } else { wait }
    }

    fn delete(&mut self, pod: &Pod) {
        let set = &self.set.metadata;
        let regarding = reference(STATEFUL_SETS, set);
        let told = format!("Delete Pod {} in StatefulSet {}", pod.metadata.name, set.name);
        self.plan.steps.push(Step {
            action: Action::delete(PODS, &pod.metadata),
            done: Some(Event::normal(regarding.clone(), "SuccessfulDelete", format!("{told} successful"))),
            failed: Some(Event::warning(regarding, "FailedDelete", format!("{told} failed error: {ERROR}"))),
        });
    }

    /// In order, a pod goes only when all others are healthy, or it is the first that is not.
    fn remove(&mut self, pod: &Pod, first_unhealthy: Option<&str>) -> Then {
        let wait = if self.in_order() { Then::Wait } else { Then::GoOn };
        if pod.metadata.is_being_deleted() {
            return wait;
        }
        let must_wait = !self.is_available(pod) && first_unhealthy != Some(pod.metadata.name.as_str());
        if self.in_order() && must_wait {
            return Then::Wait;
        }
        self.delete(pod);
        wait
    }

    /// From the highest ordinal down to the partition, one at a time.
    fn roll_out(&mut self) {
        let partition =
            self.set.spec.update_strategy.rolling_update.as_ref().and_then(|rolling| rolling.partition);
        let lowest = ordinals(self.set).start + partition.unwrap_or_default();
        let pods: Vec<(i32, Arc<Pod>)> =
            self.replicas.iter().rev().map(|(ordinal, pod)| (*ordinal, pod.clone())).collect();
        for (_, pod) in pods.iter().take_while(|(ordinal, _)| *ordinal >= lowest) {
            if pod::revision(pod) != self.update.metadata.name && !pod.metadata.is_being_deleted() {
                self.delete(pod);
                return;
            }
            if !self.is_available(pod) || pod.metadata.is_being_deleted() {
                return;
            }
        }
    }

    fn clean_up(&mut self, history: &History) {
        let pods = self.replicas.values().chain(self.condemned.values());
        let mut live: BTreeSet<&str> = pods.map(|pod| pod::revision(pod)).collect();
        live.insert(&self.current.metadata.name);
        history::truncate(history, self.set.spec.revision_history_limit, &live, &mut self.plan);
    }

    fn update_status(&mut self, history: &History) {
        let status = self.status(history);
        if status != self.set.status {
            let value = apimachinery::to_value(&status).expect("a status encodes");
            self.plan.act(Action::update_status(STATEFUL_SETS, &self.set.metadata, value));
        }
        let pods = self.replicas.values().map(|pod| &**pod);
        if let Some(at) = podavailability::next(pods, self.set.spec.min_ready_seconds, self.now) {
            self.plan.requeue(at);
        }
    }

    fn status(&self, history: &History) -> StatefulSetStatus {
        let old = &self.set.status;
        let all: Vec<&Arc<Pod>> = self.replicas.values().chain(self.condemned.values()).collect();
        let count = |holds: &dyn Fn(&Pod) -> bool| {
            i32::try_from(all.iter().filter(|pod| holds(pod)).count()).unwrap_or(i32::MAX)
        };
        let of = |revision: &ControllerRevision| {
            count(&|pod| !pod.metadata.is_being_deleted() && pod::revision(pod) == revision.metadata.name)
        };
        let mut status = StatefulSetStatus {
            observed_generation: self.set.metadata.generation,
            replicas: count(&|_| true),
            ready_replicas: count(&pod::is_running_and_ready),
            available_replicas: count(&|pod| self.is_available(pod)),
            current_replicas: of(&self.current),
            updated_replicas: of(&self.update),
            current_revision: self.current.metadata.name.clone(),
            update_revision: self.update.metadata.name.clone(),
            collision_count: Some(history.collision_count.unwrap_or_default()),
            conditions: old.conditions.clone(),
        };
        // A rollout that has reached every pod is over (upstream: `completeRollingUpdate`).
        let wanted = self.set.spec.replicas.unwrap_or(1);
        let counts = [status.updated_replicas, status.ready_replicas, status.replicas];
        let reached = counts.iter().all(|count| *count == wanted);
        if self.set.spec.update_strategy.kind == "RollingUpdate" && reached {
            status.current_replicas = status.updated_replicas;
            status.current_revision.clone_from(&status.update_revision);
        }
        status
    }
}
