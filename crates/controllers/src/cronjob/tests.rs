//! CronJobs in a simulated cluster.

use std::sync::Arc;

use api::resource::{CRON_JOBS, JOBS};
use api::view::batch::{CronJob, Job};
use apimachinery::{Value, json};

use super::*;
use crate::testing::{Cluster, at};

fn cluster(changes: &[(&str, Value)]) -> Cluster {
    let mut cron_job = json!({"metadata": {"namespace": "n", "name": "c"}, "spec": {
        "schedule": "*/5 * * * *", "concurrencyPolicy": "Allow", "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1,
        "jobTemplate": {"metadata": {"labels": {"a": "b"}}, "spec": {"template": {}}}}});
    for (field, value) in changes {
        cron_job["spec"][field] = value.clone();
    }
    let mut cluster = Cluster::new();
    cluster.create(CRON_JOBS, cron_job);
    cluster
}

fn cron_job(cluster: &Cluster) -> Arc<CronJob> {
    cluster.get("n", "c").expect("is there")
}

fn plan(cluster: &Cluster) -> Plan {
    reconcile(&cron_job(cluster), &cluster.list::<Job>(), cluster.now)
}

fn settle_at(cluster: &mut Cluster, seconds: i64) {
    cluster.now = at(seconds);
    for _ in 0..10 {
        let plan = plan(cluster);
        if plan.steps.is_empty() {
            return;
        }
        cluster.apply(&plan);
    }
    panic!("does not come to rest: {:?}", cluster.told);
}

fn names(cluster: &Cluster) -> Vec<String> {
    cluster.list::<Job>().iter().map(|job| job.metadata.name.clone()).collect()
}

fn end(cluster: &mut Cluster, name: &str, how: &str) {
    let now = cluster.now.to_string();
    cluster.edit(JOBS, "n", name, |job| {
        job["status"] = json!({"conditions": [{"type": how, "status": "True"}], "startTime": now, "completionTime": now});
    });
}

#[test]
fn a_job_is_made_when_its_time_has_come_and_once() {
    let mut cluster = cluster(&[]);
    settle_at(&mut cluster, 10);
    assert!(names(&cluster).is_empty());
    assert_eq!(plan(&cluster).requeue_at, Some(at(300)));
    settle_at(&mut cluster, 300);
    settle_at(&mut cluster, 310);
    assert_eq!(names(&cluster), [format!("c-{}", at(300).as_second() / 60)]);
    let status = &cron_job(&cluster).status;
    assert_eq!((status.active.len(), status.last_schedule_time), (1, Some(at(300))));
    assert_eq!(
        cluster.list::<Job>()[0].metadata.annotations["batch.kubernetes.io/cronjob-scheduled-timestamp"],
        "2026-01-01T00:05:00Z"
    );
}

#[test]
fn the_policy_says_what_becomes_of_a_job_that_still_runs() {
    for (policy, expect) in [("Allow", 2), ("Forbid", 1), ("Replace", 1)] {
        let mut cluster = cluster(&[("concurrencyPolicy", json!(policy))]);
        settle_at(&mut cluster, 300);
        let first = names(&cluster);
        settle_at(&mut cluster, 600);
        assert_eq!(names(&cluster).len(), expect, "{policy}");
        assert_eq!(names(&cluster).contains(&first[0]), policy != "Replace", "{policy}");
    }
}

#[test]
fn only_as_many_ended_jobs_stay_as_the_limits_say() {
    let mut cluster = cluster(&[]);
    for (round, how) in [(1, "Complete"), (2, "Failed"), (3, "Complete"), (4, "Failed")] {
        settle_at(&mut cluster, round * 300);
        let name = names(&cluster).last().expect("was made").clone();
        end(&mut cluster, &name, how);
    }
    settle_at(&mut cluster, 1210);
    assert_eq!(names(&cluster).len(), 2);
    let status = &cron_job(&cluster).status;
    assert_eq!((status.active.len(), status.last_successful_time), (0, Some(at(900))));
    assert!(cluster.told.iter().any(|(reason, _)| reason == "SawCompletedJob"));
}

#[test]
fn missed_times_count_once_and_only_within_the_deadline() {
    let mut cluster = cluster(&[]);
    settle_at(&mut cluster, 3000);
    assert_eq!(names(&cluster), [format!("c-{}", at(3000).as_second() / 60)]);
    let mut strict = self::cluster(&[("startingDeadlineSeconds", json!(60))]);
    settle_at(&mut strict, 3100);
    assert!(names(&strict).is_empty());
}

#[test]
fn a_suspended_one_makes_nothing() {
    let mut cluster = cluster(&[("suspend", json!(true))]);
    settle_at(&mut cluster, 3000);
    assert!(names(&cluster).is_empty());
}

#[test]
fn a_clock_far_ahead_is_told_and_survived() {
    let mut cluster = cluster(&[("schedule", json!("* * * * *"))]);
    settle_at(&mut cluster, 60 * 60 * 24 * 30);
    assert_eq!(names(&cluster).len(), 1);
    assert!(cluster.told.iter().any(|(reason, _)| reason == "TooManyMissedTimes"));
}
