//! What the agent tells a shim: the sandbox it holds, the containers and extra processes it starts.
//! Everything is resolved beforehand (ids are numbers, images are folders), so that the shim only carries out.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::seccomp_profile::SeccompProfile;

/// One pod sandbox; written to `sandbox.json` in its folder before the shim is started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct SandboxSpec {
    pub id: String,
    pub hostname: String,
    /// Use the node's network (and its host name) instead of new namespaces.
    pub host_network: bool,
    pub host_ipc: bool,
    /// All containers share one PID namespace, which the shim holds open with a small init process.
    pub shared_pid: bool,
    pub sysctls: Vec<(String, String)>,
    /// None: the pod's users are the node's.
    #[serde(default)]
    pub user_namespace: Option<UserNamespace>,
    /// cgroup folders the shim itself joins.
    pub cgroups: Vec<PathBuf>,
}

/// The node's users and groups that a pod's are: those from 0 on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserNamespace {
    pub first_id: u32,
    pub length: u32,
}

/// Which PID namespace a container's processes see.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PidMode {
    /// Its own.
    #[default]
    Container,
    /// The one shared by the pod.
    Pod,
    /// The node's.
    Node,
    /// That of the process with this id: another container's init.
    Target(i32),
}

/// System call filter of a process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Seccomp {
    #[default]
    Unconfined,
    RuntimeDefault,
    Profile(SeccompProfile),
}

/// How one process runs.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Program and arguments; never empty.
    pub args: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    pub cwd: String,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Bit n is capability number n.
    pub capabilities: u64,
    /// Capabilities kept across `execve` of a non-root user; a subset of `capabilities`.
    pub ambient: u64,
    pub no_new_privileges: bool,
    pub seccomp: Seccomp,
    /// AppArmor profile; none is unconfined.
    #[serde(default)]
    pub apparmor: Option<String>,
    pub tty: bool,
    pub oom_score_adj: Option<i32>,
    /// cgroup folders to join.
    pub cgroups: Vec<PathBuf>,
}

/// The layers a container's root file system is overlaid from, mounted in its own mount namespace only.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct RootfsSpec {
    /// The folder that holds all layers; `lower` names are relative to it.
    pub layers_dir: PathBuf,
    /// Topmost first.
    pub lower: Vec<String>,
    pub upper: PathBuf,
    pub work: PathBuf,
    /// Where to mount.
    pub target: PathBuf,
    pub readonly: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Propagation {
    #[default]
    Private,
    HostToContainer,
    Bidirectional,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountKind {
    Bind {
        source: PathBuf,
        propagation: Propagation,
        recursive_readonly: bool,
        /// Show the files of the node's users as those of the pod's.
        #[serde(default)]
        id_mapped: bool,
    },
    Image(ImageMount),
    Proc,
    Sysfs,
    Tmpfs {
        options: String,
    },
    Devpts,
    Mqueue,
    Cgroup,
}

/// What an image shows as a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageMount {
    /// The folder that holds all layers; `lower` names are relative to it.
    pub layers_dir: PathBuf,
    /// Topmost first.
    pub lower: Vec<String>,
    /// Where the layers are put together; made if it is missing.
    pub place: PathBuf,
    /// What of the image is shown; all of it when empty.
    pub sub_path: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MountSpec {
    pub kind: MountKind,
    pub target: PathBuf,
    pub readonly: bool,
}

/// A device node to make in the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    pub path: PathBuf,
    pub block: bool,
    pub major: u64,
    pub minor: u64,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
}

/// One container.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ContainerSpec {
    pub id: String,
    pub process: ProcessSpec,
    pub rootfs: RootfsSpec,
    /// In the order they are to be mounted.
    pub mounts: Vec<MountSpec>,
    pub devices: Vec<DeviceSpec>,
    pub masked_paths: Vec<String>,
    pub readonly_paths: Vec<String>,
    pub pid: PidMode,
    /// It sees all of the node's cgroups, and its own among them.
    #[serde(default)]
    pub node_cgroups: bool,
    /// CRI log file; none discards the output.
    pub log_path: Option<PathBuf>,
    pub stdin: bool,
    pub stdin_once: bool,
    /// Where the exit record goes.
    pub exit_file: PathBuf,
    /// Files with an `oom_kill` counter of this container's cgroup.
    pub oom_file: Option<PathBuf>,
}

/// How a container ended; kept in `exit_file` so that it is known after the shim and the agent are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    pub code: i32,
    /// Nanoseconds since 1970.
    pub finished_at: i64,
    pub oom_killed: bool,
}
