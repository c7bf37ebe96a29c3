//! A pod as the CRI's `PodSandboxConfig`.

use std::collections::HashMap;

use api::view::core::Pod;
use runtime::cri;

use crate::config::Config;
use crate::observe::{POD_NAME_LABEL, POD_NAMESPACE_LABEL, POD_UID_LABEL};
use crate::resources;

/// The labels by which the runtime's objects are found again.
pub fn pod_labels(pod: &Pod) -> HashMap<String, String> {
    [
        (POD_NAME_LABEL, &pod.metadata.name),
        (POD_NAMESPACE_LABEL, &pod.metadata.namespace),
        (POD_UID_LABEL, &pod.metadata.uid),
    ]
    .into_iter()
    .map(|(key, value)| (key.to_owned(), value.clone()))
    .collect()
}

/// Which namespaces the pod's containers share with whom.
pub fn namespace_options(pod: &Pod, target_id: String, users: cri::UserNamespace) -> cri::NamespaceOption {
    use cri::NamespaceMode;
    let host_or = |host: bool, other: NamespaceMode| if host { NamespaceMode::Node } else { other } as i32;
    let pid = match (pod.spec.host_pid, pod.spec.share_process_namespace, target_id.is_empty()) {
        (true, ..) => NamespaceMode::Node,
        (_, Some(true), _) => NamespaceMode::Pod,
        (.., false) => NamespaceMode::Target,
        _ => NamespaceMode::Container,
    };
    cri::NamespaceOption {
        network: host_or(pod.spec.host_network, NamespaceMode::Pod),
        pid: pid as i32,
        ipc: host_or(pod.spec.host_ipc, NamespaceMode::Pod),
        target_id,
        userns_options: Some(users),
    }
}

/// The longest label of a name.
const HOSTNAME_MAX: usize = 63;
/// The longest name that the kernel takes for a host (HOST_NAME_MAX).
const FQDN_MAX: usize = 64;

/// A full name that is to be the host's must be one that the kernel takes.
pub fn check_hostname(pod: &Pod, cluster_domain: &str) -> Result<(), String> {
    let (short, domain) = hostname(pod, cluster_domain);
    let length = short.len() + 1 + domain.len();
    if pod.spec.set_hostname_as_fqdn != Some(true) || domain.is_empty() || length <= FQDN_MAX {
        return Ok(());
    }
    Err(format!(
        "failed to construct FQDN from pod hostname and cluster domain, FQDN {short}.{domain} is too long ({FQDN_MAX} is the max, {length} characters requested)"
    ))
}

/// The pod's own name, and its domain where it has a subdomain.
pub fn hostname(pod: &Pod, cluster_domain: &str) -> (String, String) {
    if let Some(name) = &pod.spec.hostname_override {
        return (
            name.get(..HOSTNAME_MAX).unwrap_or(name).trim_end_matches(['-', '.']).to_owned(),
            String::new(),
        );
    }
    let name = if pod.spec.hostname.is_empty() { &pod.metadata.name } else { &pod.spec.hostname };
    let short = name.get(..HOSTNAME_MAX).unwrap_or(name).trim_end_matches(['-', '.']).to_owned();
    let domain = if pod.spec.subdomain.is_empty() {
        String::new()
    } else {
        format!("{}.{}.svc.{cluster_domain}", pod.spec.subdomain, pod.metadata.namespace)
    };
    (short, domain)
}

pub fn sandbox_config(
    pod: &Pod,
    attempt: u32,
    config: &Config,
    dns: cri::DnsConfig,
    users: cri::UserNamespace,
) -> cri::PodSandboxConfig {
    let (short, domain) = hostname(pod, &config.kubelet.cluster_domain);
    let hostname = match (pod.spec.host_network, pod.spec.set_hostname_as_fqdn, domain.is_empty()) {
        (true, ..) => String::new(),
        (_, Some(true), false) => format!("{short}.{domain}"),
        _ => short,
    };
    cri::PodSandboxConfig {
        metadata: Some(cri::PodSandboxMetadata {
            name: pod.metadata.name.clone(),
            uid: pod.metadata.uid.clone(),
            namespace: pod.metadata.namespace.clone(),
            attempt,
        }),
        hostname,
        log_directory: crate::worker::log_directory(config, pod).display().to_string(),
        dns_config: Some(dns),
        port_mappings: port_mappings(pod),
        labels: pod_labels(pod),
        annotations: pod.metadata.annotations.clone().into_iter().collect(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: resources::pod_cgroup(&config.kubelet.cgroup_root, pod),
            security_context: Some(security_context(pod, config, users)),
            sysctls: pod
                .spec
                .security_context
                .iter()
                .flat_map(|c| &c.sysctls)
                .map(|s| (s.name.clone(), s.value.clone()))
                .collect(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn security_context(
    pod: &Pod,
    config: &Config,
    users: cri::UserNamespace,
) -> cri::LinuxSandboxSecurityContext {
    let of_pod = pod.spec.security_context.as_ref();
    let privileged = pod
        .spec
        .containers
        .iter()
        .chain(&pod.spec.init_containers)
        .any(|c| c.security_context.as_ref().is_some_and(|s| s.privileged == Some(true)));
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(namespace_options(pod, String::new(), users)),
        run_as_user: of_pod.and_then(|c| c.run_as_user).map(|value| cri::Int64Value { value }),
        run_as_group: of_pod.and_then(|c| c.run_as_group).map(|value| cri::Int64Value { value }),
        supplemental_groups: of_pod.map(|c| c.supplemental_groups.clone()).unwrap_or_default(),
        privileged,
        supplemental_groups_policy: supplemental_groups_policy(pod) as i32,
        seccomp: Some(super::container::seccomp(
            of_pod.and_then(|c| c.seccomp_profile.as_ref()),
            privileged,
            &config.root_dir,
        )),
        ..Default::default()
    }
}

/// Whether groups that the image gives its user count too.
pub fn supplemental_groups_policy(pod: &Pod) -> cri::SupplementalGroupsPolicy {
    let of_pod = pod.spec.security_context.as_ref();
    match of_pod.and_then(|c| c.supplemental_groups_policy.as_deref()) {
        Some("Strict") => cri::SupplementalGroupsPolicy::Strict,
        _ => cri::SupplementalGroupsPolicy::Merge,
    }
}

fn port_mappings(pod: &Pod) -> Vec<cri::PortMapping> {
    if pod.spec.host_network {
        return Vec::new();
    }
    let ports = pod.spec.init_containers.iter().chain(&pod.spec.containers).flat_map(|c| &c.ports);
    ports
        .filter(|port| port.host_port != 0)
        .map(|port| cri::PortMapping {
            protocol: match port.protocol.as_str() {
                "UDP" => cri::Protocol::Udp,
                "SCTP" => cri::Protocol::Sctp,
                _ => cri::Protocol::Tcp,
            } as i32,
            container_port: port.container_port.into(),
            host_port: port.host_port.into(),
            host_ip: port.host_ip.clone(),
        })
        .collect()
}
