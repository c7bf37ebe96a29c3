//! The shell: changes in, decisions out. It alone waits, tells the time and talks to the API server.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::view::Object;
use api::view::core::{Namespace, Node, Pod};
use client::{CancellationToken, Client, Delta, EventRecorder, Informer, Informers};
use futures_util::{FutureExt, StreamExt};
use jiff::Timestamp;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinSet};

use crate::cache::Cache;
use crate::diagnosis::Diagnosis;
use crate::framework::ClusterEvent;
use crate::plugins::volume_binding;
use crate::podinfo::PodInfo;
use crate::preemption::preempt;
use crate::queue::Queue;
use crate::schedule::{Nominated, schedule};
use crate::volumes::{Change, PodVolumes};
use crate::write::{Failure, Writer};
use owners::Owners;
use storage::{Storage, Waiting};

/// The scheduler that pods get when they name none.
pub const DEFAULT_SCHEDULER_NAME: &str = "default-scheduler";

/// Decisions being written at once; past that, no further ones are made.
const MAX_WRITES: usize = 128;

/// Schedules pods that ask for the default scheduler until `stop`.
pub async fn run(client: Client, informers: Informers, stop: CancellationToken) {
    let inputs = Inputs {
        nodes: informers.get(),
        pods: informers.get(),
        namespaces: informers.get(),
        storage: Storage::new(&informers),
        owners: Owners::new(&informers),
    };
    let recorder = EventRecorder::new(client.clone(), DEFAULT_SCHEDULER_NAME, "");
    let writer = Writer { client, recorder, name: DEFAULT_SCHEDULER_NAME.into() };
    stop.run_until_cancelled(Scheduler::new(writer, &inputs).serve(inputs)).await;
}

/// Where changes come from.
pub struct Inputs {
    pub nodes: Informer<Node>,
    pub pods: Informer<Pod>,
    pub namespaces: Informer<Namespace>,
    pub storage: Storage,
    pub owners: Owners,
}

/// What became of a decision.
enum Outcome {
    Bound {
        uid: String,
    },
    NotBound {
        pod: Arc<PodInfo>,
        volumes: PodVolumes,
        error: String,
    },
    /// The reason for a failure has been written, and its victims evicted.
    Reported {
        uid: String,
        retry: Retry,
    },
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
    /// Placed pods whose volumes are being bound or made, which may take long; no more than there are pods.
    volume_binds: JoinSet<Outcome>,
    waiting: Waiting,
}

impl Scheduler {
    pub fn new(writer: Writer, inputs: &Inputs) -> Self {
        let waiting = Waiting {
            pods: inputs.pods.clone(),
            volumes: inputs.storage.volumes.clone(),
            claims: inputs.storage.claims.clone(),
            changed: Arc::default(),
        };
        Scheduler {
            writer,
            cache: Cache::default(),
            queue: Queue::default(),
            nominated: HashMap::new(),
            writes: JoinSet::new(),
            volume_binds: JoinSet::new(),
            waiting,
        }
    }

    pub async fn serve(mut self, inputs: Inputs) {
        tokio::join!(
            inputs.nodes.synced(),
            inputs.pods.synced(),
            inputs.namespaces.synced(),
            inputs.storage.synced(),
            inputs.owners.synced(),
        );
        let mut nodes = inputs.nodes.subscribe();
        let mut pods = inputs.pods.subscribe();
        let mut namespaces = inputs.namespaces.subscribe();
        let mut storage = inputs.storage.changes();
        let mut owners = inputs.owners.changes();
        loop {
            // All that is known first: an attempt on old news is an attempt lost.
            drain(&mut namespaces, |delta| self.apply_namespace(&delta));
            while let Some(Some(change)) = storage.next().now_or_never() {
                self.apply_storage(&change);
            }
            while let Some(Some(change)) = owners.next().now_or_never() {
                self.cache.workloads().apply(&change);
            }
            drain(&mut nodes, |delta| self.apply_node(&delta));
            drain(&mut pods, |delta| self.apply_pod(&delta));
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
                Some(outcome) = self.volume_binds.join_next() => self.apply_outcome(outcome),
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
        let snapshot = self.cache.snapshot();
        let nominated: Vec<_> = self.nominated.values().cloned().collect();
        match schedule(&pod, &snapshot, &nominated) {
            Ok(node) => {
                let placed = snapshot.node(&node).expect("a node of the snapshot was chosen");
                let volumes = volume_binding::decide(&pod, &snapshot, placed);
                drop(snapshot);
                self.bind(pod, node, volumes);
            }
            Err(mut diagnosis) => {
                let preemption = preempt(&pod, &snapshot, &diagnosis);
                let preemption = preemption.map_err(|message| diagnosis.post_filter = message).ok();
                self.fail(pod, &diagnosis, preemption);
            }
        }
        true
    }

    /// Assumes the pod to be on the node, and its volumes to be bound, and has that written.
    fn bind(&mut self, pod: Arc<PodInfo>, node: String, volumes: PodVolumes) {
        let events = self.cache.set_pod(pod.clone(), &node);
        self.wake(&events);
        self.cache.volumes().assume(&volumes);
        let (writer, waiting) = (self.writer.clone(), self.waiting.clone());
        let set = if volumes.is_empty() { &mut self.writes } else { &mut self.volume_binds };
        set.spawn(async move {
            match bind_all(&writer, &waiting, &pod, &node, &volumes).await {
                Ok(()) => Outcome::Bound { uid: pod.uid().to_owned() },
                Err(error) => Outcome::NotBound { pod, volumes, error },
            }
        });
    }

    fn fail(
        &mut self,
        pod: Arc<PodInfo>,
        diagnosis: &Diagnosis,
        preemption: Option<crate::preemption::Preemption>,
    ) {
        let nominated_node = match &preemption {
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
        self.report(pod, failure, retry, preemption);
    }

    fn report(
        &mut self,
        pod: Arc<PodInfo>,
        failure: Failure,
        retry: Retry,
        preemption: Option<crate::preemption::Preemption>,
    ) {
        let writer = self.writer.clone();
        let now = Timestamp::now();
        self.writes.spawn(async move {
            if let Some(preemption) = &preemption {
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
            Outcome::Bound { uid } => {
                self.queue.remove(&uid);
                self.nominated.remove(&uid);
            }
            Outcome::NotBound { pod, volumes, error } => {
                self.cache.volumes().revert(&volumes);
                self.undo_binding(pod, error);
            }
            Outcome::Reported { uid, retry: Retry::OnEvent { rejectors } } => {
                self.queue.fail(&uid, rejectors, now)
            }
            Outcome::Reported { uid, retry: Retry::AfterPause } => self.queue.error(&uid, now),
        }
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
        self.report(pod, failure, Retry::AfterPause, None);
    }
}

/// The volumes first: a pod on a node has them all.
async fn bind_all(
    writer: &Writer,
    waiting: &Waiting,
    pod: &PodInfo,
    node: &str,
    volumes: &PodVolumes,
) -> Result<(), String> {
    if !volumes.is_empty() {
        let written = writer.bind_volumes(volumes).await.map_err(|error| error.to_string())?;
        let bound = waiting.bound(pod, node, volumes, &written).await;
        bound.map_err(|error| format!("binding volumes: {error}"))?;
    }
    writer.bind(pod, node).await.map_err(|error| error.to_string())
}

fn drain<V>(receiver: &mut UnboundedReceiver<Delta<V>>, mut apply: impl FnMut(Delta<V>)) {
    while let Ok(delta) = receiver.try_recv() {
        apply(delta);
    }
}

mod owners;
mod storage;
#[cfg(test)]
mod tests;
