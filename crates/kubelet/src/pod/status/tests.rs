//! What is reported of a pod, by example.

use std::net::Ipv4Addr;

use apimachinery::json;
use apimachinery::meta::find_condition;

use super::*;
use crate::pod::memory::{ProbeState, Waiting};
use crate::pod::testing::{container, sandbox};

const NODE: NodeFacts<'static> =
    NodeFacts { host_ips: &[IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))], runtime_name: "coxswain" };

fn pod(spec: apimachinery::Value) -> Pod {
    let metadata = json!({"name": "p", "namespace": "d", "uid": "u", "generation": 1});
    apimachinery::from_value(json!({"metadata": metadata, "spec": spec})).expect("a pod")
}

fn observed(containers: Vec<Container>) -> Observed {
    Observed { sandboxes: vec![sandbox(true)], containers }
}

fn tell(pod: &Pod, containers: Vec<Container>, memory: &Memory, ended: bool) -> PodStatus {
    pod_status(pod, &observed(containers), memory, &NODE, ended, Timestamp::UNIX_EPOCH)
}

fn ready(status: &PodStatus) -> &str {
    &find_condition(&status.conditions, "Ready").expect("a condition").status
}

#[test]
fn the_phase_follows_the_containers() {
    let check = |policy: &str, containers: Vec<Container>, ended, expect| {
        let pod = pod(json!({"restartPolicy": policy, "containers": [{"name": "a"}]}));
        assert_eq!(tell(&pod, containers, &Memory::default(), ended).phase, expect);
    };
    check("Always", vec![], false, "Pending");
    check("Always", vec![container("a", State::Running, 0, 0)], false, "Running");
    check("Always", vec![container("a", State::Exited, 0, 0)], false, "Running");
    check("Never", vec![container("a", State::Exited, 0, 0)], false, "Succeeded");
    check("Never", vec![container("a", State::Exited, 1, 0)], false, "Failed");
    check("OnFailure", vec![container("a", State::Exited, 1, 0)], false, "Running");
    check("Always", vec![container("a", State::Exited, 0, 0)], true, "Succeeded");
    check("Always", vec![container("a", State::Exited, 143, 0)], true, "Failed");
}

#[test]
fn a_rule_keeps_a_pod_running_that_would_have_failed() {
    let rule =
        |operator: &str| json!([{"action": "Restart", "exitCodes": {"operator": operator, "values": [42]}}]);
    let check = |operator: &str, exit_code, expect| {
        let pod = pod(json!({"restartPolicy": "Never", "containers": [
            {"name": "a", "restartPolicy": "Never", "restartPolicyRules": rule(operator)}]}));
        let ended = vec![container("a", State::Exited, exit_code, 0)];
        assert_eq!(tell(&pod, ended, &Memory::default(), false).phase, expect);
    };
    check("In", 42, "Running");
    check("In", 1, "Failed");
    check("NotIn", 42, "Failed");
    check("NotIn", 1, "Running");
}

#[test]
fn a_pod_waits_for_its_init_containers() {
    let pod = pod(
        json!({"restartPolicy": "Always", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}),
    );
    let status = tell(&pod, vec![container("i", State::Running, 0, 0)], &Memory::default(), false);
    assert_eq!(status.phase, "Pending");
    assert_eq!(status.container_statuses[0].state.waiting.as_ref().expect("waits").reason, "PodInitializing");
    let initialized = find_condition(&status.conditions, "Initialized").expect("a condition");
    assert_eq!(
        (initialized.status.as_str(), initialized.message.as_str()),
        ("False", "containers with incomplete status: [i]")
    );
}

#[test]
fn readiness_follows_the_probe() {
    let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a", "readinessProbe": {}}]}));
    let running = || vec![container("a", State::Running, 0, 0)];
    let mut memory = Memory::default();
    let status = tell(&pod, running(), &memory, false);
    assert_eq!((status.phase.as_str(), ready(&status)), ("Running", "False"));
    assert_eq!(status.conditions[2].message, "containers with unready status: [a]");
    memory.probes.insert("a0".into(), ProbeState { started: true, ready: true });
    assert_eq!(ready(&tell(&pod, running(), &memory, false)), "True");
}

#[test]
fn a_crashing_container_waits_with_its_last_end_in_view() {
    let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}));
    let crashed = container("a", State::Exited, 3, 1);
    let mut memory = Memory::default();
    memory.count_exit(&crashed, Timestamp::UNIX_EPOCH);
    let status = tell(&pod, vec![crashed], &memory, false).container_statuses.remove(0);
    let waiting = status.state.waiting.expect("waits");
    assert_eq!(waiting.reason, "CrashLoopBackOff");
    assert_eq!(waiting.message, "back-off 10s restarting failed container=a pod=p_d(u)");
    assert_eq!(status.last_state.terminated.expect("ended").exit_code, 3);
}

#[test]
fn an_image_that_cannot_be_pulled_is_the_reason() {
    let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}));
    let mut memory = Memory::default();
    memory.waiting.insert("a".into(), Waiting { reason: "ErrImagePull".into(), message: "not found".into() });
    let status = tell(&pod, vec![], &memory, false);
    assert_eq!(status.container_statuses[0].state.waiting.as_ref().expect("waits").reason, "ErrImagePull");
    assert_eq!(status.phase, "Pending");
}

#[test]
fn an_end_stays_known_when_the_container_is_gone() {
    let mut pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    pod.status = tell(&pod, vec![container("a", State::Exited, 3, 0)], &Memory::default(), true);
    assert_eq!(pod.status.phase, "Failed");
    let status =
        pod_status(&pod, &Observed::default(), &Memory::default(), &NODE, true, Timestamp::UNIX_EPOCH);
    assert_eq!(status.container_statuses, pod.status.container_statuses);
}

#[test]
fn a_container_that_cannot_start_again_waits_with_its_known_end_in_view() {
    let mut pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}));
    pod.status = tell(&pod, vec![container("a", State::Exited, 3, 0)], &Memory::default(), false);
    let mut memory = Memory::default();
    memory.waiting.insert("a".into(), Waiting { reason: "ErrImagePull".into(), message: "gone".into() });
    let status = tell(&pod, vec![], &memory, false).container_statuses.remove(0);
    assert_eq!(status.state.waiting.expect("waits").reason, "ErrImagePull");
    assert_eq!(status.last_state.terminated.expect("ended").exit_code, 3);
}

#[test]
fn an_init_container_that_has_not_run_is_initialising() {
    // kubectl shows any other reason as `Init:REASON`, this one as `Init:0/1`.
    let pod = pod(
        json!({"restartPolicy": "Always", "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}),
    );
    let status = tell(&pod, vec![], &Memory::default(), false).init_container_statuses.remove(0);
    assert_eq!(status.state.waiting.expect("waits").reason, "PodInitializing");
}

#[test]
fn a_pod_whose_containers_are_removed_to_start_anew_goes_on_running() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let mut pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"},
        {"name": "b", "restartPolicy": "Never", "restartPolicyRules": rules}]}));
    pod.status.phase = "Running".to_owned();
    let containers = vec![container("a", State::Exited, 137, 0), container("b", State::Exited, 42, 0)];
    assert_eq!(tell(&pod, containers.clone(), &Memory::default(), false).phase, "Running");
    assert_eq!(tell(&pod, containers, &Memory::default(), true).phase, "Failed");
}

#[test]
fn a_pod_that_ended_before_it_began_has_failed() {
    let check = |init: &[&str], told: &str| {
        let init: Vec<_> = init.iter().map(|name| json!({"name": name})).collect();
        let pod = pod(json!({"initContainers": init, "containers": [{"name": "a"}]}));
        let status = tell(&pod, vec![], &Memory::default(), true);
        let end = status.container_statuses[0].state.terminated.as_ref();
        let reason = end.map_or("waits", |end| end.reason.as_str());
        assert_eq!((status.phase.as_str(), reason), ("Failed", told), "{init:?}");
    };
    check(&[], "ContainerStatusUnknown");
    check(&["i"], "waits");
}

#[test]
fn a_container_that_ended_before_it_started_has_both_times() {
    let pod = pod(json!({"restartPolicy": "Never", "containers": [{"name": "a"}]}));
    let status = tell(&pod, vec![container("a", State::Exited, 137, 0)], &Memory::default(), true);
    let end = status.container_statuses[0].state.terminated.as_ref().expect("ended");
    assert_eq!(end.started_at, Some(Timestamp::UNIX_EPOCH));
}

#[test]
fn durations_read_as_go_prints_them() {
    assert_eq!(["10s", "1m20s", "5m0s"], [10, 80, 300].map(go_duration).each_ref().map(String::as_str));
}

#[test]
fn restarts_count_on_when_the_runtime_has_forgotten_the_container() {
    let check = |state: apimachinery::Value, reason: &str| {
        let mut pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}));
        pod.status.container_statuses = apimachinery::from_value(
            json!([{"name": "a", "containerID": "x://old", "restartCount": 2, "state": state}]),
        )
        .expect("statuses");
        let mut memory = Memory::default();
        memory
            .waiting
            .insert("a".into(), Waiting { reason: "ContainerCreating".into(), message: String::new() });
        pod.status = tell(&pod, vec![], &memory, false);
        assert_eq!(crate::pod::attempts_told(&pod, "a"), 3, "{state}");
        let restarted = tell(&pod, vec![container("a", State::Running, 0, 3)], &Memory::default(), false);
        let told = &restarted.container_statuses[0];
        assert_eq!(told.restart_count, 3, "{state}");
        let last = told.last_state.terminated.as_ref().expect("it ended");
        assert_eq!((last.reason.as_str(), last.container_id.as_str()), (reason, "x://old"));
    };
    check(json!({"running": {}}), "ContainerStatusUnknown");
    check(json!({"terminated": {"exitCode": 1, "reason": "Error", "containerID": "x://old"}}), "Error");
}

#[test]
fn a_pod_that_was_refused_tells_of_no_containers() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let failure = Failure { reason: "OutOfcpu".into(), message: "m".into(), ..Failure::default() };
    let memory = Memory { failed: Some(failure), ..Memory::default() };
    let status = pod_status(&pod, &Observed::default(), &memory, &NODE, true, Timestamp::UNIX_EPOCH);
    assert_eq!((status.phase.as_str(), status.reason.as_str()), ("Failed", "OutOfcpu"));
    assert!(status.container_statuses.is_empty());
    let known = Pod { status: status.clone(), ..pod };
    let again =
        pod_status(&known, &Observed::default(), &Memory::default(), &NODE, true, Timestamp::UNIX_EPOCH);
    assert_eq!(again, status);
}

#[test]
fn a_pod_that_the_node_ends_for_its_own_sake_is_marked() {
    let pod = pod(json!({"containers": [{"name": "a"}]}));
    let failure = Failure {
        reason: "Evicted".into(),
        message: "m".into(),
        disruption: Some("m".into()),
        ..Failure::default()
    };
    let memory = Memory { failed: Some(failure), ..Memory::default() };
    let status = tell(&pod, vec![container("a", State::Exited, 137, 0)], &memory, true);
    let condition = find_condition(&status.conditions, "DisruptionTarget").expect("a condition");
    assert_eq!((condition.reason.as_str(), condition.message.as_str()), ("TerminationByKubelet", "m"));
}
