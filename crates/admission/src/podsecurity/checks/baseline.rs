//! The checks of the level "baseline": what is known to lead out of a container.

use api::core::pod::SAFE_SYSCTLS;
use apimachinery::Value;
use apimachinery::meta::{str_at, value_at};

use super::{Names, Pod, Violation, containers, plural, quoted, setters, setting, texts, violation};

const APP_ARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";
const SECCOMP_POD_ANNOTATION: &str = "seccomp.security.alpha.kubernetes.io/pod";
const SECCOMP_CONTAINER_ANNOTATION: &str = "container.seccomp.security.alpha.kubernetes.io/";
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// The last one is allowed since 1.31.
const SELINUX_TYPES: [&str; 5] =
    ["", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"];

pub fn app_armor_profile(pod: &Pod<'_>) -> Option<Violation> {
    let bad = |holder: &Value| {
        setting(holder, &["appArmorProfile", "type"])
            .and_then(Value::as_str)
            .filter(|profile| !matches!(*profile, "RuntimeDefault" | "Localhost"))
            .map(str::to_owned)
    };
    let mut values: Vec<String> = pod.containers().filter_map(bad).chain(bad(pod.spec)).collect();
    values.sort_unstable();
    values.dedup();
    let names = pod.names(|c| bad(c).is_some());
    let annotations = pod.metadata.get("annotations").and_then(Value::as_object).into_iter().flatten();
    let mut annotated: Vec<String> = annotations
        .filter_map(|(key, value)| Some((key, value.as_str()?)))
        .filter(|(key, value)| {
            let allowed = value.is_empty() || *value == "runtime/default" || value.starts_with("localhost/");
            key.starts_with(APP_ARMOR_ANNOTATION) && !allowed
        })
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    annotated.sort_unstable();
    let mut holders: Vec<String> = setters(bad(pod.spec).is_some(), &names).into_iter().collect();
    if !annotated.is_empty() {
        holders.push(plural("annotation", annotated.len()));
    }
    if holders.is_empty() {
        return None;
    }
    values.extend(annotated);
    let reason = if values.len() == 1 { "forbidden AppArmor profile" } else { "forbidden AppArmor profiles" };
    violation(
        reason,
        format!("{} must not set AppArmor profile type to {}", holders.join(" and "), quoted(values)),
    )
}

pub fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    let bad = |container: &Value| -> Vec<String> {
        let added = texts(setting(container, &["capabilities", "add"]));
        added.filter(|name| !CAPABILITIES.contains(name)).map(str::to_owned).collect()
    };
    let names = pod.names(|c| !bad(c).is_empty());
    if names.is_empty() {
        return None;
    }
    let mut added: Vec<String> = pod.containers().flat_map(bad).collect();
    added.sort_unstable();
    added.dedup();
    violation(
        "non-default capabilities",
        format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&names),
            quoted(added)
        ),
    )
}

pub fn host_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    let shared = ["hostNetwork", "hostPID", "hostIPC"].into_iter().filter(|field| pod.spec[*field] == true);
    let shared: Vec<String> = shared.map(|field| format!("{field}=true")).collect();
    (!shared.is_empty()).then(|| Violation { reason: "host namespaces", detail: shared.join(", ") })
}

pub fn host_path_volumes(pod: &Pod<'_>) -> Option<Violation> {
    let bad: Vec<&str> =
        pod.volumes().filter(|v| v["hostPath"].is_object()).map(|v| str_at(v, &["name"])).collect();
    if bad.is_empty() {
        return None;
    }
    violation("hostPath volumes", format!("{} {}", plural("volume", bad.len()), quoted(&bad)))
}

pub fn host_ports(pod: &Pod<'_>) -> Option<Violation> {
    let bad = |container: &Value| -> Vec<String> {
        let ports = container.get("ports").and_then(Value::as_array).into_iter().flatten();
        ports.filter_map(|p| p["hostPort"].as_i64()).filter(|p| *p != 0).map(|p| p.to_string()).collect()
    };
    let names = pod.names(|c| !bad(c).is_empty());
    if names.is_empty() {
        return None;
    }
    let mut ports: Vec<String> = pod.containers().flat_map(bad).collect();
    ports.sort_unstable();
    ports.dedup();
    let uses = if names.len() == 1 { "uses" } else { "use" };
    violation(
        "hostPort",
        format!("{} {uses} {} {}", containers(&names), plural("hostPort", ports.len()), ports.join(", ")),
    )
}

pub fn host_probes(pod: &Pod<'_>) -> Option<Violation> {
    const HANDLERS: [&[&str]; 5] = [
        &["livenessProbe"],
        &["readinessProbe"],
        &["startupProbe"],
        &["lifecycle", "postStart"],
        &["lifecycle", "preStop"],
    ];
    fn hosts(container: &Value) -> impl Iterator<Item = &str> {
        HANDLERS
            .into_iter()
            .filter_map(|path| value_at(container, path))
            .flat_map(|handler| ["httpGet", "tcpSocket"].map(|action| str_at(handler, &[action, "host"])))
            .filter(|host| !host.is_empty())
    }
    let mut names = pod.names(|c| hosts(c).next().is_some());
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return None;
    }
    let hosts: Names<'_> = pod.containers().flat_map(hosts).collect();
    let uses = if names.len() == 1 { "uses" } else { "use" };
    let what = plural("probe or lifecycle host", hosts.len());
    violation("probe or lifecycle host", format!("{} {uses} {what} {}", containers(&names), quoted(hosts)))
}

pub fn privileged(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.names(|c| setting(c, &["privileged"]) == Some(&Value::Bool(true)));
    if names.is_empty() {
        return None;
    }
    violation("privileged", format!("{} must not set securityContext.privileged=true", containers(&names)))
}

pub fn proc_mount(pod: &Pod<'_>) -> Option<Violation> {
    fn bad(container: &Value) -> Option<&str> {
        setting(container, &["procMount"]).and_then(Value::as_str).filter(|mount| *mount != "Default")
    }
    let names = pod.names(|c| bad(c).is_some());
    if names.is_empty() {
        return None;
    }
    let mounts: Names<'_> = pod.containers().filter_map(bad).collect();
    violation(
        "procMount",
        format!("{} must not set securityContext.procMount to {}", containers(&names), quoted(mounts)),
    )
}

pub fn proc_mount_outside_user_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { proc_mount(pod) }
}

pub fn selinux_options_0(pod: &Pod<'_>) -> Option<Violation> {
    selinux_options(pod, &SELINUX_TYPES[..4])
}

pub fn selinux_options_31(pod: &Pod<'_>) -> Option<Violation> {
    selinux_options(pod, &SELINUX_TYPES)
}

fn selinux_options(pod: &Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let option = |holder: &Value, field: &str| {
        setting(holder, &["seLinuxOptions", field]).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let bad_type = |holder: &Value| Some(option(holder, "type")).filter(|t| !allowed.contains(&t.as_str()));
    let sets = |holder: &Value, field: &str| !option(holder, field).is_empty();
    let bad = |holder: &Value| bad_type(holder).is_some() || sets(holder, "user") || sets(holder, "role");
    let setters = setters(bad(pod.spec), &pod.names(bad))?;
    let mut types: Vec<String> = pod.containers().filter_map(bad_type).chain(bad_type(pod.spec)).collect();
    types.sort_unstable();
    types.dedup();
    let mut data = Vec::new();
    if !types.is_empty() {
        data.push(format!("{} {}", plural("type", types.len()), quoted(types)));
    }
    for field in ["user", "role"] {
        if sets(pod.spec, field) || pod.containers().any(|c| sets(c, field)) {
            data.push(format!("{field} may not be set"));
        }
    }
    violation(
        "seLinuxOptions",
        format!("{setters} set forbidden securityContext.seLinuxOptions: {}", data.join("; ")),
    )
}

pub fn seccomp_annotations(pod: &Pod<'_>) -> Option<Violation> {
    let keys = pod.containers().map(|c| format!("{SECCOMP_CONTAINER_ANNOTATION}{}", str_at(c, &["name"])));
    let keys = keys.chain([SECCOMP_POD_ANNOTATION.to_owned()]);
    let allowed = |value: &str| {
        matches!(value, "runtime/default" | "docker/default") || value.starts_with("localhost/")
    };
    let mut bad: Vec<String> = keys
        .filter_map(|key| pod.annotation(&key).map(|value| (key, value)))
        .filter(|(_, value)| !allowed(value))
        .map(|(key, value)| format!("{key}={value:?}"))
        .collect();
    bad.sort_unstable();
    bad.dedup();
    if bad.is_empty() {
        return None;
    }
    violation("seccompProfile", format!("forbidden {} {}", plural("annotation", bad.len()), bad.join(", ")))
}

pub fn seccomp_profile(pod: &Pod<'_>) -> Option<Violation> {
    let setters = setters(bad_seccomp(pod.spec).is_some(), &pod.names(|c| bad_seccomp(c).is_some()))?;
    let values: Names<'_> = pod.containers().filter_map(bad_seccomp).chain(bad_seccomp(pod.spec)).collect();
    violation(
        "seccompProfile",
        format!("{setters} must not set securityContext.seccompProfile.type to {}", quoted(values)),
    )
}

/// A profile that is neither the runtime's nor one of the node's.
pub(super) fn bad_seccomp(holder: &Value) -> Option<&str> {
    let profile = setting(holder, &["seccompProfile"])?;
    Some(str_at(profile, &["type"])).filter(|kind| !matches!(*kind, "RuntimeDefault" | "Localhost"))
}

pub fn sysctls_0(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SAFE_SYSCTLS[..5])
}

pub fn sysctls_27(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SAFE_SYSCTLS[..6])
}

pub fn sysctls_29(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SAFE_SYSCTLS[..10])
}

pub fn sysctls_32(pod: &Pod<'_>) -> Option<Violation> {
    sysctls(pod, &SAFE_SYSCTLS)
}

fn sysctls(pod: &Pod<'_>, allowed: &[&str]) -> Option<Violation> {
    let set = pod.setting(&["sysctls"]).and_then(Value::as_array).into_iter().flatten();
    let names = set.map(|sysctl| str_at(sysctl, &["name"])).filter(|name| !allowed.contains(name));
    let names: Vec<&str> = names.collect();
    (!names.is_empty()).then(|| Violation { reason: "forbidden sysctls", detail: names.join(", ") })
}

pub fn windows_host_process(pod: &Pod<'_>) -> Option<Violation> {
    let bad =
        |holder: &Value| setting(holder, &["windowsOptions", "hostProcess"]) == Some(&Value::Bool(true));
    let setters = setters(bad(pod.spec), &pod.names(bad))?;
    violation(
        "hostProcess",
        format!("{setters} must not set securityContext.windowsOptions.hostProcess=true"),
    )
}
