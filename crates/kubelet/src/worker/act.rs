//! Carries a plan's actions out, each in a task of its own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use api::view::core::Pod;
use client::event::EventType;
use jiff::{SignedDuration, Timestamp};
use runtime::cri;
use tokio::sync::Mutex;
use tokio::sync::broadcast::error::RecvError;

use super::resize::Resize;
use super::{Message, Outcome, PodEvents, Shared, Worker, log_directory};
use crate::admission::Refusal;
use crate::observe::Observed;
use crate::pod::actions::Action;
use crate::pod::sandbox::{check_hostname, sandbox_config};
use crate::probe::Target;
use crate::resources::{limit_processes, pod_cgroup};
use crate::runtimeclass;
use crate::volumes;

/// Pauses after a failure that is not the container's own (upstream's volume manager starts at 0.5 s).
pub const RETRY: SignedDuration = SignedDuration::from_secs(2);
/// After a volume of running containers could not be renewed; a source that comes back is told of by its watch
/// (upstream's volume manager ends at 2 min 2 s).
const REFRESH_RETRY: SignedDuration = SignedDuration::from_secs(122);
pub const REFRESH: &str = "refresh";

const START: &str = "start ";

fn start_key(name: &str) -> String {
    format!("{START}{name}")
}

/// The container that the action of this key starts, if it starts one.
pub fn started_by(key: &str) -> Option<&str> {
    key.strip_prefix(START)
}

impl Worker {
    /// Begins the action unless the same one is under way.
    pub(super) fn act(&mut self, pod: &Arc<Pod>, observed: &Observed, action: Action) {
        match action {
            Action::CreateSandbox { attempt } => {
                let resources = self.memory.resources.cgroup.clone();
                let create = create_sandbox(
                    self.shared.clone(),
                    pod.clone(),
                    self.volumes.clone(),
                    attempt,
                    resources,
                );
                self.run_action("sandbox".to_owned(), create);
            }
            Action::Start { name, kind, attempt } => {
                let start = super::start::Start {
                    shared: self.shared.clone(),
                    pod: pod.clone(),
                    name: name.clone(),
                    kind,
                    attempt,
                    sandbox: observed.sandboxes.first().cloned(),
                    target_container_id: String::new(),
                    terminating: self.terminating.clone(),
                    volumes: self.volumes.clone(),
                };
                self.run_action(start_key(&name), start.aimed_at(observed).run());
            }
            Action::Kill { id, name, grace_seconds, reason, after } => {
                let Some((spec, _)) = crate::pod::all_containers(pod).find(|(c, _)| c.name == name) else {
                    return;
                };
                let target = self.target(observed, spec, &id);
                let key = format!("kill {id} {grace_seconds}");
                let ending = Ending { target, grace_seconds, reason, after };
                self.memory.killed.insert(id);
                self.run_action(key, kill(self.shared.clone(), pod.clone(), ending));
            }
            Action::Resize { containers } => {
                let change = Resize::of(pod, &containers, &self.memory);
                self.run_action("resize".to_owned(), change.run(self.shared.clone(), pod.clone()));
            }
            Action::StopSandbox { id } => {
                self.run_action(format!("stop {id}"), stop_sandbox(self.shared.clone(), id, false));
            }
            Action::RemoveSandbox { id } => {
                self.run_action(format!("remove {id}"), stop_sandbox(self.shared.clone(), id, true));
            }
            Action::ResetContainer { id } => {
                self.run_action(
                    format!("reset {id}"),
                    remove_container(self.shared.clone(), id, String::new()),
                );
            }
            Action::RemoveContainer { id } => {
                let log = observed.containers.iter().find(|c| c.id == id).map(|c| c.log_path.clone());
                let remove = remove_container(self.shared.clone(), id.clone(), log.unwrap_or_default());
                self.run_action(format!("remove {id}"), remove);
            }
        }
    }

    /// Renews the volumes of running containers.
    pub(super) fn refresh(&mut self, pod: &Arc<Pod>, observed: &Observed) {
        let ips = observed.ready_sandbox().map(|s| s.ips.clone()).unwrap_or_default();
        let refresh = refresh(self.shared.clone(), pod.clone(), self.volumes.clone(), ips);
        self.run_action(REFRESH.to_owned(), refresh);
    }

    fn run_action(&mut self, key: String, action: impl Future<Output = Outcome> + Send + 'static) {
        if !self.running.insert(key.clone()) {
            return;
        }
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let outcome = action.await;
            // A worker that is gone does not care how it went.
            drop(sender.send(Message::Done { key, outcome: Box::new(outcome) }).await);
        });
    }
}

/// `volumes` is held by whoever writes the pod's volumes. Volumes first, so that a missing one shows before anything runs.
async fn create_sandbox(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    volumes: Arc<Mutex<()>>,
    attempt: u32,
    resources: cri::LinuxContainerResources,
) -> Outcome {
    let events = PodEvents { recorder: &shared.recorder, pod: &pod };
    let fail = |reason: &str, message: String| {
        events.pod(EventType::Warning, reason, message.clone());
        Outcome { sandbox_retry: Some((Timestamp::now() + RETRY, message)), ..Default::default() }
    };
    let refresh_at = match set_up_volumes(&shared, &pod, &volumes, &[]).await {
        Ok((_, refresh_at)) => refresh_at,
        Err(volumes::Error::LimitExceeded(why)) => {
            let refused = Some(Refusal::new("VolumeAttachmentLimitExceeded", why));
            return Outcome { refused, ..Default::default() };
        }
        Err(error) => {
            tell_failed_mount(&events, &error);
            let retry = Some((Timestamp::now() + RETRY, error.to_string()));
            return Outcome { sandbox_retry: retry, ..Default::default() };
        }
    };
    if let Err(why) = shared.dra.prepare(&pod).await {
        return fail("FailedPrepareDynamicResources", format!("Failed to prepare dynamic resources: {why}"));
    }
    if let Err(error) = shared.cgroups.set(&pod, &resources) {
        return fail("FailedCreatePodContainer", format!("unable to ensure pod container exists: {error}"));
    }
    let config = &shared.config.kubelet;
    if let Err(error) = limit_processes(&pod_cgroup(&config.cgroup_root, &pod), config.pod_pids_limit) {
        tracing::warn!(pod = %pod.metadata.namespaced_name(), %error, "processes are not limited");
    }
    if let Err(error) = std::fs::create_dir_all(log_directory(&shared.config, &pod)) {
        return fail("FailedCreatePodSandBox", format!("Failed to create the log directory: {error}"));
    }
    let checked = check_hostname(&pod, &shared.config.kubelet.cluster_domain);
    let users = match checked.and_then(|()| shared.users.of(&pod).map_err(|error| error.to_string())) {
        Ok(users) => users,
        Err(why) => return fail("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {why}")),
    };
    let resolv_conf = std::fs::read_to_string(&shared.config.kubelet.resolv_conf).unwrap_or_default();
    let dns = crate::dns::dns_config(&pod, &shared.config, &resolv_conf);
    let runtime_handler = match runtimeclass::handler(&shared.client, &pod).await {
        Ok(handler) => handler,
        Err(why) => return fail("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {why}")),
    };
    let request = cri::RunPodSandboxRequest {
        config: Some(sandbox_config(&pod, attempt, &shared.config, dns, users)),
        runtime_handler: runtime_handler.clone(),
    };
    shared.started.pod(&pod);
    let began = Instant::now();
    let run = shared.runtime.runtime.clone().run_pod_sandbox(request).await;
    shared.metrics.sandbox_run(&runtime_handler, began, run.is_err());
    match run {
        Ok(_) => Outcome { refresh_at, pod_actuated: Some(resources), ..Default::default() },
        Err(status) => {
            shared.started.pod_failed(&pod);
            fail("FailedCreatePodSandBox", format!("Failed to create pod sandbox: {}", status.message()))
        }
    }
}

pub async fn set_up_volumes(
    shared: &Shared,
    pod: &Pod,
    volumes: &Mutex<()>,
    pod_ips: &[String],
) -> Result<(volumes::Paths, Option<Timestamp>), volumes::Error> {
    let host_ips: Vec<String> = shared.config.host_ips().iter().map(IpAddr::to_string).collect();
    let context = volumes::Context {
        client: &shared.client,
        recorder: &shared.recorder,
        root: &shared.config.root_dir,
        local_path_root: shared.config.local_path_root.as_deref(),
        csi_drivers: &shared.csi_drivers,
        metrics: &shared.metrics.volumes,
        node_name: &shared.config.node_name,
        allocatable: shared.allocatable,
        pod_ips,
        host_ips: &host_ips,
        now: Timestamp::now(),
    };
    let _alone = volumes.lock().await;
    volumes::set_up(&context, pod).await
}

/// What is awaited has not failed.
pub fn tell_failed_mount(events: &PodEvents<'_>, error: &volumes::Error) {
    if !matches!(error, volumes::Error::Awaited { .. }) {
        events.pod(EventType::Warning, "FailedMount", error.to_string());
    }
}

async fn refresh(
    shared: Arc<Shared>,
    pod: Arc<Pod>,
    volumes: Arc<Mutex<()>>,
    pod_ips: Vec<String>,
) -> Outcome {
    let refresh_at = match set_up_volumes(&shared, &pod, &volumes, &pod_ips).await {
        Ok((_, refresh_at)) => refresh_at,
        Err(error) => {
            let events = PodEvents { recorder: &shared.recorder, pod: &pod };
            tell_failed_mount(&events, &error);
            Some(Timestamp::now() + REFRESH_RETRY)
        }
    };
    Outcome { refresh_at, ..Default::default() }
}

/// How a container is to end.
struct Ending {
    target: Target,
    grace_seconds: i64,
    reason: String,
    /// Containers (by id) that are to be gone before.
    after: Vec<String>,
}

/// Pre-stop hook, the end of those that go before, stop signal, and the kill when the grace period is over.
async fn kill(shared: Arc<Shared>, pod: Arc<Pod>, ending: Ending) -> Outcome {
    let Ending { target, grace_seconds, reason, after } = ending;
    let events = PodEvents { recorder: &shared.recorder, pod: &pod };
    events.container(&target.spec, EventType::Normal, "Killing", reason);
    let mut timeout = grace_seconds;
    if let Some(hook) = crate::lifecycle::pre_stop(&target.spec).filter(|_| grace_seconds > 0) {
        let (result, left) = crate::lifecycle::run_pre_stop(&target, hook, grace_seconds).await;
        timeout = left;
        if let Err(why) = result {
            tracing::warn!(pod = %pod.metadata.namespaced_name(), container = target.spec.name, why, "pre-stop hook failed");
            let message = "PreStopHook failed".to_owned();
            events.container(&target.spec, EventType::Warning, "FailedPreStopHook", message);
        }
    }
    if timeout > 0 && !after.is_empty() {
        let started = tokio::time::Instant::now();
        let limit = std::time::Duration::from_secs(timeout.unsigned_abs());
        // The grace period ends the wait: this container's own end can wait no longer.
        tokio::time::timeout(limit, ended(&shared, &after)).await.ok();
        let waited = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
        timeout = timeout.saturating_sub(waited).max(crate::lifecycle::LEFT_MIN_SECONDS);
    }
    let request = cri::StopContainerRequest { container_id: target.container_id.clone(), timeout };
    if let Err(status) = shared.runtime.runtime.clone().stop_container(request).await {
        tracing::warn!(
            container = target.container_id,
            error = status.message(),
            "container could not be stopped"
        );
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Outcome::default()
}

/// Returns when none of these containers runs any more.
async fn ended(shared: &Shared, containers: &[String]) {
    let mut turns = shared.turns.subscribe();
    for id in containers {
        while is_running(shared, id).await {
            // One that lags looks again all the same.
            if let Err(RecvError::Closed) = turns.recv().await {
                return;
            }
        }
    }
}

async fn is_running(shared: &Shared, id: &str) -> bool {
    let request = cri::ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    let answer = shared.runtime.runtime.clone().container_status(request).await;
    let status = answer.ok().and_then(|answer| answer.into_inner().status);
    status.is_some_and(|status| status.state() == cri::ContainerState::ContainerRunning)
}

async fn stop_sandbox(shared: Arc<Shared>, id: String, remove: bool) -> Outcome {
    let mut client = shared.runtime.runtime.clone();
    let stopped =
        client.stop_pod_sandbox(cri::StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await.map(drop);
    let result = match stopped {
        Ok(()) if remove => client
            .remove_pod_sandbox(cri::RemovePodSandboxRequest { pod_sandbox_id: id.clone() })
            .await
            .map(drop),
        other => other,
    };
    if let Err(status) = result {
        tracing::warn!(sandbox = id, error = status.message(), "sandbox could not be stopped");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Outcome::default()
}

/// Its log goes with it.
async fn remove_container(shared: Arc<Shared>, id: String, log: String) -> Outcome {
    if !log.is_empty()
        && let Err(error) = crate::logs::files::remove(log.as_ref())
    {
        tracing::warn!(container = id, %error, "log of a dead container remains");
    }
    let request = cri::RemoveContainerRequest { container_id: id.clone() };
    if let Err(status) = shared.runtime.runtime.clone().remove_container(request).await {
        tracing::warn!(container = id, error = status.message(), "container could not be removed");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Outcome::default()
}
