//! Starts one container: image, environment, mounts, create, start, post-start hook
//! (follows `startContainer` of the kubelet's generic runtime manager).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use api::view::core::{Container, Pod, Secret, VolumeMount};
use client::event::EventType;
use jiff::{SignedDuration, Timestamp};
use runtime::cri;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use super::act::{RETRY, set_up_volumes, tell_failed_mount};
use super::{Outcome, PodEvents, Shared};
use crate::cm::Pinned;
use crate::images::{Image, Wanted};
use crate::observe::{Observed, Sandbox};
use crate::pod::actions::ContainerType;
use crate::pod::container::{self, container_config};
use crate::pod::memory::Waiting;
use crate::pod::sandbox::sandbox_config;
use crate::probe::Target;
use crate::resources::fit_quota;
use crate::{env, images, lifecycle, volumes};

const CONFIG_ERROR: &str = "CreateContainerConfigError";

pub struct Start {
    pub shared: Arc<Shared>,
    pub pod: Arc<Pod>,
    pub name: String,
    pub kind: ContainerType,
    pub attempt: u32,
    pub sandbox: Option<Sandbox>,
    /// The container whose process namespace an ephemeral container joins; empty for none.
    pub target_container_id: String,
    pub terminating: CancellationToken,
    /// Held by whoever writes the pod's volumes.
    pub volumes: Arc<Mutex<()>>,
}

/// A step that failed: the reason of the waiting state, its message, and when to try again.
struct Failure {
    reason: &'static str,
    message: String,
    retry_at: Option<Timestamp>,
}

impl Failure {
    fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Failure { reason, message: message.into(), retry_at: None }
    }
}

impl Start {
    pub fn aimed_at(mut self, observed: &Observed) -> Self {
        if self.kind == ContainerType::Ephemeral {
            let spec = self.pod.spec.ephemeral_containers.iter().find(|c| c.name == self.name);
            let target = spec.and_then(|c| observed.container(&c.target_container_name));
            self.target_container_id = target.map(|c| c.id.clone()).unwrap_or_default();
        }
        self
    }

    pub async fn run(self) -> Outcome {
        let pod = self.pod.clone();
        let Some((spec, _)) = crate::pod::all_containers(&pod).find(|(c, _)| c.name == self.name) else {
            return Outcome::default();
        };
        let events = PodEvents { recorder: &self.shared.recorder, pod: &pod };
        self.shared.started.container(&pod, spec);
        match self.start(spec, &events).await {
            Ok(outcome) => outcome,
            Err(failure) => {
                self.shared.started.container_failed(&pod, spec, failure.reason);
                let retry_at = failure.retry_at.unwrap_or_else(|| Timestamp::now() + pause(failure.reason));
                let waiting = Waiting { reason: failure.reason.to_owned(), message: failure.message };
                Outcome { waiting: Some((self.name, waiting, retry_at)), ..Default::default() }
            }
        }
    }

    async fn start(&self, spec: &Container, events: &PodEvents<'_>) -> Result<Outcome, Failure> {
        let secrets = self.pull_secrets().await;
        let wanted = Wanted { image: &spec.image, policy: &spec.image_pull_policy, container: Some(spec) };
        let image = self.image(wanted, &secrets, events).await?;
        let volume_images = self.volume_images(&secrets, events).await?;
        if self.terminating.is_cancelled() {
            return Ok(Outcome::default());
        }
        container::verify_run_as_non_root(&self.pod, spec, image.uid, &image.user)
            .map_err(|why| self.refused(spec, events, CONFIG_ERROR, why))?;
        let sandbox = self.sandbox.as_ref().ok_or_else(|| Failure::new("ContainerCreating", ""))?;
        let (paths, refresh_at) =
            set_up_volumes(&self.shared, &self.pod, &self.volumes, &sandbox.ips).await.map_err(|error| {
                tell_failed_mount(events, &error);
                Failure::new("ContainerCreating", "")
            })?;
        let places = volumes::Places { paths, images: volume_images };
        // Asked for once: what is given may change until the container is seen to run.
        let pinned = self.pinned(spec);
        let config = self.config(spec, image, &sandbox.ips, &places, pinned.clone()).await;
        let config = config.map_err(|why| self.refused(spec, events, CONFIG_ERROR, why))?;
        let is_image = |mount: &&VolumeMount| places.images.contains_key(&mount.name);
        let mounted = spec.volume_mounts.iter().filter(is_image).count();
        let created = self.create(spec, sandbox, config, events).await;
        self.shared.metrics.requests.image_volumes(places.images.len(), mounted, created.is_ok());
        let id = created?;
        let mut client = self.shared.runtime.runtime.clone();
        client
            .start_container(cri::StartContainerRequest { container_id: id.clone() })
            .await
            .map_err(|status| self.refused(spec, events, "RunContainerError", status.message().to_owned()))?;
        events.container(spec, EventType::Normal, "Started", "Container started".to_owned());
        let unhealthy = self.after_start(spec, &id, &sandbox.ips, events).await;
        Ok(Outcome {
            started: Some(self.name.clone()),
            pinned: pinned.map(|pinned| (id.clone(), pinned)).into_iter().collect(),
            actuated: vec![(id, spec.resources.clone())],
            unhealthy,
            refresh_at,
            ..Default::default()
        })
    }

    fn pinned(&self, spec: &Container) -> Option<Pinned> {
        self.shared.containers.pinned(&self.pod.metadata.uid, &spec.name)
    }

    /// The pod's volumes that are images, by name.
    async fn volume_images(
        &self,
        secrets: &[Secret],
        events: &PodEvents<'_>,
    ) -> Result<volumes::Images, Failure> {
        let mut found = volumes::Images::new();
        for volume in &self.pod.spec.volumes {
            let Some(source) = &volume.image else { continue };
            let wanted = Wanted { image: &source.reference, policy: &source.pull_policy, container: None };
            let image = self.image(wanted, secrets, events).await?;
            let spec = cri::ImageSpec {
                image: image.reference,
                user_specified_image: source.reference.clone(),
                ..Default::default()
            };
            found.insert(volume.name.clone(), spec);
        }
        Ok(found)
    }

    async fn image(
        &self,
        wanted: Wanted<'_>,
        secrets: &[Secret],
        events: &PodEvents<'_>,
    ) -> Result<Image, Failure> {
        let ensured = self.shared.images.ensure(&self.shared.runtime, &self.pod, wanted, secrets, events);
        match self.terminating.run_until_cancelled(ensured).await {
            None => Err(Failure::new("ContainerCreating", "")),
            Some(Ok(image)) => Ok(image),
            Some(Err(failure)) => {
                let reason = IMAGE_REASONS.into_iter().find(|known| *known == failure.waiting.reason);
                let reason = reason.unwrap_or("ErrImagePull");
                wanted.tell(
                    events,
                    EventType::Warning,
                    "Failed",
                    format!("Error: {}", failure.waiting.reason),
                );
                Err(Failure { reason, message: failure.waiting.message, retry_at: Some(failure.retry_at) })
            }
        }
    }

    /// Secrets that are missing are passed over: the pull itself will tell.
    async fn pull_secrets(&self) -> Vec<Secret> {
        let mut secrets = Vec::new();
        for reference in &self.pod.spec.image_pull_secrets {
            match volumes::get_secret(&self.shared.client, &self.pod.metadata.namespace, &reference.name)
                .await
            {
                Ok(found) => secrets.extend(found),
                Err(error) => {
                    tracing::warn!(secret = reference.name, error, "image pull secret could not be read")
                }
            }
        }
        secrets
    }

    async fn config(
        &self,
        spec: &Container,
        image: Image,
        ips: &[String],
        places: &volumes::Places,
        pinned: Option<Pinned>,
    ) -> Result<cri::ContainerConfig, String> {
        let environment = self.environment(spec, ips, &places.paths).await?;
        let lookup: BTreeMap<&str, &str> =
            environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        let root = &self.shared.config.root_dir;
        let mut mounts = volumes::mounts(root, &self.pod, spec, places, |text| {
            env::expand_all(text, |name| lookup.get(name).map(|v| (*v).to_owned()))
        })?;
        let block_devices = volumes::devices(&self.pod, spec, places)?;
        let termination_message = self.termination_message(spec, &mut mounts)?;
        self.mount_hosts(spec, ips, &mut mounts)?;
        let mut devices = self.shared.containers.devices.start_options(&self.pod, spec).await?;
        devices.push(self.shared.dra.start_options(&self.pod, spec)?);
        let log_path = format!("{}/{}.log", spec.name, self.attempt);
        let log = super::container_log(&self.shared.config, &self.pod, &spec.name, self.attempt);
        if let Some(dir) = log.parent() {
            std::fs::create_dir_all(dir).map_err(|e| format!("log directory {}: {e}", dir.display()))?;
        }
        let mut config = container_config(
            &self.pod,
            spec,
            container::Start {
                attempt: self.attempt,
                image_ref: image.reference,
                env: environment,
                mounts,
                block_devices,
                log_path,
                termination_message: &termination_message,
                machine: &self.shared.machine,
                pinned,
                devices,
                root_dir: &self.shared.config.root_dir,
                users: self.shared.users.of(&self.pod).map_err(|error| error.to_string())?,
                target_container_id: self.target_container_id.clone(),
            },
        );
        if let Some(resources) = config.linux.as_mut().and_then(|linux| linux.resources.as_mut()) {
            fit_quota(resources, &self.shared.config.kubelet);
        }
        container::name_user_of_group(image.uid, &image.user, &mut config);
        if self.shared.config.kubelet.seccomp_default {
            container::confine_by_default(&self.pod, spec, &mut config);
        }
        Ok(config)
    }

    async fn environment(
        &self,
        spec: &Container,
        ips: &[String],
        volumes: &volumes::Paths,
    ) -> Result<Vec<(String, String)>, String> {
        let (config_maps, secrets) = env::referenced(spec);
        let namespace = &self.pod.metadata.namespace;
        let mut sources = env::Sources::default();
        for name in config_maps {
            let found = volumes::get_config_map(&self.shared.client, namespace, &name).await?;
            sources.config_maps.insert(name, found);
        }
        for name in secrets {
            let found = volumes::get_secret(&self.shared.client, namespace, &name).await?;
            sources.secrets.insert(name, found);
        }
        for (volume, path) in env::files(spec) {
            if let Some(dir) = volumes.get(volume) {
                let text = env::file::read(dir, path).map_err(|error| error.to_string());
                sources.files.insert((volume.to_owned(), path.to_owned()), text);
            }
        }
        let services = self.shared.services.list();
        let host_ips: Vec<String> = self.shared.config.host_ips().iter().map(IpAddr::to_string).collect();
        let facts = env::Facts {
            pod_ips: if self.pod.spec.host_network { &host_ips } else { ips },
            host_ips: &host_ips,
            allocatable: &self.shared.allocatable,
            services: &services,
        };
        env::environment(&self.pod, spec, &sources, &facts)
    }

    /// A file of its own for each attempt, written by the container and read after its end.
    fn termination_message(&self, spec: &Container, mounts: &mut Vec<cri::Mount>) -> Result<PathBuf, String> {
        if spec.termination_message_path.is_empty() {
            return Ok(PathBuf::new());
        }
        let dir = volumes::pod_dir(&self.shared.config.root_dir, &self.pod.metadata.uid)
            .join("containers")
            .join(&spec.name);
        let path = dir.join(format!("{}-{}", self.attempt, Timestamp::now().as_millisecond()));
        let made =
            std::fs::create_dir_all(&dir).and_then(|()| std::fs::File::create(&path)).and_then(|file| {
                use std::os::unix::fs::PermissionsExt as _;
                file.set_permissions(std::fs::Permissions::from_mode(0o666))
            });
        made.map_err(|e| format!("termination message file {}: {e}", path.display()))?;
        mounts.push(file_mount(&path, &spec.termination_message_path));
        Ok(path)
    }

    /// `/etc/hosts`, unless the container brings its own.
    fn mount_hosts(
        &self,
        spec: &Container,
        ips: &[String],
        mounts: &mut Vec<cri::Mount>,
    ) -> Result<(), String> {
        const HOSTS: &str = "/etc/hosts";
        if spec.volume_mounts.iter().any(|mount| mount.mount_path == HOSTS) {
            return Ok(());
        }
        let text = if self.pod.spec.host_network {
            let node = std::fs::read_to_string(HOSTS).unwrap_or_default();
            format!(
                "# Kubernetes-managed hosts file (host network).\n{node}{}",
                crate::dns::aliases(&self.pod)
            )
        } else {
            crate::dns::hosts_file(&self.pod, &self.shared.config, ips)
        };
        let dir = volumes::pod_dir(&self.shared.config.root_dir, &self.pod.metadata.uid);
        let path = dir.join("etc-hosts");
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::write(&path, text))
            .map_err(|e| format!("hosts file {}: {e}", path.display()))?;
        mounts.push(file_mount(&path, HOSTS));
        Ok(())
    }

    async fn create(
        &self,
        spec: &Container,
        sandbox: &Sandbox,
        config: cri::ContainerConfig,
        events: &PodEvents<'_>,
    ) -> Result<String, Failure> {
        let users = self.shared.users.of(&self.pod);
        let users =
            users.map_err(|error| self.refused(spec, events, "CreateContainerError", error.to_string()))?;
        let request = cri::CreateContainerRequest {
            pod_sandbox_id: sandbox.id.clone(),
            config: Some(config),
            sandbox_config: Some(sandbox_config(
                &self.pod,
                sandbox.attempt,
                &self.shared.config,
                Default::default(),
                users,
            )),
        };
        match self.shared.runtime.runtime.clone().create_container(request).await {
            Ok(answer) => {
                events.container(spec, EventType::Normal, "Created", "Container created".to_owned());
                Ok(answer.into_inner().container_id)
            }
            Err(status) => {
                Err(self.refused(spec, events, "CreateContainerError", status.message().to_owned()))
            }
        }
    }

    fn refused(
        &self,
        spec: &Container,
        events: &PodEvents<'_>,
        reason: &'static str,
        message: String,
    ) -> Failure {
        events.container(spec, EventType::Warning, "Failed", format!("Error: {message}"));
        Failure::new(reason, message)
    }

    /// The post-start hook; when it fails the container must end.
    async fn after_start(
        &self,
        spec: &Container,
        id: &str,
        ips: &[String],
        events: &PodEvents<'_>,
    ) -> Option<(String, String)> {
        let hook = lifecycle::post_start(spec)?;
        let target = Target {
            runtime: self.shared.runtime.clone(),
            container_id: id.to_owned(),
            spec: spec.clone(),
            pod_ip: ips.first().and_then(|ip| ip.parse().ok()),
        };
        let why = lifecycle::run_post_start(&target, hook).await.err()?;
        // What a hook says may be secret.
        tracing::warn!(pod = %self.pod.metadata.namespaced_name(), container = spec.name, why, "post-start hook failed");
        let message = "PostStartHook failed".to_owned();
        events.container(spec, EventType::Warning, lifecycle::FAILED_POST_START_HOOK, message);
        Some((id.to_owned(), lifecycle::FAILED_POST_START_HOOK.to_owned()))
    }
}

/// A wrong configuration is looked at again when an object it names changes, and otherwise as often as upstream does.
fn pause(reason: &str) -> SignedDuration {
    if reason == CONFIG_ERROR { images::LOOK_AGAIN } else { RETRY }
}

const IMAGE_REASONS: [&str; 5] =
    ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "ImageInspectError"];

fn file_mount(host_path: &std::path::Path, container_path: &str) -> cri::Mount {
    cri::Mount {
        host_path: host_path.display().to_string(),
        container_path: container_path.to_owned(),
        ..Default::default()
    }
}
