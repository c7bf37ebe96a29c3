//! How long pods take to start, of which upstream's startup objective speaks: from their creation until all their containers
//! run, and that without pulling images and running init containers (follows `pod_startup_latency_tracker.go`). Pure.

use std::collections::HashMap;

use api::view::core::{Pod, PodStatus, Volume};
use jiff::{SignedDuration, Timestamp};

/// The pods that are to start and have not all their containers yet, by uid.
#[derive(Debug, Default)]
pub struct Startups(HashMap<String, Startup>);

#[derive(Debug)]
struct Startup {
    seen_at: Timestamp,
    runs: bool,
    /// When images were pulled for it: began and ended.
    pulls: Vec<(Timestamp, Timestamp)>,
}

/// What there is to tell of a pod now.
#[derive(Debug, Default, PartialEq)]
pub struct Latencies {
    /// Since this node saw it; told when it begins to run.
    pub since_seen: Option<SignedDuration>,
    /// Since it was created; told when all its containers run.
    pub total: Option<SignedDuration>,
    /// The same without pulls and init containers, of a pod without durable volumes.
    pub sli: Option<SignedDuration>,
}

impl Startups {
    /// A pod that this node hears of. One that began before, or had to wait for room, says nothing of how fast pods start.
    pub fn seen(&mut self, pod: &Pod, now: Timestamp) {
        if pod.status.start_time.is_none() && !was_unschedulable(&pod.status) {
            let startup = Startup { seen_at: now, runs: false, pulls: Vec::new() };
            self.0.entry(pod.metadata.uid.clone()).or_insert(startup);
        }
    }

    pub fn pulled(&mut self, uid: &str, began: Timestamp, ended: Timestamp) {
        if let Some(startup) = self.0.get_mut(uid) {
            startup.pulls.push((began, ended));
        }
    }

    pub fn forget(&mut self, uid: &str) {
        self.0.remove(uid);
    }

    /// The API knows this status of the pod now.
    pub fn reported(&mut self, pod: &Pod, status: &PodStatus, now: Timestamp) -> Latencies {
        let uid = &pod.metadata.uid;
        let mut told = Latencies::default();
        let Some(startup) = self.0.get_mut(uid) else { return told };
        if matches!(status.phase.as_str(), "Succeeded" | "Failed") {
            self.0.remove(uid);
            return told;
        }
        if status.phase == "Running" && !startup.runs {
            startup.runs = true;
            told.since_seen = Some(now.duration_since(startup.seen_at));
        }
        if !all_run(status) {
            return told;
        }
        let total = now.duration_since(pod.metadata.creation_timestamp.unwrap_or(startup.seen_at));
        let apart = time_of(std::mem::take(&mut startup.pulls)) + time_of(init_runs(status));
        told.total = Some(total);
        told.sli = pod.spec.volumes.iter().all(is_ephemeral).then(|| total - apart);
        self.0.remove(uid);
        told
    }
}

fn was_unschedulable(status: &PodStatus) -> bool {
    status.conditions.iter().any(|condition| condition.kind == "PodScheduled" && condition.status == "False")
}

fn all_run(status: &PodStatus) -> bool {
    let mut containers = status.container_statuses.iter();
    !status.container_statuses.is_empty() && containers.all(|container| container.state.running.is_some())
}

fn init_runs(status: &PodStatus) -> Vec<(Timestamp, Timestamp)> {
    let ended =
        status.init_container_statuses.iter().filter_map(|container| container.state.terminated.as_ref());
    ended.filter_map(|ended| Some((ended.started_at?, ended.finished_at?))).collect()
}

/// What lies in several spans at once counts once.
fn time_of(mut spans: Vec<(Timestamp, Timestamp)>) -> SignedDuration {
    spans.sort_unstable();
    let mut until = Timestamp::MIN;
    let mut sum = SignedDuration::ZERO;
    for (began, ended) in spans {
        sum += ended.duration_since(began.max(until)).max(SignedDuration::ZERO);
        until = until.max(ended);
    }
    sum
}

/// Upstream's `isStatefulPod` the other way round.
fn is_ephemeral(volume: &Volume) -> bool {
    volume.secret.is_some()
        || volume.config_map.is_some()
        || volume.downward_api.is_some()
        || volume.empty_dir.is_some()
        || volume.projected.is_some()
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a time")
    }

    fn pod(spec: Value, status: Value) -> Pod {
        let meta = json!({"uid": "u", "creationTimestamp": at(100).to_string()});
        apimachinery::from_value(json!({"metadata": meta, "spec": spec, "status": status})).expect("a pod")
    }

    fn status(containers: &[Value]) -> PodStatus {
        let containers: Vec<Value> =
            containers.iter().map(|state| json!({"name": "a", "state": state})).collect();
        let init =
            json!({"startedAt": at(103).to_string(), "finishedAt": at(105).to_string(), "exitCode": 0});
        apimachinery::from_value(json!({"phase": "Running", "containerStatuses": containers,
            "initContainerStatuses": [{"name": "i", "state": {"terminated": init}}]}))
        .expect("a status")
    }

    fn seconds(seconds: i64) -> Option<SignedDuration> {
        Some(SignedDuration::from_secs(seconds))
    }

    #[test]
    fn a_start_takes_until_all_containers_run_and_pulls_and_init_containers_count_apart() {
        let (runs, waits) = (json!({"running": {"startedAt": at(110).to_string()}}), json!({"waiting": {}}));
        let check = |spec: Value, sli: Option<SignedDuration>| {
            let pod = pod(spec, json!({}));
            let mut startups = Startups::default();
            startups.seen(&pod, at(101));
            startups.pulled("u", at(105), at(107));
            startups.pulled("u", at(106), at(108));
            let first = startups.reported(&pod, &status(&[runs.clone(), waits.clone()]), at(109));
            assert_eq!(first, Latencies { since_seen: seconds(8), ..Latencies::default() });
            let all = status(&[runs.clone(), runs.clone()]);
            let last = startups.reported(&pod, &all, at(112));
            assert_eq!(last, Latencies { since_seen: None, total: seconds(12), sli });
            assert_eq!(startups.reported(&pod, &all, at(113)), Latencies::default());
        };
        check(json!({"volumes": [{"name": "v", "emptyDir": {}}]}), seconds(7));
        check(json!({"volumes": [{"name": "v", "hostPath": {"path": "/x"}}]}), None);
    }

    #[test]
    fn pods_that_began_before_or_had_to_wait_for_room_are_not_timed() {
        let unschedulable = json!({"conditions": [{"type": "PodScheduled", "status": "False"}]});
        for known in [json!({"startTime": at(100).to_string()}), unschedulable] {
            let pod = pod(json!({}), known);
            let mut startups = Startups::default();
            startups.seen(&pod, at(101));
            let runs = status(&[json!({"running": {"startedAt": at(110).to_string()}})]);
            assert_eq!(startups.reported(&pod, &runs, at(111)), Latencies::default());
        }
    }
}
