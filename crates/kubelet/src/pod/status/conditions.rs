//! The conditions of a pod (follows `status/generate.go`).

use api::view::core::{ContainerStatus, Pod, PodStatus};
use apimachinery::meta::{Condition, find_condition};
use jiff::Timestamp;

use crate::observe::Observed;
use crate::pod::memory::Memory;
use crate::pod::{is_sidecar, resize, restart_all};

/// The condition of a pod that is ended for another's sake.
const DISRUPTION_TARGET: &str = "DisruptionTarget";

pub fn conditions(
    pod: &Pod,
    observed: &Observed,
    memory: &Memory,
    status: &PodStatus,
    now: Timestamp,
) -> Vec<Condition> {
    let sandbox_ready = observed.ready_sandbox().is_some() && memory.failed.is_none();
    let initialized = initialized(pod, status);
    let containers_ready = containers_ready(pod, status);
    let ready = ready(pod, &containers_ready);
    let verdicts = [
        ("PodReadyToStartContainers", Verdict::plain(sandbox_ready)),
        ("Initialized", initialized),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        // It is here.
        ("PodScheduled", Verdict::plain(true)),
    ];
    let restarting =
        restart_all::could_be(pod).then(|| (restart_all::CONDITION, restarting_all(pod, observed, status)));
    let pending = memory.resize_pending.as_ref();
    let pending = pending.map(|p| (resize::PENDING, Verdict::yes(p.reason, p.message.clone())));
    let in_progress = resize::in_progress(pod, observed, memory);
    let in_progress = in_progress
        .map(|error| (resize::IN_PROGRESS, Verdict::yes(if error.is_empty() { "" } else { "Error" }, error)));
    let disruption = memory.failed.as_ref().and_then(|failure| failure.disruption.clone());
    let disruption =
        disruption.map(|message| (DISRUPTION_TARGET, Verdict::yes("TerminationByKubelet", message)));
    let all = verdicts.into_iter().chain(restarting).chain(pending).chain(in_progress).chain(disruption);
    all.map(|(kind, verdict)| verdict.condition(kind, pod, now)).collect()
}

fn restarting_all(pod: &Pod, observed: &Observed, status: &PodStatus) -> Verdict {
    match status.phase.as_str() {
        "Succeeded" => Verdict::no("PodCompleted", String::new()),
        "Failed" => Verdict::no("PodFailed", String::new()),
        _ if restart_all::is_due(pod, observed) => Verdict::yes(
            "RestartAllContainersStarted",
            "container exited with restart policy rule".to_owned(),
        ),
        _ => Verdict::plain(false),
    }
}

#[derive(Clone)]
struct Verdict {
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Verdict {
    fn plain(holds: bool) -> Self {
        Verdict { holds, reason: "", message: String::new() }
    }

    fn yes(reason: &'static str, message: String) -> Self {
        Verdict { holds: true, reason, message }
    }

    fn no(reason: &'static str, message: String) -> Self {
        Verdict { holds: false, reason, message }
    }

    /// The time of the last change survives as long as the verdict does.
    fn condition(self, kind: &str, pod: &Pod, now: Timestamp) -> Condition {
        let status = if self.holds { "True" } else { "False" };
        let before = find_condition(&pod.status.conditions, kind).filter(|c| c.status == status);
        Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            last_transition_time: before.and_then(|c| c.last_transition_time).or(Some(now)),
            reason: self.reason.to_owned(),
            message: self.message,
            observed_generation: (pod.metadata.generation > 0).then_some(pod.metadata.generation),
            ..Default::default()
        }
    }
}

fn names(statuses: &[&ContainerStatus]) -> String {
    statuses.iter().map(|s| s.name.as_str()).collect::<Vec<_>>().join(" ")
}

fn initialized(pod: &Pod, status: &PodStatus) -> Verdict {
    let incomplete: Vec<&ContainerStatus> = status
        .init_container_statuses
        .iter()
        .zip(&pod.spec.init_containers)
        .filter(|(s, spec)| if is_sidecar(spec) { s.started != Some(true) } else { !s.ready })
        .map(|(s, _)| s)
        .collect();
    let any_regular_ran = status.container_statuses.iter().any(|s| !s.container_id.is_empty());
    if incomplete.is_empty() || any_regular_ran {
        return Verdict::plain(true);
    }
    Verdict::no(
        "ContainersNotInitialized",
        format!("containers with incomplete status: [{}]", names(&incomplete)),
    )
}

fn containers_ready(pod: &Pod, status: &PodStatus) -> Verdict {
    match status.phase.as_str() {
        "Succeeded" => return Verdict::no("PodCompleted", String::new()),
        "Failed" => return Verdict::no("PodFailed", String::new()),
        _ => {}
    }
    let sidecars = status
        .init_container_statuses
        .iter()
        .zip(&pod.spec.init_containers)
        .filter(|(_, spec)| is_sidecar(spec));
    let unready: Vec<&ContainerStatus> =
        sidecars.map(|(s, _)| s).chain(&status.container_statuses).filter(|s| !s.ready).collect();
    if unready.is_empty() {
        return Verdict::plain(true);
    }
    Verdict::no("ContainersNotReady", format!("containers with unready status: [{}]", names(&unready)))
}

/// Containers ready, and every readiness gate open.
fn ready(pod: &Pod, containers_ready: &Verdict) -> Verdict {
    if !containers_ready.holds {
        return containers_ready.clone();
    }
    let closed: Vec<String> = pod
        .spec
        .readiness_gates
        .iter()
        .filter(|gate| !pod.condition(&gate.condition_type).is_some_and(|c| c.is_true()))
        .map(|gate| match pod.condition(&gate.condition_type) {
            Some(_) => format!(
                "the status of pod readiness gate {:?} is not \"True\", but False",
                gate.condition_type
            ),
            None => format!(
                "corresponding condition of pod readiness gate {:?} does not exist.",
                gate.condition_type
            ),
        })
        .collect();
    if closed.is_empty() {
        Verdict::plain(true)
    } else {
        Verdict::no("ReadinessGatesNotReady", closed.join(", "))
    }
}
