//! What to do next for a pod (follows `computePodActions` of the kubelet's generic runtime manager).

use api::view::core::{Container as Spec, ContainerRestartRule, Pod};
use jiff::{SignedDuration, Timestamp};

use super::memory::Memory;
use super::resize::{Change, change};
use super::termination::end_all;
use super::{grace_period_seconds, is_sidecar, restart_all};
use crate::observe::{Container, Observed, State};
use crate::resources::PodResources;

/// Which list of the spec a container stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerType {
    Init,
    Regular,
    Ephemeral,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    CreateSandbox {
        attempt: u32,
    },
    Start {
        name: String,
        kind: ContainerType,
        attempt: u32,
    },
    /// Ends one container: pre-stop hook, signal, kill after the grace period.
    Kill {
        id: String,
        name: String,
        grace_seconds: i64,
        reason: String,
        /// Containers (by id) that are to be gone before this one gets its signal.
        after: Vec<String>,
    },
    /// Puts the allocated resources in force, in the pod's cgroup and in these running containers.
    Resize {
        containers: Vec<Resized>,
    },
    /// Ends and removes what is left of sandboxes that are no use any more.
    StopSandbox {
        id: String,
    },
    RemoveContainer {
        id: String,
    },
    /// Ends a container at once and removes it, but not its log.
    ResetContainer {
        id: String,
    },
    RemoveSandbox {
        id: String,
    },
}

/// A running container that gets other resources.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resized {
    pub id: String,
    pub name: String,
}

/// What the worker does now, and when it must look again though nothing happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub actions: Vec<Action>,
    pub wake_at: Option<Timestamp>,
    /// Containers that wait to run again since they have failed before, by name, each with the id of the one that ended.
    pub pausing: Vec<(String, String)>,
    /// Nothing runs and nothing will: the pod's remains can be removed.
    pub finished: bool,
}

impl Plan {
    pub fn wake(&mut self, at: Timestamp) {
        self.wake_at = Some(self.wake_at.map_or(at, |known| known.min(at)));
    }
}

/// Dead containers of one name that are kept, so that `logs --previous` works.
const DEAD_CONTAINERS_KEPT: usize = 1;

/// Decides from the pod as wanted, the runtime as seen, and what the worker remembers.
pub fn pod_actions(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if pod.metadata.is_being_deleted() || pod.is_terminal() || memory.failed.is_some() {
        let own = memory.failed.as_ref().and_then(|failure| failure.grace_seconds);
        terminate(pod, observed, own, &mut plan);
        return plan;
    }
    if let Some(deadline) = active_deadline(pod) {
        plan.wake(deadline);
    }
    for sandbox in observed.sandboxes.iter().skip(1) {
        plan.actions.push(Action::RemoveSandbox { id: sandbox.id.clone() });
    }
    match observed.ready_sandbox() {
        Some(sandbox) => run_in_sandbox(pod, observed, &sandbox.id, memory, now, &mut plan),
        None => replace_sandbox(pod, observed, memory, now, &mut plan),
    }
    plan
}

/// When `activeDeadlineSeconds` is over.
pub fn active_deadline(pod: &Pod) -> Option<Timestamp> {
    let seconds = pod.spec.active_deadline_seconds?;
    Some(pod.status.start_time? + SignedDuration::from_secs(seconds))
}

/// Everything ends, the sandboxes last. Who ends the pod may give it less time.
fn terminate(pod: &Pod, observed: &Observed, own_grace_seconds: Option<i64>, plan: &mut Plan) {
    let grace_seconds = grace_period_seconds(pod);
    let grace_seconds = own_grace_seconds.map_or(grace_seconds, |own| own.min(grace_seconds));
    plan.actions.extend(end_all(pod, observed, grace_seconds));
    if plan.actions.is_empty() {
        let ready = observed.sandboxes.iter().filter(|s| s.ready);
        plan.actions.extend(ready.map(|s| Action::StopSandbox { id: s.id.clone() }));
        plan.finished = plan.actions.is_empty();
    }
}

/// There is no usable sandbox: make one, unless nothing is left to run.
fn replace_sandbox(pod: &Pod, observed: &Observed, memory: &Memory, now: Timestamp, plan: &mut Plan) {
    if nothing_left_to_run(pod, observed) {
        plan.finished = observed.running().next().is_none();
        return;
    }
    for container in observed.running() {
        plan.actions.push(kill(
            pod,
            container,
            None,
            "Pod sandbox changed, it will be killed and re-created.".to_owned(),
        ));
    }
    if let Some((at, _)) = &memory.sandbox_retry
        && *at > now
    {
        plan.wake(*at);
        return;
    }
    let attempt = observed.sandboxes.first().map_or(0, |s| s.attempt + 1);
    plan.actions.push(Action::CreateSandbox { attempt });
}

/// Whether every container is done for good; then a lost sandbox is not replaced.
fn nothing_left_to_run(pod: &Pod, observed: &Observed) -> bool {
    if observed.containers.is_empty() {
        return false;
    }
    if init_failed_for_good(pod, observed) {
        return true;
    }
    pod.spec.containers.iter().all(|spec| {
        observed
            .container(&spec.name)
            .is_some_and(|c| c.state == State::Exited && !should_restart(pod, spec, c.exit_code))
    })
}

fn init_failed_for_good(pod: &Pod, observed: &Observed) -> bool {
    pod.spec.init_containers.iter().filter(|spec| !is_sidecar(spec)).any(|spec| {
        observed.container(&spec.name).is_some_and(|c| {
            c.state == State::Exited && c.exit_code != 0 && !should_restart(pod, spec, c.exit_code)
        })
    })
}

fn run_in_sandbox(
    pod: &Pod,
    observed: &Observed,
    sandbox: &str,
    memory: &Memory,
    now: Timestamp,
    plan: &mut Plan,
) {
    if restart_all::is_due(pod, observed) {
        let removed = restart_all::to_remove(pod, observed);
        plan.actions.extend(removed.iter().map(|c| Action::ResetContainer { id: c.id.clone() }));
        return;
    }
    remove_old_attempts(pod, observed, plan);
    if nothing_left_to_run(pod, observed) {
        plan.actions.extend(end_all(pod, observed, grace_period_seconds(pod)));
        if plan.actions.iter().all(|a| matches!(a, Action::RemoveContainer { .. })) {
            plan.actions.push(Action::StopSandbox { id: sandbox.to_owned() });
        }
        return;
    }
    let mut step = Step { pod, observed, sandbox, memory, now, plan, resized: Vec::new() };
    for spec in &pod.spec.ephemeral_containers {
        if observed.container(&spec.name).is_none() {
            step.start(spec, ContainerType::Ephemeral);
        }
    }
    if step.initialise() {
        for spec in &pod.spec.containers {
            step.keep_running(spec, ContainerType::Regular);
        }
    }
    step.resize_pod();
}

fn remove_old_attempts(pod: &Pod, observed: &Observed, plan: &mut Plan) {
    for (spec, _) in super::all_containers(pod) {
        let dead = observed.containers.iter().filter(|c| c.name == spec.name && c.state == State::Exited);
        let newest_is_dead = observed.container(&spec.name).is_some_and(|c| c.state == State::Exited);
        let kept = DEAD_CONTAINERS_KEPT + usize::from(newest_is_dead);
        plan.actions.extend(dead.skip(kept).map(|c| Action::RemoveContainer { id: c.id.clone() }));
    }
}

struct Step<'a> {
    pod: &'a Pod,
    observed: &'a Observed,
    sandbox: &'a str,
    memory: &'a Memory,
    now: Timestamp,
    plan: &'a mut Plan,
    /// Running containers that get other resources without a restart.
    resized: Vec<Resized>,
}

impl Step<'_> {
    /// Runs the init containers in order; true when the regular ones may run.
    fn initialise(&mut self) -> bool {
        let any_regular = self.pod.spec.containers.iter().any(|spec| self.in_sandbox(&spec.name).is_some());
        for spec in &self.pod.spec.init_containers {
            if is_sidecar(spec) {
                self.keep_running(spec, ContainerType::Init);
                if !any_regular && !self.has_started(spec) {
                    return false;
                }
            } else if !any_regular && !self.complete(spec) {
                return false;
            }
        }
        true
    }

    /// Whether a plain init container has succeeded; if not, brings it on.
    fn complete(&mut self, spec: &Spec) -> bool {
        if self.memory.busy.contains(&spec.name) {
            return false;
        }
        match self.in_sandbox(&spec.name) {
            Some(c) if c.state == State::Exited && c.exit_code == 0 => return true,
            Some(c) if c.state == State::Exited && !should_restart(self.pod, spec, c.exit_code) => {}
            Some(c) if c.state == State::Exited => self.restart(spec, ContainerType::Init, &c.clone()),
            Some(c) if c.state == State::Running => self.resize(spec, &c.clone()),
            _ => self.start(spec, ContainerType::Init),
        }
        false
    }

    fn has_started(&self, spec: &Spec) -> bool {
        self.in_sandbox(&spec.name).is_some_and(|c| {
            c.state == State::Running
                && !self.memory.starting.contains(&c.id)
                && (spec.startup_probe.is_none() || self.memory.probes.get(&c.id).is_some_and(|p| p.started))
        })
    }

    fn keep_running(&mut self, spec: &Spec, kind: ContainerType) {
        let Some(container) = self.in_sandbox(&spec.name).cloned() else {
            return self.start(spec, kind);
        };
        if self.memory.busy.contains(&spec.name) {
            return;
        }
        match container.state {
            State::Running => {
                if let Some(why) = self.memory.unhealthy.get(&container.id) {
                    let probe = if self.memory.probes.get(&container.id).is_some_and(|p| p.started) {
                        &spec.liveness_probe
                    } else {
                        &spec.startup_probe
                    };
                    let own = probe.as_ref().and_then(|p| p.termination_grace_period_seconds);
                    self.plan.actions.push(kill(self.pod, &container, own, why.clone()));
                } else if container.hash != super::container::hash(spec) {
                    let message = format!("Container {} definition changed, will be restarted", spec.name);
                    self.plan.actions.push(kill(self.pod, &container, None, message));
                } else {
                    self.resize(spec, &container);
                }
            }
            State::Exited
                if kind == ContainerType::Init || should_restart(self.pod, spec, container.exit_code) =>
            {
                self.restart(spec, kind, &container);
            }
            State::Exited => {}
            State::Created | State::Unknown => {
                self.plan.actions.push(Action::RemoveContainer { id: container.id.clone() });
                self.start(spec, kind);
            }
        }
    }

    fn resize(&mut self, spec: &Spec, container: &Container) {
        let actuated = self.memory.actuated.get(&container.id);
        let change = actuated.and_then(|actuated| change(spec, actuated));
        let wanted = self.memory.cpus.get(&spec.name);
        let moves = wanted.is_some() && self.memory.pinned.get(&container.id) != wanted;
        match change.or(moves.then_some(Change::Update)) {
            None => {}
            Some(Change::Restart) => {
                let message = format!("Container {} resize requires restart", spec.name);
                self.plan.actions.push(kill(self.pod, container, None, message));
            }
            Some(Change::Update) => {
                self.resized.push(Resized { id: container.id.clone(), name: spec.name.clone() });
            }
        }
    }

    /// Containers without limits of their own live within those of the pod, and change with them.
    fn resize_pod(&mut self) {
        let Memory { pod_actuated, resources, .. } = self.memory;
        let unknown = *resources != PodResources::default();
        let pod_changed = pod_actuated.as_ref().map_or(unknown, |actuated| *actuated != resources.cgroup);
        if pod_changed && self.pod.spec.resources.is_some() {
            let running = self.observed.running().filter(|c| c.sandbox_id == self.sandbox);
            let missing = running.filter(|c| !self.resized.iter().any(|known| known.id == c.id));
            let missing = missing.map(|c| Resized { id: c.id.clone(), name: c.name.clone() });
            self.resized.extend(missing.collect::<Vec<_>>());
        }
        if self.resized.is_empty() && !pod_changed {
            return;
        }
        match &self.memory.resize_error {
            Some(error) if error.retry_at > self.now => self.plan.wake(error.retry_at),
            _ => self.plan.actions.push(Action::Resize { containers: std::mem::take(&mut self.resized) }),
        }
    }

    fn in_sandbox(&self, name: &str) -> Option<&Container> {
        self.observed.container(name).filter(|c| c.sandbox_id == self.sandbox)
    }

    fn restart(&mut self, spec: &Spec, kind: ContainerType, last: &Container) {
        let since = last.finished_at.unwrap_or(self.now);
        match self.memory.crashes.until(&spec.name, since, self.now) {
            Some((at, _)) => {
                self.plan.wake(at);
                self.plan.pausing.push((spec.name.clone(), last.id.clone()));
            }
            None => self.start(spec, kind),
        }
    }

    fn start(&mut self, spec: &Spec, kind: ContainerType) {
        if let Some(at) = self.memory.retry_at.get(&spec.name)
            && *at > self.now
        {
            return self.plan.wake(*at);
        }
        let attempt = self.observed.container(&spec.name).map_or(0, |c| c.attempt + 1);
        let attempt = attempt.max(super::attempts_told(self.pod, &spec.name));
        self.plan.actions.push(Action::Start { name: spec.name.clone(), kind, attempt });
    }
}

/// Whether a container that ended with this code is to run again: the container's first matching rule decides, else its
/// own policy, else the pod's (upstream: `ContainerShouldRestart`).
pub fn should_restart(pod: &Pod, spec: &Spec, exit_code: i32) -> bool {
    let policy = spec.restart_policy.as_deref();
    if policy.is_some() && matching_rule(spec, exit_code).is_some_and(|rule| RESTARTS.contains(&rule)) {
        return true;
    }
    match policy.unwrap_or(&pod.spec.restart_policy) {
        "Never" => false,
        "OnFailure" => exit_code != 0,
        _ => true,
    }
}

/// The actions of rules after which the container runs again.
const RESTARTS: [&str; 2] = ["Restart", "RestartAllContainers"];

/// The action of the first rule that this exit code meets.
pub fn matching_rule(spec: &Spec, exit_code: i32) -> Option<&str> {
    let meets = |rule: &&ContainerRestartRule| {
        rule.exit_codes.as_ref().is_some_and(|codes| match codes.operator.as_str() {
            "In" => codes.values.contains(&exit_code),
            "NotIn" => !codes.values.contains(&exit_code),
            _ => false,
        })
    };
    spec.restart_policy_rules.iter().find(meets).map(|rule| rule.action.as_str())
}

/// The probe that failed may bring a grace period of its own.
fn kill(pod: &Pod, container: &Container, own_grace_seconds: Option<i64>, reason: String) -> Action {
    Action::Kill {
        id: container.id.clone(),
        name: container.name.clone(),
        grace_seconds: own_grace_seconds.unwrap_or_else(|| grace_period_seconds(pod)),
        reason,
        after: Vec::new(),
    }
}

#[cfg(test)]
mod tests;
