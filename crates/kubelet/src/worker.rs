//! One pod's task: observes, decides, acts, reports, and sleeps until something happens.
//!
//! Every action runs as a task of its own and reports back, so that a long pull or a slow stop never keeps the worker
//! from hearing that its pod was deleted.

mod act;
mod events;
mod probing;
mod remove;
mod report;
mod resize;
mod start;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use api::view::core::{Pod, ResourceRequirements, Service};
use client::event::EventType;
use client::{Client, EventRecorder, Informer};
use jiff::Timestamp;
use tokio::sync::{Mutex, broadcast, mpsc, watch};
use tokio::task::AbortHandle;
use tokio_util::sync::CancellationToken;

pub use events::PodEvents;
pub use runtime::CriClients as Runtime;
use runtime::cri;

use self::report::Reported;
use crate::active::ActivePods;
use crate::admission::Refusal;
use crate::allocation::Ledger;
use crate::cm::dra::DraManager;
use crate::cm::pod_cgroups::PodCgroups;
use crate::cm::{ContainerManager, Pinned};
use crate::config::Config;
use crate::csi::Drivers;
use crate::eviction::Pressure;
use crate::images::ImageManager;
use crate::logs;
use crate::metrics::{Metrics, Operation, Stage, Working};
use crate::observe::{self, Observed, State};
use crate::operations::Operations;
use crate::pod::actions::{Plan, active_deadline, pod_actions};
use crate::pod::backoff::Backoff;
use crate::pod::memory::{Failure, Memory, Waiting};
use crate::pod::replacement::silent_until;
use crate::pod::resize::{ResizeError, told_of_container};
use crate::probe::{ProbeMetrics, ProbeType, Verdict};
use crate::resources::Machine;
use crate::started::Started;
use crate::userns::Users;
use crate::volumes::downward::Allocatable;
use crate::volumes::watched::Watched;

/// Messages a worker may have waiting; senders wait when it is full.
const INBOX_MAX: usize = 64;

/// What a worker hears.
pub enum Message {
    /// The pod changed in the API.
    Pod(Arc<Pod>),
    /// The pod is gone from the API, or from the file that described it.
    Gone,
    /// The mirror that stands for this static pod in the API, if there is one.
    Mirror(Option<Arc<Pod>>),
    /// The node ends the pod.
    End(Failure),
    /// The runtime told of a change of this pod's sandbox or containers.
    Runtime,
    /// An object that the pod refers to changed.
    Source,
    Probe(Verdict),
    /// An action ended.
    Done {
        key: String,
        outcome: Box<Outcome>,
    },
}

/// How an action ended, as far as the worker must remember.
#[derive(Default)]
pub struct Outcome {
    /// A container (by name) that could not start, why, and when to try again.
    pub waiting: Option<(String, Waiting, Timestamp)>,
    /// A container (by name) that started.
    pub started: Option<String>,
    /// A container (by id) to be ended, with what it `failed`.
    pub unhealthy: Option<(String, String)>,
    pub sandbox_retry: Option<(Timestamp, String)>,
    /// Why the pod cannot be on this node.
    pub refused: Option<Refusal>,
    pub refresh_at: Option<Timestamp>,
    /// Containers (by id) and the resources that are in force in them.
    pub actuated: Vec<(String, ResourceRequirements)>,
    /// Containers (by id) and the CPUs that they were put on.
    pub pinned: Vec<(String, Pinned)>,
    /// What the pod's cgroup was set to.
    pub pod_actuated: Option<cri::LinuxContainerResources>,
    /// Why resources could not be changed.
    pub resize_error: Option<ResizeError>,
}

/// What all workers of the node share.
pub struct Shared {
    pub config: Config,
    pub client: Client,
    pub runtime: Runtime,
    pub images: ImageManager,
    /// The logs that containers write to.
    pub logs: logs::Running,
    pub recorder: EventRecorder,
    pub services: Informer<Service>,
    pub csi_drivers: Arc<Drivers>,
    pub probe_metrics: Arc<ProbeMetrics>,
    pub started: Started,
    pub metrics: Arc<Metrics>,
    pub operations: Arc<Operations>,
    /// Tells when objects that pods refer to change.
    pub watched: Watched,
    /// The uid of each pod whose sandbox or containers changed; `None` when any may have.
    pub turns: broadcast::Sender<Option<String>>,
    /// The pods that are not over.
    pub active: ActivePods,
    /// What the node is short of.
    pub pressure: watch::Sender<Pressure>,
    /// The node goes down: its pods end, and none is let in.
    pub shutting_down: watch::Sender<bool>,
    pub allocatable: Allocatable,
    pub allocations: Ledger,
    pub machine: Machine,
    pub cgroups: PodCgroups,
    pub users: Users,
    pub containers: ContainerManager,
    pub dra: Arc<DraManager>,
    /// What the runtime calls itself.
    pub runtime_name: String,
    /// What figures of the machine are labelled with.
    pub about: crate::server::Machine,
}

/// Where a pod's logs go, as upstream lays them out.
pub fn log_directory(config: &Config, pod: &Pod) -> PathBuf {
    let meta = &pod.metadata;
    config.kubelet.pod_logs().join(format!("{}_{}_{}", meta.namespace, meta.name, meta.uid))
}

pub fn container_log(config: &Config, pod: &Pod, container: &str, attempt: u32) -> PathBuf {
    log_directory(config, pod).join(container).join(format!("{attempt}.log"))
}

/// What a worker is given to begin with.
pub struct Given {
    pub pod: Arc<Pod>,
    pub mirror: Option<Arc<Pod>>,
    /// Why the pod is not to run at all.
    pub failed: Option<Failure>,
    /// When the node heard of it.
    pub seen: Instant,
    /// Only the runtime knows of it.
    pub is_of_runtime: bool,
}

/// Starts a pod's task; it ends after the pod was removed, or when `stop` is cancelled (containers keep running).
pub fn spawn(shared: Arc<Shared>, given: Given, stop: CancellationToken) -> mpsc::Sender<Message> {
    let Given { pod, mirror, failed, seen, is_of_runtime } = given;
    let (sender, inbox) = mpsc::channel(INBOX_MAX);
    let longest = shared.config.kubelet.crash_loop_back_off.max_container_restart_period;
    let crashes = Backoff::up_to(longest.signed());
    // A driver may want to publish again what a kubelet before this one published.
    let stale = pod.spec.volumes.iter().any(|volume| volume.csi.is_some());
    shared.metrics.pod_seen(&pod, Timestamp::now());
    let worker = Worker {
        shared,
        pod,
        mirror,
        gone: false,
        memory: Memory { failed, crashes, ..Memory::default() },
        inbox,
        sender: sender.clone(),
        running: BTreeSet::new(),
        probers: HashMap::new(),
        terminating: CancellationToken::new(),
        ended: CancellationToken::new(),
        refresh_at: None,
        stale,
        volumes: Arc::default(),
        volumes_freed: false,
        reported: None,
        unreported: None,
        resizing: false,
        is_of_runtime,
        turn: Some((Operation::Create, seen)),
        working: None,
    };
    tokio::spawn(stop.run_until_cancelled_owned(worker.run()));
    sender
}

struct Worker {
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    /// What stands for a static pod in the API.
    mirror: Option<Arc<Pod>>,
    /// The API has no such pod any more.
    gone: bool,
    memory: Memory,
    inbox: mpsc::Receiver<Message>,
    sender: mpsc::Sender<Message>,
    /// Actions under way, by key.
    running: BTreeSet<String>,
    probers: HashMap<(String, ProbeType), AbortHandle>,
    /// Cancelled when the pod is to end: pulls are given up.
    terminating: CancellationToken,
    /// Cancelled when nothing of the pod runs any more and the API knows.
    ended: CancellationToken,
    /// When a projected token must be renewed.
    refresh_at: Option<Timestamp>,
    /// What the volumes show may have changed.
    stale: bool,
    /// Held by whoever writes the volumes.
    volumes: Arc<Mutex<()>>,
    /// Nothing runs that could use them, and they are gone.
    volumes_freed: bool,
    /// What was written last.
    reported: Option<Reported>,
    /// Since when the API does not know what there is to tell.
    unreported: Option<Instant>,
    /// What was accepted is not yet in force.
    resizing: bool,
    /// Only the runtime knows of the pod.
    is_of_runtime: bool,
    /// What the worker is at, and since when; none while it has nothing to do.
    turn: Option<(Operation, Instant)>,
    /// As what the pod is counted.
    working: Option<Working>,
}

impl Worker {
    async fn run(mut self) {
        if let Some((_, seen)) = self.turn {
            self.shared.metrics.workers.started(seen, self.pod.spec.containers.len());
        }
        tokio::spawn(tell_changes(
            self.shared.clone(),
            self.pod.clone(),
            self.sender.clone(),
            self.terminating.clone(),
        ));
        loop {
            // A turn needs ten times what a pod needs between turns: it is there only while it lasts.
            let wake_at = match Box::pin(self.sync()).await {
                Ok(Some(plan)) => plan.wake_at,
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(pod = %self.pod.metadata.namespaced_name(), %error, "runtime did not answer, will retry");
                    Some(Timestamp::now() + jiff::SignedDuration::from_secs(1))
                }
            };
            self.end_turn();
            if !self.wait(wake_at).await {
                break;
            }
        }
        self.shared.metrics.workers.working(self.working.take(), None);
        self.terminating.cancel();
        self.ended.cancel();
        self.shared.active.forget(&self.pod.metadata.uid);
        self.shared.metrics.pod_gone(&self.pod.metadata.uid);
        self.shared.logs.set(&self.pod.metadata.uid, BTreeMap::new());
        self.probers.values().for_each(AbortHandle::abort);
        let meta = &self.pod.metadata;
        self.shared.probe_metrics.forget(&meta.namespace, &meta.name, &meta.uid);
    }

    /// Hears one message, and all that wait behind it, or lets the time come. False when nobody can speak any more.
    async fn wait(&mut self, wake_at: Option<Timestamp>) -> bool {
        let wake_at = [wake_at, self.refresh_at].into_iter().flatten().min();
        let message = match wake_at {
            None => self.inbox.recv().await,
            Some(at) => {
                let pause = at.duration_until_now();
                match tokio::time::timeout(pause, self.inbox.recv()).await {
                    Err(_) => {
                        self.begin_turn(Operation::Sync);
                        return true;
                    }
                    Ok(message) => message,
                }
            }
        };
        let Some(message) = message else { return false };
        self.hear(message);
        while let Ok(message) = self.inbox.try_recv() {
            self.hear(message);
        }
        true
    }

    fn hear(&mut self, message: Message) {
        self.begin_turn(match &message {
            Message::Pod(_) | Message::Mirror(_) => Operation::Update,
            Message::Gone | Message::End(_) => Operation::Kill,
            _ => Operation::Sync,
        });
        match message {
            Message::Pod(pod) => {
                let (new, old) = (&pod.metadata, &self.pod.metadata);
                self.stale |= new.labels != old.labels || new.annotations != old.annotations;
                self.pod = pod;
            }
            Message::Gone => self.gone = true,
            Message::Mirror(mirror) => self.hear_mirror(mirror),
            Message::End(failure) => drop(self.memory.failed.get_or_insert(failure)),
            Message::Source => {
                self.stale = true;
                self.memory.try_again();
            }
            Message::Runtime => {}
            Message::Probe(verdict) => self.hear_probe(verdict),
            Message::Done { key, outcome } => {
                self.running.remove(&key);
                self.hear_outcome(*outcome);
            }
        }
    }

    fn begin_turn(&mut self, operation: Operation) {
        self.turn.get_or_insert_with(|| (operation, Instant::now()));
    }

    /// A turn lasts as long as what it began.
    fn end_turn(&mut self) {
        if self.running.is_empty()
            && let Some((operation, began)) = self.turn.take()
        {
            self.shared.metrics.workers.synced(operation, began);
        }
    }

    fn count_as(&mut self, stage: Stage) {
        let is_static = crate::staticpods::is_static(&self.pod);
        let (is_orphan, is_of_runtime) = (self.gone || self.is_of_runtime, self.is_of_runtime);
        let now = Some(Working { stage, is_orphan, is_of_runtime, is_static });
        self.shared.metrics.workers.working(self.working, now);
        self.working = now;
    }

    /// What was told of one mirror has to be told of the next again.
    fn hear_mirror(&mut self, mirror: Option<Arc<Pod>>) {
        let uid = |mirror: &Option<Arc<Pod>>| mirror.as_ref().map(|pod| pod.metadata.uid.clone());
        if uid(&mirror) != uid(&self.mirror) {
            self.reported = None;
        }
        self.mirror = mirror;
    }

    fn hear_outcome(&mut self, outcome: Outcome) {
        if let Some((name, waiting, retry_at)) = outcome.waiting {
            self.memory.waiting.insert(name.clone(), waiting);
            self.memory.retry_at.insert(name, retry_at);
        }
        if let Some(name) = outcome.started {
            self.memory.waiting.remove(&name);
            self.memory.retry_at.remove(&name);
        }
        if let Some((id, why)) = outcome.unhealthy {
            self.memory.unhealthy.insert(id, why);
        }
        self.memory.actuated.extend(outcome.actuated);
        self.memory.pinned.extend(outcome.pinned);
        if outcome.pod_actuated.is_some() {
            self.memory.pod_actuated = outcome.pod_actuated;
            self.memory.resize_error = None;
        }
        self.memory.resize_error = outcome.resize_error.or(self.memory.resize_error.take());
        self.refresh_at = [self.refresh_at, outcome.refresh_at].into_iter().flatten().min();
        if let Some(refusal) = outcome.refused {
            self.refuse(&refusal);
        }
        self.memory.sandbox_retry = outcome.sandbox_retry.or(self.memory.sandbox_retry.take());
    }

    fn refuse(&mut self, refusal: &Refusal) {
        self.shared.tell_refused(&self.pod, refusal);
        self.memory.failed.get_or_insert_with(|| refusal.told());
    }

    /// One turn. `None` when the pod is over and removed.
    async fn sync(&mut self) -> Result<Option<Plan>, tonic::Status> {
        let now = Timestamp::now();
        let pod = self.current_pod(now);
        let pod = self.allocate(pod);
        let began = Instant::now();
        let observed = observe::observe(&self.shared.runtime, &pod).await?;
        self.shared.metrics.requests.pod_observed(began.elapsed());
        self.learn(&pod, &observed, now);
        let mut plan = pod_actions(&pod, &observed, &self.memory, now);
        let ending = pod.metadata.is_being_deleted() || pod.is_terminal() || self.memory.failed.is_some();
        if ending {
            self.shared.active.remove(&pod.metadata.uid);
            self.terminating.cancel();
            self.stop_restarting_probes();
        } else {
            self.shared.active.insert(pod.clone(), &self.sender, &self.ended);
        }
        plan.finished &= self.running.is_empty();
        if plan.finished && !self.unprepare(&pod).await {
            plan.finished = false;
            plan.wake(now + act::RETRY);
        }
        self.count_as(match (ending, plan.finished) {
            (_, true) => Stage::Terminated,
            (true, false) => Stage::Terminating,
            (false, false) => Stage::Sync,
        });
        self.tell_resized(&pod, &observed);
        if plan.finished {
            self.shared.allocations.release(&pod.metadata.uid);
            self.shared.containers.release(&pod.metadata.uid);
            self.share_tiers();
        } else if self.memory.resize_pending.is_some() {
            plan.wake(now + resize::RETRY);
        }
        if let Some(at) = silent_until(&observed, &self.memory, &plan, now) {
            plan.wake(at);
        } else if !self.gone && !self.report(&pod, &observed, plan.finished, now).await {
            plan.wake(now + act::RETRY);
        } else if plan.finished {
            if !self.free_volumes(&pod).await {
                plan.wake(now + act::RETRY);
            }
            self.ended.cancel();
            self.shared.active.finish(&pod.metadata.uid);
        }
        if plan.finished && pod.metadata.is_being_deleted() {
            if self.remove(&pod, &observed).await? {
                if let Some((_, began)) = self.turn.take() {
                    self.shared.metrics.workers.synced(Operation::Terminated, began);
                }
                return Ok(None);
            }
            plan.wake(now + act::RETRY);
            return Ok(Some(plan));
        }
        self.refresh_volumes(&pod, &observed, now);
        self.tell_pauses(&pod, &plan);
        for action in std::mem::take(&mut plan.actions) {
            self.act(&pod, &observed, action);
        }
        Ok(Some(plan))
    }

    /// Warns once of each container that is kept from running again for a while.
    fn tell_pauses(&mut self, pod: &Pod, plan: &Plan) {
        for (name, id) in &plan.pausing {
            if self.memory.told_pauses.insert(id.clone()) {
                let message = format!(
                    "Back-off restarting failed container {name} in pod {}",
                    crate::pod::full_name(pod)
                );
                self.warn_of(name, "BackOff", message);
            }
        }
    }

    /// Gives the devices of its claims back; false when that must be tried again.
    async fn unprepare(&self, pod: &Pod) -> bool {
        let outcome = self.shared.dra.unprepare(&pod.metadata.uid).await;
        if let Err(why) = &outcome {
            tracing::warn!(pod = %pod.metadata.namespaced_name(), why, "devices not given back, will retry");
        }
        outcome.is_ok()
    }

    /// The pod as the API has it, with what was reported meanwhile; one that vanished counts as being deleted.
    fn current_pod(&mut self, now: Timestamp) -> Arc<Pod> {
        if !self.gone && self.reported.is_none() && self.mirror.is_none() {
            return self.pod.clone();
        }
        let mut pod = (*self.pod).clone();
        if let Some(mirror) = &self.mirror {
            pod.status = mirror.status.clone();
        }
        if self.gone {
            pod.metadata.deletion_timestamp.get_or_insert(now);
            // Upstream leaves at least a second to a pod that was deleted by force.
            let seconds = crate::pod::grace_period_seconds(&pod).max(1);
            pod.metadata.deletion_grace_period_seconds = Some(seconds);
        }
        if let Some(reported) = &self.reported {
            pod.status = report::laid_over(&reported.status, pod.status);
        }
        Arc::new(pod)
    }

    /// Takes from the observation what must be remembered, and sees that the right probes run.
    fn learn(&mut self, pod: &Arc<Pod>, observed: &Observed, now: Timestamp) {
        self.memory.retain(&observed.containers);
        let logs = observed.running().map(|c| (c.id.clone(), PathBuf::from(&c.log_path))).collect();
        self.shared.logs.set(&pod.metadata.uid, logs);
        for container in observed.containers.iter().filter(|c| c.state == State::Exited) {
            self.memory.count_exit(container, now);
        }
        let is_over = active_deadline(pod).is_some_and(|at| at <= now) && !pod.is_terminal();
        if is_over && self.memory.failed.is_none() {
            const REASON: &str = "DeadlineExceeded";
            const MESSAGE: &str = "Pod was active on the node longer than the specified deadline";
            self.events().pod(EventType::Normal, REASON, MESSAGE.to_owned());
            let (reason, message) = (REASON.to_owned(), MESSAGE.to_owned());
            self.memory.failed = Some(Failure { reason, message, ..Default::default() });
        }
        self.memory.busy =
            self.running.iter().filter_map(|key| act::started_by(key)).map(str::to_owned).collect();
        self.memory.starting.clear();
        self.learn_given(pod, now);
        for (spec, _) in crate::pod::all_containers(pod) {
            let Some(container) = observed.container(&spec.name).filter(|c| c.state == State::Running) else {
                continue;
            };
            if crate::lifecycle::post_start(spec).is_some() && self.memory.busy.contains(&spec.name) {
                self.memory.starting.insert(container.id.clone());
                continue;
            }
            if !self.memory.busy.contains(&spec.name) && !self.memory.actuated.contains_key(&container.id) {
                let told = told_of_container(&self.pod, &spec.name, &container.id);
                let actuated = told.unwrap_or_else(|| spec.resources.clone());
                self.memory.actuated.insert(container.id.clone(), actuated);
            }
            self.probe(observed, spec, container, now);
        }
        self.probers.retain(|(id, _), prober| {
            let running = observed.running().any(|c| c.id == *id);
            if !running {
                prober.abort();
            }
            running && !prober.is_finished()
        });
    }

    /// Renews what is near its end while containers run.
    fn refresh_volumes(&mut self, pod: &Arc<Pod>, observed: &Observed, now: Timestamp) {
        if self.volumes_freed {
            return;
        }
        if self.refresh_at.is_some_and(|at| at <= now) {
            self.refresh_at = None;
            self.stale = true;
        }
        // Before there is a sandbox, whoever makes it writes the volumes; one that runs already may have read too early.
        let may = observed.ready_sandbox().is_some() && !self.running.contains(act::REFRESH);
        if self.stale && may && !self.terminating.is_cancelled() {
            self.stale = false;
            self.refresh(pod, observed);
        }
    }
}

/// Tells the worker of changes of what its pod refers to, until the pod ends.
async fn tell_changes(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    sender: mpsc::Sender<Message>,
    end: CancellationToken,
) {
    if pod.is_terminal() || pod.metadata.is_being_deleted() {
        return;
    }
    let mut subscription = shared.watched.of(&pod);
    while end.run_until_cancelled(subscription.changed()).await.is_some() {
        if sender.send(Message::Source).await.is_err() {
            return;
        }
    }
}

/// How long from now until a point in time; zero when it has passed.
trait UntilNow {
    fn duration_until_now(&self) -> std::time::Duration;
}

impl UntilNow for Timestamp {
    fn duration_until_now(&self) -> std::time::Duration {
        std::time::Duration::try_from(self.duration_since(Timestamp::now())).unwrap_or_default()
    }
}
