//! From what the CRI asks for to what the shim carries out: a pure translation, following containerd's `spec_opts`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::apparmor;
use crate::cri::{
    ContainerConfig, Device, LinuxContainerSecurityContext, Mount, MountPropagation, NamespaceMode,
    NamespaceOption, security_profile::ProfileType,
};
use crate::images;
use crate::record::{ContainerRecord, SandboxRecord};
use crate::shim::capabilities;
use crate::shim::seccomp_profile::SeccompProfile;
use crate::shim::spec::{
    ContainerSpec, DeviceSpec, ImageMount, MountKind, MountSpec, PidMode, ProcessSpec, Propagation,
    RootfsSpec, Seccomp, UserNamespace,
};

/// Character devices of every container: name, major, minor.
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const DEVICE_MODE: u32 = 0o666;
const ETC_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

/// What the translation reads.
pub struct World<'a> {
    pub sandbox: &'a SandboxRecord,
    pub container: &'a ContainerRecord,
    pub image: &'a images::ContainerConfig,
    pub sandbox_dir: &'a Path,
    pub container_dir: &'a Path,
    pub layers_dir: &'a Path,
    pub cgroups: Vec<PathBuf>,
    pub cgroup_v2: bool,
    pub oom_file: Option<PathBuf>,
    /// Devices of the node, for privileged containers and those who ask by path.
    pub host_devices: Vec<DeviceSpec>,
    /// Init of the container whose processes this one sees (`NamespaceMode` TARGET).
    pub target_pid: Option<i32>,
}

pub fn translate(world: &World) -> Result<ContainerSpec, String> {
    let config = &world.container.config;
    let security = security_context(config);
    let process = process(world, &security)?;
    let options = security.namespace_options.clone().unwrap_or_default();
    let log_dir = &world.sandbox.config.log_directory;
    let has_log = !log_dir.is_empty() && !config.log_path.is_empty();
    let dir = |name: &str| world.container_dir.join(name);
    Ok(ContainerSpec {
        id: world.container.id.clone(),
        process,
        rootfs: RootfsSpec {
            layers_dir: world.layers_dir.to_owned(),
            lower: world.container.layers.iter().rev().cloned().collect(),
            upper: dir("upper"),
            work: dir("work"),
            target: dir("rootfs"),
            readonly: security.readonly_rootfs,
        },
        mounts: mounts(world, &security),
        devices: devices(world, &security),
        masked_paths: if security.privileged { Vec::new() } else { security.masked_paths.clone() },
        readonly_paths: if security.privileged { Vec::new() } else { security.readonly_paths.clone() },
        pid: pid_mode(&options, world.target_pid)?,
        node_cgroups: node_cgroups(world, &security),
        log_path: has_log.then(|| Path::new(log_dir).join(&config.log_path)),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        exit_file: dir(crate::record::EXIT_FILE_NAME),
        oom_file: world.oom_file.clone(),
    })
}

/// Who manages the node from a container looks for cgroups where the node has them (follows containerd, which gives
/// privileged containers no cgroup namespace); with users of its own a container has no say in the node's.
fn node_cgroups(world: &World, security: &LinuxContainerSecurityContext) -> bool {
    world.cgroup_v2 && security.privileged && matches!(user_namespace(&world.sandbox.config), Ok(None))
}

pub fn security_context(config: &ContainerConfig) -> LinuxContainerSecurityContext {
    config.linux.as_ref().and_then(|linux| linux.security_context.clone()).unwrap_or_default()
}

/// Device nodes the pod asks for by their path on the node; privileged containers have all of `/dev` besides.
pub fn wanted_devices(config: &ContainerConfig, host: &[DeviceSpec]) -> Vec<DeviceSpec> {
    let mut wanted: Vec<DeviceSpec> = config
        .devices
        .iter()
        .flat_map(|wish| host.iter().filter_map(|device| granted(wish, device)))
        .collect();
    if security_context(config).privileged {
        let taken: BTreeSet<PathBuf> = wanted.iter().map(|device| device.path.clone()).collect();
        let nodes = host.iter().filter(|device| device.path.starts_with("/dev"));
        wanted.extend(nodes.filter(|device| !taken.contains(&device.path)).cloned());
    }
    wanted
}

/// The node's device as the container is to see it, if it is the one wished for or lies below.
fn granted(wish: &Device, device: &DeviceSpec) -> Option<DeviceSpec> {
    let rest = device.path.strip_prefix(&wish.host_path).ok()?;
    let target = if wish.container_path.is_empty() { &wish.host_path } else { &wish.container_path };
    Some(DeviceSpec { path: below(Path::new(target), rest), ..device.clone() })
}

/// The path itself when `rest` is empty: joining would end it with a slash.
pub fn below(path: &Path, rest: &Path) -> PathBuf {
    if rest.as_os_str().is_empty() { path.to_owned() } else { path.join(rest) }
}

/// The pod's command line over the image's: a command replaces both entry point and arguments of the image.
fn arguments(config: &ContainerConfig, image: &images::ContainerConfig) -> Result<Vec<String>, String> {
    let mut args = config.command.clone();
    if args.is_empty() {
        args = image.entrypoint.clone();
        args.extend(if config.args.is_empty() { image.cmd.clone() } else { config.args.clone() });
    } else {
        args.extend(config.args.clone());
    }
    if args.is_empty() { Err("no command specified".to_owned()) } else { Ok(args) }
}

/// The image's environment with the pod's over it; a later value of a name replaces an earlier one in place.
fn environment(config: &ContainerConfig, image: &images::ContainerConfig, hostname: &str) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let name = |entry: &str| entry.split('=').next().unwrap_or_default().to_owned();
        match env.iter_mut().find(|known| name(known) == name(&entry)) {
            Some(known) => *known = entry,
            None => env.push(entry),
        }
    };
    image.env.iter().cloned().for_each(&mut set);
    if !hostname.is_empty() {
        set(format!("HOSTNAME={hostname}"));
    }
    if config.tty {
        set("TERM=xterm".to_owned());
    }
    config.envs.iter().for_each(|pair| set(format!("{}={}", pair.key, pair.value)));
    env
}

fn process(world: &World, security: &LinuxContainerSecurityContext) -> Result<ProcessSpec, String> {
    let config = &world.container.config;
    let wanted = security.capabilities.clone().unwrap_or_default();
    let base = if security.privileged { capabilities::ALL } else { capabilities::default_set() };
    let mut set = capabilities::adjust(base, &wanted.add_capabilities, &wanted.drop_capabilities)?;
    if security.privileged {
        set = capabilities::ALL;
    }
    let ambient = capabilities::adjust(0, &wanted.add_ambient_capabilities, &[])?;
    let resources = config.linux.as_ref().and_then(|linux| linux.resources.as_ref());
    let cwd = if config.working_dir.is_empty() { &world.image.working_dir } else { &config.working_dir };
    let user = &world.container.user;
    Ok(ProcessSpec {
        args: arguments(config, world.image)?,
        env: environment(config, world.image, &world.sandbox.config.hostname),
        cwd: if cwd.is_empty() { "/".to_owned() } else { cwd.clone() },
        uid: user.uid,
        gid: user.gid,
        groups: user.groups.clone(),
        capabilities: set,
        ambient,
        no_new_privileges: security.no_new_privs,
        seccomp: seccomp(security)?,
        apparmor: apparmor::profile(security.apparmor.as_ref(), security.privileged)?,
        tty: config.tty,
        oom_score_adj: Some(resources.map_or(0, |resources| resources.oom_score_adj as i32)),
        cgroups: world.cgroups.clone(),
    })
}

pub(crate) fn seccomp(security: &LinuxContainerSecurityContext) -> Result<Seccomp, String> {
    if security.privileged {
        return Ok(Seccomp::Unconfined);
    }
    match security.seccomp.as_ref().map(|profile| profile.profile_type()) {
        Some(ProfileType::RuntimeDefault) => Ok(Seccomp::RuntimeDefault),
        Some(ProfileType::Localhost) => {
            let path =
                security.seccomp.as_ref().map(|profile| profile.localhost_ref.as_str()).unwrap_or_default();
            SeccompProfile::read(Path::new(path)).map(Seccomp::Profile)
        }
        Some(ProfileType::Unconfined) | None => Ok(Seccomp::Unconfined),
    }
}

fn pid_mode(options: &NamespaceOption, target: Option<i32>) -> Result<PidMode, String> {
    Ok(match options.pid() {
        NamespaceMode::Pod => PidMode::Pod,
        NamespaceMode::Container => PidMode::Container,
        NamespaceMode::Node => PidMode::Node,
        NamespaceMode::Target => PidMode::Target(
            target.ok_or_else(|| format!("target container {:?} is not running", options.target_id))?,
        ),
    })
}

fn mounts(world: &World, security: &LinuxContainerSecurityContext) -> Vec<MountSpec> {
    let config = &world.container.config;
    let asked = |target: &str| {
        config.mounts.iter().any(|mount| Path::new(&mount.container_path) == Path::new(target))
    };
    let readonly = !security.privileged;
    let mount = |kind, target: &str, readonly| MountSpec { kind, target: PathBuf::from(target), readonly };
    let bind = |source: PathBuf, id_mapped: bool| MountKind::Bind {
        source,
        propagation: Propagation::Private,
        recursive_readonly: false,
        id_mapped,
    };
    let own_users = matches!(user_namespace(&world.sandbox.config), Ok(Some(_)));
    let mut mounts = vec![
        mount(MountKind::Proc, "/proc", false),
        mount(MountKind::Tmpfs { options: "mode=755,size=65536k".to_owned() }, "/dev", false),
        mount(MountKind::Devpts, "/dev/pts", false),
        mount(MountKind::Mqueue, "/dev/mqueue", false),
        mount(MountKind::Sysfs, "/sys", readonly),
        mount(MountKind::Cgroup, "/sys/fs/cgroup", readonly),
    ];
    if !asked("/dev/shm") {
        mounts.push(mount(bind(shm_source(world), false), "/dev/shm", false));
    }
    for name in ETC_FILES {
        let target = format!("/etc/{name}");
        if !asked(&target) {
            let file = bind(world.sandbox_dir.join(name), own_users);
            mounts.push(mount(file, &target, security.readonly_rootfs));
        }
    }
    mounts.retain(|mount| {
        let target = mount.target.to_string_lossy();
        !asked(&target) || matches!(mount.kind, MountKind::Devpts)
    });
    // Outer mounts come first, so that none hides another; the order is otherwise the pod's.
    let mut wanted: Vec<&Mount> = config.mounts.iter().collect();
    wanted.sort_by_key(|mount| Path::new(&mount.container_path).components().count());
    mounts.extend(wanted.into_iter().enumerate().map(|(index, mount)| match image_of(mount) {
        Some(_) => image_mount(world, mount, index),
        None => bind_of(mount),
    }));
    mounts
}

/// The image that a mount shows instead of a path of the node.
pub fn image_of(mount: &Mount) -> Option<&str> {
    mount.image.as_ref().map(|image| image.image.as_str()).filter(|image| !image.is_empty())
}

fn image_mount(world: &World, mount: &Mount, index: usize) -> MountSpec {
    let layers = world.container.volume_layers.get(&mount.container_path);
    MountSpec {
        kind: MountKind::Image(ImageMount {
            layers_dir: world.layers_dir.to_owned(),
            lower: layers.into_iter().flatten().rev().cloned().collect(),
            place: world.container_dir.join("volumes").join(index.to_string()),
            sub_path: PathBuf::from(&mount.image_sub_path),
        }),
        target: Path::new("/").join(&mount.container_path),
        readonly: true,
    }
}

/// What of the mounts contradicts itself, in containerd's terms: only a private, read-only mount is so recursively.
pub fn validate_mounts(mounts: &[Mount]) -> Result<(), String> {
    for mount in mounts.iter().filter(|mount| mount.recursive_read_only) {
        let path = &mount.container_path;
        if !mount.readonly {
            return Err(format!("mount {path}: recursive_read_only needs readonly"));
        }
        if mount.propagation() != MountPropagation::PropagationPrivate {
            return Err(format!("mount {path}: recursive_read_only needs private propagation"));
        }
    }
    Ok(())
}

fn shm_source(world: &World) -> PathBuf {
    if uses_node_ipc(&world.sandbox.config) {
        PathBuf::from("/dev/shm")
    } else {
        world.sandbox_dir.join("shm")
    }
}

fn bind_of(mount: &Mount) -> MountSpec {
    let propagation = match mount.propagation() {
        MountPropagation::PropagationPrivate => Propagation::Private,
        MountPropagation::PropagationHostToContainer => Propagation::HostToContainer,
        MountPropagation::PropagationBidirectional => Propagation::Bidirectional,
    };
    MountSpec {
        kind: MountKind::Bind {
            source: PathBuf::from(&mount.host_path),
            propagation,
            recursive_readonly: mount.recursive_read_only,
            id_mapped: !mount.uid_mappings.is_empty(),
        },
        target: Path::new("/").join(&mount.container_path),
        readonly: mount.readonly,
    }
}

fn devices(world: &World, security: &LinuxContainerSecurityContext) -> Vec<DeviceSpec> {
    let owner = user_namespace(&world.sandbox.config).ok().flatten().map_or(0, |users| users.first_id);
    let mut devices: Vec<DeviceSpec> = DEVICES
        .iter()
        .map(|(name, major, minor)| DeviceSpec {
            path: Path::new("/dev").join(name),
            block: false,
            major: *major,
            minor: *minor,
            mode: DEVICE_MODE,
            uid: owner,
            gid: owner,
        })
        .collect();
    let wanted = wanted_devices(&world.container.config, &world.host_devices);
    // Terminals and shared memory are file systems of the container's own.
    let own = ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/ptmx", "/dev/console"];
    devices.extend(
        wanted
            .into_iter()
            .filter(|device| !(security.privileged && own.iter().any(|path| device.path.starts_with(path)))),
    );
    devices
}

pub fn sandbox_namespaces(config: &crate::cri::PodSandboxConfig) -> NamespaceOption {
    let security = config.linux.as_ref().and_then(|linux| linux.security_context.as_ref());
    security.and_then(|security| security.namespace_options.clone()).unwrap_or_default()
}

/// The users that the pod has of its own. Root must be among them, and users and groups be mapped alike: one range does
/// for everything that is made for the pod.
pub fn user_namespace(config: &crate::cri::PodSandboxConfig) -> Result<Option<UserNamespace>, String> {
    let users = sandbox_namespaces(config).userns_options.unwrap_or_default();
    match users.mode() {
        NamespaceMode::Pod if !users.uids.is_empty() => {}
        NamespaceMode::Pod | NamespaceMode::Node => return Ok(None),
        mode => return Err(format!("a pod's users cannot be those of {}", mode.as_str_name())),
    }
    match (users.uids.as_slice(), users.gids == users.uids) {
        ([range], true) if range.container_id == 0 && range.length > 0 => {
            Ok(Some(UserNamespace { first_id: range.host_id, length: range.length }))
        }
        _ => {
            Err("a user namespace takes one range of ids from 0 on, the same for users and groups".to_owned())
        }
    }
}

pub fn uses_node_network(config: &crate::cri::PodSandboxConfig) -> bool {
    sandbox_namespaces(config).network() == NamespaceMode::Node
}

pub fn uses_node_ipc(config: &crate::cri::PodSandboxConfig) -> bool {
    sandbox_namespaces(config).ipc() == NamespaceMode::Node
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cri::LinuxContainerConfig;

    fn strings(words: &[&str]) -> Vec<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    #[test]
    fn a_command_replaces_the_images_entry_point_and_arguments() {
        let image = images::ContainerConfig {
            entrypoint: strings(&["/entry"]),
            cmd: strings(&["default"]),
            ..images::ContainerConfig::default()
        };
        let check = |command: &[&str], args: &[&str], expect: &[&str]| {
            let config = ContainerConfig {
                command: strings(command),
                args: strings(args),
                ..ContainerConfig::default()
            };
            assert_eq!(arguments(&config, &image).unwrap(), strings(expect));
        };
        check(&[], &[], &["/entry", "default"]);
        check(&[], &["x"], &["/entry", "x"]);
        check(&["sh"], &[], &["sh"]);
        check(&["sh"], &["-c"], &["sh", "-c"]);
        assert!(arguments(&ContainerConfig::default(), &images::ContainerConfig::default()).is_err());
    }

    #[test]
    fn privileged_containers_see_the_devices_that_they_ask_for_too() {
        let device = |path: &str| DeviceSpec {
            path: path.into(),
            block: true,
            major: 7,
            minor: 0,
            mode: DEVICE_MODE,
            uid: 0,
            gid: 0,
        };
        let host = [device("/dev/a"), device("/dev/b"), device("/pods/volume")];
        let check = |privileged: bool, wishes: &[(&str, &str)], expect: &[&str]| {
            let security_context = Some(LinuxContainerSecurityContext { privileged, ..Default::default() });
            let wish = |(from, to): &(&str, &str)| Device {
                host_path: (*from).to_owned(),
                container_path: (*to).to_owned(),
                ..Default::default()
            };
            let config = ContainerConfig {
                devices: wishes.iter().map(wish).collect(),
                linux: Some(LinuxContainerConfig { security_context, ..Default::default() }),
                ..Default::default()
            };
            let found = wanted_devices(&config, &host);
            let paths: Vec<&str> = found.iter().filter_map(|device| device.path.to_str()).collect();
            assert_eq!(paths, expect, "{privileged} {wishes:?}");
        };
        check(false, &[("/pods/volume", "/opt/0")], &["/opt/0"]);
        check(true, &[("/pods/volume", "/opt/0")], &["/opt/0", "/dev/a", "/dev/b"]);
        check(true, &[("/dev/a", "/dev/b")], &["/dev/b", "/dev/a"]);
        check(false, &[("/dev", "")], &["/dev/a", "/dev/b"]);
    }

    #[test]
    fn only_a_private_readonly_mount_is_readonly_recursively() {
        let check = |readonly: bool, propagation: MountPropagation, expect: bool| {
            let recursive = Mount {
                readonly,
                recursive_read_only: true,
                propagation: propagation.into(),
                ..Mount::default()
            };
            let plain = Mount { recursive_read_only: false, ..recursive.clone() };
            assert!(validate_mounts(&[plain]).is_ok());
            assert_eq!(validate_mounts(&[recursive]).is_ok(), expect, "{readonly} {propagation:?}");
        };
        check(true, MountPropagation::PropagationPrivate, true);
        check(false, MountPropagation::PropagationPrivate, false);
        check(true, MountPropagation::PropagationHostToContainer, false);
        check(true, MountPropagation::PropagationBidirectional, false);
    }

    #[test]
    fn a_pods_users_are_its_own_or_the_nodes() {
        let check = |mode: NamespaceMode, expect: bool| {
            let users = crate::cri::UserNamespace { mode: mode.into(), ..Default::default() };
            let options = NamespaceOption { userns_options: Some(users), ..Default::default() };
            let security = crate::cri::LinuxSandboxSecurityContext {
                namespace_options: Some(options),
                ..Default::default()
            };
            let linux =
                crate::cri::LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() };
            let config = crate::cri::PodSandboxConfig { linux: Some(linux), ..Default::default() };
            assert_eq!(user_namespace(&config).is_ok(), expect, "{mode:?}");
        };
        check(NamespaceMode::Pod, true);
        check(NamespaceMode::Node, true);
        check(NamespaceMode::Container, false);
        check(NamespaceMode::Target, false);
    }

    #[test]
    fn the_pods_environment_replaces_the_images_in_place() {
        let image =
            images::ContainerConfig { env: strings(&["A=1", "B=2"]), ..images::ContainerConfig::default() };
        let pair = |key: &str, value: &str| crate::cri::KeyValue { key: key.into(), value: value.into() };
        let config =
            ContainerConfig { envs: vec![pair("A", "9"), pair("C", "3")], ..ContainerConfig::default() };
        assert_eq!(environment(&config, &image, "h"), strings(&["A=9", "B=2", "HOSTNAME=h", "C=3"]));
    }
}
