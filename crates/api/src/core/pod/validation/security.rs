//! Security contexts of pods and containers, user namespaces, and what each operating system allows (follows
//! `validatePodSpecSecurityContext`, `ValidateSecurityContext`, `validateHostUsers`, `validateOS`).

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};

use super::{Context, all_containers, volume};
use crate::validation::{At, unix_id};

const SECCOMP_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];
const FS_GROUP_CHANGE_POLICIES: [&str; 2] = ["Always", "OnRootMismatch"];
const SUPPLEMENTAL_GROUPS_POLICIES: [&str; 2] = ["Merge", "Strict"];
/// The feature SELinuxMount, which brings `MountOption`, is off by default in 1.36.
const SELINUX_CHANGE_POLICIES: [&str; 1] = ["Recursive"];
const PROC_MOUNTS: [&str; 2] = ["Default", "Unmasked"];
const OPERATING_SYSTEMS: [&str; 2] = ["linux", "windows"];
const SYSCTL_MAX: usize = 253;
const SYSCTL_PATTERN: &str = "^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$";
/// Sysctls that belong to a namespace, by prefix.
const NET_SYSCTLS: &str = "net.";
const IPC_SYSCTLS: [&str; 4] = ["kernel.sem", "kernel.shm", "kernel.msg", "fs.mqueue."];
/// One less than the kernel's longest path.
const LOCALHOST_PROFILE_MAX: usize = 4095;

const WINDOWS_POD: [&str; 11] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "fsGroup",
    "fsGroupChangePolicy",
    "sysctls",
    "runAsUser",
    "runAsGroup",
    "supplementalGroups",
    "supplementalGroupsPolicy",
    "seLinuxChangePolicy",
];
const WINDOWS_POD_SPEC: [&str; 4] = ["hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"];
const WINDOWS_CONTAINER: [&str; 10] = [
    "appArmorProfile",
    "seLinuxOptions",
    "seccompProfile",
    "capabilities",
    "readOnlyRootFilesystem",
    "privileged",
    "allowPrivilegeEscalation",
    "procMount",
    "runAsUser",
    "runAsGroup",
];

pub fn pod(spec: &At, errors: &mut ErrorList) {
    let context = spec.get("securityContext");
    for field in ["fsGroup", "runAsUser", "runAsGroup"] {
        unix_id(&context.get(field), errors);
    }
    for group in context.get("supplementalGroups").items() {
        unix_id(&group, errors);
    }
    let share = spec.get("shareProcessNamespace");
    if share.is_true() && spec.get("hostPID").is_true() {
        let share = share.under(&context.path.child("shareProcessNamespace"));
        errors.push(share.invalid("ShareProcessNamespace and HostPID cannot both be enabled"));
    }
    sysctls(spec, &context.get("sysctls"), errors);
    context.get("fsGroupChangePolicy").check_optional_enum(&FS_GROUP_CHANGE_POLICIES, errors);
    seccomp_profile(&context.get("seccompProfile"), errors);
    app_armor_profile(&context.get("appArmorProfile"), errors);
    context.get("supplementalGroupsPolicy").check_optional_enum(&SUPPLEMENTAL_GROUPS_POLICIES, errors);
    context.get("seLinuxChangePolicy").check_optional_enum(&SELINUX_CHANGE_POLICIES, errors);
}

pub fn container(security: &At, context: &Context, errors: &mut ErrorList) {
    if !security.is_set() {
        return;
    }
    unix_id(&security.get("runAsUser"), errors);
    unix_id(&security.get("runAsGroup"), errors);
    let proc_mount = security.get("procMount");
    proc_mount.check_optional_enum(&PROC_MOUNTS, errors);
    if context.host_users && proc_mount.text() == "Unmasked" {
        errors.push(proc_mount.invalid("`hostUsers` must be false to use `Unmasked`"));
    }
    seccomp_profile(&security.get("seccompProfile"), errors);
    if security.get("allowPrivilegeEscalation").value == &Value::Bool(false) {
        no_escalation(security, errors);
    }
    app_armor_profile(&security.get("appArmorProfile"), errors);
}

fn no_escalation(security: &At, errors: &mut ErrorList) {
    if security.get("privileged").is_true() {
        errors.push(
            security.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true"),
        );
    }
    if security.at(&["capabilities", "add"]).texts().contains(&"CAP_SYS_ADMIN") {
        let detail = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN";
        errors.push(security.invalid(detail));
    }
}

fn seccomp_profile(profile: &At, errors: &mut ErrorList) {
    if !profile.is_set() {
        return;
    }
    let (kind, localhost) = (profile.get("type"), profile.get("localhostProfile"));
    if kind.is_empty() {
        errors.push(kind.required("type is required when seccompProfile is set"));
    } else {
        kind.check_optional_enum(&SECCOMP_TYPES, errors);
    }
    match (kind.text() == "Localhost", localhost.is_set()) {
        (true, false) => errors.push(localhost.required("must be set when seccomp type is Localhost")),
        (true, true) => volume::relative_path(&localhost, errors),
        (false, true) => errors.push(Error::invalid(
            &localhost.path,
            profile.value.clone(),
            "can only be set when seccomp type is Localhost",
        )),
        (false, false) => {}
    }
}

pub fn is_app_armor_profile(profile: &Value) -> bool {
    let mut errors = ErrorList::new();
    app_armor_profile(&At::root(profile), &mut errors);
    errors.is_empty()
}

fn app_armor_profile(profile: &At, errors: &mut ErrorList) {
    if !profile.is_set() {
        return;
    }
    const REQUIRED: &str = "must be set when AppArmor type is Localhost";
    let (kind, localhost) = (profile.get("type"), profile.get("localhostProfile"));
    match kind.text() {
        "Localhost" if localhost.text().trim().is_empty() => {
            if localhost.is_empty() {
                errors.push(localhost.required(REQUIRED));
            } else {
                errors.push(localhost.invalid("must not be padded with whitespace"));
            }
        }
        "Localhost" => {
            if localhost.text().trim() != localhost.text() {
                errors.push(localhost.invalid("must not be padded with whitespace"));
            }
            if localhost.text().len() > LOCALHOST_PROFILE_MAX {
                errors.push(Error::too_long(&localhost.path, LOCALHOST_PROFILE_MAX));
            }
        }
        "RuntimeDefault" | "Unconfined" if localhost.is_set() => {
            errors.push(localhost.invalid("can only be set when AppArmor type is Localhost"));
        }
        "RuntimeDefault" | "Unconfined" => {}
        "" => errors.push(kind.required("type is required when appArmorProfile is set")),
        _ => errors.push(kind.not_supported(&SECCOMP_TYPES)),
    }
}

fn sysctls(spec: &At, sysctls: &At, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for sysctl in sysctls.items() {
        let name = sysctl.get("name");
        if name.is_empty() {
            errors.push(name.required(""));
        } else if !is_sysctl_name(name.text()) {
            let detail =
                format!("must have at most {SYSCTL_MAX} characters and match regex {SYSCTL_PATTERN}");
            errors.push(name.invalid(detail));
        } else if !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
        let dotted = name.text().replace('/', ".");
        if spec.get("hostNetwork").is_true() && dotted.starts_with(NET_SYSCTLS) {
            errors.push(name.invalid("may not be specified when 'hostNetwork' is true"));
        } else if spec.get("hostIPC").is_true() && IPC_SYSCTLS.iter().any(|prefix| dotted.starts_with(prefix))
        {
            errors.push(name.invalid("may not be specified when 'hostIPC' is true"));
        }
    }
}

/// Segments of lower-case letters, digits, dashes and underscores, joined by dots or slashes.
fn is_sysctl_name(name: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    name.len() <= SYSCTL_MAX
        && name.split(['.', '/']).all(|segment| {
            let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
            edge(segment.bytes().next()) && edge(segment.bytes().last()) && segment.bytes().all(inner)
        })
}

/// A pod with users of its own shares no other namespace with the host.
pub fn user_namespace(spec: &At, errors: &mut ErrorList) {
    const DETAIL: &str = "when `hostUsers` is false";
    if spec.get("hostUsers").value != &Value::Bool(false) {
        return;
    }
    // The two capitals are upstream's.
    for (field, shown) in [("hostNetwork", "hostNetwork"), ("hostPID", "HostPID"), ("hostIPC", "HostIPC")] {
        if spec.get(field).is_true() {
            errors.push(Error::forbidden(&spec.path.child(shown), DETAIL));
        }
    }
    for container in all_containers(spec) {
        if !container.get("volumeDevices").is_empty() {
            errors.push(container.get("volumeDevices").forbidden(DETAIL));
        }
    }
}

pub fn operating_system(spec: &At, errors: &mut ErrorList) {
    let Some(os) = spec.field("os") else { return };
    let name = os.get("name");
    match name.text() {
        "" => errors.push(name.required("cannot be empty")),
        "linux" => linux(spec, errors),
        "windows" => windows(spec, errors),
        _ => errors.push(name.not_supported(&OPERATING_SYSTEMS)),
    }
}

fn linux(spec: &At, errors: &mut ErrorList) {
    let contexts = std::iter::once(spec.get("securityContext"))
        .chain(all_containers(spec).map(|container| container.get("securityContext")));
    for context in contexts {
        if context.get("windowsOptions").is_set() {
            errors.push(
                context.get("windowsOptions").forbidden("windows options cannot be set for a linux pod"),
            );
        }
    }
}

fn windows(spec: &At, errors: &mut ErrorList) {
    let mut refuse = |at: At| {
        let truthy = at.is_set() && at.value != &Value::Bool(false);
        if truthy {
            errors.push(at.forbidden("cannot be set for a windows pod"));
        }
    };
    for field in WINDOWS_POD {
        refuse(spec.get("securityContext").get(field));
    }
    for field in WINDOWS_POD_SPEC {
        refuse(spec.get(field));
    }
    for container in all_containers(spec) {
        for field in WINDOWS_CONTAINER {
            refuse(container.get("securityContext").get(field));
        }
    }
}
