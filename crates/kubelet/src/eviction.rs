//! Keeps the node from running out of memory, disk or processes: tells of pressure, frees what nobody uses, and ends
//! pods when that is not enough (follows the kubelet's `eviction` package).

mod decide;
mod limits;
mod notifier;
mod rank;
mod signals;
mod threshold;
pub mod usage;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::view::core::Pod;
use client::event::EventType;
use jiff::Timestamp;

pub use rank::is_critical;
pub use signals::{disk, processes};
pub use threshold::{Condition, Error, Signal, Threshold, Thresholds, hard_by_default, hard_for_guest};

use crate::active::Active;
use crate::containergc;
use crate::imagegc::ImageGc;
use crate::node;
use crate::pod::memory::Failure;
use crate::worker::{PodEvents, Shared};
use decide::{Observations, State, is_relieved};
use notifier::Notifier;
use rank::Usage;
use signals::Places;

/// The reason of a pod that was evicted, and of the event.
const REASON: &str = "Evicted";
/// Upstream's `monitoringInterval`.
const LOOK_PERIOD: Duration = Duration::from_secs(10);
/// However often the kernel tells of memory.
const LOOK_PERIOD_MIN: Duration = Duration::from_secs(1);
/// Walks through pods' files take at most this share of the time.
const WALK_SHARE: u32 = 10;
/// How long an evicted pod's end is waited for before the node is looked at again (upstream's `podCleanupTimeout`).
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// What the node is short of; told by the node's conditions, and no pod is let in against it.
pub type Pressure = BTreeSet<Condition>;

fn notifiers(cgroup_root: &str) -> Vec<(Signal, Notifier)> {
    let rows = [(Signal::MemoryAvailable, ""), (Signal::AllocatableMemoryAvailable, cgroup_root)];
    let mut found = Vec::new();
    for (signal, cgroup) in rows {
        match Notifier::of(cgroup) {
            Ok(notifier) => found.push((signal, notifier)),
            Err(error) => {
                tracing::info!(cgroup, %error, "the kernel does not tell of memory; it is looked at")
            }
        }
    }
    found
}

/// Which of them has told first.
async fn heard(notifiers: &[(Signal, Notifier)]) -> std::io::Result<Signal> {
    if notifiers.is_empty() {
        return std::future::pending().await;
    }
    let each = notifiers
        .iter()
        .map(|(signal, notifier)| Box::pin(async { notifier.heard().await.map(|()| *signal) }));
    futures_util::future::select_all(each).await.0
}

pub struct Manager {
    shared: Arc<Shared>,
    image_gc: Arc<ImageGc>,
    thresholds: Vec<Threshold>,
    places: Places,
    state: State,
    began_at: Instant,
    /// Pods' files are not walked through again before.
    walk_at: Instant,
    /// What tells of the machine's memory and of the pods' between looks.
    notifiers: Vec<(Signal, Notifier)>,
}

impl Manager {
    pub fn new(shared: Arc<Shared>, image_gc: Arc<ImageGc>, thresholds: Vec<Threshold>) -> Self {
        let places = Places {
            node_fs: shared.config.root_dir.clone(),
            cgroup_root: shared.config.kubelet.cgroup_root.clone(),
            allocatable_memory_bytes: shared.allocatable.memory_bytes,
            image_fs: None,
            container_fs: None,
        };
        let (state, now) = (State::default(), Instant::now());
        let notifiers = if shared.config.kubelet.kernel_memcg_notification {
            notifiers(&shared.config.kubelet.cgroup_root)
        } else {
            Vec::new()
        };
        Manager { shared, image_gc, thresholds, places, state, began_at: now, walk_at: now, notifiers }
    }

    pub async fn run(mut self) {
        self.places.ask(&self.shared.runtime).await;
        loop {
            let evicted = self.look(Timestamp::now()).await;
            if evicted.is_empty() {
                self.wait().await;
            }
            for active in evicted {
                if tokio::time::timeout(END_TIMEOUT, active.ended()).await.is_err() {
                    tracing::warn!(pod = %active.pod.metadata.namespaced_name(), "evicted pod has not ended yet");
                }
            }
        }
    }

    /// Until the next look, or until the kernel tells that memory gets short, but not at once again.
    async fn wait(&mut self) {
        let began = tokio::time::Instant::now();
        tokio::select! {
            () = tokio::time::sleep(LOOK_PERIOD) => {}
            heard = heard(&self.notifiers) => match heard {
                Ok(signal) => {
                    tracing::debug!(signal = signal.name(), "the kernel tells of memory");
                    tokio::time::sleep_until(began + LOOK_PERIOD_MIN).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the kernel tells of memory no more; it is looked at instead");
                    self.notifiers.clear();
                    tokio::time::sleep(LOOK_PERIOD).await;
                }
            },
        }
    }

    fn arm(&mut self, observations: &Observations) {
        for (signal, notifier) in &mut self.notifiers {
            let headroom = notifier::headroom(&self.thresholds, observations, *signal);
            if let Err(error) = notifier.arm(headroom) {
                tracing::debug!(signal = signal.name(), %error, "the kernel will not tell of memory this time");
            }
        }
    }

    /// Measures, decides and acts; which pods are to end now.
    async fn look(&mut self, now: Timestamp) -> Vec<Active> {
        let read_at = Instant::now();
        let observations = self.places.observe();
        self.arm(&observations);
        let transition = self.shared.config.kubelet.eviction_pressure_transition_period.to_std();
        let verdict = self.state.observe(&self.thresholds, &observations, transition, now);
        self.shared.pressure.send_if_modified(|known| {
            let changed = *known != verdict.conditions;
            *known = verdict.conditions;
            changed
        });
        let over_limit = self.evict_over_limit().await;
        if !over_limit.is_empty() {
            return over_limit;
        }
        // Which pods there are, and so which images they use, is known a moment after the start.
        let settled = self.began_at.elapsed() >= LOOK_PERIOD;
        match verdict.relieve.first().copied().filter(|_| settled) {
            Some(threshold) => {
                let evicted = self.relieve(threshold, &verdict.relieve, &observations).await;
                if !evicted.is_empty() {
                    self.shared.metrics.evicted_for_stats(threshold.signal.name(), read_at);
                }
                evicted
            }
            None => Vec::new(),
        }
    }

    async fn evict_over_limit(&mut self) -> Vec<Active> {
        let limited: Vec<Active> =
            self.shared.active.list().into_iter().filter(|active| limits::is_limited(&active.pod)).collect();
        if limited.is_empty() || self.walk_at > Instant::now() {
            return Vec::new();
        }
        let began = Instant::now();
        let usages = self.measure(&limited).await;
        self.walk_at = Instant::now() + began.elapsed() * WALK_SHARE;
        let mut evicted = Vec::new();
        for (active, usage) in &usages {
            let exceeded = usage.as_ref().and_then(|usage| limits::exceeded(&active.pod, usage));
            if let Some((signal, message)) = exceeded
                && self.evict(active, message, 0, false)
            {
                self.shared.metrics.evicted(signal);
                evicted.push(active.clone());
            }
        }
        evicted
    }

    /// Frees what nobody uses, and if that is not enough ends the pod that the node misses least.
    async fn relieve(
        &self,
        threshold: Threshold,
        relieve: &[Threshold],
        observations: &Observations,
    ) -> Vec<Active> {
        let resource = threshold.signal.resource();
        tracing::warn!(signal = threshold.signal.name(), "eviction threshold is met");
        let node = node::reference(&self.shared.config.node_name);
        let message = format!("Attempting to reclaim {resource}");
        self.shared.recorder.event(&node, EventType::Warning, "EvictionThresholdMet", message);
        if self.reclaims_images(threshold) {
            containergc::delete_unused(&self.shared).await;
            self.image_gc.delete_unused().await;
            if is_relieved(&self.thresholds, &self.places.observe()) {
                return Vec::new();
            }
        }
        let mut ranked = self.measure(&self.shared.active.list()).await;
        rank::rank(resource, &mut ranked);
        for (active, usage) in &ranked {
            let Some(message) = rank::message(&active.pod, usage.as_ref(), relieve, observations) else {
                break;
            };
            if self.evict(active, message, self.grace_seconds(threshold, &active.pod), true) {
                self.shared.metrics.evicted(threshold.signal.name());
                return vec![active.clone()];
            }
        }
        tracing::error!(resource, "no pod can be evicted");
        Vec::new()
    }

    /// Images and dead containers help where they stand.
    fn reclaims_images(&self, threshold: Threshold) -> bool {
        use threshold::Signal::*;
        match threshold.signal {
            ImageFsAvailable | ImageFsInodesFree | ContainerFsAvailable | ContainerFsInodesFree => true,
            NodeFsAvailable | NodeFsInodesFree => !self.places.has_dedicated_image_fs(),
            MemoryAvailable | AllocatableMemoryAvailable | PidAvailable => false,
        }
    }

    fn grace_seconds(&self, threshold: Threshold, pod: &Pod) -> i64 {
        let max = i64::from(self.shared.config.kubelet.eviction_max_pod_grace_period);
        match threshold.grace_period {
            None => 0,
            Some(_) => pod.spec.termination_grace_period_seconds.map_or(max, |own| own.min(max)),
        }
    }

    /// False for one that the node cannot do without.
    fn evict(&self, active: &Active, message: String, grace_seconds: i64, disruption: bool) -> bool {
        let pod = &active.pod;
        if is_critical(pod) {
            tracing::error!(pod = %pod.metadata.namespaced_name(), "a critical pod cannot be evicted");
            return false;
        }
        let events = PodEvents { recorder: &self.shared.recorder, pod };
        events.pod(EventType::Warning, REASON, message.clone());
        let reason = REASON.to_owned();
        let disruption = disruption.then(|| message.clone());
        active.end(Failure { reason, message, grace_seconds: Some(grace_seconds), disruption })
    }

    async fn measure(&self, pods: &[Active]) -> Vec<(Active, Option<Usage>)> {
        let specs = pods.iter().map(|active| active.pod.clone()).collect();
        let measured = usage::measure(&self.shared.runtime, &self.shared.config, specs).await;
        let mut usages = measured.unwrap_or_else(|status| {
            tracing::warn!(error = status.message(), "what pods use could not be measured");
            Default::default()
        });
        pods.iter().map(|active| (active.clone(), usages.remove(&active.pod.metadata.uid))).collect()
    }
}
