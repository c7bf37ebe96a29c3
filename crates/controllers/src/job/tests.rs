//! Jobs in a simulated cluster.

use api::resource::{JOBS, PODS};
use api::view::batch::Job;
use api::view::core::Pod;
use apimachinery::{Value, json};
use proptest::prelude::*;

use super::*;
use crate::testing::{Cluster, at};

fn cluster(changes: &[(&str, Value)]) -> Cluster {
    let mut job = json!({"metadata": {"namespace": "n", "name": "j"}, "spec": {
        "completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
        "podReplacementPolicy": "TerminatingOrFailed", "selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"restartPolicy": "Never",
            "containers": [{"name": "c", "image": "i:1"}]}}}});
    for (field, value) in changes {
        job["spec"][field] = value.clone();
    }
    let mut cluster = Cluster::new();
    cluster.create(JOBS, job);
    cluster
}

fn job(cluster: &Cluster) -> Arc<Job> {
    cluster.get("n", "j").expect("is there")
}

fn turn(cluster: &mut Cluster) -> bool {
    let world = World { pods: cluster.list::<Pod>(), may_adopt: true };
    let plan = reconcile(&job(cluster), &world, cluster.now);
    cluster.apply(&plan);
    !plan.is_empty()
}

fn running(cluster: &Cluster) -> Vec<String> {
    let pods = cluster.list::<Pod>();
    pods.iter().filter(|pod| !pod.is_terminal()).map(|pod| pod.metadata.name.clone()).collect()
}

fn end(cluster: &mut Cluster, name: &str, code: i32) {
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let ended = json!({"terminated": {"exitCode": code, "finishedAt": cluster.now.to_string()}});
    cluster.edit(PODS, "n", name, |pod| {
        pod["status"] = json!({"phase": phase, "containerStatuses": [{"name": "c", "state": ended}]});
    });
}

/// Turns until nothing is to do, ending every pod with `code(index)`.
fn run(cluster: &mut Cluster, code: impl Fn(Option<i64>) -> i32) {
    for round in 1..200 {
        while turn(cluster) {}
        for pod in cluster.list::<Pod>().iter().filter(|pod| !pod.is_terminal()) {
            end(cluster, &pod.metadata.name, code(pods::index(pod)));
        }
        cluster.now = at(round * 700);
        if job(cluster).is_finished() {
            while turn(cluster) {}
            return;
        }
    }
    panic!("does not end: {:?}", job(cluster).status);
}

fn condition(cluster: &Cluster, kind: &str) -> String {
    job(cluster).condition(kind).map(|c| c.reason.clone()).unwrap_or_default()
}

#[test]
fn a_job_is_complete_when_its_pods_have_succeeded() {
    let mut cluster = cluster(&[("completions", json!(3)), ("parallelism", json!(2))]);
    turn(&mut cluster);
    assert_eq!((running(&cluster).len(), job(&cluster).status.active), (2, 2));
    run(&mut cluster, |_| 0);
    let job = job(&cluster);
    assert_eq!((job.status.succeeded, job.status.active, job.status.failed), (3, 0, 0));
    assert!(job.has("Complete") && job.has("SuccessCriteriaMet") && job.status.completion_time.is_some());
    assert!(cluster.list::<Pod>().iter().all(|pod| pod.metadata.finalizers.is_empty()));
}

#[test]
fn a_job_fails_when_its_pods_fail_too_often() {
    let mut cluster = cluster(&[("backoffLimit", json!(2))]);
    run(&mut cluster, |_| 1);
    assert_eq!(job(&cluster).status.failed, 3);
    assert_eq!(condition(&cluster, "Failed"), "BackoffLimitExceeded");
}

#[test]
fn failures_are_followed_by_pauses() {
    let mut cluster = cluster(&[]);
    turn(&mut cluster);
    let first = running(&cluster)[0].clone();
    end(&mut cluster, &first, 1);
    while turn(&mut cluster) {}
    assert!(running(&cluster).is_empty());
    let world = World { pods: cluster.list::<Pod>(), may_adopt: true };
    assert_eq!(reconcile(&job(&cluster), &world, cluster.now).requeue_at, Some(at(10)));
    cluster.now = at(10);
    turn(&mut cluster);
    assert_eq!(running(&cluster).len(), 1);
}

#[test]
fn a_pod_that_succeeds_after_it_was_counted_as_failed_is_counted_once() {
    let mut cluster = cluster(&[]);
    turn(&mut cluster);
    let name = running(&cluster).pop().expect("one runs");
    let uid = cluster.get::<Pod>("n", &name).expect("it runs").metadata.uid.clone();
    // It is to go and was counted; before it could be let go it has ended well.
    cluster.edit(JOBS, "n", "j", |job| job["status"]["uncountedTerminatedPods"] = json!({"failed": [uid]}));
    end(&mut cluster, &name, 0);
    turn(&mut cluster);
    let waiting = job(&cluster).status.uncounted_terminated_pods.clone().unwrap_or_default();
    assert_eq!((waiting.succeeded, waiting.failed), (Vec::<String>::new(), vec![uid]));
    turn(&mut cluster);
    assert_eq!((job(&cluster).status.succeeded, job(&cluster).status.failed), (0, 1));
}

#[test]
fn a_pod_that_is_released_or_orphaned_waits_for_nobody() {
    let mut cluster = cluster(&[]);
    turn(&mut cluster);
    let name = running(&cluster)[0].clone();
    cluster.edit(PODS, "n", &name, |pod| pod["metadata"]["labels"] = json!({}));
    turn(&mut cluster);
    let released = cluster.get::<Pod>("n", &name).expect("it runs on");
    assert!(released.metadata.controller().is_none() && !pods::is_tracked(&released));

    cluster.edit(PODS, "n", &name, |pod| pod["metadata"]["finalizers"] = json!(["mine", pods::FINALIZER]));
    let orphan = cluster.get::<Pod>("n", &name).expect("it runs on");
    assert_eq!(orphans(&Delta::Added(orphan.clone())), Some(Key::new("n", ORPHANS)));
    cluster.apply(&let_orphans_go(&[orphan]));
    let left = cluster.get::<Pod>("n", &name).expect("it runs on");
    assert_eq!(
        (left.metadata.finalizers.as_slice(), orphans(&Delta::Added(left.clone()))),
        (["mine".to_owned()].as_slice(), None)
    );
}

#[test]
fn a_pod_that_is_adopted_waits_to_be_counted() {
    let mut cluster = cluster(&[]);
    let pod = json!({"metadata": {"namespace": "n", "name": "p", "labels": {"a": "b"}}, "spec": {"containers": []}});
    cluster.create(PODS, pod);
    turn(&mut cluster);
    let adopted = cluster.get::<Pod>("n", "p").expect("is there");
    assert!(adopted.metadata.controller().is_some() && pods::is_tracked(&adopted));
}

#[test]
fn each_index_succeeds_once() {
    let mut cluster = cluster(&[
        ("completions", json!(4)),
        ("parallelism", json!(4)),
        ("completionMode", json!("Indexed")),
    ]);
    run(&mut cluster, |_| 0);
    assert_eq!((job(&cluster).status.completed_indexes.as_str(), job(&cluster).status.succeeded), ("0-3", 4));
    let pod = cluster.values(PODS)[0].clone();
    assert_eq!(pod["spec"]["containers"][0]["env"][0]["name"], "JOB_COMPLETION_INDEX");
    assert!(pod["spec"]["hostname"].as_str().is_some_and(|name| name.starts_with("j-")));
}

#[test]
fn an_index_that_fails_too_often_is_given_up_alone() {
    let mut cluster = cluster(&[
        ("completions", json!(3)),
        ("parallelism", json!(3)),
        ("completionMode", json!("Indexed")),
        ("backoffLimit", json!(i32::MAX)),
        ("backoffLimitPerIndex", json!(1)),
    ]);
    run(&mut cluster, |index| i32::from(index == Some(1)));
    let job = job(&cluster);
    assert_eq!(
        (job.status.completed_indexes.as_str(), job.status.failed_indexes.as_deref()),
        ("0,2", Some("1"))
    );
    assert_eq!((job.status.failed, condition(&cluster, "Failed").as_str()), (2, "FailedIndexes"));
}

#[test]
fn the_failure_policy_decides_by_exit_code() {
    let rules = |action: &str| json!({"rules": [{"action": action, "onExitCodes": {"operator": "In", "values": [42]}}]});
    let mut ends = cluster(&[("podFailurePolicy", rules("FailJob"))]);
    run(&mut ends, |_| 42);
    assert_eq!((condition(&ends, "Failed").as_str(), job(&ends).status.failed), ("PodFailurePolicy", 1));
    let mut ignores = cluster(&[("podFailurePolicy", rules("Ignore")), ("backoffLimit", json!(0))]);
    turn(&mut ignores);
    let first = running(&ignores)[0].clone();
    end(&mut ignores, &first, 42);
    ignores.now = at(700);
    while turn(&mut ignores) {}
    assert_eq!((job(&ignores).status.failed, running(&ignores).len()), (0, 1));
}

#[test]
fn enough_indexes_are_success() {
    let mut cluster = cluster(&[
        ("completions", json!(3)),
        ("parallelism", json!(3)),
        ("completionMode", json!("Indexed")),
        ("successPolicy", json!({"rules": [{"succeededIndexes": "0"}]})),
    ]);
    turn(&mut cluster);
    let first = cluster
        .list::<Pod>()
        .iter()
        .find(|pod| pods::index(pod) == Some(0))
        .expect("is there")
        .metadata
        .name
        .clone();
    end(&mut cluster, &first, 0);
    while turn(&mut cluster) {}
    assert!(running(&cluster).is_empty());
    assert_eq!(condition(&cluster, "Complete"), "SuccessPolicy");
}

#[test]
fn a_suspended_job_has_no_pods_and_no_start() {
    let mut cluster = cluster(&[]);
    while turn(&mut cluster) {}
    cluster.edit(JOBS, "n", "j", |job| job["spec"]["suspend"] = true.into());
    while turn(&mut cluster) {}
    assert!(
        running(&cluster).is_empty()
            && job(&cluster).has("Suspended")
            && job(&cluster).status.start_time.is_none()
    );
    cluster.edit(JOBS, "n", "j", |job| job["spec"]["suspend"] = false.into());
    run(&mut cluster, |_| 0);
    assert!(job(&cluster).has("Complete") && !job(&cluster).has("Suspended"));
}

#[test]
fn a_job_past_its_deadline_fails() {
    let mut cluster = cluster(&[("activeDeadlineSeconds", json!(30))]);
    while turn(&mut cluster) {}
    cluster.now = at(30);
    while turn(&mut cluster) {}
    assert_eq!(condition(&cluster, "Failed"), "DeadlineExceeded");
    assert!(running(&cluster).is_empty());
}

proptest! {
    #[test]
    fn pods_are_counted_once_and_no_more_run_than_may(
        completions in 1_i32..8, parallelism in 1_i32..5, failures in prop::collection::vec(any::<bool>(), 0..4)
    ) {
        let mut cluster = cluster(&[("completions", json!(completions)), ("parallelism", json!(parallelism))]);
        let mut failures = failures.into_iter().filter(|fails| *fails);
        for round in 1..100 {
            while turn(&mut cluster) {
                prop_assert!(running(&cluster).len() <= usize::try_from(parallelism).expect("is positive"));
            }
            if job(&cluster).is_finished() {
                break;
            }
            for name in running(&cluster) {
                end(&mut cluster, &name, i32::from(failures.next().is_some()));
            }
            cluster.now = at(round * 700);
        }
        let job = job(&cluster);
        prop_assert!(job.has("Complete"), "{:?}", job.status);
        prop_assert_eq!(job.status.succeeded, completions);
        let failed = cluster.list::<Pod>().iter().filter(|pod| pod.status.phase == "Failed").count();
        prop_assert_eq!(usize::try_from(job.status.failed).expect("is positive"), failed);
    }
}

/// What the next turn is counted as, after which it is taken.
fn counted(cluster: &mut Cluster) -> Sync {
    let world = World { pods: cluster.list::<Pod>(), may_adopt: true };
    let job = job(cluster);
    let plan = reconcile(&job, &world, cluster.now);
    cluster.apply(&plan);
    Sync::of(&job, &world.pods, &plan)
}

#[test]
fn syncs_are_counted_by_what_they_did_and_pods_and_jobs_once() {
    let rule = json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [3]}});
    let mut cluster = cluster(&[("podFailurePolicy", json!({"rules": [rule]}))]);
    let metrics = JobMetrics::default();
    let synced = |sync: &Sync| metrics.synced(sync, std::time::Duration::from_millis(5), true);
    synced(&counted(&mut cluster));
    metrics.synced(&counted(&mut cluster), std::time::Duration::ZERO, false);
    let name = running(&cluster)[0].clone();
    end(&mut cluster, &name, 3);
    (0..4).for_each(|_| synced(&counted(&mut cluster)));
    cluster.now = at(700);
    synced(&counted(&mut cluster));
    let name = running(&cluster)[0].clone();
    end(&mut cluster, &name, 0);
    while reconcile::is_worked_on(&job(&cluster)) {
        synced(&counted(&mut cluster));
    }
    let mut text = String::new();
    client::metrics::Source::write(&metrics, &mut text);
    let modes = "completion_mode=\"NonIndexed\"";
    for line in [
        &format!("job_controller_job_syncs_total{{action=\"pods_created\",{modes},result=\"success\"}} 2"),
        &format!("job_controller_job_syncs_total{{action=\"tracking\",{modes},result=\"error\"}} 1"),
        &format!("job_controller_job_pods_finished_total{{{modes},result=\"failed\"}} 1"),
        &format!("job_controller_job_pods_finished_total{{{modes},result=\"succeeded\"}} 1"),
        &format!(
            "job_controller_jobs_finished_total{{{modes},reason=\"CompletionsReached\",result=\"succeeded\"}} 1"
        ),
        "job_controller_pod_failures_handled_by_failure_policy_total{action=\"Count\"} 1",
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\nis not in\n{text}");
    }
}
