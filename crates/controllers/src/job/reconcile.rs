//! From a Job and its pods to pods to make, delete and let go, and its status (follows `syncJob`).

use std::sync::Arc;

use api::resource::{JOBS, PODS};
use api::view::batch::{Job, JobStatus};
use api::view::core::Pod;
use apimachinery::meta::Condition;
use jiff::Timestamp;

use super::backoff;
use super::counts::{Counts, count};
use super::outcome::{Outcome, deadline, outcome};
use super::pods::{FINALIZER, creation, deletion, index, is_indexed, without_finalizer};
use crate::ownership::{Claim, adopt_with_finalizer, claim, release_with_finalizer};
use crate::plan::{Action, Event, Plan, reference};

/// What manages Jobs that do not say otherwise.
const CONTROLLER_NAME: &str = "kubernetes.io/job-controller";
/// Pods made or deleted in one go (upstream: `MaxPodCreateDeletePerSync`).
const PODS_AT_ONCE: usize = 500;

#[derive(Clone, Debug, Default)]
pub struct World {
    /// The pods it controls, and the namespace's pods without controller.
    pub pods: Vec<Arc<Pod>>,
    /// The server has confirmed that the Job is not being deleted.
    pub may_adopt: bool,
}

impl World {
    pub fn has_adoptable(&self, job: &Job) -> bool {
        let adoptable =
            |pod: &Arc<Pod>| claim(&job.metadata, &job.spec.selector, &pod.metadata) == Claim::Adopt;
        self.pods.iter().any(adoptable)
    }
}

/// The index of a pod to make, if the Job has indexes, and how often pods of that index failed before.
type NewPod = (Option<i64>, i64);

/// What is decided about one Job at one time.
struct Sync<'a> {
    job: &'a Job,
    pods: Vec<Arc<Pod>>,
    counts: Counts,
    status: JobStatus,
    now: Timestamp,
    plan: Plan,
}

pub fn reconcile(job: &Job, world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if is_managed_elsewhere(job) {
        return plan;
    }
    let pods = claim_pods(job, world, &mut plan);
    if job.is_finished() || job.metadata.is_being_deleted() {
        // Nothing is counted any more.
        plan.steps.extend(pods.iter().filter_map(|pod| without_finalizer(pod)));
        return plan;
    }
    let counts = count(job, &pods);
    let mut sync = Sync { job, pods, status: counts.settled.clone(), counts, now, plan };
    sync.act();
    sync.plan
}

fn is_managed_elsewhere(job: &Job) -> bool {
    job.spec.managed_by.as_deref().is_some_and(|manager| manager != CONTROLLER_NAME)
}

/// Whether there is more to do here for the Job than to let its pods go.
pub fn is_worked_on(job: &Job) -> bool {
    !is_managed_elsewhere(job) && !job.is_finished() && !job.metadata.is_being_deleted()
}

fn claim_pods(job: &Job, world: &World, plan: &mut Plan) -> Vec<Arc<Pod>> {
    let owner = &job.metadata;
    let mut claimed = Vec::new();
    for pod in &world.pods {
        match claim(owner, &job.spec.selector, &pod.metadata) {
            Claim::Keep => claimed.push(pod.clone()),
            Claim::Adopt if world.may_adopt => {
                plan.act(adopt_with_finalizer((JOBS, owner), (PODS, &pod.metadata), FINALIZER));
                claimed.push(pod.clone());
            }
            Claim::Release => {
                plan.act(release_with_finalizer(owner, (PODS, &pod.metadata), FINALIZER));
            }
            Claim::Adopt | Claim::Ignore => {}
        }
    }
    claimed
}

impl Sync<'_> {
    fn act(&mut self) {
        let suspended = self.job.spec.suspend.unwrap_or_default();
        if self.status.start_time.is_none() && !suspended {
            self.status.start_time = Some(self.now);
        }
        let end = outcome(self.job, &self.counts, self.now);
        let (create, delete) = match &end {
            Some(_) => (Vec::new(), self.counts.active.clone()),
            None if suspended => (Vec::new(), self.counts.active.clone()),
            None => self.manage(),
        };
        self.status.active = self.counts.active() - i32::try_from(delete.len()).unwrap_or_default()
            + i32::try_from(create.len()).unwrap_or_default();
        let gone: Vec<&str> = delete.iter().map(|pod| pod.metadata.name.as_str()).collect();
        let ready = self
            .counts
            .active
            .iter()
            .filter(|pod| pod.is_ready() && !gone.contains(&pod.metadata.name.as_str()));
        self.status.ready = Some(i32::try_from(ready.count()).unwrap_or_default());
        let going = self.counts.terminating + i32::try_from(delete.len()).unwrap_or_default();
        self.status.terminating = Some(going);
        match &end {
            Some(end) => self.conclude(end, going),
            None => self.note_suspension(suspended),
        }
        self.write(create, delete);
    }

    /// Announces the end at once; it comes when every pod has ended and is counted.
    fn conclude(&mut self, end: &Outcome, going: i32) {
        let (target, last) =
            if end.success { ("SuccessCriteriaMet", "Complete") } else { ("FailureTarget", "Failed") };
        self.set_condition(target, "True", &end.reason, &end.message);
        if going > 0 || self.status.active > 0 || self.counts.has_uncounted() {
            return;
        }
        self.set_condition(last, "True", &end.reason, &end.message);
        let regarding = reference(JOBS, &self.job.metadata);
        if end.success {
            self.status.completion_time = Some(self.now);
            self.plan.events.push(Event::normal(regarding, "Completed", "Job completed"));
        } else {
            let reason = failure_reason(&end.reason);
            self.plan.events.push(Event::warning(regarding, reason, end.message.clone()));
        }
    }

    fn note_suspension(&mut self, suspended: bool) {
        let was = self.job.condition("Suspended").map(Condition::is_true);
        let regarding = reference(JOBS, &self.job.metadata);
        match (suspended, was) {
            (true, None | Some(false)) => {
                self.set_condition("Suspended", "True", "JobSuspended", "Job suspended");
                self.status.start_time = None;
                self.plan.events.push(Event::normal(regarding, "Suspended", "Job suspended"));
            }
            (false, Some(true)) => {
                self.set_condition("Suspended", "False", "JobResumed", "Job resumed");
                self.status.start_time = Some(self.now);
                self.plan.events.push(Event::normal(regarding, "Resumed", "Job resumed"));
            }
            _ => {}
        }
    }

    fn set_condition(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let known = self.status.conditions.iter_mut().find(|condition| condition.kind == kind);
        if known.as_ref().is_some_and(|condition| condition.status == status) {
            return;
        }
        let condition = Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_probe_time: Some(self.now),
            last_transition_time: Some(self.now),
            ..Condition::default()
        };
        match known {
            Some(known) => *known = condition,
            None => self.status.conditions.push(condition),
        }
    }

    /// As many pods as may run at once and are still needed (upstream: `manageJob`).
    fn manage(&mut self) -> (Vec<NewPod>, Vec<Arc<Pod>>) {
        if let Some(at) = deadline(self.job) {
            self.plan.requeue(at);
        }
        let parallelism = self.job.spec.parallelism.unwrap_or(1);
        let active = self.counts.active();
        let wanted = match self.job.spec.completions {
            // Once one has succeeded, the others end by themselves.
            None if self.counts.succeeded > 0 => active,
            None => parallelism,
            Some(completions) => (completions - self.counts.succeeded).clamp(0, parallelism),
        };
        if active > wanted {
            return (Vec::new(), self.superfluous(active - wanted));
        }
        let waits_for_ends = self.job.spec.pod_replacement_policy.as_deref() == Some("Failed");
        let going = if waits_for_ends { self.counts.terminating } else { 0 };
        let missing = usize::try_from(wanted - active - going).unwrap_or_default().min(PODS_AT_ONCE);
        (self.next_pods(missing), Vec::new())
    }

    /// Those that have come least far go first.
    fn superfluous(&self, count: i32) -> Vec<Arc<Pod>> {
        let mut pods = self.counts.active.clone();
        pods.sort_by_key(|pod| (pod.is_ready(), pod.status.phase == "Running", index(pod).map(|i| -i)));
        pods.truncate(usize::try_from(count).unwrap_or_default().min(PODS_AT_ONCE));
        pods
    }

    /// The index and number of failures of each pod to make; none while failures say to wait.
    fn next_pods(&mut self, missing: usize) -> Vec<NewPod> {
        if !is_indexed(self.job) {
            let waits = missing > 0 && self.waits(backoff::until(self.pods.iter()));
            return if waits { Vec::new() } else { vec![(None, 0); missing] };
        }
        let per_index = self.job.spec.backoff_limit_per_index.is_some();
        if !per_index && missing > 0 && self.waits(backoff::until(self.pods.iter())) {
            return Vec::new();
        }
        let busy: Vec<i64> = self.counts.active.iter().filter_map(|pod| index(pod)).collect();
        let open: Vec<i64> = (0..i64::from(self.job.spec.completions.unwrap_or_default()))
            .filter(|index| !busy.contains(index) && !self.counts.completed_indexes.contains(index))
            .filter(|index| !self.counts.failed_indexes.contains(index))
            .collect();
        let mut next = Vec::new();
        for number in open {
            let of_index = self.pods.iter().filter(|pod| index(pod) == Some(number));
            let until = backoff::until(of_index).filter(|_| per_index);
            if next.len() < missing && !self.waits(until) {
                let failures = self.counts.index_failures.get(&number).copied().unwrap_or_default();
                next.push((Some(number), failures));
            }
        }
        next
    }

    fn waits(&mut self, until: Option<Timestamp>) -> bool {
        let Some(until) = until.filter(|until| *until > self.now) else { return false };
        self.plan.requeue(until);
        true
    }

    /// The status is written before pods are let go: whatever happens in between, each is counted once.
    fn write(&mut self, create: Vec<NewPod>, delete: Vec<Arc<Pod>>) {
        if self.status != self.job.status {
            let value = apimachinery::to_value(&self.status).expect("a status encodes");
            self.plan.act(Action::update_status(JOBS, &self.job.metadata, value));
        }
        for pod in &self.counts.to_release {
            self.plan.steps.extend(without_finalizer(pod));
        }
        for pod in &delete {
            self.plan.steps.push(deletion(self.job, pod));
        }
        for (index, failures) in create {
            self.plan.steps.push(creation(self.job, index, failures));
        }
    }
}

/// The reasons that events can have are fixed words.
fn failure_reason(reason: &str) -> &'static str {
    match reason {
        "PodFailurePolicy" => "PodFailurePolicy",
        "DeadlineExceeded" => "DeadlineExceeded",
        "MaxFailedIndexesExceeded" => "MaxFailedIndexesExceeded",
        "FailedIndexes" => "FailedIndexes",
        _ => "BackoffLimitExceeded",
    }
}
