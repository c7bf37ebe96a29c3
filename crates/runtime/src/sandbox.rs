//! Pod sandboxes: run, stop, remove, report.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::config::{PodNetworkRequest, PodPortMapping};
use crate::container_spec::{sandbox_namespaces, user_namespace, uses_node_ipc, uses_node_network};
use crate::cri::{
    ContainerEventType, LinuxPodSandboxStatus, Namespace, NamespaceMode, PodIp, PodSandbox, PodSandboxConfig,
    PodSandboxFilter, PodSandboxNetworkStatus, PodSandboxState, PodSandboxStatus, Protocol,
};
use crate::files::{random_id, remove_dir};
use crate::record::SandboxRecord;
use crate::runtime::{Runtime, now};
use crate::shim::protocol::Request;
use crate::shim::spec::SandboxSpec;
use crate::{Error, Result, shim, shim_client};

/// The default, and what other runtimes call theirs: classes that name it mean ordinary containers.
pub const HANDLERS: [&str; 2] = ["", "runc"];
/// containerd's default size of a pod's `/dev/shm`.
const SHM_OPTIONS: &str = "mode=1777,size=65536k";

impl Runtime {
    pub(crate) async fn run_sandbox(
        self: &Arc<Self>,
        config: PodSandboxConfig,
        handler: String,
    ) -> Result<String> {
        if config.metadata.is_none() {
            return Err(Error::InvalidArgument("sandbox config has no metadata".to_owned()));
        }
        if !HANDLERS.contains(&handler.as_str()) {
            return Err(Error::InvalidArgument(format!("no runtime for {handler:?} is configured")));
        }
        user_namespace(&config).map_err(Error::InvalidArgument)?;
        let id = random_id();
        let parent = config.linux.as_ref().map(|linux| linux.cgroup_parent.clone()).unwrap_or_default();
        let cgroup = if parent.is_empty() { format!("{}/{id}", self.config.cgroup_root) } else { parent };
        let mut sandbox = SandboxRecord::new(id.clone(), config, handler, now(), cgroup);
        match self.set_up_sandbox(&mut sandbox).await {
            Ok(()) => {
                sandbox.ready = true;
                self.save_sandbox(sandbox)?;
                self.emit(&id, &id, ContainerEventType::ContainerCreatedEvent);
                if let Err(error) = self.clone().watch_shim(&id).await {
                    self.on_shim_death(&id);
                    return Err(error);
                }
                self.emit(&id, &id, ContainerEventType::ContainerStartedEvent);
                Ok(id)
            }
            Err(error) => {
                if let Err(left) = self.tear_down_sandbox(&sandbox).await {
                    tracing::warn!(sandbox = id, error = %left, "cannot clean up after a failed start");
                }
                self.delete_sandbox_files(&sandbox).await?;
                Err(error)
            }
        }
    }

    async fn set_up_sandbox(self: &Arc<Self>, sandbox: &mut SandboxRecord) -> Result<()> {
        let (data_dir, dir) = (self.sandbox_data_dir(&sandbox.id), self.sandbox_dir(&sandbox.id));
        for dir in [&data_dir, &dir] {
            fs::create_dir(dir).map_err(Error::io("create folder", dir))?;
        }
        self.save_sandbox(sandbox.clone())?;
        write_etc_files(&dir, &sandbox.config)?;
        let cgroup = sandbox.shim_cgroup();
        self.cgroups.create(&cgroup).map_err(Error::io("create cgroup", cgroup.as_ref()))?;
        if !uses_node_ipc(&sandbox.config) {
            mount_shm(&dir.join("shm"))?;
        }
        let spec = shim_spec(sandbox, self.cgroups.dirs(&cgroup));
        sandbox.shim = self.shims.start(&dir, &spec).await?;
        if !uses_node_network(&sandbox.config) {
            let request = network_request(sandbox);
            let addresses = self.config.network.attach(&request).await.map_err(Error::Network)?;
            sandbox.ips = addresses.iter().map(ToString::to_string).collect();
        }
        Ok(())
    }

    /// Ends a sandbox's processes and gives its address back. May be repeated.
    pub(crate) async fn stop_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(mut sandbox) = self.sandbox(id) else { return Ok(()) };
        for container in self.containers_of(&sandbox.id) {
            if container.is_running() {
                self.stop_container(&container.id, 0).await?;
            }
        }
        let was_ready = std::mem::replace(&mut sandbox.ready, false);
        // Recorded first: the end of the shim that follows is then expected.
        self.save_sandbox(sandbox.clone())?;
        self.tear_down_sandbox(&sandbox).await?;
        if was_ready {
            self.emit(&sandbox.id, &sandbox.id, ContainerEventType::ContainerStoppedEvent);
        }
        Ok(())
    }

    pub(crate) async fn tear_down_sandbox(&self, sandbox: &SandboxRecord) -> Result<()> {
        let dir = self.sandbox_dir(&sandbox.id);
        if !uses_node_network(&sandbox.config) {
            self.config.network.detach(&sandbox.id).await.map_err(Error::Network)?;
        }
        if dir.join(shim::protocol::SOCKET_NAME).exists()
            && let Err(error) = shim_client::call(&dir, Request::Shutdown).await
        {
            tracing::debug!(sandbox = sandbox.id, %error, "shim is gone already");
        }
        self.cgroups.kill_all(&sandbox.shim_cgroup());
        unmount(&dir.join("shm"))
    }

    pub(crate) async fn remove_sandbox(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(sandbox) = self.sandbox(id) else { return Ok(()) };
        self.stop_sandbox(&sandbox.id).await?;
        for container in self.containers_of(&sandbox.id) {
            self.remove_container(&container.id).await?;
        }
        self.delete_sandbox_files(&sandbox).await?;
        self.emit(&sandbox.id, &sandbox.id, ContainerEventType::ContainerDeletedEvent);
        Ok(())
    }

    async fn delete_sandbox_files(&self, sandbox: &SandboxRecord) -> Result<()> {
        let cgroup = sandbox.shim_cgroup();
        self.cgroups.remove(&cgroup).await.map_err(Error::io("remove cgroup", cgroup.as_ref()))?;
        // The kubelet removes the pod's own cgroup; without one it is ours.
        self.cgroups.remove_if_empty(&sandbox.cgroup);
        for dir in [self.sandbox_dir(&sandbox.id), self.sandbox_data_dir(&sandbox.id)] {
            remove_dir(&dir).map_err(Error::io("remove", &dir))?;
        }
        self.state.lock().sandboxes.remove(&sandbox.id);
        Ok(())
    }

    pub(crate) fn list_sandboxes(&self, filter: &PodSandboxFilter) -> Vec<PodSandbox> {
        let state = self.state.lock();
        let matches = |sandbox: &&SandboxRecord| {
            sandbox.id.starts_with(&filter.id)
                && filter.state.as_ref().is_none_or(|wanted| wanted.state == sandbox_state(sandbox) as i32)
                && filter
                    .label_selector
                    .iter()
                    .all(|(key, value)| sandbox.config.labels.get(key) == Some(value))
        };
        state
            .sandboxes
            .values()
            .filter(matches)
            .map(|sandbox| PodSandbox {
                id: sandbox.id.clone(),
                metadata: sandbox.config.metadata.clone(),
                state: sandbox_state(sandbox) as i32,
                created_at: sandbox.created_at,
                labels: sandbox.config.labels.clone(),
                annotations: sandbox.config.annotations.clone(),
                runtime_handler: sandbox.runtime_handler.clone(),
            })
            .collect()
    }
}

fn sandbox_state(sandbox: &SandboxRecord) -> PodSandboxState {
    if sandbox.ready { PodSandboxState::SandboxReady } else { PodSandboxState::SandboxNotready }
}

pub(crate) fn status(sandbox: &SandboxRecord) -> PodSandboxStatus {
    let mut ips = sandbox.ips.iter().cloned();
    PodSandboxStatus {
        id: sandbox.id.clone(),
        metadata: sandbox.config.metadata.clone(),
        state: sandbox_state(sandbox) as i32,
        created_at: sandbox.created_at,
        network: Some(PodSandboxNetworkStatus {
            ip: ips.next().unwrap_or_default(),
            additional_ips: ips.map(|ip| PodIp { ip }).collect(),
        }),
        linux: Some(LinuxPodSandboxStatus {
            namespaces: Some(Namespace { options: Some(sandbox_namespaces(&sandbox.config)) }),
        }),
        labels: sandbox.config.labels.clone(),
        annotations: sandbox.config.annotations.clone(),
        runtime_handler: sandbox.runtime_handler.clone(),
    }
}

fn shim_spec(sandbox: &SandboxRecord, cgroups: Vec<std::path::PathBuf>) -> SandboxSpec {
    let config = &sandbox.config;
    let sysctls = config.linux.as_ref().map(|linux| linux.sysctls.clone()).unwrap_or_default();
    SandboxSpec {
        id: sandbox.id.clone(),
        hostname: config.hostname.clone(),
        host_network: uses_node_network(config),
        host_ipc: uses_node_ipc(config),
        shared_pid: sandbox_namespaces(config).pid() == NamespaceMode::Pod,
        sysctls: sysctls.into_iter().collect(),
        user_namespace: user_namespace(config).ok().flatten(),
        cgroups,
    }
}

fn network_request(sandbox: &SandboxRecord) -> PodNetworkRequest {
    let metadata = sandbox.config.metadata.clone().unwrap_or_default();
    let port_mappings = sandbox.config.port_mappings.iter().filter(|mapping| mapping.host_port > 0);
    PodNetworkRequest {
        sandbox_id: sandbox.id.clone(),
        namespace: metadata.namespace,
        name: metadata.name,
        uid: metadata.uid,
        netns: shim::network_namespace(nix::unistd::Pid::from_raw(sandbox.shim)),
        port_mappings: port_mappings
            .map(|mapping| PodPortMapping {
                protocol: match mapping.protocol() {
                    Protocol::Tcp => "TCP",
                    Protocol::Udp => "UDP",
                    Protocol::Sctp => "SCTP",
                },
                container_port: mapping.container_port as u16,
                host_port: mapping.host_port as u16,
                host_ip: mapping.host_ip.clone(),
            })
            .collect(),
        annotations: sandbox.config.annotations.clone(),
    }
}

/// The files every container of the pod finds in `/etc` unless the kubelet mounts its own.
fn write_etc_files(dir: &Path, config: &PodSandboxConfig) -> Result<()> {
    let node_file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let hosts = node_file("/etc/hosts");
    let hostname = if config.hostname.is_empty() {
        node_file("/etc/hostname")
    } else {
        format!("{}\n", config.hostname)
    };
    let resolv_conf = match &config.dns_config {
        Some(dns) if !(dns.servers.is_empty() && dns.searches.is_empty() && dns.options.is_empty()) => {
            let line = |word: &str, values: &[String]| match values {
                [] => String::new(),
                values => format!("{word} {}\n", values.join(" ")),
            };
            let servers: String = dns.servers.iter().map(|server| format!("nameserver {server}\n")).collect();
            format!("{}{servers}{}", line("search", &dns.searches), line("options", &dns.options))
        }
        _ => node_file("/etc/resolv.conf"),
    };
    for (name, text) in [("hosts", hosts), ("hostname", hostname), ("resolv.conf", resolv_conf)] {
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::io("write", &path))?;
    }
    Ok(())
}

fn mount_shm(dir: &Path) -> Result<()> {
    fs::create_dir(dir).map_err(Error::io("create folder", dir))?;
    let flags = MsFlags::MS_NOEXEC | MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some("shm"), dir, Some("tmpfs"), flags, Some(SHM_OPTIONS))
        .map_err(|e| Error::io("mount shared memory at", dir)(e.into()))
}

fn unmount(dir: &Path) -> Result<()> {
    match umount2(dir, MntFlags::MNT_DETACH) {
        // Not there, or not a mount: done already.
        Ok(()) | Err(nix::Error::ENOENT | nix::Error::EINVAL) => Ok(()),
        Err(error) => Err(Error::io("unmount", dir)(error.into())),
    }
}
