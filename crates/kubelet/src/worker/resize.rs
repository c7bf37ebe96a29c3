//! Accepts changes of a running pod's resources, and puts them in force.

use std::sync::Arc;
use std::time::Instant;

use api::view::core::{Container, Pod, ResourceRequirements};
use apimachinery::{Value, json};
use client::event::EventType;
use jiff::{SignedDuration, Timestamp};
use runtime::cri::{self, LinuxContainerResources};

use super::{Outcome, PodEvents, Shared, Worker};
use crate::allocation::Requests;
use crate::cm::Pinned;
use crate::observe::Observed;
use crate::pod::actions::Resized;
use crate::pod::memory::Memory;
use crate::pod::resize::{self, Pending, ResizeError};
use crate::resources::{NO_QUOTA, PodResources, effective_limits, fit_quota, linux_resources, milli, whole};

/// Pause before a resize that failed or did not fit is looked at again: soon enough for room that another pod left,
/// without asking the runtime all the time.
pub const RETRY: SignedDuration = SignedDuration::from_secs(10);

impl Worker {
    /// The pod with the resources that the node has accepted, accepting what fits.
    pub(super) fn allocate(&mut self, pod: Arc<Pod>) -> Arc<Pod> {
        let uid = &pod.metadata.uid;
        if self.memory.allocated.containers.is_empty() {
            self.memory.allocated = resize::restored(&pod);
            let mut known = (*pod).clone();
            resize::allocate(&mut known, &self.memory.allocated);
            self.memory.resources = self.resources_of(&known);
            self.shared.allocations.record(uid, Requests::of(&known));
            self.share_tiers();
        }
        let wanted = resize::wanted(&pod);
        if wanted == self.memory.allocated {
            self.memory.resize_pending = None;
            return pod;
        }
        let accepted = match self.keeps_cpus(&pod) {
            Some(refused) => Err(refused),
            None => self.shared.allocations.resize(uid, Requests::of(&pod)),
        };
        match accepted {
            Ok(()) => {
                self.memory.allocated = wanted;
                self.memory.resize_pending = None;
                self.memory.resize_error = None;
                self.memory.resources = self.resources_of(&pod);
                self.resizing = true;
                self.share_tiers();
                self.stale = true;
                let message = format!("Pod resize started: {}", summary(&pod, ""));
                self.events().pod(EventType::Normal, "ResizeStarted", message);
                pod
            }
            Err(pending) => {
                if self.memory.resize_pending.as_ref() != Some(&pending) {
                    let event = format!("Resize{}", pending.reason);
                    let message =
                        format!("Pod resize {}: {}", pending.reason, summary(&pod, &pending.message));
                    self.events().pod(EventType::Warning, &event, message);
                }
                self.memory.resize_pending = Some(pending);
                let mut pod = (*pod).clone();
                resize::allocate(&mut pod, &self.memory.allocated);
                Arc::new(pod)
            }
        }
    }

    /// Why a pod cannot be resized of which containers have CPUs of their own: they keep these.
    fn keeps_cpus(&self, pod: &Pod) -> Option<Pending> {
        if !self.shared.containers.is_static() || pod.status.qos_class != "Guaranteed" {
            return None;
        }
        let known = &self.memory.allocated.containers;
        let changes = |spec: &Container| {
            let before = known.get(&spec.name).map(|resources| milli(&resources.requests, "cpu"));
            before != Some(milli(&spec.resources.requests, "cpu"))
        };
        let message = "Resize is infeasible for Guaranteed Pods alongside CPU Manager policy \"static\"";
        let refused = Pending { reason: "Infeasible", message: message.to_owned() };
        pod.spec.containers.iter().any(changes).then_some(refused)
    }

    fn resources_of(&self, pod: &Pod) -> PodResources {
        let mut resources = PodResources::of(pod);
        fit_quota(&mut resources.cgroup, &self.shared.config.kubelet);
        resources
    }

    /// Which CPUs and devices the containers have.
    pub(super) fn learn_given(&mut self, pod: &Pod, now: Timestamp) {
        let (uid, containers) = (&pod.metadata.uid, &self.shared.containers);
        for (spec, _) in crate::pod::all_containers(pod) {
            if let Some(pinned) = containers.pinned(uid, &spec.name) {
                self.memory.cpus.insert(spec.name.clone(), pinned);
            }
            let mut devices = containers.devices.health(uid, &spec.name);
            devices.extend(self.shared.dra.health(pod, spec, now));
            self.memory.devices.insert(spec.name.clone(), devices);
        }
        if containers.has_own_cpus(pod) {
            // A container with CPUs of its own needs none, and the pod's must not hold it back.
            self.memory.resources.cgroup.cpu_quota = NO_QUOTA;
        }
    }

    /// Tells once that what was accepted is in force.
    pub(super) fn tell_resized(&mut self, pod: &Pod, observed: &Observed) {
        if self.resizing && resize::in_progress(pod, observed, &self.memory).is_none() {
            self.resizing = false;
            let message = format!("Pod resize completed: {}", summary(pod, ""));
            self.events().pod(EventType::Normal, "ResizeCompleted", message);
        }
    }

    /// Brings the shares of the tiers up to date with what pods have.
    pub(super) fn share_tiers(&self) {
        if let Err(error) = self.shared.cgroups.share(self.shared.allocations.burstable_milli_cpu()) {
            tracing::warn!(%error, "shares of burstable pods could not be set");
        }
    }
}

/// The pod's resources as events tell them.
fn summary(pod: &Pod, error: &str) -> Value {
    let list = |specs: &[Container]| -> Vec<Value> {
        specs.iter().map(|c| json!({"name": c.name, "resources": resize::shown(&c.resources)})).collect()
    };
    let mut summary =
        json!({"containers": list(&pod.spec.containers), "generation": pod.metadata.generation});
    if !pod.spec.init_containers.is_empty() {
        summary["initContainers"] = json!(list(&pod.spec.init_containers));
    }
    if !error.is_empty() {
        summary["error"] = json!(error);
    }
    summary
}

/// A change of resources that are in force, of a pod and of containers that run.
pub struct Resize {
    /// Each with what is in force in it.
    containers: Vec<(String, Container, ResourceRequirements)>,
    /// Where each is to run, by id.
    pinned: Vec<(String, Pinned)>,
    /// What the pod's cgroup is set to, if that is known.
    pod_from: Option<LinuxContainerResources>,
    pod_to: LinuxContainerResources,
}

impl Resize {
    pub fn of(pod: &Pod, containers: &[Resized], memory: &Memory) -> Self {
        let found = containers.iter().filter_map(|resized| {
            let (spec, _) = crate::pod::all_containers(pod).find(|(c, _)| c.name == resized.name)?;
            Some((resized.id.clone(), spec.clone(), memory.actuated.get(&resized.id)?.clone()))
        });
        let pinned = |resized: &Resized| Some((resized.id.clone(), memory.cpus.get(&resized.name)?.clone()));
        Resize {
            containers: found.collect(),
            pinned: containers.iter().filter_map(pinned).collect(),
            pod_from: memory.pod_actuated.clone(),
            pod_to: memory.resources.cgroup.clone(),
        }
    }

    /// The pod's cgroup is wide enough for its containers all the time: it is widened before they are, and narrowed
    /// after them.
    pub async fn run(self, shared: Arc<Shared>, pod: Arc<Pod>) -> Outcome {
        let (mut actuated, began) = (Vec::new(), Instant::now());
        let changed = self.try_run(&shared, &pod, &mut actuated).await;
        // Of a pod that only gets its cgroup, nothing was resized.
        if !self.containers.is_empty() {
            shared.metrics.resized(changed.is_ok(), began);
        }
        match changed {
            Ok(()) => Outcome {
                actuated,
                pinned: self.pinned,
                pod_actuated: Some(self.pod_to),
                ..Default::default()
            },
            Err(message) => {
                let events = PodEvents { recorder: &shared.recorder, pod: &pod };
                let text = format!("Pod resize error: {}", summary(&pod, &message));
                events.pod(EventType::Warning, "ResizeError", text);
                let error = ResizeError { message, retry_at: Timestamp::now() + RETRY };
                Outcome { actuated, resize_error: Some(error), ..Default::default() }
            }
        }
    }

    async fn try_run(
        &self,
        shared: &Shared,
        pod: &Pod,
        actuated: &mut Vec<(String, ResourceRequirements)>,
    ) -> Result<(), String> {
        self.check_memory(shared, pod).await?;
        let set = |settings: &LinuxContainerResources| {
            shared.cgroups.set(pod, settings).map_err(|error| format!("pod cgroup: {error}"))
        };
        if let Some(from) = &self.pod_from {
            set(&widest(from, &self.pod_to))?;
        }
        for (id, spec, _) in &self.containers {
            let pinned = self.pinned.iter().find(|(of, _)| of == id).map(|(_, pinned)| pinned);
            let mut resources = linux_resources(pod, spec, pinned, &shared.machine);
            fit_quota(&mut resources, &shared.config.kubelet);
            let request = cri::UpdateContainerResourcesRequest {
                container_id: id.clone(),
                linux: Some(resources),
                ..Default::default()
            };
            let updated = shared.runtime.runtime.clone().update_container_resources(request).await;
            updated.map_err(|status| status.message().to_owned())?;
            actuated.push((id.clone(), spec.resources.clone()));
        }
        set(&self.pod_to)
    }

    /// Nothing is changed if something would be limited to less memory than it uses.
    async fn check_memory(&self, shared: &Shared, pod: &Pod) -> Result<(), String> {
        let mut errors = Vec::new();
        for (id, spec, actuated) in &self.containers {
            let (to, from) = (effective_limits(pod, spec), whole(&actuated.limits, "memory"));
            let limit = whole(&to, "memory");
            if limit == 0 || from != 0 && limit >= from {
                continue;
            }
            let usage = memory_usage(shared, id).await?;
            if usage >= u64::try_from(limit).unwrap_or(0) {
                errors.push(format!(
                    "attempting to set container {:?} memory limit ({limit}) below current usage ({usage})",
                    spec.name
                ));
            }
        }
        match errors.as_slice() {
            [] => Ok(()),
            [error] => Err(format!("cannot decrease memory limits: {error}")),
            errors => Err(format!("cannot decrease memory limits: [{}]", errors.join(", "))),
        }
    }
}

/// Settings within which both fit. Without a limit there is none.
fn widest(from: &LinuxContainerResources, to: &LinuxContainerResources) -> LinuxContainerResources {
    let limit = |from: i64, to: i64| if from == 0 || to == 0 { 0 } else { from.max(to) };
    LinuxContainerResources {
        cpu_shares: from.cpu_shares.max(to.cpu_shares),
        cpu_period: to.cpu_period,
        cpu_quota: limit(from.cpu_quota, to.cpu_quota),
        memory_limit_in_bytes: limit(from.memory_limit_in_bytes, to.memory_limit_in_bytes),
        ..Default::default()
    }
}

async fn memory_usage(shared: &Shared, id: &str) -> Result<u64, String> {
    let request = cri::ContainerStatsRequest { container_id: id.to_owned() };
    let answer = shared.runtime.runtime.clone().container_stats(request).await;
    let stats = answer.map_err(|status| status.message().to_owned())?.into_inner().stats;
    let usage = stats.and_then(|stats| stats.memory).and_then(|memory| memory.usage_bytes);
    usage.map(|usage| usage.value).ok_or_else(|| "missing container memory usage".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_containers_change_the_pod_has_room_for_both_sizes() {
        let settings = |cpu_shares, cpu_quota, memory_limit_in_bytes| LinuxContainerResources {
            cpu_shares,
            cpu_quota,
            memory_limit_in_bytes,
            ..Default::default()
        };
        let check = |from, to, expect| assert_eq!(widest(&from, &to), expect);
        check(settings(2, 100, 20), settings(4, 50, 10), settings(4, 100, 20));
        check(settings(2, 0, 20), settings(1, 50, 0), settings(2, 0, 0));
    }
}
