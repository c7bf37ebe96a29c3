//! The checks of the Pod Security Standards, with the version from which each way of checking holds.
//! Follows `policy.DefaultChecks`.

mod baseline;
mod restricted;

use std::collections::BTreeSet;

use apimachinery::Value;
use apimachinery::meta::{str_at, value_at};

use super::policy::{Level, LevelVersion};

/// What stands against a pod: a keyword and the details.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub reason: &'static str,
    pub detail: String,
}

type CheckPod = fn(&Pod<'_>) -> Option<Violation>;

struct Check {
    id: &'static str,
    level: Level,
    /// From which minor version on it is checked how.
    versions: &'static [(u32, CheckPod)],
    /// The check of a lower level that this one takes the place of.
    overrides: &'static str,
}

/// In the order in which violations are told.
const CHECKS: [Check; 19] = [
    baseline("appArmorProfile", &[(0, baseline::app_armor_profile)]),
    baseline("capabilities_baseline", &[(0, baseline::capabilities)]),
    baseline("hostNamespaces", &[(0, baseline::host_namespaces)]),
    baseline("hostPathVolumes", &[(0, baseline::host_path_volumes)]),
    baseline("hostPorts", &[(0, baseline::host_ports)]),
    baseline("hostProbesAndHostLifecycle", &[(34, baseline::host_probes)]),
    baseline("privileged", &[(0, baseline::privileged)]),
    baseline("procMount", &[(0, baseline::proc_mount), (35, baseline::proc_mount_outside_user_namespaces)]),
    baseline("seLinuxOptions", &[(0, baseline::selinux_options_0), (31, baseline::selinux_options_31)]),
    baseline(
        "seccompProfile_baseline",
        &[(0, baseline::seccomp_annotations), (19, baseline::seccomp_profile)],
    ),
    baseline(
        "sysctls",
        &[
            (0, baseline::sysctls_0),
            (27, baseline::sysctls_27),
            (29, baseline::sysctls_29),
            (32, baseline::sysctls_32),
        ],
    ),
    baseline("windowsHostProcess", &[(0, baseline::windows_host_process)]),
    restricted(
        "allowPrivilegeEscalation",
        &[(8, restricted::privilege_escalation), (25, restricted::privilege_escalation_but_windows)],
        "",
    ),
    restricted(
        "capabilities_restricted",
        &[(22, restricted::capabilities), (25, restricted::capabilities_but_windows)],
        "capabilities_baseline",
    ),
    restricted("procMount_restricted", &[(35, baseline::proc_mount)], "procMount"),
    restricted("restrictedVolumes", &[(0, restricted::volumes)], "hostPathVolumes"),
    restricted(
        "runAsNonRoot",
        &[(0, restricted::run_as_non_root), (35, restricted::run_as_non_root_outside_user_namespaces)],
        "",
    ),
    restricted(
        "runAsUser",
        &[(23, restricted::run_as_user), (35, restricted::run_as_user_outside_user_namespaces)],
        "",
    ),
    restricted(
        "seccompProfile_restricted",
        &[(19, restricted::seccomp_profile), (25, restricted::seccomp_profile_but_windows)],
        "seccompProfile_baseline",
    ),
];

const fn baseline(id: &'static str, versions: &'static [(u32, CheckPod)]) -> Check {
    Check { id, level: Level::Baseline, versions, overrides: "" }
}

const fn restricted(
    id: &'static str,
    versions: &'static [(u32, CheckPod)],
    overrides: &'static str,
) -> Check {
    Check { id, level: Level::Restricted, versions, overrides }
}

/// All that stands against the pod at this level.
pub fn violations(policy: LevelVersion, pod: &Pod<'_>) -> Vec<Violation> {
    let active = |check: &&Check| {
        check.level <= policy.level
            && check.versions.first().is_some_and(|(since, _)| policy.version.has(*since))
    };
    let overridden: Vec<&str> = CHECKS.iter().filter(active).map(|check| check.overrides).collect();
    let checks = CHECKS.iter().filter(active).filter(|check| !overridden.contains(&check.id));
    let newest = checks.filter_map(|check| {
        check.versions.iter().rev().find(|(since, _)| policy.version.has(*since)).map(|(_, check)| check)
    });
    newest.filter_map(|check| check(pod)).collect()
}

/// A pod or the template of pods.
#[derive(Clone, Copy, Debug)]
pub struct Pod<'a> {
    pub metadata: &'a Value,
    pub spec: &'a Value,
}

impl<'a> Pod<'a> {
    /// Init containers, containers and ephemeral containers.
    fn containers(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let spec = self.spec;
        ["initContainers", "containers", "ephemeralContainers"]
            .into_iter()
            .flat_map(move |field| spec.get(field).and_then(Value::as_array).into_iter().flatten())
    }

    fn volumes(&self) -> impl Iterator<Item = &'a Value> + use<'a> {
        self.spec.get("volumes").and_then(Value::as_array).into_iter().flatten()
    }

    /// The pod's own security context at this path.
    fn setting(&self, path: &[&str]) -> Option<&'a Value> {
        setting(self.spec, path)
    }

    fn annotation(&self, key: &str) -> Option<&'a str> {
        value_at(self.metadata, &["annotations", key]).and_then(Value::as_str)
    }

    fn is_windows(&self) -> bool {
        str_at(self.spec, &["os", "name"]) == "windows"
    }

    /// Whether root in the pod is nobody on the node.
    fn has_user_namespace(&self) -> bool {
        self.spec.get("hostUsers") == Some(&Value::Bool(false))
    }

    /// Names of the containers of which this holds.
    fn names(&self, bad: impl Fn(&Value) -> bool) -> Vec<&'a str> {
        self.containers().filter(|c| bad(c)).map(|c| str_at(c, &["name"])).collect()
    }
}

/// What a pod's spec or a container says at this path of its security context.
fn setting<'a>(holder: &'a Value, path: &[&str]) -> Option<&'a Value> {
    let context = holder.get("securityContext")?;
    value_at(context, path).filter(|value| !value.is_null())
}

fn texts(list: Option<&Value>) -> impl Iterator<Item = &str> {
    list.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str)
}

fn quoted<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> String {
    let names: Vec<String> = names.into_iter().map(|name| format!("\"{}\"", name.as_ref())).collect();
    names.join(", ")
}

/// `container "a"` or `containers "a", "b"`.
fn containers(names: &[&str]) -> String {
    format!("{} {}", plural("container", names.len()), quoted(names))
}

fn plural(word: &str, count: usize) -> String {
    if count == 1 { word.to_owned() } else { format!("{word}s") }
}

/// The pod itself and the containers that a violation is about, joined as upstream does; none when there are none.
fn setters(pod: bool, names: &[&str]) -> Option<String> {
    let mut parts = Vec::new();
    if pod {
        parts.push("pod".to_owned());
    }
    if !names.is_empty() {
        parts.push(containers(names));
    }
    (!parts.is_empty()).then(|| parts.join(" and "))
}

fn violation(reason: &'static str, detail: String) -> Option<Violation> {
    Some(Violation { reason, detail })
}

type Names<'a> = BTreeSet<&'a str>;
