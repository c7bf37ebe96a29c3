//! Resources that change while a pod runs (follows `pkg/kubelet/allocation` and `computePodResizeAction`): what is
//! wanted stands in the spec, what is allocated was accepted by the node, what is actuated is in force.

use std::collections::BTreeMap;

use api::view::core::{Container, Pod, ResourceList, ResourceRequirements};
use apimachinery::{Value, json};
use jiff::Timestamp;

use super::container_status;
use super::memory::Memory;
use crate::observe::{Observed, State};
use crate::resources::{milli, whole};

pub const PENDING: &str = "PodResizePending";
pub const IN_PROGRESS: &str = "PodResizeInProgress";
/// The conditions that a pod has only while they are true.
pub const RESIZE_CONDITIONS: [&str; 2] = [PENDING, IN_PROGRESS];

/// What is accepted of a pod's resources.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Allocation {
    /// By container name.
    pub containers: BTreeMap<String, ResourceRequirements>,
    /// Those of the pod as a whole, where it states them.
    pub pod: Option<ResourceRequirements>,
}

/// A resize that the node has not accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// `Infeasible` or `Deferred`.
    pub reason: &'static str,
    pub message: String,
}

/// Why a container's resources could not be put in force, and when to try again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResizeError {
    pub message: String,
    pub retry_at: Timestamp,
}

/// What a change of resources asks of a running container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Update,
    Restart,
}

fn resizable(pod: &Pod) -> impl Iterator<Item = &Container> {
    pod.spec.init_containers.iter().chain(&pod.spec.containers)
}

/// What the spec asks for.
pub fn wanted(pod: &Pod) -> Allocation {
    let containers = resizable(pod).map(|spec| (spec.name.clone(), spec.resources.clone())).collect();
    Allocation { containers, pod: pod.spec.resources.clone() }
}

/// What a pod has that this kubelet has not seen yet: its status is the record of what was accepted.
pub fn restored(pod: &Pod) -> Allocation {
    let of = |spec: &Container| {
        let told = container_status(pod, &spec.name).filter(|status| !status.container_id.is_empty());
        told.and_then(|status| told_resources(status.resources.as_ref()))
            .unwrap_or_else(|| spec.resources.clone())
    };
    let containers = resizable(pod).map(|spec| (spec.name.clone(), of(spec))).collect();
    let started = !pod.status.container_statuses.is_empty();
    let told = pod.status.resources.as_ref().filter(|_| started);
    let of_pod = pod.spec.resources.as_ref().map(|wanted| {
        let told = told_resources(told).unwrap_or_else(|| wanted.clone());
        ResourceRequirements {
            limits: same_names(&told.limits, &wanted.limits),
            requests: same_names(&told.requests, &wanted.requests),
            claims: wanted.claims.clone(),
        }
    });
    Allocation { containers, pod: of_pod }
}

/// What is told of the pod as a whole holds more than the pod states.
fn same_names(told: &ResourceList, wanted: &ResourceList) -> ResourceList {
    let named = wanted.iter().map(|(name, amount)| (name.clone(), told.get(name).unwrap_or(amount).clone()));
    named.collect()
}

/// What was in force in this very container when its status was last told.
pub fn told_of_container(pod: &Pod, name: &str, id: &str) -> Option<ResourceRequirements> {
    let is_this = container_status(pod, name).filter(|s| s.container_id.rsplit("://").next() == Some(id));
    told_resources(is_this?.resources.as_ref())
}

fn told_resources(told: Option<&Value>) -> Option<ResourceRequirements> {
    apimachinery::from_value(told?.clone()).ok()
}

/// Puts what is allocated in the place of what is wanted.
pub fn allocate(pod: &mut Pod, allocated: &Allocation) {
    pod.spec.resources.clone_from(&allocated.pod);
    for spec in pod.spec.init_containers.iter_mut().chain(&mut pod.spec.containers) {
        if let Some(resources) = allocated.containers.get(&spec.name) {
            spec.resources = resources.clone();
        }
    }
}

/// What it takes to bring a container from what is in force to what its spec says; `None` when the amounts are equal.
pub fn change(spec: &Container, actuated: &ResourceRequirements) -> Option<Change> {
    type Amount = fn(&api::view::core::ResourceList, &str) -> i64;
    let resources: [(&str, Amount); 2] = [("cpu", milli), ("memory", whole)];
    let changed = |(name, amount): &(&str, Amount)| {
        amount(&spec.resources.requests, name) != amount(&actuated.requests, name)
            || amount(&spec.resources.limits, name) != amount(&actuated.limits, name)
    };
    let restarts = |name: &str| {
        let policy = spec.resize_policy.iter().find(|policy| policy.resource_name == name);
        policy.is_some_and(|policy| policy.restart_policy == "RestartContainer")
    };
    let mut changed = resources.into_iter().filter(changed).map(|(name, _)| restarts(name)).peekable();
    changed.peek()?;
    Some(if changed.any(|restart| restart) { Change::Restart } else { Change::Update })
}

/// Whether some running container has not got what is allocated to it, and what went wrong on the way.
pub fn in_progress(pod: &Pod, observed: &Observed, memory: &Memory) -> Option<String> {
    let behind = |spec: &&Container| {
        observed.container(&spec.name).is_some_and(|container| {
            container.state == State::Running
                && memory.actuated.get(&container.id).is_some_and(|actuated| change(spec, actuated).is_some())
        })
    };
    let mut behind = resizable(pod).filter(behind);
    if behind.next().is_none() && !pod_is_behind(memory) {
        return None;
    }
    Some(memory.resize_error.as_ref().map(|error| error.message.clone()).unwrap_or_default())
}

/// Whether the pod's cgroup is set to something else than what is accepted. What a kubelet before this one wrote is not
/// known, and taken for right.
fn pod_is_behind(memory: &Memory) -> bool {
    memory.pod_actuated.as_ref().is_some_and(|actuated| *actuated != memory.resources.cgroup)
}

/// Resources as the API shows them, without the lists that are empty.
pub fn shown(resources: &ResourceRequirements) -> Value {
    let lists = [("limits", &resources.limits), ("requests", &resources.requests)];
    lists
        .into_iter()
        .filter(|(_, list)| !list.is_empty())
        .map(|(key, list)| (key.to_owned(), json!(list)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::testing;

    fn pod(cpu: &str) -> Pod {
        apimachinery::from_value(json!({"spec": {"containers": [{"name": "a",
            "resources": {"requests": {"cpu": cpu, "memory": "1Gi"}},
            "resizePolicy": [{"resourceName": "memory", "restartPolicy": "RestartContainer"}]}]},
            "status": {"containerStatuses": [{"name": "a", "containerID": "r://a0",
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}]}}))
        .expect("a pod")
    }

    #[test]
    fn the_policy_of_the_resource_that_changed_decides_and_equal_amounts_change_nothing() {
        let check = |cpu: &str, memory: &str, expect| {
            let actuated = apimachinery::from_value(json!({"requests": {"cpu": cpu, "memory": memory}}));
            let actuated = actuated.expect("resources");
            assert_eq!(change(&pod("1").spec.containers[0], &actuated), expect);
        };
        check("1000m", "1024Mi", None);
        check("2", "1Gi", Some(Change::Update));
        check("1", "2Gi", Some(Change::Restart));
        check("2", "2Gi", Some(Change::Restart));
    }

    #[test]
    fn a_kubelet_that_starts_again_goes_on_from_what_the_status_says() {
        let mut pod = pod("2");
        let restored = restored(&pod);
        assert_ne!(restored, wanted(&pod));
        allocate(&mut pod, &restored);
        assert_eq!(pod.spec.containers[0].resources.requests["cpu"], "1");
        assert_eq!(told_of_container(&pod, "a", "a0"), Some(restored.containers["a"].clone()));
        assert_eq!(told_of_container(&pod, "a", "a1"), None);
    }

    #[test]
    fn a_resize_is_in_progress_until_the_running_container_has_what_is_allocated() {
        let observed = Observed {
            containers: vec![testing::container("a", State::Running, 0, 0)],
            ..Default::default()
        };
        let mut memory = Memory::default();
        memory.actuated.insert("a0".into(), pod("1").spec.containers[0].resources.clone());
        assert_eq!(in_progress(&pod("1"), &observed, &memory), None);
        assert_eq!(in_progress(&pod("2"), &observed, &memory), Some(String::new()));
        memory.resize_error = Some(ResizeError { message: "no".into(), retry_at: Timestamp::MAX });
        assert_eq!(in_progress(&pod("2"), &observed, &memory), Some("no".into()));
    }

    #[test]
    fn empty_lists_are_not_shown() {
        assert_eq!(shown(&ResourceRequirements::default()), json!({}));
    }
}
