//! Decisions about one pod: what to do next, and what to report. Pure: no clock, runtime or file is touched here.

pub mod actions;
pub mod apparmor;
pub mod backoff;
pub mod container;
pub mod memory;
pub mod replacement;
pub mod resize;
pub mod restart_all;
pub mod sandbox;
pub mod status;
pub mod termination;
#[cfg(test)]
mod testing;

use api::view::core::{Container, ContainerStatus, Pod};

/// Init containers that keep running beside the others.
pub fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// Every container of the pod with its field path in the spec, as events name it.
pub fn all_containers(pod: &Pod) -> impl Iterator<Item = (&Container, &'static str)> {
    let init = pod.spec.init_containers.iter().map(|c| (c, "spec.initContainers"));
    let regular = pod.spec.containers.iter().map(|c| (c, "spec.containers"));
    let ephemeral = pod.spec.ephemeral_containers.iter().map(|c| (c, "spec.ephemeralContainers"));
    init.chain(regular).chain(ephemeral)
}

/// The group to which the files of the pod's volumes belong, if it has one.
pub fn fs_group(pod: &Pod) -> Option<u32> {
    let group = pod.spec.security_context.as_ref()?.fs_group?;
    u32::try_from(group).ok()
}

/// What the API says of the container of this name.
pub fn container_status<'p>(pod: &'p Pod, name: &str) -> Option<&'p ContainerStatus> {
    let status = &pod.status;
    let lists =
        [&status.init_container_statuses, &status.container_statuses, &status.ephemeral_container_statuses];
    lists.into_iter().flatten().find(|s| s.name == name)
}

/// How often the API says that a container of this name was started: the count goes on when the runtime forgot it.
pub fn attempts_told(pod: &Pod, name: &str) -> u32 {
    let started = container_status(pod, name).filter(|status| !status.container_id.is_empty());
    started.map_or(0, |status| u32::try_from(status.restart_count).unwrap_or(0).saturating_add(1))
}

/// The pod as messages name it (upstream: `format.Pod`).
pub fn full_name(pod: &Pod) -> String {
    format!("{}_{}({})", pod.metadata.name, pod.metadata.namespace, pod.metadata.uid)
}

/// The seconds a pod has to end by itself.
pub fn grace_period_seconds(pod: &Pod) -> i64 {
    const DEFAULT_SECONDS: i64 = 30;
    pod.metadata
        .deletion_grace_period_seconds
        .or(pod.spec.termination_grace_period_seconds)
        .unwrap_or(DEFAULT_SECONDS)
}
