//! What to report of a pod (follows the kubelet's `generateAPIPodStatus`, `getPhase` and `status/generate.go`).

mod conditions;
mod over;

use std::net::IpAddr;

use api::view::core::{
    Container as Spec, ContainerState, ContainerStateRunning, ContainerStateTerminated,
    ContainerStateWaiting, ContainerStatus, Pod, PodIp, PodStatus, ResourceRequirements, VolumeMount,
};
use apimachinery::{Value, json};
use jiff::Timestamp;

use super::actions::should_restart;
use super::memory::{Failure, Memory};
use super::{full_name, is_sidecar};
use super::{resize, restart_all};
use crate::observe::{self, Container, Observed, State};

/// The exit code of a container whose end nobody saw: as if it had been killed.
const UNSEEN_EXIT_CODE: i32 = 137;

/// Facts about the node that a pod's status repeats.
pub struct NodeFacts<'a> {
    /// The node's addresses, at least one.
    pub host_ips: &'a [IpAddr],
    /// The runtime's own name, the scheme of container ids.
    pub runtime_name: &'a str,
}

/// Words the status. `ended` means that nothing of the pod will run again, so its phase is final.
pub fn pod_status(
    pod: &Pod,
    observed: &Observed,
    memory: &Memory,
    node: &NodeFacts<'_>,
    ended: bool,
    now: Timestamp,
) -> PodStatus {
    if never_accepted(pod, observed) {
        match &memory.failed {
            Some(failure) => return refused(pod, failure, now),
            None if pod.is_terminal() => return pod.status.clone(),
            None => {}
        }
    }
    let teller = Teller { node, pod, observed, memory, ended, now };
    let mut init = teller.statuses(&pod.spec.init_containers, true);
    let mut regular = teller.statuses(&pod.spec.containers, false);
    let mut ephemeral = teller.statuses(&pod.spec.ephemeral_containers, false);
    if ended {
        teller.close_all(&mut init, &mut regular, &mut ephemeral);
    }
    let (phase, failure) = match &memory.failed {
        Some(why) => ("Failed".to_owned(), Some(why)),
        None if pod.is_terminal() => (pod.status.phase.clone(), None),
        // What is removed to start anew has not failed.
        None if !ended && restart_all::is_due(pod, observed) => (phase_before(pod).to_owned(), None),
        None => (phase(pod, &init, &regular, ended).to_owned(), None),
    };
    let ips = pod_ips(pod, observed, node);
    let whole = &memory.resources;
    let mut status = PodStatus {
        observed_generation: (pod.metadata.generation > 0).then_some(pod.metadata.generation),
        message: failure.map_or_else(|| pod.status.message.clone(), |f| f.message.clone()),
        reason: failure.map_or_else(|| pod.status.reason.clone(), |f| f.reason.clone()),
        host_ip: node.host_ips.first().map(IpAddr::to_string).unwrap_or_default(),
        host_ips: node.host_ips.iter().map(|ip| PodIp { ip: ip.to_string() }).collect(),
        pod_ip: ips.first().cloned().unwrap_or_default(),
        pod_ips: ips.into_iter().map(|ip| PodIp { ip }).collect(),
        start_time: pod.status.start_time.or(Some(now)),
        qos_class: pod.status.qos_class.clone(),
        init_container_statuses: init,
        container_statuses: regular,
        ephemeral_container_statuses: ephemeral,
        allocated_resources: whole.requests.clone(),
        resources: Some(pod_resources(pod, memory, &phase)),
        phase,
        ..Default::default()
    };
    status.conditions = conditions::conditions(pod, observed, memory, &status, now);
    status
}

/// What the pod has as a whole: what was told before, while something else is being put in force. Of a pod that runs
/// only what its cgroup holds is told beside what it states itself.
fn pod_resources(pod: &Pod, memory: &Memory, phase: &str) -> Value {
    let whole = &memory.resources;
    let behind = memory.pod_actuated.as_ref().is_some_and(|actuated| *actuated != whole.cgroup);
    if let Some(told) = pod.status.resources.as_ref().filter(|_| behind) {
        return told.clone();
    }
    let (mut requests, mut limits) = (whole.requests.clone(), whole.limits.clone());
    if phase == "Running" {
        let own = pod.spec.resources.clone().unwrap_or_default();
        let in_cgroup = |name: &str| matches!(name, "cpu" | "memory");
        requests.retain(|name, _| in_cgroup(name) || own.requests.contains_key(name));
        limits.retain(|name, _| match name.as_str() {
            "cpu" => whole.cgroup.cpu_quota > 0,
            "memory" => whole.cgroup.memory_limit_in_bytes > 0,
            name => own.limits.contains_key(name),
        });
    }
    resize::shown(&ResourceRequirements { limits, requests, claims: Vec::new() })
}

/// Whether nothing of the pod was ever begun here.
fn never_accepted(pod: &Pod, observed: &Observed) -> bool {
    observed.sandboxes.is_empty()
        && observed.containers.is_empty()
        && pod.status.container_statuses.is_empty()
}

/// A pod that was refused has no containers to tell of (upstream: `rejectPod`).
fn refused(pod: &Pod, failure: &Failure, now: Timestamp) -> PodStatus {
    PodStatus {
        observed_generation: (pod.metadata.generation > 0).then_some(pod.metadata.generation),
        phase: "Failed".to_owned(),
        reason: failure.reason.clone(),
        message: failure.message.clone(),
        start_time: pod.status.start_time.or(Some(now)),
        qos_class: pod.status.qos_class.clone(),
        ..Default::default()
    }
}

/// A finished pod keeps the addresses it had.
fn pod_ips(pod: &Pod, observed: &Observed, node: &NodeFacts<'_>) -> Vec<String> {
    if pod.spec.host_network {
        return node.host_ips.iter().map(IpAddr::to_string).collect();
    }
    match observed.ready_sandbox() {
        Some(sandbox) => sandbox.ips.clone(),
        None => pod.status.pod_ips.iter().map(|ip| ip.ip.clone()).collect(),
    }
}

struct Teller<'a> {
    node: &'a NodeFacts<'a>,
    pod: &'a Pod,
    observed: &'a Observed,
    memory: &'a Memory,
    ended: bool,
    now: Timestamp,
}

impl Teller<'_> {
    fn statuses(&self, specs: &[Spec], init: bool) -> Vec<ContainerStatus> {
        specs.iter().map(|spec| self.status(spec, init)).collect()
    }

    fn status(&self, spec: &Spec, init: bool) -> ContainerStatus {
        let mut status = match self.observed.container(&spec.name) {
            Some(container) => self.of_container(spec, container, init),
            None => self.of_absent_container(spec),
        };
        status.allocated_resources = spec.resources.requests.clone();
        status.resources = Some(resize::shown(self.resources(spec)));
        status.allocated_resources_status =
            self.memory.devices.get(&spec.name).into_iter().flatten().map(|status| json!(status)).collect();
        status.volume_mounts = spec.volume_mounts.iter().map(volume_mount).collect();
        status
    }

    /// What is in force; equal amounts are shown as the spec writes them.
    fn resources<'s>(&'s self, spec: &'s Spec) -> &'s ResourceRequirements {
        let running = self.observed.container(&spec.name).filter(|c| c.state == State::Running);
        let actuated = running.and_then(|c| self.memory.actuated.get(&c.id));
        actuated.filter(|actuated| resize::change(spec, actuated).is_some()).unwrap_or(&spec.resources)
    }

    /// How a container ended stays known when its remains are gone, as after a reboot.
    fn of_absent_container(&self, spec: &Spec) -> ContainerStatus {
        let known = self.known(spec);
        if let Some(known) = known.filter(|k| !k.container_id.is_empty() && k.state.waiting.is_none())
            && restart_all::is_due(self.pod, self.observed)
        {
            return restarting(spec, known);
        }
        let ended = known.filter(|k| k.state.terminated.is_some());
        let starts_again = !self.ended && self.memory.waiting.contains_key(&spec.name);
        if let Some(ended) = ended.filter(|_| !starts_again) {
            return ended.clone();
        }
        ContainerStatus {
            name: spec.name.clone(),
            state: ContainerState { waiting: Some(self.waiting(spec)), ..Default::default() },
            last_state: known.map(last_state_of_lost).unwrap_or_default(),
            restart_count: known.map_or(0, |k| k.restart_count),
            image: spec.image.clone(),
            // The next start counts on from the container that has this one.
            container_id: known.map(|k| k.container_id.clone()).unwrap_or_default(),
            started: Some(false),
            ..Default::default()
        }
    }

    /// What the API already says of this container.
    fn known(&self, spec: &Spec) -> Option<&ContainerStatus> {
        super::container_status(self.pod, &spec.name)
    }

    fn waiting(&self, spec: &Spec) -> ContainerStateWaiting {
        if let Some(waiting) = self.memory.waiting.get(&spec.name) {
            return ContainerStateWaiting {
                reason: waiting.reason.clone(),
                message: waiting.message.clone(),
            };
        }
        let reason =
            if self.pod.spec.init_containers.is_empty() { "ContainerCreating" } else { "PodInitializing" };
        ContainerStateWaiting { reason: reason.to_owned(), message: String::new() }
    }

    fn of_container(&self, spec: &Spec, container: &Container, init: bool) -> ContainerStatus {
        let mut status = ContainerStatus {
            name: spec.name.clone(),
            restart_count: i32::try_from(container.attempt).unwrap_or(i32::MAX),
            image: spec.image.clone(),
            image_id: container.image_id.clone(),
            container_id: self.container_id(container),
            started: Some(false),
            user: container.user.as_ref().map(user),
            ..Default::default()
        };
        match (self.observed.previous(&spec.name), self.known(spec)) {
            (Some(previous), _) => status.last_state.terminated = Some(self.terminated(previous)),
            // The runtime has forgotten the one before.
            (None, Some(known)) if container.attempt > 0 => {
                let same = known.container_id == status.container_id;
                let ended = !same && known.state.terminated.is_some();
                status.last_state = if ended { known.state.clone() } else { known.last_state.clone() };
            }
            _ => {}
        }
        match container.state {
            State::Running => self.tell_running(spec, container, init, &mut status),
            State::Exited => self.tell_exited(spec, container, init, &mut status),
            State::Created | State::Unknown => status.state.waiting = Some(self.waiting(spec)),
        }
        status
    }

    /// Ids in the API say whose they are.
    fn container_id(&self, container: &Container) -> String {
        format!("{}://{}", self.node.runtime_name, container.id)
    }

    fn terminated(&self, container: &Container) -> ContainerStateTerminated {
        terminated(container, self.container_id(container))
    }

    fn tell_running(&self, spec: &Spec, container: &Container, init: bool, status: &mut ContainerStatus) {
        status.state.running = Some(ContainerStateRunning { started_at: container.started_at });
        let probes = self.memory.probes.get(&container.id).copied().unwrap_or_default();
        let started =
            !self.memory.starting.contains(&container.id) && (spec.startup_probe.is_none() || probes.started);
        status.started = Some(started);
        // A plain init container is ready when it has succeeded.
        let plain_init = init && !is_sidecar(spec);
        status.ready = !plain_init && started && (spec.readiness_probe.is_none() || probes.ready);
    }

    fn tell_exited(&self, spec: &Spec, container: &Container, init: bool, status: &mut ContainerStatus) {
        let end = self.terminated(container);
        let plain_init = init && !is_sidecar(spec);
        status.ready = plain_init && container.exit_code == 0;
        let again = !self.ended
            && if plain_init {
                container.exit_code != 0 && should_restart(self.pod, spec, container.exit_code)
            } else {
                should_restart(self.pod, spec, container.exit_code)
            };
        if let Some(waiting) = self.memory.waiting.get(&spec.name).filter(|_| again) {
            status.last_state.terminated = Some(end);
            let (reason, message) = (waiting.reason.clone(), waiting.message.clone());
            status.state.waiting = Some(ContainerStateWaiting { reason, message });
            return;
        }
        let since = container.finished_at.unwrap_or(self.now);
        match self.memory.crashes.until(&spec.name, since, self.now).filter(|_| again) {
            Some((_, delay)) => {
                status.last_state.terminated = Some(end);
                status.state.waiting = Some(ContainerStateWaiting {
                    reason: "CrashLoopBackOff".to_owned(),
                    message: format!(
                        "back-off {} restarting failed container={} pod={}",
                        go_duration(delay.as_secs()),
                        spec.name,
                        full_name(self.pod)
                    ),
                });
            }
            None => status.state.terminated = Some(end),
        }
    }
}

/// A container that was removed for all of the pod's to start anew.
fn restarting(spec: &Spec, known: &ContainerStatus) -> ContainerStatus {
    let waiting = ContainerStateWaiting {
        reason: restart_all::REASON.to_owned(),
        message: restart_all::MESSAGE.to_owned(),
    };
    let removed = ContainerStateTerminated {
        exit_code: UNSEEN_EXIT_CODE,
        reason: restart_all::REASON.to_owned(),
        message: restart_all::MESSAGE.to_owned(),
        ..Default::default()
    };
    ContainerStatus {
        name: spec.name.clone(),
        state: ContainerState { waiting: Some(waiting), ..Default::default() },
        last_state: ContainerState { terminated: Some(removed), ..Default::default() },
        restart_count: known.restart_count,
        image: spec.image.clone(),
        // The next start counts on from the container that has this one.
        container_id: known.container_id.clone(),
        started: Some(false),
        ..Default::default()
    }
}

fn user(user: &observe::User) -> Value {
    let mut linux = json!({"uid": user.uid, "gid": user.gid});
    if !user.supplemental_groups.is_empty() {
        linux["supplementalGroups"] = json!(user.supplemental_groups);
    }
    json!({"linux": linux})
}

/// What a mount turned out to be: the runtime makes all that is mounted below a read-only one read-only when asked.
fn volume_mount(mount: &VolumeMount) -> Value {
    let mut status = json!({"name": mount.name, "mountPath": mount.mount_path});
    if mount.read_only {
        let recursive = matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible"));
        status["readOnly"] = true.into();
        status["recursiveReadOnly"] = if recursive { "Enabled" } else { "Disabled" }.into();
    }
    status
}

/// What is told of a container of which the runtime knows nothing any more: how it ended, or that nobody saw its end.
fn last_state_of_lost(known: &ContainerStatus) -> ContainerState {
    if known.state.terminated.is_some() {
        return known.state.clone();
    }
    let Some(running) = &known.state.running else { return known.last_state.clone() };
    let unseen = ContainerStateTerminated {
        exit_code: UNSEEN_EXIT_CODE,
        reason: "ContainerStatusUnknown".to_owned(),
        message:
            "The container could not be located when the pod was deleted.  The container used to be Running"
                .to_owned(),
        started_at: running.started_at,
        container_id: known.container_id.clone(),
        ..Default::default()
    };
    ContainerState { terminated: Some(unseen), ..Default::default() }
}

fn terminated(container: &Container, container_id: String) -> ContainerStateTerminated {
    let reason = match (container.reason.as_str(), container.exit_code) {
        ("", 0) => "Completed",
        ("", _) => "Error",
        (reason, _) => reason,
    };
    ContainerStateTerminated {
        exit_code: container.exit_code,
        reason: reason.to_owned(),
        message: container.message.clone(),
        // One that ended before it started lasted no time.
        started_at: container.started_at.or(container.finished_at),
        finished_at: container.finished_at,
        container_id,
        ..Default::default()
    }
}

/// Whole seconds as Go prints a duration: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(seconds: i64) -> String {
    if seconds < 60 { format!("{seconds}s") } else { format!("{}m{}s", seconds / 60, seconds % 60) }
}

/// As it was told last; a pod that has not been told of yet waits.
fn phase_before(pod: &Pod) -> &str {
    if pod.status.phase.is_empty() { "Pending" } else { &pod.status.phase }
}

fn phase(pod: &Pod, init: &[ContainerStatus], regular: &[ContainerStatus], ended: bool) -> &'static str {
    let plain_init = init.iter().zip(&pod.spec.init_containers).filter(|(_, spec)| !is_sidecar(spec));
    let runs_again = |(status, spec): (&ContainerStatus, &Spec)| {
        status.state.terminated.as_ref().is_some_and(|t| should_restart(pod, spec, t.exit_code))
    };
    let ended_badly = |s: &ContainerStatus| s.state.terminated.as_ref().is_some_and(|t| t.exit_code != 0);
    let ended_well = |s: &ContainerStatus| s.state.terminated.as_ref().is_some_and(|t| t.exit_code == 0);
    let mut pending_init = false;
    for (status, spec) in plain_init {
        if ended_badly(status) && (!runs_again((status, spec)) || ended) {
            return "Failed";
        }
        pending_init |= !ended_well(status);
    }
    let running = regular.iter().filter(|s| s.state.running.is_some()).count();
    let succeeded = regular.iter().filter(|s| ended_well(s)).count();
    let stopped = regular
        .iter()
        .filter(|s| {
            s.state.terminated.is_some() || s.last_state.terminated.is_some() && s.state.running.is_none()
        })
        .count();
    // Also a pod that was deleted before anything of it ran: whoever counts pods waits for its phase.
    if ended && running == 0 {
        return if succeeded == regular.len() { "Succeeded" } else { "Failed" };
    }
    if pending_init && running == 0 && stopped == 0 {
        return "Pending";
    }
    if running + stopped < regular.len() {
        return if stopped > 0 || running > 0 && running + stopped == regular.len() {
            "Running"
        } else {
            "Pending"
        };
    }
    let waiting = regular.iter().any(|s| s.state.waiting.is_some());
    if running > 0 || waiting || regular.iter().zip(&pod.spec.containers).any(runs_again) {
        return "Running";
    }
    if succeeded == regular.len() { "Succeeded" } else { "Failed" }
}

#[cfg(test)]
mod tests;
