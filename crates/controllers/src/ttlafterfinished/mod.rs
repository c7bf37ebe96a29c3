//! Deletes Jobs some time after they have finished, as they say (follows upstream's `pkg/controller/ttlafterfinished`).

use api::resource::JOBS;
use api::view::batch::Job;
use async_trait::async_trait;
use client::{Client, DeleteOptions, Informer, Informers};
use jiff::{SignedDuration, Timestamp};

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::{Action, Plan};

struct TtlAfterFinished {
    jobs: Informer<Job>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(TtlAfterFinished { jobs: informers.get() })
}

#[async_trait]
impl Controller for TtlAfterFinished {
    fn watch(&self, watches: &mut Watches) {
        watches.on(JOBS, &self.jobs, |delta| match expires_at(delta.object()) {
            Some(_) => itself(delta),
            None => Vec::new(),
        });
    }

    async fn reconcile(&self, key: &Key, client: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(job) = self.jobs.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        if expires_at(&job).is_none_or(|at| at > now) {
            return Ok(reconcile(&job, now));
        }
        // Somebody may just have given it more time.
        match client.get::<Job>(JOBS, &key.namespace, &key.name).await {
            Ok(fresh) => Ok(reconcile(&fresh, now)),
            Err(error) if error.is_not_found() => Ok(Plan::default()),
            Err(error) => Err(error),
        }
    }
}

fn reconcile(job: &Job, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    match expires_at(job) {
        Some(at) if at > now => plan.requeue(at),
        Some(_) => {
            let options =
                DeleteOptions { propagation_policy: Some("Foreground"), ..DeleteOptions::default() };
            plan.act(Action::delete_with(JOBS, &job.metadata, options));
        }
        None => {}
    }
    plan
}

/// When a finished Job is to go; never, if it does not say so or goes already.
fn expires_at(job: &Job) -> Option<Timestamp> {
    let ttl = SignedDuration::from_secs(job.spec.ttl_seconds_after_finished?.into());
    let is_end = |kind: &str| matches!(kind, "Complete" | "Failed");
    let mut ends =
        job.status.conditions.iter().filter(|condition| is_end(&condition.kind) && condition.is_true());
    let finished = ends.next()?.last_transition_time?;
    let at = finished.saturating_add(ttl).unwrap_or(Timestamp::MAX);
    (!job.metadata.is_being_deleted()).then_some(at)
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::testing::at;

    /// Whether the Job is deleted at second 60, and when it is looked at again.
    fn check(ttl: Value, condition: (&str, &str), deleted: bool, expect: (bool, Option<i64>)) {
        let (kind, status) = condition;
        let mut job = json!({"metadata": {"name": "j", "namespace": "a", "uid": "u"}, "spec": {"ttlSecondsAfterFinished": ttl},
            "status": {"conditions": [{"type": kind, "status": status, "lastTransitionTime": at(0).to_string()}]}});
        if deleted {
            job["metadata"]["deletionTimestamp"] = at(0).to_string().into();
        }
        let job: Job = apimachinery::from_value(job).expect("a job");
        let plan = reconcile(&job, at(60));
        assert_eq!((!plan.is_empty(), plan.requeue_at), (expect.0, expect.1.map(at)));
    }

    #[test]
    fn a_finished_job_goes_when_its_time_is_over() {
        check(json!(60), ("Complete", "True"), false, (true, None));
        check(json!(0), ("Failed", "True"), false, (true, None));
        check(json!(61), ("Complete", "True"), false, (false, Some(61)));
        check(json!(60), ("Complete", "False"), false, (false, None));
        check(json!(60), ("Suspended", "True"), false, (false, None));
        check(json!(60), ("Complete", "True"), true, (false, None));
        check(Value::Null, ("Complete", "True"), false, (false, None));
    }
}
