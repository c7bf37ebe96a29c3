//! A container's spec as the CRI's `ContainerConfig`.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use api::view::core::{Container, Pod, SeccompProfile, SecurityContext};
use runtime::cri;

use crate::observe::{CONTAINER_HASH_ANNOTATION, CONTAINER_NAME_LABEL, CONTAINER_RESTART_COUNT_ANNOTATION};
use crate::pod::sandbox::pod_labels;
use crate::{resources, termination_message};

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
    pub devices: Vec<cri::Device>,
    /// Relative to the sandbox's log directory.
    pub log_path: String,
    /// On the node; empty when the container has no termination message.
    pub termination_message: &'a Path,
    pub memory_capacity: i64,
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
    let mut labels = pod_labels(pod);
    labels.insert(CONTAINER_NAME_LABEL.to_owned(), spec.name.clone());
    cri::ContainerConfig {
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
        mounts: start.mounts,
        devices: start.devices,
        labels,
        annotations: annotations.into_iter().map(|(k, v)| (k.to_owned(), v)).collect::<HashMap<_, _>>(),
        log_path: start.log_path,
        stdin: spec.stdin,
        stdin_once: spec.stdin_once,
        tty: spec.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::linux_resources(pod, spec, start.memory_capacity)),
            security_context: Some(security_context(pod, spec, start.target_container_id)),
        }),
        ..Default::default()
    }
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

fn security_context(pod: &Pod, spec: &Container, target_id: String) -> cri::LinuxContainerSecurityContext {
    let empty_pod = Default::default();
    let of_pod = pod.spec.security_context.as_ref().unwrap_or(&empty_pod);
    let empty = SecurityContext::default();
    let own = spec.security_context.as_ref().unwrap_or(&empty);
    let privileged = own.privileged == Some(true);
    let unmasked = privileged || own.proc_mount.as_deref() == Some("Unmasked");
    let paths =
        |list: &[&str]| if unmasked { Vec::new() } else { list.iter().map(|p| (*p).to_owned()).collect() };
    let run_as_user = own.run_as_user.or(of_pod.run_as_user);
    let mut supplemental_groups = of_pod.supplemental_groups.clone();
    supplemental_groups.extend(of_pod.fs_group);
    cri::LinuxContainerSecurityContext {
        capabilities: own.capabilities.as_ref().map(|c| cri::Capability {
            add_capabilities: c.add.clone(),
            drop_capabilities: c.drop.clone(),
            ..Default::default()
        }),
        privileged,
        namespace_options: Some(super::sandbox::namespace_options(pod, target_id)),
        run_as_user: run_as_user.map(|value| cri::Int64Value { value }),
        run_as_group: own.run_as_group.or(of_pod.run_as_group).map(|value| cri::Int64Value { value }),
        readonly_rootfs: own.read_only_root_filesystem == Some(true),
        supplemental_groups,
        supplemental_groups_policy: super::sandbox::supplemental_groups_policy(pod) as i32,
        no_new_privs: own.allow_privilege_escalation == Some(false),
        masked_paths: paths(&MASKED_PATHS),
        readonly_paths: paths(&READONLY_PATHS),
        seccomp: Some(seccomp(own.seccomp_profile.as_ref().or(of_pod.seccomp_profile.as_ref()), privileged)),
        ..Default::default()
    }
}

/// Without a profile a container is unconfined, as upstream without `seccompDefault`.
pub fn seccomp(profile: Option<&SeccompProfile>, privileged: bool) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, localhost_ref) = match profile {
        Some(profile) if !privileged => match profile.kind.as_str() {
            "RuntimeDefault" => (ProfileType::RuntimeDefault, String::new()),
            "Localhost" => (ProfileType::Localhost, profile.localhost_profile.clone().unwrap_or_default()),
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
    match own.and_then(|c| c.run_as_user).or(of_pod.and_then(|c| c.run_as_user)) {
        Some(0) => Err("container's runAsUser breaks non-root policy".to_owned()),
        Some(_) => Ok(()),
        None => match (image_uid, image_user) {
            (Some(0), _) => Err("container has runAsNonRoot and image will run as root".to_owned()),
            (Some(_), _) => Ok(()),
            (None, "") => Err("container has runAsNonRoot and image will run as root".to_owned()),
            (None, user) => Err(format!(
                "container has runAsNonRoot and image has non-numeric user ({user}), cannot verify user is non-root"
            )),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_depends_on_name_and_image_and_is_the_same_in_every_version() {
        let hash_of = |name: &str, image: &str| {
            hash(&Container { name: name.into(), image: image.into(), ..Default::default() })
        };
        assert_eq!(hash_of("", ""), "af63bd4c8601b7df");
        assert_ne!(hash_of("a", "b"), hash_of("a", "c"));
        assert_ne!(hash_of("a", "bc"), hash_of("ab", "c"));
    }
}
