//! What a pod's worker remembers between decisions and the runtime cannot tell: failures, probe results, pauses.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::backoff::Backoff;
use crate::observe::Container;

/// Why a container is not running though it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub reason: String,
    pub message: String,
}

/// What probes found out about one container instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProbeState {
    /// The startup probe succeeded, or there is none.
    pub started: bool,
    /// The readiness probe's last verdict; meaningless until started.
    pub ready: bool,
}

#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// By container name; written when an attempt to start fails, removed when one succeeds.
    pub waiting: BTreeMap<String, Waiting>,
    /// By container id; written by the probers.
    pub probes: BTreeMap<String, ProbeState>,
    /// Ids of containers whose liveness or startup probe failed for good, with the message to log.
    pub unhealthy: BTreeMap<String, String>,
    /// Names of containers whose start is under way; whatever they look like meanwhile is nobody else's business.
    pub busy: BTreeSet<String>,
    /// Ids of containers whose post-start hook has not returned yet: they do not count as started.
    pub starting: BTreeSet<String>,
    /// Crash pauses by container name.
    pub crashes: Backoff,
    /// Exits already counted in `crashes`, by container id.
    pub counted_exits: BTreeSet<String>,
    /// When an attempt that failed before a container existed may be repeated, by container name.
    pub retry_at: BTreeMap<String, Timestamp>,
    /// The sandbox could not be made: when to try again, and why.
    pub sandbox_retry: Option<(Timestamp, String)>,
    /// Set once the pod was found to be over, with the reason and message of its status: never to start again.
    pub failed: Option<Waiting>,
}

impl Memory {
    /// Counts each exit once; the first restart has no pause.
    pub fn count_exit(&mut self, container: &Container, now: Timestamp) {
        if self.counted_exits.insert(container.id.clone()) && container.attempt > 0 {
            self.crashes.fail(&container.name, container.finished_at.unwrap_or(now));
        }
    }

    /// Forgets what belongs to containers that are gone.
    pub fn retain(&mut self, containers: &[Container]) {
        let known: BTreeSet<&str> = containers.iter().map(|c| c.id.as_str()).collect();
        self.probes.retain(|id, _| known.contains(id.as_str()));
        self.unhealthy.retain(|id, _| known.contains(id.as_str()));
        self.starting.retain(|id| known.contains(id.as_str()));
        self.counted_exits.retain(|id| known.contains(id.as_str()));
    }
}
