//! Whether a Job is over, and why (follows `syncJob`, `pod_failure_policy.go` and `success_policy.go`).

use api::batch::indexes;
use api::view::batch::{Job, OnExitCodes, PodFailurePolicyRule};
use api::view::core::Pod;
use jiff::{SignedDuration, Timestamp};

use super::counts::Counts;
use super::pods::is_indexed;

/// The end a Job has come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub success: bool,
    pub reason: String,
    pub message: String,
}

impl Outcome {
    fn of(success: bool, reason: &str, message: impl Into<String>) -> Option<Outcome> {
        Some(Outcome { success, reason: reason.to_owned(), message: message.into() })
    }
}

/// What a rule of the failure policy says of a failed pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    pub action: String,
    pub message: String,
}

/// The outcome that is on its way already, or that the counts now mean.
pub fn outcome(job: &Job, counts: &Counts, now: Timestamp) -> Option<Outcome> {
    for (kind, success) in [("FailureTarget", false), ("SuccessCriteriaMet", true)] {
        if let Some(condition) = job.condition(kind).filter(|condition| condition.is_true()) {
            return Outcome::of(success, &condition.reason, condition.message.clone());
        }
    }
    failure(job, counts, now).or_else(|| success(job, counts))
}

fn failure(job: &Job, counts: &Counts, now: Timestamp) -> Option<Outcome> {
    if let Some(message) = &counts.fails_job {
        return Outcome::of(false, "PodFailurePolicy", message.as_str());
    }
    let limit = job.spec.backoff_limit.unwrap_or(6);
    if counts.failed > limit || restarted_too_often(job, counts, limit) {
        return Outcome::of(false, "BackoffLimitExceeded", "Job has reached the specified backoff limit");
    }
    if deadline(job).is_some_and(|at| at <= now) && !job.spec.suspend.unwrap_or_default() {
        return Outcome::of(false, "DeadlineExceeded", "Job was active longer than specified deadline");
    }
    if !is_indexed(job) || job.spec.backoff_limit_per_index.is_none() {
        return None;
    }
    let failed = counts.failed_indexes.len();
    if job.spec.max_failed_indexes.is_some_and(|max| usize::try_from(max).is_ok_and(|max| failed > max)) {
        let message = "Job has exceeded the specified maximal number of failed indexes";
        return Outcome::of(false, "MaxFailedIndexesExceeded", message);
    }
    let all = usize::try_from(job.spec.completions.unwrap_or_default()).unwrap_or_default();
    let done = counts.completed_indexes.len() + failed;
    if failed > 0 && done >= all {
        Outcome::of(false, "FailedIndexes", "Job has failed indexes")
    } else {
        None
    }
}

/// Containers that restart in place count too (upstream: `pastBackoffLimitOnFailure`).
fn restarted_too_often(job: &Job, counts: &Counts, limit: i32) -> bool {
    if job.spec.template["spec"]["restartPolicy"] != "OnFailure" {
        return false;
    }
    let running =
        counts.active.iter().filter(|pod| matches!(pod.status.phase.as_str(), "Running" | "Pending"));
    let statuses = running
        .flat_map(|pod| pod.status.init_container_statuses.iter().chain(&pod.status.container_statuses));
    let restarts: i32 = statuses.map(|status| status.restart_count).sum();
    if limit == 0 { restarts > 0 } else { restarts >= limit }
}

/// When the Job has been active for as long as it may.
pub fn deadline(job: &Job) -> Option<Timestamp> {
    let seconds = job.spec.active_deadline_seconds?;
    job.status.start_time?.checked_add(SignedDuration::from_secs(seconds)).ok()
}

fn success(job: &Job, counts: &Counts) -> Option<Outcome> {
    if let Some(position) = matching_success_rule(job, counts) {
        return Outcome::of(true, "SuccessPolicy", format!("Matched rules at index {position}"));
    }
    let reached = match job.spec.completions {
        // Any success is that of the whole work queue; the others finish by themselves.
        None => counts.succeeded > 0 && counts.active() == 0,
        Some(completions) => counts.succeeded >= completions && counts.active() == 0,
    };
    let message = "Reached expected number of succeeded pods";
    if reached { Outcome::of(true, "CompletionsReached", message) } else { None }
}

fn matching_success_rule(job: &Job, counts: &Counts) -> Option<usize> {
    let policy = job.spec.success_policy.as_ref().filter(|_| is_indexed(job))?;
    let completions = i64::from(job.spec.completions.unwrap_or_default());
    policy.rules.iter().position(|rule| {
        let wanted: Option<Vec<i64>> = rule.succeeded_indexes.as_deref().map(|text| {
            indexes::parse(text, completions).unwrap_or_default().into_iter().flatten().collect()
        });
        let done = match &wanted {
            Some(wanted) => wanted.iter().filter(|index| counts.completed_indexes.contains(index)).count(),
            None => counts.completed_indexes.len(),
        };
        match (rule.succeeded_count, &wanted) {
            (Some(count), _) => usize::try_from(count).is_ok_and(|count| done >= count),
            (None, Some(wanted)) => done >= wanted.len(),
            (None, None) => false,
        }
    })
}

/// The first rule that a failed pod meets.
pub fn matching_rule(job: &Job, pod: &Pod) -> Option<Match> {
    let rules = &job.spec.pod_failure_policy.as_ref()?.rules;
    if pod.status.phase != "Failed" {
        return None;
    }
    rules.iter().enumerate().find_map(|(position, rule)| {
        let message = by_exit_code(rule, pod).or_else(|| by_condition(rule, pod))?;
        let message = format!("{message} matching {} rule at index {position}", rule.action);
        Some(Match { action: rule.action.clone(), message })
    })
}

fn by_exit_code(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let wanted = rule.on_exit_codes.as_ref()?;
    let statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    let (container, code) = statuses
        .filter(|status| wanted.container_name.as_ref().is_none_or(|name| *name == status.name))
        .filter_map(|status| Some((&status.name, status.state.terminated.as_ref()?.exit_code)))
        .find(|(_, code)| matches_code(wanted, *code))?;
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    Some(format!("Container {container} for pod {namespace}/{name} failed with exit code {code}"))
}

/// Success is no failure, whatever the operator.
fn matches_code(wanted: &OnExitCodes, code: i32) -> bool {
    let listed = wanted.values.contains(&code);
    code != 0 && if wanted.operator == "In" { listed } else { !listed }
}

fn by_condition(rule: &PodFailurePolicyRule, pod: &Pod) -> Option<String> {
    let wanted = rule.on_pod_conditions.iter().find(|wanted| {
        let status = if wanted.status.is_empty() { "True" } else { &wanted.status };
        pod.condition(&wanted.kind).is_some_and(|condition| condition.status == status)
    })?;
    let (namespace, name) = (&pod.metadata.namespace, &pod.metadata.name);
    Some(format!("Pod {namespace}/{name} has condition {}", wanted.kind))
}
