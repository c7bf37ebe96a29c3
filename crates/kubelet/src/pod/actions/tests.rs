//! What to do next for a pod, by example.

use apimachinery::json;

use super::*;
use crate::pod::memory::ProbeState;
use crate::pod::testing::{self, sandbox};

fn pod(spec: apimachinery::Value) -> Pod {
    apimachinery::from_value(json!({"metadata": {"name": "p", "uid": "u"}, "spec": spec})).expect("a pod")
}

fn two_step(restart_policy: &str) -> Pod {
    pod(
        json!({"restartPolicy": restart_policy, "initContainers": [{"name": "i"}], "containers": [{"name": "a"}]}),
    )
}

/// One whose spec has not changed since it was made.
fn container(pod: &Pod, name: &str, state: State, exit_code: i32, attempt: u32) -> Container {
    let spec = super::super::all_containers(pod).find(|(c, _)| c.name == name).expect("in the spec").0;
    Container {
        hash: super::super::container::hash(spec),
        ..testing::container(name, state, exit_code, attempt)
    }
}

/// Actions as short words: `sandbox`, `start a#1`, `kill a0`, `stop s`, `rm a0`, `done`.
fn check(pod: &Pod, ready: Option<bool>, containers: &[(&str, State, i32, u32)], expect: &[&str]) {
    let observed = Observed {
        sandboxes: ready.map(sandbox).into_iter().collect(),
        containers: containers.iter().map(|(n, s, e, a)| container(pod, n, *s, *e, *a)).collect(),
    };
    assert_eq!(words(&pod_actions(pod, &observed, &Memory::default(), Timestamp::UNIX_EPOCH)), expect);
}

fn words(plan: &Plan) -> Vec<String> {
    let mut words: Vec<String> = plan
        .actions
        .iter()
        .map(|action| match action {
            Action::CreateSandbox { .. } => "sandbox".to_owned(),
            Action::Start { name, attempt, .. } => format!("start {name}#{attempt}"),
            Action::Kill { id, .. } => format!("kill {id}"),
            Action::Resize { containers } => {
                let ids: Vec<&str> = containers.iter().map(|resized| resized.id.as_str()).collect();
                format!("resize {}", ids.join(" "))
            }
            Action::ResetContainer { id } => format!("reset {id}"),
            Action::StopSandbox { id } => format!("stop {id}"),
            Action::RemoveContainer { id } | Action::RemoveSandbox { id } => format!("rm {id}"),
        })
        .collect();
    if plan.finished {
        words.push("done".to_owned());
    }
    words
}

#[test]
fn a_new_pod_gets_a_sandbox_then_init_then_its_containers() {
    let pod = two_step("Always");
    check(&pod, None, &[], &["sandbox"]);
    check(&pod, Some(true), &[], &["start i#0"]);
    check(&pod, Some(true), &[("i", State::Running, 0, 0)], &[]);
    check(&pod, Some(true), &[("i", State::Exited, 0, 0)], &["start a#0"]);
    check(&pod, Some(true), &[("a", State::Running, 0, 0), ("i", State::Exited, 0, 0)], &[]);
}

#[test]
fn what_ends_is_restarted_as_the_policy_says() {
    let ended = |code| [("a", State::Exited, code, 0), ("i", State::Exited, 0, 0)];
    check(&two_step("Always"), Some(true), &ended(0), &["start a#1"]);
    check(&two_step("OnFailure"), Some(true), &ended(1), &["start a#1"]);
    check(&two_step("OnFailure"), Some(true), &ended(0), &["stop s"]);
    check(&two_step("Never"), Some(true), &ended(1), &["stop s"]);
    check(&two_step("Never"), Some(false), &ended(1), &["done"]);
}

#[test]
fn a_containers_own_rules_and_policy_come_before_the_pods() {
    let check = |container: apimachinery::Value, code, expect: &[&str]| {
        let pod = pod(json!({"restartPolicy": "Never", "containers": [container]}));
        self::check(&pod, Some(true), &[("a", State::Exited, code, 0)], expect);
    };
    let rules = json!([{"action": "Restart", "exitCodes": {"operator": "In", "values": [42]}}]);
    let ruled = json!({"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules});
    check(ruled.clone(), 42, &["start a#1"]);
    check(ruled, 1, &["stop s"]);
    check(json!({"name": "a", "restartPolicy": "OnFailure"}), 1, &["start a#1"]);
    check(json!({"name": "a", "restartPolicy": "OnFailure"}), 0, &["stop s"]);
}

#[test]
fn the_count_of_starts_goes_on_when_the_runtime_has_forgotten() {
    let mut pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a"}]}));
    pod.status.container_statuses =
        apimachinery::from_value(json!([{"name": "a", "restartCount": 4, "containerID": "x://1"}]))
            .expect("statuses");
    check(&pod, Some(true), &[], &["start a#5"]);
    check(&pod, Some(true), &[("a", State::Exited, 0, 7)], &["start a#8"]);
}

#[test]
fn a_failed_init_container_is_retried_unless_the_pod_never_restarts() {
    check(&two_step("Always"), Some(true), &[("i", State::Exited, 1, 0)], &["start i#1"]);
    check(&two_step("Never"), Some(true), &[("i", State::Exited, 1, 0)], &["stop s"]);
}

#[test]
fn a_dead_sandbox_takes_its_containers_along() {
    let pod = two_step("Always");
    check(
        &pod,
        Some(false),
        &[("a", State::Running, 0, 0), ("i", State::Exited, 0, 0)],
        &["kill a0", "sandbox"],
    );
}

#[test]
fn a_crash_is_paused_before_the_next_attempt() {
    let pod = two_step("Always");
    let crashed = container(&pod, "a", State::Exited, 1, 1);
    let mut memory = Memory::default();
    memory.count_exit(&crashed, Timestamp::UNIX_EPOCH);
    memory.count_exit(&crashed, Timestamp::UNIX_EPOCH);
    let containers = vec![crashed, container(&pod, "i", State::Exited, 0, 0)];
    let observed = Observed { sandboxes: vec![sandbox(true)], containers };
    let plan = pod_actions(&pod, &observed, &memory, Timestamp::UNIX_EPOCH);
    assert_eq!(words(&plan), [""; 0]);
    let ended = &observed.containers[0];
    assert_eq!(plan.pausing, [("a".to_owned(), ended.id.clone())]);
    let wake_at = plan.wake_at.expect("a pause");
    assert_eq!(wake_at.as_second(), 10);
    assert_eq!(words(&pod_actions(&pod, &observed, &memory, wake_at)), ["start a#2"]);
}

#[test]
fn an_unhealthy_or_changed_container_is_killed() {
    let pod = two_step("Always");
    let mut changed = container(&pod, "a", State::Running, 0, 0);
    let observed = |c: &Container| Observed {
        sandboxes: vec![sandbox(true)],
        containers: vec![c.clone(), container(&pod, "i", State::Exited, 0, 0)],
    };
    let mut memory = Memory::default();
    memory.unhealthy.insert("a0".into(), "Container a failed liveness probe, will be restarted".into());
    assert_eq!(words(&pod_actions(&pod, &observed(&changed), &memory, Timestamp::UNIX_EPOCH)), ["kill a0"]);
    changed.hash = "other".into();
    assert_eq!(
        words(&pod_actions(&pod, &observed(&changed), &Memory::default(), Timestamp::UNIX_EPOCH)),
        ["kill a0"]
    );
}

#[test]
fn the_probe_that_failed_says_how_long_the_container_may_take_to_end() {
    let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a",
        "startupProbe": {"terminationGracePeriodSeconds": 1}, "livenessProbe": {"terminationGracePeriodSeconds": 7}}]}));
    let observed = Observed {
        sandboxes: vec![sandbox(true)],
        containers: vec![container(&pod, "a", State::Running, 0, 0)],
    };
    for (started, expect) in [(false, 1), (true, 7)] {
        let mut memory = Memory::default();
        memory.probes.insert("a0".into(), ProbeState { started, ready: true });
        memory.unhealthy.insert("a0".into(), "failed a probe".into());
        let plan = pod_actions(&pod, &observed, &memory, Timestamp::UNIX_EPOCH);
        assert!(
            matches!(plan.actions[..], [Action::Kill { grace_seconds, .. }] if grace_seconds == expect),
            "{plan:?}"
        );
    }
}

#[test]
fn a_deleted_pod_ends_in_order() {
    let mut pod = pod(
        json!({"initContainers": [{"name": "side", "restartPolicy": "Always"}], "containers": [{"name": "a"}]}),
    );
    pod.metadata.deletion_timestamp = Some(Timestamp::UNIX_EPOCH);
    let running = |name| (name, State::Running, 0, 0);
    check(&pod, Some(true), &[running("a"), running("side")], &["kill a0", "kill side0"]);
    check(&pod, Some(true), &[("a", State::Exited, 0, 0), running("side")], &["kill side0"]);
    check(&pod, Some(true), &[("a", State::Exited, 0, 0)], &["stop s"]);
    check(&pod, Some(false), &[("a", State::Exited, 0, 0)], &["done"]);
    check(&pod, None, &[], &["done"]);
}

#[test]
fn a_sidecar_starts_first_and_stays() {
    let pod = pod(
        json!({"restartPolicy": "Never", "initContainers": [{"name": "side", "restartPolicy": "Always"}],
        "containers": [{"name": "a"}]}),
    );
    check(&pod, Some(true), &[], &["start side#0"]);
    check(&pod, Some(true), &[("side", State::Running, 0, 0)], &["start a#0"]);
    check(&pod, Some(true), &[("a", State::Running, 0, 0), ("side", State::Exited, 0, 0)], &["start side#1"]);
    check(&pod, Some(true), &[("a", State::Exited, 0, 0), ("side", State::Running, 0, 0)], &["kill side0"]);
}

#[test]
fn only_the_last_dead_attempt_is_kept() {
    let pod = two_step("Always");
    let containers = [
        ("a", State::Running, 0, 3),
        ("a", State::Exited, 1, 2),
        ("a", State::Exited, 1, 1),
        ("i", State::Exited, 0, 0),
    ];
    check(&pod, Some(true), &containers, &["rm a1"]);
}

#[test]
fn a_container_being_started_is_left_alone() {
    let pod = two_step("Always");
    let mut memory = Memory::default();
    memory.busy.insert("a".into());
    for state in [State::Created, State::Exited, State::Unknown] {
        let containers = vec![container(&pod, "a", state, 1, 0), container(&pod, "i", State::Exited, 0, 0)];
        let observed = Observed { sandboxes: vec![sandbox(true)], containers };
        assert_eq!(words(&pod_actions(&pod, &observed, &memory, Timestamp::UNIX_EPOCH)), [""; 0]);
    }
}

#[test]
fn a_resized_container_is_updated_or_restarted_as_its_policy_says() {
    let check = |policy: &str, error_until: Option<i64>, expect: &[&str]| {
        let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a",
            "resources": {"limits": {"cpu": "2"}},
            "resizePolicy": [{"resourceName": "cpu", "restartPolicy": policy}]}]}));
        let containers = vec![container(&pod, "a", State::Running, 0, 0)];
        let observed = Observed { sandboxes: vec![sandbox(true)], containers };
        let mut memory = Memory::default();
        let actuated = apimachinery::from_value(json!({"limits": {"cpu": "1"}})).expect("resources");
        memory.actuated.insert("a0".into(), actuated);
        memory.resize_error = error_until.map(|seconds| {
            let retry_at = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds);
            crate::pod::resize::ResizeError { message: "no".into(), retry_at }
        });
        assert_eq!(words(&pod_actions(&pod, &observed, &memory, Timestamp::UNIX_EPOCH)), expect);
    };
    check("NotRequired", None, &["resize a0"]);
    check("NotRequired", Some(1), &[]);
    check("NotRequired", Some(0), &["resize a0"]);
    check("RestartContainer", None, &["kill a0"]);
}

#[test]
fn an_init_container_is_resized_while_it_runs() {
    let pod = pod(json!({"restartPolicy": "Always", "containers": [{"name": "a"}],
        "initContainers": [{"name": "i", "resources": {"limits": {"cpu": "2"}}}]}));
    let observed = Observed {
        sandboxes: vec![sandbox(true)],
        containers: vec![container(&pod, "i", State::Running, 0, 0)],
    };
    let mut memory = Memory::default();
    let actuated = apimachinery::from_value(json!({"limits": {"cpu": "1"}})).expect("resources");
    memory.actuated.insert("i0".into(), actuated);
    let plan = pod_actions(&pod, &observed, &memory, Timestamp::UNIX_EPOCH);
    assert_eq!(words(&plan), ["resize i0"]);
    assert!(crate::pod::resize::in_progress(&pod, &observed, &memory).is_some());
}

#[test]
fn a_rule_may_demand_that_all_containers_start_anew() {
    let rules = json!([{"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}]);
    let mut pod = pod(json!({"restartPolicy": "Never", "initContainers": [{"name": "i"}],
        "containers": [{"name": "a", "restartPolicy": "Never", "restartPolicyRules": rules}, {"name": "b"}]}));
    let (init, cause) = (("i", State::Exited, 0, 0), ("a", State::Exited, 42, 0));
    check(&pod, Some(true), &[cause, ("b", State::Running, 0, 0), init], &["reset b0", "reset i0"]);
    check(&pod, Some(true), &[cause], &["reset a0"]);
    pod.status.init_container_statuses =
        apimachinery::from_value(json!([{"name": "i", "restartCount": 0, "containerID": "x://i0"}]))
            .expect("statuses");
    check(&pod, Some(true), &[], &["start i#1"]);
}

#[test]
fn a_pod_whose_own_limits_change_is_resized_with_those_that_live_within_them() {
    let pod = pod(
        json!({"restartPolicy": "Always", "resources": {"limits": {"cpu": "2"}}, "containers": [{"name": "a"}]}),
    );
    let observed = Observed {
        sandboxes: vec![sandbox(true)],
        containers: vec![container(&pod, "a", State::Running, 0, 0)],
    };
    let mut memory = Memory { resources: PodResources::of(&pod), ..Memory::default() };
    memory.actuated.insert("a0".into(), Default::default());
    memory.pod_actuated = Some(memory.resources.cgroup.clone());
    let plan = |memory: &Memory| words(&pod_actions(&pod, &observed, memory, Timestamp::UNIX_EPOCH));
    assert_eq!(plan(&memory), [""; 0]);
    memory.pod_actuated = Some(Default::default());
    assert_eq!(plan(&memory), ["resize a0"]);
}
