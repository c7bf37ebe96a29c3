//! A container's spec as the CRI's `ContainerConfig`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use api::view::core::{Container, Pod, SeccompProfile, SecurityContext};
use runtime::cri;

use crate::cm::Pinned;
use crate::cm::devicemanager::proto::ContainerAllocateResponse;
use crate::observe::{CONTAINER_HASH_ANNOTATION, CONTAINER_NAME_LABEL, CONTAINER_RESTART_COUNT_ANNOTATION};
use crate::pod::sandbox::pod_labels;
use crate::pod::{all_containers, apparmor, full_name};
use crate::resources::{self, Machine};
use crate::termination_message;

/// What changes a running container: name and image (upstream: `HashContainer`). FNV-1a with a zero between them:
/// running containers carry it across upgrades, so it must never change.
pub fn hash(spec: &Container) -> String {
    let text = spec.name.bytes().chain([0]).chain(spec.image.bytes());
    let sum = text.fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    format!("{sum:x}")
}

/// Everything about one start of a container that the spec alone does not say.
pub struct Start<'a> {
    pub attempt: u32,
    /// What the image is called in the runtime.
    pub image_ref: String,
    pub env: Vec<(String, String)>,
    pub mounts: Vec<cri::Mount>,
    /// Of volumes that are block devices.
    pub block_devices: Vec<cri::Device>,
    /// Relative to the sandbox's log directory.
    pub log_path: String,
    /// On the node; empty when the container has no termination message.
    pub termination_message: &'a Path,
    pub machine: &'a Machine,
    /// Where it is to run, if that matters.
    pub pinned: Option<Pinned>,
    /// What device plugins and drivers want done for the container's devices.
    pub devices: Vec<ContainerAllocateResponse>,
    /// Where the profiles of system call filters are, in a folder of their own.
    pub root_dir: &'a Path,
    /// The node's, or a range of the pod's own.
    pub users: cri::UserNamespace,
    /// Who the image says it runs as, for `runAsNonRoot`.
    pub target_container_id: String,
}

/// Builds the request; fails with a sentence when the spec cannot be honoured.
pub fn container_config(pod: &Pod, spec: &Container, start: Start<'_>) -> cri::ContainerConfig {
    let env: BTreeMap<&str, &str> = start.env.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    let expand = |text: &String| crate::env::expand(text, |name| env.get(name).map(|v| (*v).to_owned()));
    let annotations = [
        (CONTAINER_HASH_ANNOTATION, hash(spec)),
        (CONTAINER_RESTART_COUNT_ANNOTATION, start.attempt.to_string()),
        (termination_message::PATH_ANNOTATION, start.termination_message.display().to_string()),
        (termination_message::POLICY_ANNOTATION, spec.termination_message_policy.clone()),
    ];
    let mut mounts = start.mounts;
    for mount in &mut mounts {
        mount.uid_mappings.clone_from(&start.users.uids);
        mount.gid_mappings.clone_from(&start.users.gids);
    }
    let namespaces = super::sandbox::namespace_options(pod, start.target_container_id, start.users);
    let security = security_context(pod, spec, namespaces, start.root_dir);
    let mut labels = pod_labels(pod);
    labels.insert(CONTAINER_NAME_LABEL.to_owned(), spec.name.clone());
    let mut config = cri::ContainerConfig {
        metadata: Some(cri::ContainerMetadata { name: spec.name.clone(), attempt: start.attempt }),
        image: Some(cri::ImageSpec {
            image: start.image_ref,
            user_specified_image: spec.image.clone(),
            ..Default::default()
        }),
        command: spec.command.iter().map(expand).collect(),
        args: spec.args.iter().map(expand).collect(),
        working_dir: spec.working_dir.clone(),
        envs: start
            .env
            .iter()
            .map(|(key, value)| cri::KeyValue { key: key.clone(), value: value.clone() })
            .collect(),
        mounts,
        devices: start.block_devices,
        labels,
        annotations: annotations.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<HashMap<_, _>>(),
        log_path: start.log_path,
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::linux_resources(pod, spec, start.pinned.as_ref(), start.machine)),
            security_context: Some(security),
        }),
        ..Default::default()
    };
    start.devices.into_iter().for_each(|devices| add_devices(&mut config, devices));
    config
}

/// Variables that the container has already stay as they are.
fn add_devices(config: &mut cri::ContainerConfig, devices: ContainerAllocateResponse) {
    let known: Vec<String> = config.envs.iter().map(|pair| pair.key.clone()).collect();
    let new = devices.envs.into_iter().filter(|(key, _)| !known.contains(key));
    config.envs.extend(new.map(|(key, value)| cri::KeyValue { key, value }));
    config.mounts.extend(devices.mounts.into_iter().map(|mount| cri::Mount {
        container_path: mount.container_path,
        host_path: mount.host_path,
        readonly: mount.read_only,
        ..Default::default()
    }));
    config.devices.extend(devices.devices.into_iter().map(|device| cri::Device {
        container_path: device.container_path,
        host_path: device.host_path,
        permissions: device.permissions,
    }));
    config.annotations.extend(devices.annotations);
    config
        .cdi_devices
        .extend(devices.cdi_devices.into_iter().map(|device| cri::CdiDevice { name: device.name }));
}

/// Paths hidden or write-protected unless the container is privileged (containerd's defaults, as the kubelet sends them).
const MASKED_PATHS: [&str; 12] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

fn security_context(
    pod: &Pod,
    spec: &Container,
    namespaces: cri::NamespaceOption,
    root_dir: &Path,
) -> cri::LinuxContainerSecurityContext {
    let empty_pod = Default::default();
    let of_pod = pod.spec.security_context.as_ref().unwrap_or(&empty_pod);
    let empty = SecurityContext::default();
    let own = spec.security_context.as_ref().unwrap_or(&empty);
    let privileged = own.privileged == Some(true);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths =
        |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let run_as_user = run_as_user(pod, spec);
    let mut supplemental_groups = of_pod.supplemental_groups.clone();
    supplemental_groups.extend(of_pod.fs_group);
    cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| cri::Capability {
            add_capabilities: c.add.clone(),
            drop_capabilities: c.drop.clone(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(namespaces),
        run_as_user: run_as_user.map(|value| cri::Int64Value { value }),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(|value| cri::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups,
        supplemental_groups_policy: super::sandbox::supplemental_groups_policy(pod) as i32,
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(
            own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()),
            privileged,
            root_dir,
        )),
        apparmor: apparmor::profile(pod, spec).map(|profile| apparmor::of_cri(&profile)),
        ..Default::default()
    }
}

/// Names the image's user where the pod asks for a group alone: CRI takes no group without a user.
pub fn name_user_of_group(image_uid: Option<i64>, image_user: &str, config: &mut cri::ContainerConfig) {
    let context = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
    let Some(context) = context.filter(|c| c.run_as_group.is_some() && c.run_as_user.is_none()) else {
        return;
    };
    match (image_uid, image_user) {
        (Some(value), _) => context.run_as_user = Some(cri::Int64Value { value }),
        (None, "") => context.run_as_user = Some(cri::Int64Value { value: 0 }),
        (None, name) => name.clone_into(&mut context.run_as_username),
    }
}

/// Confines a container that is neither privileged nor names a profile, nor does its pod (upstream: `seccompDefault`).
pub fn confine_by_default(pod: &Pod, spec: &Container, config: &mut cri::ContainerConfig) {
    let own = spec.security_context.as_ref();
    let of_pod = pod.spec.security_context.as_ref().and_then(|context| context.seccomp_profile.as_ref());
    let named = own.and_then(|context| context.seccomp_profile.as_ref()).or(of_pod).is_some();
    if named || own.is_some_and(|context| context.privileged == Some(true)) {
        return;
    }
    if let Some(context) = config.linux.as_mut().and_then(|linux| linux.security_context.as_mut()) {
        let profile_type = cri::security_profile::ProfileType::RuntimeDefault.into();
        context.seccomp = Some(cri::SecurityProfile { profile_type, ..Default::default() });
    }
}

/// The folder of profiles that users put on the node.
const SECCOMP_DIR: &str = "seccomp";

/// Without a profile a container is unconfined.
pub fn seccomp(profile: Option<&SeccompProfile>, privileged: bool, root_dir: &Path) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, localhost_ref) = match profile {
        Some(profile) if !privileged => match profile.kind.as_str() {
            "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
            "Localhost" => {
                let name = profile.localhost_profile.as_deref().unwrap_or_default();
                (ProfileType::Localhost, root_dir.join(SECCOMP_DIR).join(name).display().to_string())
            }
            _ => (ProfileType::Unconfined, String::new()),
        },
        _ => (ProfileType::Unconfined, String::new()),
    };
    cri::SecurityProfile { profile_type: kind as i32, localhost_ref }
}

/// Whether `runAsNonRoot` forbids this start, given who the image runs as; the text is upstream's.
pub fn verify_run_as_non_root(
    pod: &Pod,
    spec: &Container,
    image_uid: Option<i64>,
    image_user: &str,
) -> Result<(), String> {
    let of_pod = pod.spec.security_context.as_ref();
    let own = spec.security_context.as_ref();
    let required =
        own.and_then(|c| c.run_as_non_root).or(of_pod.and_then(|c| c.run_as_non_root)).unwrap_or(false);
    if !required {
        return Ok(());
    }
    let why = match (run_as_user(pod, spec), image_uid, image_user) {
        (Some(0), _, _) => "container's runAsUser breaks non-root policy".to_owned(),
        (None, Some(0), _) | (None, None, "") => {
            "container has runAsNonRoot and image will run as root".to_owned()
        }
        (None, None, user) => format!(
            "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
        ),
        _ => return Ok(()),
    };
    Err(format!("{why} (pod: {:?}, container: {})", full_name(pod), spec.name))
}

/// The user that the pod's author chose for the container, if any.
fn run_as_user(pod: &Pod, spec: &Container) -> Option<i64> {
    let own = spec.security_context.as_ref().and_then(|context| context.run_as_user);
    own.or_else(|| pod.spec.security_context.as_ref()?.run_as_user)
}

/// The user as whom all containers of the pod run, if it is one and is known (upstream: `FsUserFrom`).
pub fn only_user(pod: &Pod) -> Option<u32> {
    let mut users = all_containers(pod).map(|(spec, _)| run_as_user(pod, spec));
    let first = users.next()??;
    users.all(|user| user == Some(first)).then(|| u32::try_from(first).ok())?
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    #[test]
    fn a_group_alone_comes_with_the_images_user() {
        let check = |group: Option<i64>, uid: Option<i64>, user: &str, expect: (Option<i64>, &str)| {
            let context = cri::LinuxContainerSecurityContext {
                run_as_group: group.map(|value| cri::Int64Value { value }),
                ..Default::default()
            };
            let linux = cri::LinuxContainerConfig { security_context: Some(context), ..Default::default() };
            let mut config = cri::ContainerConfig { linux: Some(linux), ..Default::default() };
            name_user_of_group(uid, user, &mut config);
            let context = config.linux.and_then(|linux| linux.security_context).expect("a context");
            let user = context.run_as_user.map(|user| user.value);
            assert_eq!((user, context.run_as_username.as_str()), expect);
        };
        check(Some(7), Some(1000), "1000", (Some(1000), ""));
        check(Some(7), None, "", (Some(0), ""));
        check(Some(7), None, "app", (None, "app"));
        check(None, Some(1000), "1000", (None, ""));
    }

    #[test]
    fn who_names_no_profile_and_is_not_privileged_is_confined_by_default() {
        let check = |of_pod: Value, own: Value, expect: bool| {
            let container = json!({"name": "c", "securityContext": own});
            let pod = json!({"spec": {"securityContext": of_pod, "containers": [container]}});
            let pod: Pod = apimachinery::from_value(pod).expect("a pod");
            let linux = cri::LinuxContainerConfig {
                security_context: Some(cri::LinuxContainerSecurityContext::default()),
                ..Default::default()
            };
            let mut config = cri::ContainerConfig { linux: Some(linux), ..Default::default() };
            confine_by_default(&pod, &pod.spec.containers[0], &mut config);
            let context = config.linux.and_then(|linux| linux.security_context).expect("a context");
            assert_eq!(context.seccomp.is_some(), expect, "{pod:?}");
        };
        check(json!({}), json!({}), true);
        check(json!({}), json!({"privileged": true}), false);
        check(json!({}), json!({"seccompProfile": {"type": "Unconfined"}}), false);
        check(json!({"seccompProfile": {"type": "Unconfined"}}), json!({}), false);
    }

    #[test]
    fn a_hash_depends_on_name_and_image_and_is_the_same_in_every_version() {
        let hash_of = |name: &str, image: &str| {
            hash(&Container { name: name.into(), image: image.into(), ..Default::default() })
        };
        assert_eq!(hash_of("", ""), "af63bd4c8601b7df");
        assert_ne!(hash_of("a", "b"), hash_of("a", "c"));
        assert_ne!(hash_of("a", "bc"), hash_of("ab", "c"));
    }

    #[test]
    fn the_only_user_of_a_pod_is_that_of_all_its_containers() {
        let check = |of_pod: Value, of_containers: &[Value], expect: Option<u32>| {
            let containers: Vec<_> = of_containers
                .iter()
                .map(|user| json!({"name": "a", "securityContext": {"runAsUser": user}}))
                .collect();
            let spec = json!({"spec": {"containers": containers, "securityContext": {"runAsUser": of_pod}}});
            let pod: Pod = apimachinery::from_value(spec).expect("a pod");
            assert_eq!(only_user(&pod), expect, "{pod:?}");
        };
        check(json!(null), &[json!(null)], None);
        check(json!(null), &[json!(0)], Some(0));
        check(json!(1000), &[json!(null), json!(1000)], Some(1000));
        check(json!(1000), &[json!(null), json!(0)], None);
        check(json!(null), &[json!(1000), json!(null)], None);
    }
}
