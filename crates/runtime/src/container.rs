//! Containers: create, start, stop, remove, report.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::signal::Signal;

use crate::container_spec::{
    World, image_of, seccomp, security_context, translate, user_namespace, validate_mounts, wanted_devices,
};
use crate::cri::{
    Container, ContainerConfig, ContainerEventType, ContainerFilter, ContainerResources, ContainerState,
    ContainerStatus, ContainerUser, ImageSpec, LinuxContainerResources, LinuxContainerUser, Mount,
    NamespaceMode, SupplementalGroupsPolicy,
};
use crate::devices::{cdi, host_devices};
use crate::files::{random_id, remove_dir};
use crate::identity::{self, Wish};
use crate::images::{Image, Reference};
use crate::record::{self, ContainerRecord, User};
use crate::runtime::{Runtime, not_found, now};
use crate::shim::protocol::{Reply, Request};
use crate::shim::spec::{DeviceSpec, ExitRecord};
use crate::shim::sys;
use crate::{Error, Result, apparmor, shim_client};

/// How long a killed container may take to end: only a kernel that waits for a device takes longer.
const KILL_TIMEOUT: Duration = Duration::from_secs(10);
/// Exit code of a container that could not be started (containerd's `errorStartExitCode`).
const START_ERROR_EXIT_CODE: i32 = 128;
/// More of a passwd or group file is not read.
const USER_FILE_BYTES_MAX: u64 = 1 << 20;

impl Runtime {
    pub(crate) fn create_container(&self, sandbox_id: &str, mut config: ContainerConfig) -> Result<String> {
        let sandbox = self.sandbox(sandbox_id)?;
        if config.metadata.is_none() {
            return Err(Error::InvalidArgument("container config has no metadata".to_owned()));
        }
        if !sandbox.ready {
            return Err(Error::FailedPrecondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        validate_mounts(&config.mounts).map_err(Error::InvalidArgument)?;
        let security = security_context(&config);
        apparmor::profile(security.apparmor.as_ref(), security.privileged).map_err(Error::InvalidArgument)?;
        seccomp(&security).map_err(Error::InvalidArgument)?;
        cdi::inject(&mut config)?;
        make_sources(&config.mounts)?;
        let name = config.image.as_ref().map(|image| image.image.clone()).unwrap_or_default();
        let image = self.images.get(&name).ok_or_else(|| not_found("image", &name))?;
        let id = random_id();
        let record = ContainerRecord {
            version: ContainerRecord::VERSION,
            user: self.resolve_user(&config, &image)?,
            sandbox_id: sandbox.id.clone(),
            image_ref: image.repo_digests.first().unwrap_or(&image.id).clone(),
            layers: image.layer_names(),
            volume_layers: self.volume_layers(&config)?,
            stop_signal: parse_signal(&image.config.stop_signal),
            created_at: now(),
            cgroup: format!("{}/{id}", sandbox.cgroup),
            image_name: image_name(&config.image.clone().unwrap_or_default(), &image),
            image_id: image.id,
            config,
            id: id.clone(),
            started_at: None,
            pid: 0,
            exit: None,
            message: String::new(),
        };
        let dir = self.container_dir(&id);
        // What the overlay's own root folder is like.
        let root = user_namespace(&sandbox.config).ok().flatten().map(|users| users.first_id);
        if let Err(error) = make_folders(&dir, root).and_then(|()| record::save(&dir, &record)) {
            // As on a full disk: without a record nobody would ever remove it.
            remove_dir(&dir).map_err(Error::io("remove", &dir))?;
            return Err(error);
        }
        self.state.lock().containers.insert(id.clone(), record);
        self.emit(&id, &sandbox.id, ContainerEventType::ContainerCreatedEvent);
        Ok(id)
    }

    /// The layers of images that are mounted as volumes.
    fn volume_layers(&self, config: &ContainerConfig) -> Result<BTreeMap<String, Vec<String>>> {
        let images = config.mounts.iter().filter_map(|mount| Some((mount, image_of(mount)?)));
        let layers = images.map(|(mount, name)| {
            let image = self.images.get(name).ok_or_else(|| not_found("image", name))?;
            Ok((mount.container_path.clone(), image.layer_names()))
        });
        layers.collect()
    }

    fn resolve_user(&self, config: &ContainerConfig, image: &Image) -> Result<User> {
        let security = security_context(config);
        let file = |path: &str| find_in_layers(&self.images.layers_dir(), image, path);
        let wish = Wish {
            uid: security.run_as_user.as_ref().map(|user| user.value),
            gid: security.run_as_group.as_ref().map(|group| group.value),
            user_name: &security.run_as_username,
            image_user: &image.config.user,
            supplemental_groups: &security.supplemental_groups,
            merge_groups: security.supplemental_groups_policy() == SupplementalGroupsPolicy::Merge,
        };
        identity::resolve(&wish, &file("etc/passwd"), &file("etc/group")).map_err(Error::InvalidArgument)
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        if container.started_at.is_some() {
            return Err(Error::FailedPrecondition(format!("container {} was started before", container.id)));
        }
        let started = self.launch(&container).await;
        let id = container.id.clone();
        match started {
            Ok((pid, started_at)) => {
                self.update_container(&id, |container| {
                    container.pid = pid;
                    container.started_at = Some(started_at);
                })?;
                self.emit(&id, &container.sandbox_id, ContainerEventType::ContainerStartedEvent);
                Ok(())
            }
            // Its sandbox ends, and nothing was tried.
            Err(error @ Error::FailedPrecondition(_)) => Err(error),
            Err(error) => {
                let message = crate::error::with_sources(&error);
                let exit = ExitRecord { code: START_ERROR_EXIT_CODE, finished_at: now(), oom_killed: false };
                self.update_container(&id, |container| container.started_at = Some(0))?;
                self.on_exit(&id, exit, &message);
                Err(error)
            }
        }
    }

    async fn launch(&self, container: &ContainerRecord) -> Result<(i32, i64)> {
        let sandbox = self.sandbox(&container.sandbox_id)?;
        if !sandbox.ready {
            return Err(Error::FailedPrecondition(format!("sandbox {} is not ready", sandbox.id)));
        }
        let image_config = self.images.get(&container.image_id).map(|image| image.config);
        let world = World {
            sandbox: &sandbox,
            container,
            image: &image_config.ok_or_else(|| not_found("image", &container.image_id))?,
            sandbox_dir: &self.sandbox_dir(&sandbox.id),
            container_dir: &self.container_dir(&container.id),
            layers_dir: &self.images.layers_dir(),
            cgroups: self.cgroups.dirs(&container.cgroup),
            cgroup_v2: self.cgroups.is_v2(),
            oom_file: self.cgroups.oom_file(&container.cgroup),
            host_devices: host_devices(&container.config),
            target_pid: self.target_pid(&container.config),
        };
        let spec = translate(&world).map_err(Error::InvalidArgument)?;
        self.limit(container, &world.host_devices)?;
        provide_profile(spec.process.apparmor.clone()).await?;
        match shim_client::call(world.sandbox_dir, Request::Start(Box::new(spec))).await {
            Ok(Reply::Started { pid, started_at }) => Ok((pid, started_at)),
            Ok(other) => Err(Error::Shim(format!("unexpected answer {other:?}"))),
            Err(Error::Shim(reason)) => {
                Err(Error::Shim(format!("unable to start container process: {reason}")))
            }
            Err(error) => Err(error),
        }
    }

    fn limit(&self, container: &ContainerRecord, host_devices: &[DeviceSpec]) -> Result<()> {
        let cgroup = &container.cgroup;
        let made = self.cgroups.create(cgroup).and_then(|()| {
            if !security_context(&container.config).privileged {
                self.cgroups.restrict_devices(cgroup, &wanted_devices(&container.config, host_devices))?;
            }
            self.cgroups.apply(cgroup, &resources_of(&container.config))
        });
        made.map_err(Error::io("set up cgroup", cgroup.as_ref()))
    }

    fn target_pid(&self, config: &ContainerConfig) -> Option<i32> {
        let options = security_context(config).namespace_options?;
        if options.pid() != NamespaceMode::Target {
            return None;
        }
        self.container(&options.target_id)
            .ok()
            .filter(ContainerRecord::is_running)
            .map(|container| container.pid)
    }

    /// Asks the container to end, and after `timeout_seconds` makes it. Ends at once if it does not run.
    pub(crate) async fn stop_container(&self, id: &str, timeout_seconds: i64) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        if !container.is_running() {
            return Ok(());
        }
        if timeout_seconds > 0 {
            self.signal(&container, container.stop_signal).await?;
            let timeout = Duration::from_secs(timeout_seconds.unsigned_abs());
            if self.wait_for_end(&container.id, timeout).await {
                return Ok(());
            }
        }
        self.signal(&container, Signal::SIGKILL as i32).await?;
        if self.wait_for_end(&container.id, KILL_TIMEOUT).await {
            return Ok(());
        }
        Err(Error::DeadlineExceeded(format!("container {} does not end", container.id)))
    }

    async fn signal(&self, container: &ContainerRecord, signal: i32) -> Result<()> {
        let request = Request::Signal { container: container.id.clone(), signal };
        match shim_client::call(&self.sandbox_dir(&container.sandbox_id), request).await {
            // A dead shim is noticed elsewhere, and ends the wait that follows.
            Err(Error::Io { .. }) => Ok(()),
            result => result.map(drop),
        }
    }

    async fn wait_for_end(&self, id: &str, timeout: Duration) -> bool {
        let mut endings = self.endings.subscribe();
        let ended = async {
            while self.container(id).is_ok_and(|container| container.is_running()) {
                if endings.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(timeout, ended).await.is_ok()
    }

    /// Waits until a container has ended; its exit code.
    pub(crate) async fn exit_code(&self, id: &str) -> Result<i32> {
        let mut endings = self.endings.subscribe();
        loop {
            if let Some(exit) = self.container(id)?.exit {
                return Ok(exit.code);
            }
            if endings.changed().await.is_err() {
                return Err(Error::FailedPrecondition("the runtime is closing".to_owned()));
            }
        }
    }

    /// Removes a container, by force if it runs. One that is not there is fine.
    pub(crate) async fn remove_container(&self, id: &str) -> Result<()> {
        let Ok(container) = self.container(id) else { return Ok(()) };
        self.stop_container(&container.id, 0).await?;
        self.cgroups.kill_all(&container.cgroup);
        self.cgroups
            .remove(&container.cgroup)
            .await
            .map_err(Error::io("remove cgroup", container.cgroup.as_ref()))?;
        let forget = Request::Forget { container: container.id.clone() };
        if let Err(error) = shim_client::call(&self.sandbox_dir(&container.sandbox_id), forget).await {
            tracing::debug!(container = container.id, %error, "shim is gone already");
        }
        let dir = self.container_dir(&container.id);
        remove_dir_off_thread(dir).await?;
        self.state.lock().containers.remove(&container.id);
        self.emit(&container.id, &container.sandbox_id, ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    pub(crate) async fn reopen_log(&self, id: &str) -> Result<()> {
        let container = self.container(id)?;
        if !container.is_running() {
            return Err(Error::FailedPrecondition(format!("container {} is not running", container.id)));
        }
        let request = Request::ReopenLog { container: container.id };
        shim_client::call(&self.sandbox_dir(&container.sandbox_id), request).await.map(drop)
    }

    pub(crate) fn update_resources(&self, id: &str, resources: LinuxContainerResources) -> Result<()> {
        let container = self.container(id)?;
        if container.is_running() {
            self.cgroups
                .apply(&container.cgroup, &resources)
                .map_err(Error::io("update cgroup", container.cgroup.as_ref()))?;
        }
        self.update_container(&container.id, |container| {
            let linux = container.config.linux.get_or_insert_default();
            merge_resources(linux.resources.get_or_insert_default(), resources);
        })?;
        Ok(())
    }

    pub(crate) fn containers_of(&self, sandbox_id: &str) -> Vec<ContainerRecord> {
        let state = self.state.lock();
        state.containers.values().filter(|container| container.sandbox_id == sandbox_id).cloned().collect()
    }

    pub(crate) fn statuses_of(&self, sandbox_id: &str) -> Vec<ContainerStatus> {
        self.containers_of(sandbox_id).iter().map(status).collect()
    }

    pub(crate) fn list_containers(&self, filter: &ContainerFilter) -> Vec<Container> {
        let state = self.state.lock();
        let matches = |container: &&ContainerRecord| {
            container.id.starts_with(&filter.id)
                && container.sandbox_id.starts_with(&filter.pod_sandbox_id)
                && filter
                    .state
                    .as_ref()
                    .is_none_or(|wanted| wanted.state == container_state(container) as i32)
                && filter
                    .label_selector
                    .iter()
                    .all(|(key, value)| container.config.labels.get(key) == Some(value))
        };
        state
            .containers
            .values()
            .filter(matches)
            .map(|container| Container {
                id: container.id.clone(),
                pod_sandbox_id: container.sandbox_id.clone(),
                metadata: container.config.metadata.clone(),
                image: container.config.image.clone(),
                image_ref: container.image_ref.clone(),
                state: container_state(container) as i32,
                created_at: container.created_at,
                labels: container.config.labels.clone(),
                annotations: container.config.annotations.clone(),
                image_id: container.image_id.clone(),
            })
            .collect()
    }
}

/// Folders of the node that are to be mounted but are not there are made, as containerd does.
fn make_sources(mounts: &[Mount]) -> Result<()> {
    let sources =
        mounts.iter().filter(|mount| image_of(mount).is_none()).map(|mount| Path::new(&mount.host_path));
    for source in sources.filter(|source| source.symlink_metadata().is_err()) {
        fs::create_dir_all(source).map_err(Error::io("make", source))?;
    }
    Ok(())
}

/// The folders of a container, the one that it writes into given to its root user where that is not the node's.
fn make_folders(dir: &Path, root: Option<u32>) -> Result<()> {
    for dir in [dir.to_owned(), dir.join("upper"), dir.join("work"), dir.join("rootfs")] {
        fs::create_dir(&dir).map_err(Error::io("create folder", &dir))?;
    }
    let upper = dir.join("upper");
    if root.is_some() {
        chown(&upper, root, root).map_err(Error::io("chown", &upper))?;
    }
    Ok(())
}

/// The first profile of a node is translated by a program of its own.
async fn provide_profile(name: Option<String>) -> Result<()> {
    let Some(name) = name else { return Ok(()) };
    let provided = tokio::task::spawn_blocking(move || {
        apparmor::provide(&name).map_err(Error::io("load AppArmor profile", name.as_ref()))
    });
    provided.await.unwrap_or_else(|panicked| Err(Error::FailedPrecondition(panicked.to_string())))
}

/// A container may have written a lot.
async fn remove_dir_off_thread(dir: PathBuf) -> Result<()> {
    let removed =
        tokio::task::spawn_blocking(move || remove_dir(&dir).map_err(Error::io("remove", &dir))).await;
    removed.unwrap_or_else(|panicked| Err(Error::FailedPrecondition(panicked.to_string())))
}

fn container_state(container: &ContainerRecord) -> ContainerState {
    match (container.started_at, container.exit) {
        (_, Some(_)) => ContainerState::ContainerExited,
        (Some(_), None) => ContainerState::ContainerRunning,
        (None, None) => ContainerState::ContainerCreated,
    }
}

pub(crate) fn status(container: &ContainerRecord) -> ContainerStatus {
    let config = &container.config;
    let image = container.image_name.clone();
    let user = &container.user;
    ContainerStatus {
        id: container.id.clone(),
        metadata: config.metadata.clone(),
        state: container_state(container) as i32,
        created_at: container.created_at,
        started_at: container.started_at.unwrap_or(0),
        finished_at: container.exit.map_or(0, |exit| exit.finished_at),
        exit_code: container.exit.map_or(0, |exit| exit.code),
        image: Some(ImageSpec { image, ..config.image.clone().unwrap_or_default() }),
        image_ref: container.image_ref.clone(),
        reason: reason(container).to_owned(),
        message: container.message.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: config.mounts.clone(),
        log_path: String::new(),
        resources: Some(ContainerResources { linux: Some(resources_of(config)), windows: None }),
        image_id: container.image_id.clone(),
        user: Some(ContainerUser {
            linux: Some(LinuxContainerUser {
                uid: user.uid.into(),
                gid: user.gid.into(),
                supplemental_groups: user.groups.iter().map(|gid| i64::from(*gid)).collect(),
            }),
        }),
    }
}

/// The reasons Kubernetes users know.
fn reason(container: &ContainerRecord) -> &'static str {
    match container.exit {
        None => "",
        Some(_) if container.started_at == Some(0) => "StartError",
        Some(exit) if exit.oom_killed => "OOMKilled",
        Some(_) if !container.message.is_empty() => "Unknown",
        Some(exit) if exit.code == 0 => "Completed",
        Some(_) => "Error",
    }
}

fn resources_of(config: &ContainerConfig) -> LinuxContainerResources {
    config.linux.as_ref().and_then(|linux| linux.resources.clone()).unwrap_or_default()
}

/// Takes over what an update sets.
fn merge_resources(have: &mut LinuxContainerResources, update: LinuxContainerResources) {
    let number = |have: &mut i64, update: i64| {
        if update != 0 {
            *have = update;
        }
    };
    number(&mut have.cpu_period, update.cpu_period);
    number(&mut have.cpu_quota, update.cpu_quota);
    number(&mut have.cpu_shares, update.cpu_shares);
    number(&mut have.memory_limit_in_bytes, update.memory_limit_in_bytes);
    number(&mut have.memory_swap_limit_in_bytes, update.memory_swap_limit_in_bytes);
    number(&mut have.oom_score_adj, update.oom_score_adj);
    for (have, update) in
        [(&mut have.cpuset_cpus, update.cpuset_cpus), (&mut have.cpuset_mems, update.cpuset_mems)]
    {
        if !update.is_empty() {
            *have = update;
        }
    }
    have.unified.extend(update.unified);
}

/// `SIGTERM`, `TERM`, `15` or `SIGRTMIN+3`; what cannot be read is SIGTERM.
fn parse_signal(text: &str) -> i32 {
    let text = text.trim().to_ascii_uppercase();
    let name = text.strip_prefix("SIG").unwrap_or(&text);
    let real_time = match (name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
        (Some(offset), _) => Some((libc::SIGRTMIN(), offset)),
        (None, Some(offset)) => Some((libc::SIGRTMAX(), offset)),
        (None, None) => None,
    };
    let real_time = real_time.and_then(|(base, offset)| match offset {
        "" => Some(base),
        offset => Some(base + offset.parse::<i32>().ok()?),
    });
    let known = || format!("SIG{name}").parse::<Signal>().ok().map(|signal| signal as i32);
    let number = text.parse().ok().or(real_time).or_else(known);
    number.filter(|number| (1..=libc::SIGRTMAX()).contains(number)).unwrap_or(Signal::SIGTERM as i32)
}

/// A file of an image, read from the topmost layer that has it. The kernel keeps links inside the layer.
fn find_in_layers(layers_dir: &Path, image: &Image, path: &str) -> String {
    let mut text = String::new();
    let found = image.layers.iter().rev().find_map(|layer| {
        let root = File::open(layers_dir.join(&layer.name)).ok()?;
        let file =
            File::from(sys::open_in_root(&root, path.as_ref(), OFlag::O_RDONLY | OFlag::O_NONBLOCK).ok()?);
        file.metadata().is_ok_and(|metadata| metadata.is_file()).then_some(file)
    });
    let read = found.map(|file| file.take(USER_FILE_BYTES_MAX).read_to_string(&mut text));
    match read {
        Some(Err(error)) => {
            tracing::warn!(path, image = image.id, %error, "cannot read a file of the image");
            String::new()
        }
        _ => text,
    }
}

/// The name an image is reported by: the one the user wrote if the image still bears it.
fn image_name(spec: &ImageSpec, image: &Image) -> String {
    let written =
        Reference::parse(&spec.user_specified_image).map(|name| name.to_string()).unwrap_or_default();
    let tag = image.repo_tags.iter().find(|tag| **tag == written).or(image.repo_tags.first());
    tag.cloned().unwrap_or_else(|| spec.image.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stop_signals_are_read_in_every_spelling() {
        for text in ["SIGQUIT", "quit", "3", " QUIT "] {
            assert_eq!(parse_signal(text), Signal::SIGQUIT as i32, "{text:?}");
        }
        for text in ["", "nonsense", "SIGRTMIN+x", "SIGRTMAX+1", "0", "-3"] {
            assert_eq!(parse_signal(text), Signal::SIGTERM as i32, "{text:?}");
        }
        for text in ["SIGRTMIN+3", "rtmin+3", "37"] {
            assert_eq!(parse_signal(text), 37, "{text:?}");
        }
        assert_eq!(parse_signal("SIGRTMAX-1"), libc::SIGRTMAX() - 1);
    }
}
