//! The shell: changes in, decisions out. It alone waits, tells the time and talks to the API server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::view::Object;
use api::view::core::{Namespace, Node, Pod};
use client::{CancellationToken, Client, Delta, EventRecorder, Informer, Informers};
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinSet};

use crate::cache::Cache;
use crate::devices;
use crate::diagnosis::Diagnosis;
use crate::framework::ClusterEvent;
use crate::metrics::{AttemptResult, Metrics};
use crate::placement::Placement;
use crate::plugins::dynamic_resources::{self, Undo};
use crate::podinfo::PodInfo;
use crate::preemption::{Preemption, preempt};
use crate::queue::Queue;
use crate::schedule::{Nominated, schedule};
use crate::volumes::Change;
use crate::write::{Failure, Writer};
use device_inputs::DeviceInputs;
use owners::Owners;
use storage::{Storage, Waiting};

/// The scheduler that pods get when they name none.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// Decisions being written at once; past that, no further ones are made.
const MAX_WRITES: usize = 128;

/// Schedules pods that ask for the default scheduler until `stop`.
pub async fn run(client: Client, informers: Informers, metrics: Arc<Metrics>, stop: CancellationToken) {
    let inputs = Inputs::new(&informers);
    let recorder = EventRecorder::new(client.clone(), DEFAULT_SCHEDULER_NAME, "");
    let writer = Writer { client, recorder, name: DEFAULT_SCHEDULER_NAME.into() };
    stop.run_until_cancelled(Scheduler::new(writer, &inputs, metrics).serve(inputs)).await;
}

/// Waits until all is known that decisions rest on; who leads later knows it from the beginning.
pub async fn synced(informers: &Informers) {
    Inputs::new(informers).synced().await;
}

/// Where changes come from.
pub struct Inputs {
    pub nodes: Informer<Node>,
    pub pods: Informer<Pod>,
    pub namespaces: Informer<Namespace>,
    pub storage: Storage,
    pub devices: DeviceInputs,
    pub owners: Owners,
}

impl Inputs {
    fn new(informers: &Informers) -> Inputs {
        Inputs {
            nodes: informers.get(),
            pods: informers.get(),
            namespaces: informers.get(),
            storage: Storage::new(informers),
            devices: DeviceInputs::new(informers),
            owners: Owners::new(informers),
        }
    }

    async fn synced(&self) {
        tokio::join!(
            self.nodes.synced(),
            self.pods.synced(),
            self.namespaces.synced(),
            self.storage.synced(),
            self.devices.synced(),
            self.owners.synced(),
        );
    }
}

/// One attempt to find a node for a pod.
#[derive(Clone, Copy)]
struct Attempt {
    started: Instant,
    /// Which of the pod's it is, the first being 1.
    number: u32,
}

/// What became of a decision.
enum Outcome {
    Bound {
        uid: String,
        attempt: Attempt,
    },
    NotBound {
        pod: Arc<PodInfo>,
        placement: Placement,
        error: String,
        attempt: Attempt,
    },
    /// The reason for a failure has been written, and its victims evicted.
    Reported {
        uid: String,
        retry: Retry,
    },
}

/// What may help a pod that found no node.
#[derive(Default)]
struct Remedy {
    preemption: Option<Preemption>,
    claim: Option<Undo>,
}

/// When a failed pod tries again.
enum Retry {
    /// When an event comes that one of these plugins wants.
    OnEvent {
        rejectors: Vec<&'static str>,
    },
    AfterPause,
}

pub struct Scheduler {
    writer: Writer,
    cache: Cache,
    queue: Queue,
    /// Pods that were promised a node, by UID.
    nominated: HashMap<String, Nominated>,
    writes: JoinSet<Outcome>,
    /// Placed pods whose volumes or devices are being made ready, which may take long; no more than there are pods.
    pre_binds: JoinSet<Outcome>,
    waiting: Waiting,
    metrics: Arc<Metrics>,
}

impl Scheduler {
    pub fn new(writer: Writer, inputs: &Inputs, metrics: Arc<Metrics>) -> Self {
        let waiting = Waiting {
            pods: inputs.pods.clone(),
            volumes: inputs.storage.volumes.clone(),
            claims: inputs.storage.claims.clone(),
            resource_claims: inputs.devices.claims.clone(),
            changed: Arc::default(),
        };
        Scheduler {
            writer,
            cache: Cache::default(),
            queue: Queue::default(),
            nominated: HashMap::new(),
            writes: JoinSet::new(),
            pre_binds: JoinSet::new(),
            waiting,
            metrics,
        }
    }

    pub async fn serve(mut self, inputs: Inputs) {
        inputs.synced().await;
        let mut nodes = inputs.nodes.subscribe();
        let mut pods = inputs.pods.subscribe();
        let mut namespaces = inputs.namespaces.subscribe();
        let mut storage = inputs.storage.changes();
        let mut devices = inputs.devices.changes();
        let mut owners = inputs.owners.changes();
        loop {
            // All that is known first: an attempt on old news is an attempt lost.
            drain(&mut namespaces, |delta| self.apply_namespace(&delta));
            while let Some(Some(change)) = storage.next().now_or_never() {
                self.apply_storage(&change);
            }
            while let Some(Some(change)) = devices.next().now_or_never() {
                self.apply_devices(&change);
            }
            while let Some(Some(change)) = owners.next().now_or_never() {
                self.cache.workloads().apply(&change);
            }
            drain(&mut nodes, |delta| self.apply_node(&delta));
            drain(&mut pods, |delta| self.apply_pod(&delta));
            self.metrics.pending(self.queue.pending());
            if self.schedule_one() {
                tokio::task::yield_now().await;
                continue;
            }
            let pause = self.pause();
            tokio::select! {
                Some(delta) = nodes.recv() => self.apply_node(&delta),
                Some(delta) = pods.recv() => self.apply_pod(&delta),
                Some(delta) = namespaces.recv() => self.apply_namespace(&delta),
                Some(change) = owners.next() => self.cache.workloads().apply(&change),
                Some(change) = storage.next() => self.apply_storage(&change),
                Some(change) = devices.next() => self.apply_devices(&change),
                Some(outcome) = self.pre_binds.join_next() => self.apply_outcome(outcome),
                Some(outcome) = self.writes.join_next() => self.apply_outcome(outcome),
                () = tokio::time::sleep(pause.unwrap_or_default()), if pause.is_some() => {}
            }
        }
    }

    /// How long nothing will be ready, if something will be in time.
    fn pause(&self) -> Option<Duration> {
        let deadline = self.queue.next_deadline().filter(|_| self.writes.len() < MAX_WRITES)?;
        Some(Duration::try_from(deadline.duration_since(Timestamp::now())).unwrap_or_default())
    }

    fn apply_node(&mut self, delta: &Delta<Node>) {
        match delta {
            Delta::Deleted(node) => self.cache.remove_node(&node.metadata.name),
            Delta::Added(node) | Delta::Updated { new: node, .. } => {
                let events = self.cache.set_node(node);
                self.wake(&events);
            }
        }
    }

    fn apply_namespace(&mut self, delta: &Delta<Namespace>) {
        match delta {
            Delta::Deleted(namespace) => self.cache.remove_namespace(&namespace.metadata.name),
            Delta::Added(namespace) | Delta::Updated { new: namespace, .. } => {
                let events = self.cache.set_namespace(namespace);
                self.wake(&events);
            }
        }
    }

    fn apply_storage(&mut self, change: &Change) {
        let event = self.cache.volumes().apply(change);
        self.waiting.changed.notify_waiters();
        self.wake(&[event]);
    }

    fn apply_devices(&mut self, change: &devices::Change) {
        let event = self.cache.devices().apply(change);
        self.waiting.changed.notify_waiters();
        self.wake(&[event]);
    }

    fn apply_pod(&mut self, delta: &Delta<Pod>) {
        let pod = delta.object();
        let gone = matches!(delta, Delta::Deleted(_)) || pod.is_terminal();
        if gone {
            self.forget(&pod.meta().uid);
        } else if !pod.spec.node_name.is_empty() {
            self.apply_placed(pod);
        } else if pod.metadata.is_being_deleted() {
            self.forget(&pod.meta().uid);
        } else if pod.spec.scheduler_name == *self.writer.name {
            self.apply_pending(pod);
        }
    }

    fn forget(&mut self, uid: &str) {
        self.queue.remove(uid);
        self.nominated.remove(uid);
        let events = self.cache.remove_pod(uid);
        self.waiting.changed.notify_waiters();
        self.wake(&events);
    }

    fn apply_placed(&mut self, pod: &Arc<Pod>) {
        let uid = &pod.metadata.uid;
        self.queue.remove(uid);
        self.nominated.remove(uid);
        let events = self.cache.set_pod(Arc::new(PodInfo::new(pod.clone())), &pod.spec.node_name);
        self.wake(&events);
    }

    fn apply_pending(&mut self, pod: &Arc<Pod>) {
        let info = Arc::new(PodInfo::new(pod.clone()));
        let node = &pod.status.nominated_node_name;
        if !node.is_empty() {
            let nominated = Nominated { node: node.clone(), pod: info.clone() };
            self.nominated.entry(info.uid().to_owned()).or_insert(nominated);
        }
        self.queue.set(info, Timestamp::now());
    }

    fn wake(&mut self, events: &[ClusterEvent]) {
        if !events.is_empty() {
            self.queue.wake(events, Timestamp::now());
        }
    }

    /// Decides on the next pod; false when there is none, or too much is still being written.
    fn schedule_one(&mut self) -> bool {
        if self.writes.len() >= MAX_WRITES {
            return false;
        }
        let Some(pod) = self.queue.pop(Timestamp::now()) else { return false };
        let attempt = Attempt { started: Instant::now(), number: self.queue.attempts(pod.uid()) };
        let snapshot = self.cache.snapshot();
        let nominated: Vec<_> = self.nominated.values().cloned().collect();
        let decision = schedule(&pod, &snapshot, &nominated);
        self.metrics.decided(attempt.started.elapsed());
        match decision {
            Ok(node) => {
                let placed = snapshot.node(&node).expect("a node of the snapshot was chosen");
                let placement = Placement::decide(&pod, &snapshot, placed);
                drop(snapshot);
                self.bind(pod, node, placement, attempt);
            }
            Err(mut diagnosis) => {
                let (claim, message) = dynamic_resources::to_undo(&pod, &snapshot, &diagnosis);
                let preemption = preempt(&pod, &snapshot, &diagnosis);
                self.metrics.preempting(preemption.as_ref().ok().map(|found| found.victims.len()));
                self.attempted(attempt, AttemptResult::Unschedulable);
                let preemption =
                    preemption.map_err(|why| diagnosis.post_filter = format!("{message}, {why}")).ok();
                self.fail(pod, &diagnosis, Remedy { preemption, claim });
            }
        }
        true
    }

    /// Assumes the pod to be on the node, with its volumes and devices, and has that written.
    fn bind(&mut self, pod: Arc<PodInfo>, node: String, placement: Placement, attempt: Attempt) {
        let events = self.cache.set_pod(pod.clone(), &node);
        self.wake(&events);
        self.cache.volumes().assume(&placement.volumes);
        self.cache.devices().assume(&placement.devices);
        let (writer, waiting) = (self.writer.clone(), self.waiting.clone());
        let set = if placement.is_empty() { &mut self.writes } else { &mut self.pre_binds };
        set.spawn(async move {
            match bind_all(&writer, &waiting, &pod, &node, &placement).await {
                Ok(()) => Outcome::Bound { uid: pod.uid().to_owned(), attempt },
                Err(error) => Outcome::NotBound { pod, placement, error, attempt },
            }
        });
    }

    fn fail(&mut self, pod: Arc<PodInfo>, diagnosis: &Diagnosis, remedy: Remedy) {
        let nominated_node = match &remedy.preemption {
            Some(preemption) => preemption.node.clone(),
            // A pod whose victims are still leaving keeps its promise.
            None if diagnosis.keeps_nomination() => pod.pod.status.nominated_node_name.clone(),
            None => String::new(),
        };
        if nominated_node.is_empty() {
            self.nominated.remove(pod.uid());
        } else {
            let nominated = Nominated { node: nominated_node.clone(), pod: pod.clone() };
            self.nominated.insert(pod.uid().to_owned(), nominated);
        }
        let failure = Failure { message: diagnosis.message(), unschedulable: true, nominated_node };
        let retry = Retry::OnEvent { rejectors: diagnosis.rejectors() };
        self.report(pod, failure, retry, remedy);
    }

    fn report(&mut self, pod: Arc<PodInfo>, failure: Failure, retry: Retry, remedy: Remedy) {
        let writer = self.writer.clone();
        let now = Timestamp::now();
        self.writes.spawn(async move {
            match &remedy.claim {
                Some(Undo::Deallocate(claim)) => writer.deallocate(claim).await,
                Some(Undo::Delete(claim)) => writer.delete_claim(claim).await,
                None => {}
            }
            if let Some(preemption) = &remedy.preemption {
                writer.evict(&pod, preemption, now).await;
            }
            writer.report(&pod, &failure, now).await;
            Outcome::Reported { uid: pod.uid().to_owned(), retry }
        });
    }

    fn apply_outcome(&mut self, outcome: Result<Outcome, JoinError>) {
        let outcome = match outcome {
            Ok(outcome) => outcome,
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let now = Timestamp::now();
        match outcome {
            Outcome::Bound { uid, attempt } => {
                self.attempted(attempt, AttemptResult::Scheduled);
                self.metrics.scheduled(attempt.number);
                self.queue.remove(&uid);
                self.nominated.remove(&uid);
            }
            Outcome::NotBound { pod, placement, error, attempt } => {
                self.attempted(attempt, AttemptResult::Error);
                self.cache.volumes().revert(&placement.volumes);
                self.cache.devices().revert(&placement.devices);
                self.undo_binding(pod, error);
            }
            Outcome::Reported { uid, retry: Retry::OnEvent { rejectors } } => {
                self.queue.fail(&uid, rejectors, now)
            }
            Outcome::Reported { uid, retry: Retry::AfterPause } => self.queue.error(&uid, now),
        }
    }

    fn attempted(&self, attempt: Attempt, result: AttemptResult) {
        self.metrics.attempted(&self.writer.name, result, attempt.started.elapsed());
    }

    fn undo_binding(&mut self, pod: Arc<PodInfo>, error: String) {
        // Out of the queue means bound or gone after all: then the cache is right as it is.
        if self.queue.get(pod.uid()).is_none() {
            return;
        }
        tracing::warn!(pod = %pod.name(), error, "pod not bound");
        let events = self.cache.remove_pod(pod.uid());
        self.wake(&events);
        let nominated_node = pod.pod.status.nominated_node_name.clone();
        let failure = Failure { message: error, unschedulable: false, nominated_node };
        self.report(pod, failure, Retry::AfterPause, Remedy::default());
    }
}

/// Volumes and devices first: a pod on a node has them all.
async fn bind_all(
    writer: &Writer,
    waiting: &Waiting,
    pod: &PodInfo,
    node: &str,
    placement: &Placement,
) -> Result<(), String> {
    let Placement { volumes, devices } = placement;
    if !volumes.is_empty() {
        let written = writer.bind_volumes(volumes).await.map_err(|error| error.to_string())?;
        let bound = waiting.bound(pod, node, volumes, &written).await;
        bound.map_err(|error| format!("binding volumes: {error}"))?;
    }
    if devices.is_empty() {
        return bind(writer, pod, node).await;
    }
    let devices = &writer.make_claims(devices).await.map_err(|error| error.to_string())?;
    let reserved = writer.reserve(pod, devices, Timestamp::now()).await.map_err(|error| error.to_string());
    let ready = match reserved {
        Ok(()) => waiting.ready(devices).await.map_err(|why| (why, true)),
        Err(why) => Err((why, false)),
    };
    let bound = match ready {
        Ok(()) => bind(writer, pod, node).await.map_err(|why| (why, false)),
        Err(failure) => Err(failure),
    };
    if let Err((why, is_unready)) = bound {
        // Devices that did not get ready are no good to the next attempt either.
        writer.unreserve(pod, devices, is_unready).await;
        return Err(why);
    }
    Ok(())
}

async fn bind(writer: &Writer, pod: &PodInfo, node: &str) -> Result<(), String> {
    writer.bind(pod, node).await.map_err(|error| error.to_string())
}

fn drain<V>(receiver: &mut UnboundedReceiver<Delta<V>>, mut apply: impl FnMut(Delta<V>)) {
    while let Ok(delta) = receiver.try_recv() {
        apply(delta);
    }
}

mod device_inputs;
mod owners;
mod storage;
#[cfg(test)]
mod tests;
