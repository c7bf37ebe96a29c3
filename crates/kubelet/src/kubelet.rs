//! The kubelet as a whole: registers the node, gives every bound pod a worker, routes runtime events to them, serves
//! its own API.

use std::collections::HashMap;
use std::sync::Arc;

use api::resource::PODS;
use api::view::core::{ObjectReference, PersistentVolume, Pod, Service};
use client::event::EventType;
use client::{CancellationToken, Client, Delta, EventRecorder, Informers};
use runtime::cri;
use tokio::net::TcpListener;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{broadcast, mpsc, watch};

use crate::allocation::Ledger;
use crate::config::Config;
use crate::csi::{Drivers, Registry};
use crate::images::ImageManager;
use crate::node;
use crate::observe::POD_UID_LABEL;
use crate::server;
use crate::volumes::local_path;
use crate::volumes::watched::Watched;
use crate::worker::{self, Message, Runtime, Shared};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("container runtime does not answer: {0}")]
    Runtime(#[from] tonic::Status),
    #[error("kubelet cannot listen on {0}: {1}")]
    Listen(std::net::SocketAddr, std::io::Error),
    #[error("node facts cannot be read: {0}")]
    Node(#[from] node::Error),
}

/// Runs until `stop`; containers go on running. `ready` is called once the node is registered and its pods are known.
pub async fn run(
    config: Config,
    client: Client,
    informers: Informers,
    runtime: Runtime,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), Error> {
    let listener = TcpListener::bind(config.listen).await.map_err(|e| Error::Listen(config.listen, e))?;
    let port = listener.local_addr().map_err(|e| Error::Listen(config.listen, e))?.port();
    let recorder = EventRecorder::new(client.clone(), "kubelet", &config.node_name);
    let capacity = node::capacity(&config)?;
    let facts = node::Facts::read(&config, &runtime, capacity, port).await?;
    let services = informers.get::<Service>();
    let pods = informers.get_selected::<Pod>(PODS, &format!("spec.nodeName={}", config.node_name));

    let runtime_name = facts.runtime_name().to_owned();
    node::register(&client, &config, &facts).await;
    let reference = node::reference(&config.node_name);
    recorder.event(&reference, EventType::Normal, "Starting", "Starting kubelet.");
    let (healthy, health) = watch::channel(true);
    let status = node::StatusLoop::new(client.clone(), config.clone(), facts, runtime.clone(), health);
    tokio::spawn(stop.clone().run_until_cancelled_owned(status.run()));
    tokio::spawn(
        stop.clone().run_until_cancelled_owned(node::lease::run(client.clone(), config.node_name.clone())),
    );

    services.synced().await;
    pods.synced().await;
    let csi_drivers = Arc::<Drivers>::default();
    let registry = Registry {
        drivers: csi_drivers.clone(),
        client: client.clone(),
        node_name: config.node_name.clone(),
        dir: config.root_dir.join("plugins_registry"),
    };
    tokio::spawn(stop.clone().run_until_cancelled_owned(registry.run()));
    let shared = Arc::new(Shared {
        csi_drivers,
        allocatable: capacity.allocatable(),
        allocations: Ledger::new(capacity.allocatable()),
        memory_capacity: capacity.memory_bytes,
        runtime_name,
        config,
        watched: Watched::new(client.clone()),
        client,
        runtime: runtime.clone(),
        images: ImageManager::default(),
        recorder,
        services,
        turns: broadcast::Sender::new(TURNS_MAX),
    });
    let api = server::Server::new(shared.clone(), pods.clone());
    tokio::spawn(stop.clone().run_until_cancelled_owned(api.serve(listener)));
    let (told, events) = mpsc::channel(EVENTS_MAX);
    tokio::spawn(stop.clone().run_until_cancelled_owned(runtime_events(
        runtime,
        shared.turns.clone(),
        healthy,
        told,
    )));
    if let Some(root) = shared.config.local_path_root.clone() {
        let volumes = informers.get::<PersistentVolume>();
        let node_name = shared.config.node_name.clone();
        let reclaim = local_path::reclaim(shared.client.clone(), volumes, root, node_name);
        tokio::spawn(stop.clone().run_until_cancelled_owned(reclaim));
    }
    let manager = Manager { shared, workers: HashMap::new(), stop: stop.clone() };
    ready();
    stop.run_until_cancelled(manager.run(pods.subscribe(), events, reference)).await;
    Ok(())
}

/// Runtime events on their way to the workers.
const EVENTS_MAX: usize = 1024;
/// Events kept for followers of logs; one that lags looks for itself.
const TURNS_MAX: usize = 256;

struct Manager {
    shared: Arc<Shared>,
    /// By pod uid.
    workers: HashMap<String, mpsc::Sender<Message>>,
    stop: CancellationToken,
}

impl Manager {
    async fn run(
        mut self,
        mut pods: mpsc::UnboundedReceiver<Delta<Pod>>,
        mut events: mpsc::Receiver<Option<String>>,
        node: ObjectReference,
    ) {
        while let Ok(delta) = pods.try_recv() {
            self.pod_changed(delta).await;
        }
        self.remove_orphans().await;
        self.shared.recorder.event(
            &node,
            EventType::Normal,
            "NodeReady",
            format!("Node {} status is now: NodeReady", node.name),
        );
        loop {
            tokio::select! {
                delta = pods.recv() => match delta {
                    Some(delta) => self.pod_changed(delta).await,
                    None => return,
                },
                event = events.recv() => match event {
                    Some(Some(uid)) => self.runtime_changed(&uid),
                    Some(None) => self.all_changed(),
                    None => return,
                },
            }
        }
    }

    async fn pod_changed(&mut self, delta: Delta<Pod>) {
        let uid = delta.object().metadata.uid.clone();
        match delta {
            Delta::Deleted(_) => self.tell(&uid, Message::Gone).await,
            Delta::Added(pod) | Delta::Updated { new: pod, .. } => {
                self.workers.retain(|_, worker| !worker.is_closed());
                if self.workers.contains_key(&uid) {
                    self.tell(&uid, Message::Pod(pod)).await;
                } else {
                    let worker = worker::spawn(self.shared.clone(), pod, self.stop.child_token());
                    self.workers.insert(uid, worker);
                }
            }
        }
    }

    async fn tell(&mut self, uid: &str, message: Message) {
        // A worker that ended has nothing more to hear.
        if let Some(worker) = self.workers.get(uid)
            && worker.send(message).await.is_err()
        {
            self.workers.remove(uid);
        }
    }

    /// Waits for nobody: a worker whose inbox is full looks at the runtime anyway when it gets to it.
    fn runtime_changed(&mut self, uid: &str) {
        if let Some(worker) = self.workers.get(uid)
            && let Err(TrySendError::Closed(_)) = worker.try_send(Message::Runtime)
        {
            self.workers.remove(uid);
        }
    }

    fn all_changed(&mut self) {
        let uids: Vec<String> = self.workers.keys().cloned().collect();
        uids.iter().for_each(|uid| self.runtime_changed(uid));
    }

    /// Ends sandboxes whose pods left the API while nobody watched, and removes the files of such pods.
    async fn remove_orphans(&mut self) {
        let mut client = self.shared.runtime.runtime.clone();
        let sandboxes = match client.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await {
            Ok(answer) => answer.into_inner().items,
            Err(status) => return tracing::warn!(error = status.message(), "sandboxes could not be listed"),
        };
        for sandbox in sandboxes {
            let uid = sandbox.labels.get(POD_UID_LABEL).cloned().unwrap_or_default();
            if uid.is_empty() || self.workers.contains_key(&uid) {
                continue;
            }
            let worker =
                worker::spawn(self.shared.clone(), Arc::new(orphan(&sandbox)), self.stop.child_token());
            self.workers.insert(uid.clone(), worker);
            self.tell(&uid, Message::Gone).await;
        }
        self.remove_orphaned_files();
    }

    fn remove_orphaned_files(&self) {
        let Ok(entries) = std::fs::read_dir(self.shared.config.root_dir.join("pods")) else { return };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if self.workers.contains_key(&name) {
                continue;
            }
            if let Err(error) = crate::volumes::tear_down(&self.shared.config.root_dir, &name) {
                tracing::warn!(pod = name, %error, "files of a pod that is gone remain");
            }
        }
    }
}

/// What is known of a pod of which only the sandbox is left.
fn orphan(sandbox: &cri::PodSandbox) -> Pod {
    let metadata = sandbox.metadata.clone().unwrap_or_default();
    let mut pod = Pod::default();
    pod.metadata.name = metadata.name;
    pod.metadata.namespace = metadata.namespace;
    pod.metadata.uid = metadata.uid;
    pod
}

/// Tells which pod (by uid) changed; `None` when events may have been missed and all must look. `healthy` is whether
/// the runtime answers.
async fn runtime_events(
    runtime: Runtime,
    turns: broadcast::Sender<Option<String>>,
    healthy: watch::Sender<bool>,
    told: mpsc::Sender<Option<String>>,
) {
    const RECONNECT: std::time::Duration = std::time::Duration::from_secs(1);
    loop {
        if let Err(status) = follow(&runtime, &turns, &healthy, &told).await {
            tracing::debug!(error = status.message(), "runtime events ended");
        }
        tell_health(&healthy, node::runtime_ready(&runtime).await);
        // Nobody may be following a log.
        turns.send(None).ok();
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
    runtime: &Runtime,
    turns: &broadcast::Sender<Option<String>>,
    healthy: &watch::Sender<bool>,
    told: &mpsc::Sender<Option<String>>,
) -> Result<(), tonic::Status> {
    let mut events =
        runtime.runtime.clone().get_container_events(cri::GetEventsRequest {}).await?.into_inner();
    while let Some(event) = events.message().await? {
        tell_health(healthy, true);
        let uid = event.pod_sandbox_status.and_then(|status| status.metadata).map(|m| m.uid);
        turns.send(uid.clone()).ok();
        if told.send(uid).await.is_err() {
            break;
        }
    }
    Ok(())
}
