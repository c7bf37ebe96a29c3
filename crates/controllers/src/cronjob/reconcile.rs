//! From a CronJob, its Jobs and the time to the Job that is due, the Jobs that are past, and the status
//! (follows `syncCronJob`).

use std::sync::Arc;

use api::batch::schedule::Schedule;
use api::resource::{CRON_JOBS, JOBS};
use api::view::batch::{CronJob, CronJobStatus, Job};
use apimachinery::{Value, json};
use client::DeleteOptions;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::ownership::controller_reference;
use crate::plan::{Action, ERROR, Event, NAME, Plan, Step, reference};

const SCHEDULED_AT: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Missed times that are still counted; with more, something is wrong (upstream: 100).
const MISSED_MAX: usize = 100;

/// What is decided about one CronJob at one time.
struct Sync<'a> {
    cron_job: &'a CronJob,
    jobs: &'a [Arc<Job>],
    now: Timestamp,
    status: CronJobStatus,
    plan: Plan,
}

pub fn reconcile(cron_job: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let status = cron_job.status.clone();
    let mut sync = Sync { cron_job, jobs, now, status, plan: Plan::default() };
    sync.follow_jobs();
    sync.clean_up();
    if !cron_job.metadata.is_being_deleted() && !cron_job.spec.suspend.unwrap_or_default() {
        sync.start_what_is_due();
    }
    if sync.status != cron_job.status {
        let value = apimachinery::to_value(&sync.status).expect("a status encodes");
        sync.plan.act(Action::update_status(CRON_JOBS, &cron_job.metadata, value));
    }
    sync.plan
}

impl Sync<'_> {
    fn tell(
        &mut self,
        event: fn(api::view::core::ObjectReference, &'static str, String) -> Event,
        reason: &'static str,
        message: String,
    ) {
        self.plan.events.push(event(reference(CRON_JOBS, &self.cron_job.metadata), reason, message));
    }

    fn active(&self) -> impl Iterator<Item = &Arc<Job>> {
        self.jobs.iter().filter(|job| !job.is_finished())
    }

    /// Active are the Jobs that have not ended; of those that have, people are told once.
    fn follow_jobs(&mut self) {
        let before = std::mem::take(&mut self.status.active);
        let mut active: Vec<_> = self.active().map(|job| reference(JOBS, &job.metadata)).collect();
        active.sort_by(|a, b| a.name.cmp(&b.name));
        self.status.active = active;
        let still = self.status.active.clone();
        for gone in before.iter().filter(|old| !still.iter().any(|job| job.uid == old.uid)) {
            match self.jobs.iter().find(|job| job.metadata.uid == gone.uid).cloned() {
                None => {
                    self.tell(Event::normal, "MissingJob", format!("Active job went missing: {}", gone.name))
                }
                Some(job) => {
                    let how = if job.has("Complete") { "Complete" } else { "Failed" };
                    let message = format!("Saw completed job: {}, condition: {how}", gone.name);
                    self.tell(Event::normal, "SawCompletedJob", message);
                }
            }
        }
        let succeeded = self.jobs.iter().filter(|job| job.has("Complete"));
        let last = succeeded.filter_map(|job| job.status.completion_time).max();
        self.status.last_successful_time = self.status.last_successful_time.max(last);
    }

    /// Keeps as many Jobs of each end as the limits say, the youngest.
    fn clean_up(&mut self) {
        let spec = &self.cron_job.spec;
        for (condition, limit) in
            [("Complete", spec.successful_jobs_history_limit), ("Failed", spec.failed_jobs_history_limit)]
        {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let mut ended: Vec<Arc<Job>> =
                self.jobs.iter().filter(|job| job.has(condition)).cloned().collect();
            ended.sort_by_key(|job| (job.status.start_time, job.metadata.name.clone()));
            let excess = ended.len().saturating_sub(limit);
            for job in ended[..excess].iter().filter(|job| !job.metadata.is_being_deleted()) {
                let step = self.deletion(job);
                self.plan.steps.push(step);
            }
        }
    }

    fn deletion(&self, job: &Job) -> Step {
        let regarding = reference(CRON_JOBS, &self.cron_job.metadata);
        let options = DeleteOptions { propagation_policy: Some("Background"), ..DeleteOptions::default() };
        Step {
            action: Action::delete_with(JOBS, &job.metadata, options),
            done: Some(Event::normal(regarding.clone(), "SuccessfulDelete", format!("Deleted job {NAME}"))),
            failed: Some(Event::warning(regarding, "FailedDelete", format!("Deleted job: {ERROR}"))),
        }
    }

    fn start_what_is_due(&mut self) {
        let spec = &self.cron_job.spec;
        let zone = match spec.time_zone.as_deref().map(TimeZone::get) {
            None => TimeZone::UTC,
            Some(Ok(zone)) => zone,
            Some(Err(error)) => {
                let name = spec.time_zone.clone().unwrap_or_default();
                return self.tell(
                    Event::warning,
                    "UnknownTimeZone",
                    format!("invalid timeZone: {name:?}: {error}"),
                );
            }
        };
        let schedule: Schedule = match spec.schedule.parse() {
            Ok(schedule) => schedule,
            Err(error) => {
                let message = format!("unparseable schedule: {:?} : {error}", spec.schedule);
                return self.tell(Event::warning, "UnparseableSchedule", message);
            }
        };
        if let Some(next) = schedule.next(self.now, &zone) {
            self.plan.requeue(next);
        }
        let Some(due) = self.due(&schedule, &zone) else { return };
        let deadline = spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        if deadline.is_some_and(|deadline| due.checked_add(deadline).is_ok_and(|end| end < self.now)) {
            let message = format!(
                "Missed scheduled time to start a job: {}",
                due.strftime("%a, %d %b %Y %H:%M:%S +0000")
            );
            return self.tell(Event::warning, "MissSchedule", message);
        }
        let name = format!("{}-{}", self.cron_job.metadata.name, due.as_second() / 60);
        if self.jobs.iter().any(|job| job.metadata.name == name) {
            self.status.last_schedule_time = Some(due);
            return;
        }
        match spec.concurrency_policy.as_str() {
            "Forbid" if !self.status.active.is_empty() => {
                let message =
                    "Not starting job because prior execution is running and concurrency policy is Forbid";
                return self.tell(Event::normal, "JobAlreadyActive", message.to_owned());
            }
            "Replace" => {
                let steps: Vec<Step> = self.active().map(|job| self.deletion(job)).collect();
                self.plan.steps.extend(steps);
            }
            _ => {}
        }
        let step = self.creation(&name, due, &zone);
        self.plan.steps.push(step);
        self.status.last_schedule_time = Some(due);
    }

    /// The latest time that has come since the last Job, or since the CronJob was made.
    fn due(&mut self, schedule: &Schedule, zone: &TimeZone) -> Option<Timestamp> {
        let since = self.cron_job.status.last_schedule_time.or(self.cron_job.metadata.creation_timestamp)?;
        let deadline = self.cron_job.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        let earliest = deadline.and_then(|deadline| self.now.checked_sub(deadline).ok());
        let mut at = earliest.map_or(since, |earliest| earliest.max(since));
        let (mut due, mut count) = (None, 0_usize);
        while let Some(next) = schedule.next(at, zone).filter(|next| *next <= self.now) {
            (due, at) = (Some(next), next);
            count += 1;
            if count == MISSED_MAX + 1 {
                let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
                self.tell(Event::warning, "TooManyMissedTimes", message.to_owned());
                // Far behind: look only at the last stretch.
                at = at.max(self.now.checked_sub(self.now.duration_since(at) / 2).unwrap_or(at));
                count = 0;
            }
        }
        due
    }

    fn creation(&self, name: &str, due: Timestamp, zone: &TimeZone) -> Step {
        let meta = &self.cron_job.metadata;
        let template = &self.cron_job.spec.job_template;
        let mut metadata = json!({
            "name": name, "namespace": meta.namespace,
            "ownerReferences": [controller_reference(CRON_JOBS, meta)],
        });
        for field in ["labels", "annotations"] {
            if let Value::Object(map) = &template["metadata"][field] {
                metadata[field] = map.clone().into();
            }
        }
        let local = due.to_zoned(zone.clone());
        metadata["annotations"][SCHEDULED_AT] =
            local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string().replace("+00:00", "Z").into();
        let job =
            json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": template["spec"]});
        let regarding = reference(CRON_JOBS, meta);
        Step {
            action: Action::create(JOBS, &meta.namespace, job),
            done: Some(Event::normal(regarding.clone(), "SuccessfulCreate", format!("Created job {NAME}"))),
            failed: Some(Event::warning(regarding, "FailedCreate", format!("Error creating job: {ERROR}"))),
        }
    }
}
