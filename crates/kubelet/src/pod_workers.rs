//! Gives every pod of the node a worker: those bound to it in the API, and those that files or a URL describe
//! (follows `pod_workers.go` and the kubelet's `HandlePodAdditions`, `HandlePodRemoves`).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use api::view::core::Pod;
use apimachinery::meta::NamespacedName;
use client::{CancellationToken, Delta};
use runtime::cri;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;

use crate::admission::Gate;
use crate::observe::POD_UID_LABEL;
use crate::staticpods::{self, Described, StaticPod, mirror};
use crate::worker::{self, Given, Message, Shared};

pub struct PodWorkers {
    shared: Arc<Shared>,
    gate: Gate,
    /// By pod uid.
    workers: HashMap<String, mpsc::Sender<Message>>,
    /// What files and the URL describe now.
    described: watch::Receiver<Described>,
    /// Static pods that run, by name.
    statics: HashMap<NamespacedName, Static>,
    /// Workers of static pods that are to end, by name: nothing of that name starts before.
    ending: HashMap<NamespacedName, mpsc::Sender<Message>>,
    /// Heard when one of those has ended.
    ended: mpsc::UnboundedReceiver<()>,
    end: mpsc::UnboundedSender<()>,
    stop: CancellationToken,
}

struct Static {
    pod: Arc<StaticPod>,
    /// What the API shows under its name.
    mirror: watch::Sender<Option<Arc<Pod>>>,
    keeper: AbortHandle,
}

/// What the pods' workers hear of.
pub struct Sources {
    pub pods: mpsc::UnboundedReceiver<Delta<Pod>>,
    /// The uid of a pod that changed in the runtime; `None` when any may have.
    pub events: mpsc::Receiver<Option<String>>,
}

impl PodWorkers {
    pub fn new(
        shared: Arc<Shared>,
        gate: Gate,
        described: watch::Receiver<Described>,
        stop: CancellationToken,
    ) -> Self {
        let (end, ended) = mpsc::unbounded_channel();
        PodWorkers {
            shared,
            gate,
            workers: HashMap::new(),
            described,
            statics: HashMap::new(),
            ending: HashMap::new(),
            ended,
            end,
            stop,
        }
    }

    /// Runs static pods at once, and all others when `online` has come: only then is it known which pods there are.
    pub async fn run(mut self, mut sources: Sources, online: impl Future<Output = ()>) {
        let mut online = std::pin::pin!(online);
        let (mut is_online, mut is_tidy, mut is_followed) = (false, false, true);
        self.descriptions_changed().await;
        loop {
            tokio::select! {
                () = &mut online, if !is_online => {
                    is_online = true;
                    while let Ok(delta) = sources.pods.try_recv() {
                        self.pod_changed(delta).await;
                    }
                }
                delta = sources.pods.recv(), if is_online => match delta {
                    Some(delta) => self.pod_changed(delta).await,
                    None => return,
                },
                event = sources.events.recv() => match event {
                    Some(Some(uid)) => self.runtime_changed(&uid),
                    Some(None) => self.all_changed(),
                    None => return,
                },
                changed = self.described.changed(), if is_followed => match changed {
                    Ok(()) => self.descriptions_changed().await,
                    // Those that run go on.
                    Err(_) => is_followed = false,
                },
                Some(()) = self.ended.recv() => self.descriptions_changed().await,
            }
            // Only now is it known of all that run whether they should.
            if is_online && !is_tidy && self.described.borrow().is_complete() {
                is_tidy = true;
                self.remove_orphans().await;
            }
        }
    }

    async fn pod_changed(&mut self, delta: Delta<Pod>) {
        if staticpods::mirrored_uid(delta.object()).is_some() {
            return self.mirror_changed(delta).await;
        }
        let uid = delta.object().metadata.uid.clone();
        match delta {
            Delta::Deleted(_) => {
                self.gate.release(&uid);
                self.tell(&uid, Message::Gone).await;
            }
            Delta::Added(pod) | Delta::Updated { new: pod, .. } => {
                self.workers.retain(|_, worker| !worker.is_closed());
                if self.workers.contains_key(&uid) {
                    self.gate.update(&pod);
                    self.tell(&uid, Message::Pod(pod)).await;
                } else {
                    self.start(pod, None).await;
                }
            }
        }
    }

    /// Starts the pod's worker, which of a pod that is refused has only that to tell.
    async fn start(&mut self, pod: Arc<Pod>, mirror: Option<Arc<Pod>>) {
        let seen = Instant::now();
        let refused = self.gate.admit(&pod).await.err();
        if let Some(refusal) = &refused {
            self.shared.tell_refused(&pod, refusal);
        }
        let uid = pod.metadata.uid.clone();
        let failed = refused.map(|refusal| refusal.told());
        let given = Given { pod, mirror, failed, seen, is_of_runtime: false };
        let worker = worker::spawn(self.shared.clone(), given, self.stop.child_token());
        self.workers.insert(uid, worker);
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

    async fn mirror_changed(&mut self, delta: Delta<Pod>) {
        let (name, mirror) = match delta {
            Delta::Deleted(old) => (old.metadata.namespaced_name(), None),
            Delta::Added(new) | Delta::Updated { new, .. } => (new.metadata.namespaced_name(), Some(new)),
        };
        let Some(known) = self.statics.get(&name) else {
            if let Some(orphan) = mirror {
                self.delete_mirror(orphan);
            }
            return;
        };
        known.mirror.send_replace(mirror.clone());
        let uid = known.pod.uid().to_owned();
        let shown = mirror.filter(|mirror| staticpods::mirrored_uid(mirror) == Some(&uid));
        self.tell(&uid, Message::Mirror(shown)).await;
    }

    fn delete_mirror(&self, orphan: Arc<Pod>) {
        let client = self.shared.client.clone();
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(async move {
            if let Err(error) = mirror::delete(&client, &orphan).await {
                tracing::warn!(pod = %orphan.metadata.namespaced_name(), %error, "mirror pod remains");
            }
        }));
    }

    /// Ends static pods whose descriptions are gone or different, and starts those that are new; one that takes the
    /// name of another waits for its end.
    async fn descriptions_changed(&mut self) {
        self.ending.retain(|_, worker| !worker.is_closed());
        let pods = self.described.borrow_and_update().pods();
        let gone = |known: &Static| !pods.iter().any(|pod| pod.uid() == known.pod.uid());
        let gone: Vec<NamespacedName> =
            self.statics.iter().filter(|(_, known)| gone(known)).map(|(name, _)| name.clone()).collect();
        let mut mirrors = HashMap::new();
        for name in gone {
            let Some(over) = self.statics.remove(&name) else { continue };
            over.keeper.abort();
            mirrors.insert(name.clone(), over.mirror.borrow().clone());
            self.end_static(name, over.pod.uid()).await;
        }
        for pod in pods {
            let name = pod.name();
            if !self.statics.contains_key(&name) && !self.must_wait(&name) {
                self.start_static(pod, mirrors.remove(&name).flatten()).await;
            }
        }
        mirrors.into_values().flatten().for_each(|mirror| self.delete_mirror(mirror));
    }

    async fn end_static(&mut self, name: NamespacedName, uid: &str) {
        self.gate.release(uid);
        self.tell(uid, Message::Gone).await;
        if let Some(worker) = self.workers.remove(uid) {
            self.ending.insert(name, worker.clone());
            let end = self.end.clone();
            tokio::spawn(async move {
                worker.closed().await;
                // Nobody listens any more when the kubelet ends.
                end.send(()).ok();
            });
        }
    }

    /// Whether a worker of a static pod of this name still has to end.
    fn must_wait(&self, name: &NamespacedName) -> bool {
        self.ending.get(name).is_some_and(|worker| !worker.is_closed())
    }

    async fn start_static(&mut self, pod: Arc<StaticPod>, mirror: Option<Arc<Pod>>) {
        let (seen, known) = watch::channel(mirror.clone());
        let config = &self.shared.config;
        let keeper = mirror::keep(self.shared.client.clone(), config.node_name.clone(), pod.clone(), known);
        let keeper = tokio::spawn(self.stop.clone().run_until_cancelled_owned(keeper)).abort_handle();
        let shown = mirror.filter(|mirror| staticpods::mirrored_uid(mirror) == Some(pod.uid()));
        self.start(pod.pod.clone(), shown).await;
        self.statics.insert(pod.name(), Static { pod, mirror: seen, keeper });
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
            let given = Given {
                pod: Arc::new(orphan(&sandbox)),
                mirror: None,
                failed: None,
                seen: Instant::now(),
                is_of_runtime: true,
            };
            let worker = worker::spawn(self.shared.clone(), given, self.stop.child_token());
            self.shared.metrics.workers.orphaned();
            self.workers.insert(uid.clone(), worker);
            self.tell(&uid, Message::Gone).await;
        }
        self.shared.containers.release_all_but(|uid| self.workers.contains_key(uid));
        let here: BTreeSet<String> = self.workers.keys().cloned().collect();
        let unprepare = self.shared.dra.clone().unprepare_all_but(move |uid| here.contains(uid));
        tokio::spawn(self.stop.clone().run_until_cancelled_owned(unprepare));
        self.remove_orphaned_files();
    }

    fn remove_orphaned_files(&self) {
        let Ok(entries) = std::fs::read_dir(self.shared.config.root_dir.join("pods")) else { return };
        for name in entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()) {
            if self.workers.contains_key(&name) {
                continue;
            }
            let remove = remove_orphaned_files(self.shared.clone(), name);
            tokio::spawn(self.stop.clone().run_until_cancelled_owned(remove));
        }
    }
}

/// Between attempts to take away the volumes of a pod that is gone: their drivers may not have come yet.
const ORPHAN_RETRY: Duration = Duration::from_secs(2);

/// Takes a pod's volumes away and then its files.
async fn remove_orphaned_files(shared: Arc<Shared>, uid: String) {
    let Shared { config, client, csi_drivers, .. } = &*shared;
    let (root, node) = (&config.root_dir, &config.node_name);
    while let Err(error) = crate::csi::tear_down(client, csi_drivers, root, node, &uid).await {
        tracing::warn!(pod = uid, error, "volumes of a pod that is gone remain mounted, will retry");
        tokio::time::sleep(ORPHAN_RETRY).await;
    }
    if let Err(error) = crate::volumes::tear_down(root, &uid) {
        tracing::warn!(pod = uid, %error, "files of a pod that is gone remain");
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
