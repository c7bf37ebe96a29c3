//! The kubelet as a whole: registers the node, starts what runs on it, routes runtime events to the pods' workers.

use std::net::SocketAddr;
use std::sync::Arc;

use api::resource::{NODES, PODS};
use api::view::core::{Node, PersistentVolume, Pod, Service};
use client::event::EventType;
use client::listen::listen;
use client::{CancellationToken, Client, EventRecorder, Informer, Informers};
use jiff::Timestamp;
use runtime::cri;
use tokio::net::TcpListener;
use tokio::sync::{broadcast, mpsc, watch};

use crate::active::ActivePods;
use crate::admission::{Allowlist, Gate, PatternError, Room};
use crate::allocation::Ledger;
use crate::certificate;
use crate::cm::devicemanager;
use crate::cm::dra::DraManager;
use crate::cm::pod_cgroups::PodCgroups;
use crate::cm::{self, ContainerManager, container_manager, podresources};
use crate::config::Config;
use crate::csi::{self, Drivers};
use crate::eviction::{self, Threshold};
use crate::imagegc::ImageGc;
use crate::images::ImageManager;
use crate::logs;
use crate::metrics::Metrics;
use crate::node;
use crate::nodeshutdown;
use crate::operations::Operations;
use crate::pluginmanager::Registry;
use crate::pod_workers::{PodWorkers, Sources};
use crate::resources::Machine;
use crate::server;
use crate::started::Started;
use crate::staticpods::{self, Described};
use crate::userns::Users;
use crate::volumes::local_path;
use crate::volumes::watched::Watched;
use crate::worker::{Runtime, Shared};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("container runtime does not answer: {0}")]
    Runtime(#[from] tonic::Status),
    #[error("kubelet cannot listen on {0}: {1}")]
    Listen(SocketAddr, std::io::Error),
    #[error("resources cannot be given out: {0}")]
    Resources(#[from] container_manager::Error),
    #[error("cgroups cannot be found: {0}")]
    Cgroups(std::io::Error),
    #[error("node facts cannot be read: {0}")]
    Node(#[from] node::Error),
    #[error(transparent)]
    Machine(#[from] node::Unfit),
    #[error("eviction thresholds are wrong: {0}")]
    Thresholds(#[from] eviction::Error),
    #[error("unsafe sysctls cannot be allowed: {0}")]
    Sysctl(#[from] PatternError),
}

/// Runs until `stop`; containers go on running. `ready` is called once the node is registered and its pods are known;
/// static pods do not wait for that.
pub async fn run(
    config: Config,
    client: Client,
    informers: Informers,
    runtime: Runtime,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), Error> {
    let listener = bind(config.listen()).await?;
    let port = listener.local_addr().map_err(|e| Error::Listen(config.listen(), e))?.port();
    let thresholds = config.kubelet.thresholds()?;
    let capacity = node::capacity(&config, &thresholds)?;
    let recorder =
        EventRecorder::paced(client.clone(), "kubelet", &config.node_name, config.kubelet.event_pace());
    let node = node::reference(&config.node_name);
    for message in node::prepare(&config)? {
        recorder.event(&node, EventType::Normal, node::ENFORCED, message);
    }
    let limits = node::PodLimits::of(&config.kubelet, &capacity);
    let room = Room { allocatable: capacity.allocatable(), pods_max: capacity.pods };
    let sysctls = Allowlist::new(&config.kubelet.allowed_unsafe_sysctls)?;
    let pods = informers.get_selected::<Pod>(PODS, &format!("spec.nodeName={}", config.node_name));
    let nodes = informers.get_selected::<Node>(NODES, &format!("metadata.name={}", config.node_name));
    let attachments = nodes.clone();
    let services = informers.get::<Service>();
    let (shared, facts) = Parts { config, client, runtime, recorder, services }.join(capacity, port).await?;
    let gate = Gate::new(shared.clone(), nodes, node::own(&shared.config), room, sysctls);
    let end = CancellationToken::new();
    let tasks = Tasks { shared: shared.clone(), stop: end.clone() };
    tasks.follow_attachments(attachments);
    tasks.spawn(limits.enforce(shared.recorder.clone(), node));
    let (healthy, health) = watch::channel(true);
    let events = tasks.start_local(healthy);
    tasks.start_upkeep(thresholds);
    tasks.serve(listener, pods.clone()).await?;
    let described = tasks.follow_static_pods();
    let workers = PodWorkers::new(shared.clone(), gate, described, end.clone());
    let sources = Sources { pods: pods.subscribe(), events };
    let online = async {
        node::register(&shared.client, &shared.config, &facts).await;
        tasks.start_registered(&informers, facts.clone(), health);
        shared.services.synced().await;
        pods.synced().await;
        tell_ready(&shared);
        ready();
    };
    tokio::select! {
        () = workers.run(sources, online) => {}
        () = stopped(&shared, stop) => {}
    }
    end.cancel();
    Ok(())
}

fn tell_ready(shared: &Shared) {
    let node = node::reference(&shared.config.node_name);
    let message = format!("Node {} status is now: NodeReady", node.name);
    shared.recorder.event(&node, EventType::Normal, "NodeReady", message);
}

/// What the workers of pods share that comes from outside.
struct Parts {
    config: Config,
    client: Client,
    runtime: Runtime,
    recorder: EventRecorder,
    services: Informer<Service>,
}

impl Parts {
    /// Puts them together with what this node is, which is told too; `port` is where its API is.
    async fn join(self, capacity: node::Capacity, port: u16) -> Result<(Arc<Shared>, node::Facts), Error> {
        let Parts { config, client, runtime, recorder, services } = self;
        let operations = Arc::<Operations>::default();
        let runtime = operations.of(&runtime);
        let facts = node::Facts::read(&config, &runtime, capacity, port).await?;
        let metrics = Arc::<Metrics>::default();
        let cgroups = PodCgroups::detect(&config.kubelet.cgroup_root, metrics.clone());
        let cgroups = cgroups.map_err(Error::Cgroups)?;
        let managers = cm::Settings::of(&config.kubelet, capacity.withheld_memory());
        let machine =
            Machine::read(capacity.memory_bytes, cgroups.is_v2(), managers.swap_behavior, &config.kubelet);
        let shared = Arc::new(Shared {
            csi_drivers: Arc::<Drivers>::default(),
            started: Started::default(),
            operations,
            allocatable: capacity.allocatable(),
            allocations: Ledger::new(capacity.allocatable()),
            machine,
            cgroups,
            users: Users::open(&config.root_dir, managers.ids_per_pod, has_user_namespaces(&runtime).await?),
            containers: ContainerManager::open(&managers, &config.root_dir)?,
            dra: DraManager::open(client.clone(), config.node_name.clone(), &config.root_dir),
            runtime_name: facts.runtime_name().to_owned(),
            about: facts.machine(),
            watched: Watched::new(client.clone()),
            client,
            runtime,
            images: ImageManager::new(&config.kubelet, metrics.clone()),
            metrics,
            logs: logs::Running::default(),
            probe_metrics: Arc::default(),
            recorder,
            services,
            turns: broadcast::Sender::new(TURNS_MAX),
            active: ActivePods::default(),
            pressure: watch::Sender::default(),
            shutting_down: watch::Sender::default(),
            config,
        });
        Ok((shared, facts))
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, Error> {
    listen(address).await.map_err(|e| Error::Listen(address, e))
}

/// Whether the runtime can give pods users of their own.
async fn has_user_namespaces(runtime: &Runtime) -> Result<bool, tonic::Status> {
    let status = runtime.runtime.clone().status(cri::StatusRequest::default()).await?.into_inner();
    let default = status.runtime_handlers.into_iter().find(|handler| handler.name.is_empty());
    Ok(default.and_then(|handler| handler.features).is_some_and(|features| features.user_namespaces))
}

/// Returns when the kubelet is to end, with the node's pods ended before if they are to end with it.
async fn stopped(shared: &Shared, stop: CancellationToken) {
    stop.cancelled().await;
    let periods = &shared.config.kubelet.shutdown();
    if !periods.is_empty() {
        shared.shutting_down.send_replace(true);
        shared.metrics.shutdown_began(Timestamp::now());
        nodeshutdown::end_pods(&shared.active, periods).await;
        shared.metrics.shutdown_ended(Timestamp::now());
    }
}

/// What runs beside the pods' workers until `stop`.
struct Tasks {
    shared: Arc<Shared>,
    stop: CancellationToken,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(task));
    }

    /// The kubelet's own API, and what of it is open to all if anything is.
    async fn serve(&self, listener: TcpListener, pods: Informer<Pod>) -> Result<(), Error> {
        let config = &self.shared.config;
        let api = server::Server::new(self.shared.clone(), pods);
        if let Some(address) = config.listen_read_only() {
            self.spawn(api.clone().serve_read_only(bind(address).await?));
        }
        if let Some(address) = config.listen_healthz() {
            self.spawn(api.clone().serve_healthz(bind(address).await?));
        }
        self.spawn(api.serve(listener));
        Ok(())
    }

    fn follow_attachments(&self, nodes: Informer<Node>) {
        let shared = self.shared.clone();
        self.spawn(async move { shared.watched.follow_attachments(nodes).await });
    }

    /// What needs no API server. Returns which pods change in the runtime.
    fn start_local(&self, healthy: watch::Sender<bool>) -> mpsc::Receiver<Option<String>> {
        let shared = &self.shared;
        let root = shared.config.root_dir.clone();
        let csi = csi::Registration {
            drivers: shared.csi_drivers.clone(),
            client: shared.client.clone(),
            node_name: shared.config.node_name.clone(),
            root: root.clone(),
            metrics: shared.metrics.volumes.clone(),
        };
        let devices = Arc::new(devicemanager::Registration::new(shared.containers.devices.clone()));
        let registry = Registry::new(&root, vec![Arc::new(csi), shared.dra.registration(), devices.clone()]);
        self.spawn(registry.run());
        self.spawn(shared.dra.clone().forget_slices());
        self.spawn(async move { devices.run().await });
        self.spawn(podresources::serve(shared.clone()));
        self.spawn(wake_pods(shared.clone()));
        let (told, events) = mpsc::channel(EVENTS_MAX);
        self.spawn(runtime_events(shared.clone(), healthy, told));
        events
    }

    /// What keeps the node healthy.
    fn start_upkeep(&self, thresholds: Vec<Threshold>) {
        let shared = &self.shared;
        self.spawn(rotate_logs(shared.clone()));
        let image_gc = Arc::new(ImageGc::new(shared.clone()));
        self.spawn(eviction::Manager::new(shared.clone(), image_gc.clone(), thresholds).run());
        self.spawn(async move { image_gc.run().await });
    }

    /// What tells of the node once it is registered.
    fn start_registered(&self, informers: &Informers, facts: node::Facts, health: watch::Receiver<bool>) {
        let Shared { client, config, runtime, recorder, metrics, .. } = &*self.shared;
        for manager in certificate::managers(config, client, metrics) {
            self.spawn(manager.run());
        }
        let node = node::reference(&config.node_name);
        recorder.event(&node, EventType::Normal, "Starting", "Starting kubelet.");
        let signs = node::Signs {
            health,
            pressure: self.shared.pressure.subscribe(),
            shutting_down: self.shared.shutting_down.subscribe(),
            devices: self.shared.containers.devices.counts(),
        };
        let (client, recorder) = (client.clone(), recorder.clone());
        let status =
            node::StatusLoop::new(client.clone(), config.clone(), facts, runtime.clone(), signs, recorder);
        self.spawn(status.run());
        self.spawn(node::lease::run(
            client.clone(),
            config.node_name.clone(),
            config.kubelet.node_lease_duration_seconds,
        ));
        if let Some(root) = config.local_path_root.clone() {
            let volumes = informers.get::<PersistentVolume>();
            self.spawn(local_path::reclaim(client.clone(), volumes, root, config.node_name.clone()));
        }
    }

    fn follow_static_pods(&self) -> watch::Receiver<Described> {
        let Config { kubelet, node_name, .. } = &self.shared.config;
        let (sender, described) = watch::channel(Described::default());
        match kubelet.static_pod_source(node_name) {
            Some(source) => self.spawn(source.follow(sender.clone())),
            None => drop(sender.send_replace(Described::without_url())),
        }
        if let Some(path) = kubelet.static_pods() {
            let follow = staticpods::watch_files(path, node_name.clone(), sender);
            self.spawn(async move {
                if let Err(error) = follow.await {
                    tracing::error!(%error, "files of static pods are not followed any more");
                }
            });
        }
        described
    }
}

/// Runtime events on their way to the workers.
const EVENTS_MAX: usize = 1024;
/// Events kept for followers of logs; one that lags looks for itself.
const TURNS_MAX: usize = 256;

/// Has pods look when their CPUs or devices are not what they were.
async fn wake_pods(shared: Arc<Shared>) {
    let (mut moved, mut unwell) = (shared.containers.moved(), shared.containers.devices.unwell());
    let mut told = shared.dra.told();
    loop {
        let changed = tokio::select! {
            changed = moved.changed() => changed.map(|()| None),
            changed = told.changed() => changed.map(|()| Some(shared.dra.pods())),
            changed = unwell.changed() => changed.map(|()| Some(unwell.borrow_and_update().clone())),
        };
        let Ok(pods) = changed else { return };
        let concerned = |uid: &str| pods.as_ref().is_none_or(|pods| pods.contains(uid));
        for active in shared.active.list().into_iter().filter(|active| concerned(&active.pod.metadata.uid)) {
            active.wake();
        }
    }
}

async fn rotate_logs(shared: Arc<Shared>) {
    let limits = shared.config.kubelet.container_log();
    if let Err(error) = logs::rotate(shared.runtime.clone(), limits, &shared.logs).await {
        tracing::error!(%error, "container logs are not rotated any more");
    }
}

/// Tells which pod (by uid) changed; `None` when events may have been missed and all must look. `healthy` is whether
/// the runtime answers.
async fn runtime_events(
    shared: Arc<Shared>,
    healthy: watch::Sender<bool>,
    told: mpsc::Sender<Option<String>>,
) {
    const RECONNECT: std::time::Duration = std::time::Duration::from_secs(1);
    loop {
        if let Err(status) = follow(&shared, &healthy, &told).await {
            tracing::debug!(error = status.message(), "runtime events ended");
        }
        tell_health(&healthy, node::runtime_ready(&shared.runtime).await);
        // Nobody may be following a log.
        shared.turns.send(None).ok();
        if told.send(None).await.is_err() {
            return;
        }
        // A runtime without events (containerd before 1.7) is asked at upstream's relist period instead.
        tokio::time::sleep(RECONNECT).await;
    }
}

fn tell_health(healthy: &watch::Sender<bool>, now: bool) {
    healthy.send_if_modified(|known| std::mem::replace(known, now) != now);
}

async fn follow(
    shared: &Shared,
    healthy: &watch::Sender<bool>,
    told: &mpsc::Sender<Option<String>>,
) -> Result<(), tonic::Status> {
    let metrics = &shared.metrics.requests;
    let stream = shared.runtime.runtime.clone().get_container_events(cri::GetEventsRequest {}).await;
    metrics.event_stream(&stream);
    let mut events = stream?.into_inner();
    while let Some(event) = events.message().await? {
        let age = Timestamp::now().as_nanosecond() - i128::from(event.created_at);
        metrics.event_heard(std::time::Duration::from_nanos(u64::try_from(age).unwrap_or_default()));
        tell_health(healthy, true);
        let uid = event.pod_sandbox_status.and_then(|status| status.metadata).map(|m| m.uid);
        shared.turns.send(uid.clone()).ok();
        if told.send(uid).await.is_err() {
            break;
        }
    }
    Ok(())
}
