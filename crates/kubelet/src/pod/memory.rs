//! What a pod's worker remembers between decisions and the runtime cannot tell: failures, probe results, pauses.

use std::collections::{BTreeMap, BTreeSet};

use api::view::core::{Container as Spec, ContainerStatus, ResourceRequirements};
use jiff::Timestamp;
use runtime::cri::LinuxContainerResources;

use super::backoff::Backoff;
use super::resize::{Allocation, Pending, ResizeError};
use crate::cm::Pinned;
use crate::cm::resourcestatus::ResourceStatus;
use crate::observe::Container;
use crate::resources::PodResources;

/// Why a container is not running though it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// Why a pod is over though its containers have not ended by themselves; the texts of its status.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failure {
    pub reason: String,
    pub message: String,
    /// Seconds that the containers have to end, where those of the pod do not count.
    pub grace_seconds: Option<i64>,
    /// What is told of the node having ended the pod for its own sake, which the pod's owner need not count as a failure.
    pub disruption: Option<String>,
}

/// What probes found out about one container instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeState {
    /// The startup probe succeeded, or there is none.
    pub started: bool,
    /// The readiness probe's last verdict; meaningless until started.
    pub ready: bool,
}

impl ProbeState {
    /// Before the first verdict. What the API knows of this very container (`known`) holds until a probe says
    /// otherwise: a kubelet that starts again takes no container out of service (as upstream since 1.35).
    pub fn initial(spec: &Spec, id: &str, known: Option<&ContainerStatus>) -> Self {
        let is_this = |s: &&ContainerStatus| s.container_id.rsplit("://").next() == Some(id);
        let known = known.filter(is_this);
        ProbeState {
            started: spec.startup_probe.is_none() || known.is_some_and(|s| s.started == Some(true)),
            ready: spec.readiness_probe.is_none() || known.is_some_and(|s| s.ready),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// By container name; written when an attempt to start fails, removed when one succeeds.
    pub waiting: BTreeMap<String, Waiting>,
    /// By container id; written by the probers.
    pub probes: BTreeMap<String, ProbeState>,
    /// Ids of containers whose liveness or startup probe failed for good, with the reason for ending them.
    pub unhealthy: BTreeMap<String, String>,
    /// Names of containers whose start is under way; whatever they look like meanwhile is nobody else's business.
    pub busy: BTreeSet<String>,
    /// Ids of containers whose post-start hook has not returned yet: they do not count as started.
    pub starting: BTreeSet<String>,
    /// Ids of containers that this kubelet ended.
    pub killed: BTreeSet<String>,
    /// Crash pauses by container name.
    pub crashes: Backoff,
    /// Exits already counted in `crashes`, by container id.
    pub counted_exits: BTreeSet<String>,
    /// Exits after which a pause was told of, by container id.
    pub told_pauses: BTreeSet<String>,
    /// When an attempt that failed before a container existed may be repeated, by container name.
    pub retry_at: BTreeMap<String, Timestamp>,
    /// The sandbox could not be made: when to try again, and why.
    pub sandbox_retry: Option<(Timestamp, String)>,
    /// What the node has accepted of the pod's resources.
    pub allocated: Allocation,
    /// By container id: the resources in force; written when a container starts and when it was resized.
    pub actuated: BTreeMap<String, ResourceRequirements>,
    /// By container name: where it is to run, where that matters.
    pub cpus: BTreeMap<String, Pinned>,
    /// By container id: where it was last told to run.
    pub pinned: BTreeMap<String, Pinned>,
    /// By container name: its devices, and whether they are well.
    pub devices: BTreeMap<String, Vec<ResourceStatus>>,
    /// The spec asks for what the node has not accepted.
    pub resize_pending: Option<Pending>,
    /// What the pod asks for as a whole of what is accepted.
    pub resources: PodResources,
    /// The settings in force in the pod's cgroup; none until this kubelet has written them.
    pub pod_actuated: Option<LinuxContainerResources>,
    /// Why what was accepted could not be put in force.
    pub resize_error: Option<ResizeError>,
    /// Set once the pod was found to be over, with the reason and message of its status: never to start again.
    pub failed: Option<Failure>,
}

impl Memory {
    /// Counts each exit once; the first restart has no pause, nor has the one after a long good run.
    pub fn count_exit(&mut self, container: &Container, now: Timestamp) {
        if !self.counted_exits.insert(container.id.clone()) || container.attempt == 0 {
            return;
        }
        let ended_at = container.finished_at.unwrap_or(now);
        if self.crashes.is_expired(&container.name, ended_at) {
            self.crashes.forget(&container.name);
        } else {
            self.crashes.fail(&container.name, ended_at);
        }
    }

    /// What kept the pod from starting may have changed: no pause for what waits for the objects it refers to.
    pub fn try_again(&mut self) {
        const CURABLE: [&str; 2] = ["ContainerCreating", "CreateContainerConfigError"];
        let Memory { waiting, retry_at, .. } = self;
        retry_at.retain(|name, _| !waiting.get(name).is_some_and(|w| CURABLE.contains(&w.reason.as_str())));
        self.sandbox_retry = None;
    }

    /// Forgets what belongs to containers that are gone.
    pub fn retain(&mut self, containers: &[Container]) {
        let known: BTreeSet<&str> = containers.iter().map(|c| c.id.as_str()).collect();
        self.probes.retain(|id, _| known.contains(id.as_str()));
        self.unhealthy.retain(|id, _| known.contains(id.as_str()));
        self.actuated.retain(|id, _| known.contains(id.as_str()));
        self.pinned.retain(|id, _| known.contains(id.as_str()));
        self.starting.retain(|id| known.contains(id.as_str()));
        self.killed.retain(|id| known.contains(id.as_str()));
        self.counted_exits.retain(|id| known.contains(id.as_str()));
        self.told_pauses.retain(|id| known.contains(id.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use jiff::SignedDuration;

    use super::*;
    use crate::observe::State;
    use crate::pod::testing;

    #[test]
    fn probes_go_on_from_what_the_api_knows_of_the_same_container() {
        let spec: Spec =
            apimachinery::from_value(json!({"name": "a", "startupProbe": {}, "readinessProbe": {}}))
                .expect("a container");
        let known = ContainerStatus {
            container_id: "coxswain://1".into(),
            started: Some(true),
            ready: true,
            ..Default::default()
        };
        let passed = ProbeState { started: true, ready: true };
        assert_eq!(ProbeState::initial(&spec, "1", Some(&known)), passed);
        assert_eq!(ProbeState::initial(&spec, "2", Some(&known)), ProbeState::default());
        assert_eq!(ProbeState::initial(&spec, "1", None), ProbeState::default());
        assert_eq!(ProbeState::initial(&Spec::default(), "1", None), passed);
    }

    #[test]
    fn only_what_waits_for_objects_is_tried_again_when_one_changes() {
        let mut memory = Memory::default();
        for (name, reason) in [("a", "CreateContainerConfigError"), ("b", "ImagePullBackOff")] {
            memory.waiting.insert(name.into(), Waiting { reason: reason.into(), message: String::new() });
            memory.retry_at.insert(name.into(), Timestamp::MAX);
        }
        memory.sandbox_retry = Some((Timestamp::MAX, String::new()));
        memory.try_again();
        assert_eq!(memory.retry_at.keys().collect::<Vec<_>>(), ["b"]);
        assert!(memory.sandbox_retry.is_none());
    }

    #[test]
    fn a_long_good_run_makes_the_next_restart_immediate() {
        let exit = |attempt: u32, seconds: i64| Container {
            finished_at: Some(Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)),
            ..testing::container("a", State::Exited, 1, attempt)
        };
        let mut memory = Memory::default();
        let mut pause_after = |attempt, seconds| {
            let container = exit(attempt, seconds);
            let at = container.finished_at.expect("set above");
            memory.count_exit(&container, at);
            memory.crashes.until("a", at, at).map(|(_, delay)| delay.as_secs())
        };
        assert_eq!(pause_after(0, 0), None);
        assert_eq!(pause_after(1, 1), Some(10));
        assert_eq!(pause_after(2, 12), Some(20));
        assert_eq!(pause_after(3, 1000), None);
        assert_eq!(pause_after(4, 1001), Some(10));
    }
}
