//! What became of a Job's pods. A pod that ended keeps its finalizer until the status says so; its uid waits in
//! `uncountedTerminatedPods` until the finalizer is gone, and then is a number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::batch::indexes;
use api::view::batch::{Job, JobStatus, UncountedTerminatedPods};
use api::view::core::Pod;

use super::outcome::{self, Match};
use super::pods::{failures_before, index, is_indexed, is_tracked};

#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Neither ended nor being deleted.
    pub active: Vec<Arc<Pod>>,
    /// Being deleted, not ended.
    pub terminating: i32,
    /// All that succeeded and failed, counted or not.
    pub succeeded: i32,
    pub failed: i32,
    pub completed_indexes: BTreeSet<i64>,
    /// Indexes given up, for Jobs with a limit per index.
    pub failed_indexes: BTreeSet<i64>,
    /// How often each index failed that is not given up.
    pub index_failures: BTreeMap<i64, i64>,
    /// The status' own numbers, with what has been let go since.
    pub settled: JobStatus,
    /// Pods that may go once the status is written.
    pub to_release: Vec<Arc<Pod>>,
    /// A pod for which the failure policy ends the Job, and why.
    pub fails_job: Option<String>,
}

/// Whether a pod counts as failed: it failed, or is being deleted and need not be waited for.
pub fn has_failed(job: &Job, pod: &Pod) -> bool {
    let only_failed = job.spec.pod_replacement_policy.as_deref() == Some("Failed");
    match pod.status.phase.as_str() {
        "Failed" => true,
        "Succeeded" => false,
        _ => pod.metadata.is_being_deleted() && !only_failed,
    }
}

pub fn count(job: &Job, pods: &[Arc<Pod>]) -> Counts {
    let mut counts = Counts { settled: settle(&job.status, pods), ..Counts::default() };
    let completions = i64::from(job.spec.completions.unwrap_or_default());
    let parse = |text: &str| -> BTreeSet<i64> {
        indexes::parse(text, completions).unwrap_or_default().into_iter().flatten().collect()
    };
    counts.completed_indexes = parse(&job.status.completed_indexes);
    counts.failed_indexes = parse(job.status.failed_indexes.as_deref().unwrap_or_default());
    for pod in pods {
        counts.add(job, pod, completions);
    }
    counts.finish(job);
    counts
}

/// Turns the uids of pods that have been let go into numbers (upstream: `cleanUncountedPodsWithoutFinalizers`).
fn settle(status: &JobStatus, pods: &[Arc<Pod>]) -> JobStatus {
    let mut settled = status.clone();
    let uncounted = status.uncounted_terminated_pods.clone().unwrap_or_default();
    let held = |uid: &String| pods.iter().any(|pod| pod.metadata.uid == *uid && is_tracked(pod));
    let split = |uids: Vec<String>| uids.into_iter().partition::<Vec<String>, _>(held);
    let (succeeded, gone_succeeded) = split(uncounted.succeeded);
    let (failed, gone_failed) = split(uncounted.failed);
    settled.succeeded += i32::try_from(gone_succeeded.len()).unwrap_or_default();
    settled.failed += i32::try_from(gone_failed.len()).unwrap_or_default();
    settled.uncounted_terminated_pods = Some(UncountedTerminatedPods { succeeded, failed });
    settled
}

impl Counts {
    fn add(&mut self, job: &Job, pod: &Arc<Pod>, completions: i64) {
        let succeeded = pod.status.phase == "Succeeded";
        let failed = has_failed(job, pod);
        if !succeeded && !failed {
            if pod.metadata.is_being_deleted() {
                self.terminating += 1;
            } else {
                self.active.push(pod.clone());
            }
            return;
        }
        if pod.metadata.is_being_deleted() && !pod.is_terminal() {
            self.terminating += 1;
        }
        if is_tracked(pod) {
            self.to_release.push(pod.clone());
            if !succeeded {
                self.add_failed(job, pod);
            } else if !self.uncounted().failed.contains(&pod.metadata.uid) {
                // Else it was counted when it was to go, before it had ended, and is not counted twice.
                self.add_succeeded(job, pod, completions);
            }
        }
        if failed {
            self.add_index_failure(job, pod);
        }
    }

    fn uncounted(&mut self) -> &mut UncountedTerminatedPods {
        self.settled.uncounted_terminated_pods.get_or_insert_default()
    }

    fn add_succeeded(&mut self, job: &Job, pod: &Pod, completions: i64) {
        if is_indexed(job) {
            // The index is enough to count it once.
            let index = index(pod).filter(|index| *index < completions);
            self.completed_indexes.extend(index);
        } else if !self.uncounted().succeeded.contains(&pod.metadata.uid) {
            let uid = pod.metadata.uid.clone();
            self.uncounted().succeeded.push(uid);
        }
    }

    fn add_failed(&mut self, job: &Job, pod: &Pod) {
        let counts = match outcome::matching_rule(job, pod) {
            Some(Match { action, message }) => {
                if action == "FailJob" && self.fails_job.is_none() {
                    self.fails_job = Some(message);
                }
                action != "Ignore"
            }
            None => true,
        };
        if counts && !self.uncounted().failed.contains(&pod.metadata.uid) {
            let uid = pod.metadata.uid.clone();
            self.uncounted().failed.push(uid);
        }
    }

    fn add_index_failure(&mut self, job: &Job, pod: &Pod) {
        let (Some(limit), Some(index)) = (job.spec.backoff_limit_per_index, index(pod)) else { return };
        let rule = outcome::matching_rule(job, pod).map(|found| found.action);
        if rule.as_deref() == Some("Ignore") {
            return;
        }
        let failures = failures_before(pod) + 1;
        if failures > i64::from(limit) || rule.as_deref() == Some("FailIndex") {
            self.failed_indexes.insert(index);
        } else {
            let known = self.index_failures.entry(index).or_default();
            *known = failures.max(*known);
        }
    }

    fn finish(&mut self, job: &Job) {
        self.failed_indexes.retain(|index| !self.completed_indexes.contains(index));
        let uncounted = self.uncounted().clone();
        let number = |list: &[String]| i32::try_from(list.len()).unwrap_or(i32::MAX);
        self.failed = self.settled.failed + number(&uncounted.failed);
        if is_indexed(job) {
            self.settled.completed_indexes = indexes::format(self.completed_indexes.iter().copied());
            self.succeeded = i32::try_from(self.completed_indexes.len()).unwrap_or(i32::MAX);
            self.settled.succeeded = self.succeeded;
            if job.spec.backoff_limit_per_index.is_some() {
                self.settled.failed_indexes = Some(indexes::format(self.failed_indexes.iter().copied()));
            }
        } else {
            self.succeeded = self.settled.succeeded + number(&uncounted.succeeded);
        }
    }

    pub fn active(&self) -> i32 {
        i32::try_from(self.active.len()).unwrap_or(i32::MAX)
    }

    /// Whether pods wait to be counted.
    pub fn has_uncounted(&self) -> bool {
        let uncounted = self.settled.uncounted_terminated_pods.as_ref();
        uncounted.is_some_and(|uncounted| !uncounted.succeeded.is_empty() || !uncounted.failed.is_empty())
    }
}
