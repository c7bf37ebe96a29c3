//! The runtime's state: what sandboxes and containers there are, kept on disk, and the watch over their shims.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::cgroups::Cgroups;
use crate::config::Config;
use crate::cri::{ContainerEventResponse, ContainerEventType};
use crate::files::remove_dir;
use crate::images::{Registry, Store};
use crate::record::{self, ContainerRecord, SandboxRecord};
use crate::shim::protocol::{ContainerState, Reply, Request};
use crate::shim::spec::ExitRecord;
use crate::shim_client::{ShimConnection, Spawner};
use crate::stats::Trees;
use crate::streaming;
use crate::{Error, Result};

/// Events kept for a reader that lags; past it the stream ends and the reader lists anew.
const EVENTS_MAX: usize = 4096;
/// Exit code of a container whose end nobody saw (containerd's `unknownExitCode`).
const UNKNOWN_EXIT_CODE: i32 = 255;

/// The container runtime. Methods of the CRI are in `sandbox`, `container`, `exec`, `stats` and `image_service`.
pub struct Runtime {
    pub(crate) config: Config,
    pub(crate) cgroups: Cgroups,
    pub(crate) images: Arc<Store>,
    pub(crate) registry: Registry,
    pub(crate) shims: Spawner,
    pub(crate) state: Mutex<State>,
    pub(crate) events: broadcast::Sender<ContainerEventResponse>,
    /// Bumped whenever a container or sandbox ends, for those who wait for it.
    pub(crate) endings: watch::Sender<u64>,
    pub(crate) streaming: OnceLock<Arc<streaming::Server>>,
    /// What containers have written, as last looked at.
    pub(crate) trees: Trees,
    stop: CancellationToken,
}

#[derive(Default)]
pub(crate) struct State {
    pub sandboxes: BTreeMap<String, SandboxRecord>,
    pub containers: BTreeMap<String, ContainerRecord>,
}

impl Runtime {
    /// Opens the runtime's folders and takes up what runs; running containers are left alone.
    pub async fn open(config: Config) -> Result<Arc<Runtime>> {
        for dir in [
            config.data_dir.join("sandboxes"),
            config.data_dir.join("containers"),
            config.state_dir.join("sandboxes"),
        ] {
            std::fs::create_dir_all(&dir).map_err(Error::io("create folder", &dir))?;
        }
        let cgroups =
            Cgroups::detect().map_err(Error::io("find cgroups in", "/proc/self/mountinfo".as_ref()))?;
        let state = load_state(&config)?;
        let layers_in_use = state.layers_in_use();
        let images = Arc::new(Store::open(&config.data_dir, &layers_in_use)?);
        let runtime = Arc::new(Runtime {
            registry: Registry::open(config.registries.clone())?,
            shims: Spawner::new(config.shim.clone()),
            cgroups,
            images,
            state: Mutex::new(state),
            events: broadcast::channel(EVENTS_MAX).0,
            endings: watch::channel(0).0,
            streaming: OnceLock::new(),
            trees: Trees::default(),
            stop: CancellationToken::new(),
            config,
        });
        runtime.clone().start_streaming().await?;
        let sandboxes: Vec<SandboxRecord> = runtime.state.lock().sandboxes.values().cloned().collect();
        let (ready, strays): (Vec<_>, Vec<_>) = sandboxes.into_iter().partition(|sandbox| sandbox.ready);
        for sandbox in ready {
            runtime.clone().take_up(&sandbox).await;
        }
        // Not awaited: the network they are detached from may start only after the runtime.
        let ending = runtime.clone();
        tokio::spawn(runtime.stop.clone().run_until_cancelled_owned(async move {
            for stray in strays {
                ending.end_stray_shim(&stray).await;
            }
        }));
        Ok(runtime)
    }

    async fn start_streaming(self: Arc<Self>) -> Result<()> {
        let backend = self.streaming_backend();
        let server = streaming::Server::bind(backend)
            .await
            .map_err(Error::io("bind streaming server to", "127.0.0.1".as_ref()))?;
        tokio::spawn(server.clone().run(self.stop.clone()));
        self.streaming
            .set(server)
            .map_err(|_| Error::FailedPrecondition("streaming server runs already".into()))
    }

    /// Stops the background work of this instance. Containers keep running.
    pub fn close(&self) {
        self.stop.cancel();
    }

    /// Stops and removes every sandbox with its containers; images stay.
    pub async fn teardown_all(self: &Arc<Self>) -> Result<()> {
        let ids: Vec<String> = self.state.lock().sandboxes.keys().cloned().collect();
        for id in ids {
            self.remove_sandbox(&id).await?;
        }
        // With what the kubelet made in it, one for each quality of service.
        let root = &self.config.cgroup_root;
        self.cgroups.remove(root).await.map_err(Error::io("remove cgroup", root.as_ref()))
    }

    pub fn images(&self) -> &Arc<Store> {
        &self.images
    }

    pub(crate) fn sandbox_data_dir(&self, id: &str) -> PathBuf {
        self.config.data_dir.join("sandboxes").join(id)
    }

    pub(crate) fn sandbox_dir(&self, id: &str) -> PathBuf {
        self.config.state_dir.join("sandboxes").join(id)
    }

    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.config.data_dir.join("containers").join(id)
    }

    /// Finds by id or by an unambiguous beginning of one, as `crictl` users expect.
    pub(crate) fn sandbox(&self, id: &str) -> Result<SandboxRecord> {
        let state = self.state.lock();
        by_prefix(&state.sandboxes, id).ok_or_else(|| not_found("sandbox", id))
    }

    pub(crate) fn container(&self, id: &str) -> Result<ContainerRecord> {
        let state = self.state.lock();
        by_prefix(&state.containers, id).ok_or_else(|| not_found("container", id))
    }

    pub(crate) fn save_sandbox(&self, sandbox: SandboxRecord) -> Result<()> {
        record::save(&self.sandbox_data_dir(&sandbox.id), &sandbox)?;
        self.state.lock().sandboxes.insert(sandbox.id.clone(), sandbox);
        Ok(())
    }

    /// Changes a record under the lock, on disk and in memory.
    pub(crate) fn update_container(
        &self,
        id: &str,
        change: impl FnOnce(&mut ContainerRecord),
    ) -> Result<ContainerRecord> {
        let mut state = self.state.lock();
        let container = state.containers.get_mut(id).ok_or_else(|| not_found("container", id))?;
        change(container);
        record::save(&self.container_dir(id), container)?;
        Ok(container.clone())
    }

    pub(crate) fn layers_in_use(&self) -> BTreeSet<String> {
        self.state.lock().layers_in_use()
    }

    pub(crate) fn emit(&self, container_id: &str, sandbox_id: &str, kind: ContainerEventType) {
        let sandbox = self.state.lock().sandboxes.get(sandbox_id).cloned();
        let event = ContainerEventResponse {
            container_id: container_id.to_owned(),
            container_event_type: kind as i32,
            created_at: now(),
            containers_statuses: self.statuses_of(sandbox_id),
            pod_sandbox_status: sandbox.map(|sandbox| crate::sandbox::status(&sandbox)),
        };
        if self.events.send(event).is_err() {
            tracing::debug!(container_id, "nobody listens to container events");
        }
    }

    /// Connects to the shim of a sandbox that was left running, and learns what happened meanwhile.
    async fn take_up(self: Arc<Self>, sandbox: &SandboxRecord) {
        if let Err(error) = self.clone().watch_shim(&sandbox.id).await {
            tracing::info!(sandbox = sandbox.id, %error, "sandbox did not survive");
            self.on_shim_death(&sandbox.id);
        }
    }

    /// The agent may have died between starting a shim and recording that its sandbox is ready, or between recording a
    /// sandbox's end and its containers', for which a full disk has no room.
    async fn end_stray_shim(&self, sandbox: &SandboxRecord) {
        self.end_orphans(&sandbox.id);
        if let Err(error) = self.tear_down_sandbox(sandbox).await {
            tracing::warn!(sandbox = sandbox.id, %error, "cannot clean up after an unfinished start");
        }
    }

    /// Follows a shim's events from now on.
    pub(crate) async fn watch_shim(self: Arc<Self>, id: &str) -> Result<()> {
        let dir = self.sandbox_dir(id);
        let mut connection =
            ShimConnection::open(&dir).await.map_err(Error::io("connect to shim in", &dir))?;
        match connection.call(&Request::Subscribe, &[]).await? {
            Reply::State { containers, .. } => containers.iter().for_each(|state| self.learn(state)),
            other => return Err(Error::Shim(format!("unexpected answer {other:?}"))),
        }
        let (runtime, id) = (self.clone(), id.to_owned());
        tokio::spawn(async move {
            tokio::select! {
                () = runtime.stop.cancelled() => {}
                () = runtime.follow(connection) => runtime.on_shim_death(&id),
            }
        });
        Ok(())
    }

    async fn follow(&self, mut connection: ShimConnection) {
        loop {
            match connection.receive().await {
                Ok(Reply::Exited { container, exit }) => self.on_exit(&container, exit, ""),
                Ok(other) => tracing::warn!(?other, "unexpected message from a shim"),
                Err(error) => {
                    tracing::debug!(%error, "shim connection ended");
                    return;
                }
            }
        }
    }

    fn learn(&self, state: &ContainerState) {
        let started = self.update_container(&state.id, |container| {
            container.pid = state.pid;
            container.started_at = Some(state.started_at);
        });
        if let Err(error) = started {
            tracing::warn!(container = state.id, %error, "shim runs a container that is not known");
        }
        if let Some(exit) = state.exit {
            self.on_exit(&state.id, exit, "");
        }
    }

    pub(crate) fn on_exit(&self, id: &str, exit: ExitRecord, message: &str) {
        let running =
            self.state.lock().containers.get(id).filter(|container| container.exit.is_none()).cloned();
        let Some(ContainerRecord { sandbox_id, cgroup, .. }) = running else { return };
        // Its quota would bound the pod's from below as long as it is there (cgroup v1). What stays goes with the container.
        if self.cgroups.try_remove(&cgroup).is_err() {
            let (cgroups, id) = (self.cgroups.clone(), id.to_owned());
            tokio::spawn(async move {
                if let Err(error) = cgroups.remove(&cgroup).await {
                    tracing::debug!(container = id, %error, "the cgroup of a container that has ended stays");
                }
            });
        }
        let updated = self.update_container(id, |container| {
            container.exit = Some(exit);
            container.message = message.to_owned();
        });
        // Told even when it cannot be written, as on a full disk: it is known here, and the shim knows it after a restart.
        if let Err(error) = updated {
            tracing::error!(container = id, %error, "cannot record a container's end");
        }
        self.emit(id, &sandbox_id, ContainerEventType::ContainerStoppedEvent);
        self.endings.send_modify(|count| *count += 1);
    }

    /// Without its shim a sandbox is over: nobody reaps its containers or takes their output.
    pub(crate) fn on_shim_death(&self, id: &str) {
        let Some(mut sandbox) = self.state.lock().sandboxes.get(id).cloned() else { return };
        if !sandbox.ready {
            return;
        }
        sandbox.ready = false;
        self.cgroups.kill_all(&sandbox.shim_cgroup());
        // Recorded first: who hears of a container's end must find its sandbox ended too. It is known here even when it
        // cannot be written, as on a full disk, and a restart finds the shim dead again.
        let written = record::save(&self.sandbox_data_dir(id), &sandbox);
        self.state.lock().sandboxes.insert(id.to_owned(), sandbox);
        if let Err(error) = written {
            tracing::error!(sandbox = id, %error, "cannot record a sandbox's end");
        }
        self.end_orphans(id);
        self.emit(id, id, ContainerEventType::ContainerStoppedEvent);
        self.endings.send_modify(|count| *count += 1);
    }

    /// Ends what still runs, as far as is known, of a sandbox whose shim is gone or followed by nobody.
    fn end_orphans(&self, sandbox_id: &str) {
        let running = self.containers_of(sandbox_id).into_iter().filter(ContainerRecord::is_running);
        for container in running {
            self.cgroups.kill_all(&container.cgroup);
            let recorded = record::read_exit(&self.container_dir(&container.id));
            let unknown = ExitRecord { code: UNKNOWN_EXIT_CODE, finished_at: now(), oom_killed: false };
            let message = if recorded.is_some() { "" } else { "the sandbox process died" };
            self.on_exit(&container.id, recorded.unwrap_or(unknown), message);
        }
    }
}

impl State {
    /// Folders of sandboxes that were never recorded: nothing was started in them yet.
    fn unknown_folders(&self, dir: &Path) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(Error::io("read", dir))? {
            let entry = entry.map_err(Error::io("read", dir))?;
            if !self.sandboxes.contains_key(&*entry.file_name().to_string_lossy()) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    fn layers_in_use(&self) -> BTreeSet<String> {
        let layers = |container: &ContainerRecord| {
            container.volume_layers.values().flatten().chain(&container.layers).cloned().collect::<Vec<_>>()
        };
        self.containers.values().flat_map(layers).collect()
    }
}

fn load_state(config: &Config) -> Result<State> {
    let (sandboxes, mut incomplete) = record::load::<SandboxRecord>(&config.data_dir.join("sandboxes"))?;
    let (containers, more) = record::load::<ContainerRecord>(&config.data_dir.join("containers"))?;
    incomplete.extend(more);
    let state = State {
        sandboxes: sandboxes.into_iter().map(|sandbox| (sandbox.id.clone(), sandbox)).collect(),
        containers: containers.into_iter().map(|container| (container.id.clone(), container)).collect(),
    };
    incomplete.extend(state.unknown_folders(&config.state_dir.join("sandboxes"))?);
    for dir in incomplete {
        remove_dir(&dir).map_err(Error::io("remove", &dir))?;
    }
    Ok(state)
}

fn by_prefix<T: Clone>(records: &BTreeMap<String, T>, id: &str) -> Option<T> {
    if id.is_empty() {
        return None;
    }
    let mut matching = records.range(id.to_owned()..).take_while(|(known, _)| known.starts_with(id));
    match (matching.next(), matching.next()) {
        (Some((_, record)), None) => Some(record.clone()),
        _ => None,
    }
}

pub(crate) fn not_found(kind: &'static str, id: &str) -> Error {
    Error::NotFound { kind, id: id.to_owned() }
}

/// Nanoseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
