//! What the syncs of Jobs are measured by, under the names and with the buckets of upstream's `pkg/controller/job/metrics`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use api::resource::{JOBS, PODS};
use api::view::batch::{Job, JobStatus};
use api::view::core::Pod;
use client::metrics::{Histogram, Number, Source, exponential_buckets};

use super::counts::has_failed;
use super::outcome::matching_rule;
use super::pods::{is_indexed, is_tracked};
use crate::plan::{Action, Plan};

/// From four milliseconds to more than a minute (upstream's own).
const DURATION_FIRST: f64 = 0.004;
const DURATION_FACTOR: f64 = 2.0;
const DURATION_COUNT: i32 = 15;

/// The Jobs of one process.
#[derive(Debug)]
pub struct JobMetrics {
    syncs: Number,
    durations: Histogram,
    finished: Number,
    pods_finished: Number,
    failures_handled: Number,
}

impl Default for JobMetrics {
    fn default() -> Self {
        JobMetrics {
            syncs: Number::counter("job_controller_job_syncs_total", "[STABLE] The number of job syncs"),
            durations: Histogram::new(
                "job_controller_job_sync_duration_seconds",
                "[STABLE] The time it took to sync a job",
                exponential_buckets(DURATION_FIRST, DURATION_FACTOR, DURATION_COUNT),
            ),
            finished: Number::counter(
                "job_controller_jobs_finished_total",
                "[STABLE] The number of finished jobs",
            ),
            pods_finished: Number::counter(
                "job_controller_job_pods_finished_total",
                "[STABLE] The number of finished Pods that are fully tracked",
            ),
            failures_handled: Number::counter(
                "job_controller_pod_failures_handled_by_failure_policy_total",
                "[BETA] The number of failed Pods that a rule of a failure policy matched, by the action of that rule: FailJob, FailIndex, Ignore or Count.",
            ),
        }
    }
}

impl Source for JobMetrics {
    fn write(&self, text: &mut String) {
        self.durations.write(text);
        [&self.syncs, &self.finished, &self.pods_finished, &self.failures_handled]
            .into_iter()
            .for_each(|number| number.write(text));
    }
}

/// What one sync of a Job comes to, if its plan is carried out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sync {
    mode: &'static str,
    action: &'static str,
    /// How the Job has ended, and why.
    finished: Option<(&'static str, String)>,
    /// Pods that are numbers from now on.
    succeeded: i32,
    failed: i32,
    /// Failed pods by the action of the rule that they met.
    handled: BTreeMap<String, u32>,
}

impl Sync {
    pub fn of(job: &Job, pods: &[Arc<Pod>], plan: &Plan) -> Sync {
        let mode = if is_indexed(job) { "Indexed" } else { "NonIndexed" };
        let mut sync = Sync { mode, action: action(plan), handled: handled(job, pods), ..Sync::default() };
        let Some(status) = new_status(plan) else { return sync };
        sync.succeeded = status.succeeded - job.status.succeeded;
        sync.failed = status.failed - job.status.failed;
        let ended = |kind: &str| {
            let condition =
                status.conditions.iter().find(|condition| condition.kind == kind && condition.is_true());
            condition.filter(|_| !job.is_finished()).map(|condition| condition.reason.clone())
        };
        sync.finished = ended("Complete")
            .map(|reason| ("succeeded", reason))
            .or_else(|| ended("Failed").map(|reason| ("failed", reason)));
        sync
    }
}

/// What was done to pods.
fn action(plan: &Plan) -> &'static str {
    let any = |wanted: fn(&Action) -> bool| plan.steps.iter().any(|step| wanted(&step.action));
    if any(|action| matches!(action, Action::Create { resource, .. } if *resource == PODS)) {
        "pods_created"
    } else if any(|action| matches!(action, Action::Delete { resource, .. } if *resource == PODS)) {
        "pods_deleted"
    } else {
        "tracking"
    }
}

/// The status that the plan writes, if it does.
fn new_status(plan: &Plan) -> Option<JobStatus> {
    plan.steps.iter().find_map(|step| match &step.action {
        Action::Update { resource, subresource: Some("status"), object, .. } if *resource == JOBS => {
            apimachinery::from_value(object["status"].clone()).ok()
        }
        _ => None,
    })
}

/// Each pod once: before it has been written down, or let go.
fn handled(job: &Job, pods: &[Arc<Pod>]) -> BTreeMap<String, u32> {
    let known = job.status.uncounted_terminated_pods.as_ref().map(|known| known.failed.as_slice());
    let is_new = |pod: &&Arc<Pod>| {
        is_tracked(pod) && has_failed(job, pod) && !known.unwrap_or_default().contains(&pod.metadata.uid)
    };
    let mut handled = BTreeMap::new();
    for rule in pods.iter().filter(is_new).filter_map(|pod| matching_rule(job, pod)) {
        *handled.entry(rule.action).or_default() += 1;
    }
    handled
}

impl JobMetrics {
    /// A sync has ended. What it decided counts if all of it was carried out.
    pub fn synced(&self, sync: &Sync, took: Duration, is_done: bool) {
        let Sync { mode, action, .. } = sync;
        let result = if is_done { "success" } else { "error" };
        let labels = format!("action=\"{action}\",completion_mode=\"{mode}\",result=\"{result}\"");
        self.syncs.add(&labels, 1.0);
        self.durations.observe(&labels, took.as_secs_f64());
        if !is_done {
            return;
        }
        if let Some((result, reason)) = &sync.finished {
            let labels = format!("completion_mode=\"{mode}\",reason=\"{reason}\",result=\"{result}\"");
            self.finished.add(&labels, 1.0);
        }
        for (result, pods) in [("succeeded", sync.succeeded), ("failed", sync.failed)] {
            if pods > 0 {
                self.pods_finished
                    .add(&format!("completion_mode=\"{mode}\",result=\"{result}\""), f64::from(pods));
            }
        }
        for (action, pods) in &sync.handled {
            self.failures_handled.add(&format!("action=\"{action}\""), f64::from(*pods));
        }
    }
}
