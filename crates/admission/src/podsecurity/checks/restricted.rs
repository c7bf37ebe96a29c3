//! What the level "restricted" adds: good practice of hardening.

use apimachinery::Value;
use apimachinery::meta::str_at;

use super::baseline::bad_seccomp;
use super::{Names, Pod, Violation, containers, plural, quoted, setters, setting, texts, violation};

const ALLOWED_VOLUMES: [&str; 9] = [
    "configMap",
    "csi",
    "downwardAPI",
    "emptyDir",
    "ephemeral",
    "image",
    "persistentVolumeClaim",
    "projected",
    "secret",
];
const KNOWN_VOLUMES: [&str; 21] = [
    "hostPath",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "gitRepo",
    "nfs",
    "iscsi",
    "glusterfs",
    "rbd",
    "flexVolume",
    "cinder",
    "cephfs",
    "flocker",
    "fc",
    "azureFile",
    "vsphereVolume",
    "quobyte",
    "azureDisk",
    "photonPersistentDisk",
    "portworxVolume",
    "scaleIO",
    "storageos",
];

pub fn privilege_escalation(pod: &Pod<'_>) -> Option<Violation> {
    let names = pod.names(|c| setting(c, &["allowPrivilegeEscalation"]) != Some(&Value::Bool(false)));
    if names.is_empty() {
        return None;
    }
    violation(
        "allowPrivilegeEscalation != false",
        format!("{} must set securityContext.allowPrivilegeEscalation=false", containers(&names)),
    )
}

pub fn privilege_escalation_but_windows(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { privilege_escalation(pod) }
}

pub fn capabilities(pod: &Pod<'_>) -> Option<Violation> {
    fn added(container: &Value) -> impl Iterator<Item = &str> {
        texts(setting(container, &["capabilities", "add"])).filter(|name| *name != "NET_BIND_SERVICE")
    }
    let keeping = pod.names(|c| !texts(setting(c, &["capabilities", "drop"])).any(|name| name == "ALL"));
    let adding = pod.names(|c| added(c).next().is_some());
    let mut details = Vec::new();
    if !keeping.is_empty() {
        details
            .push(format!("{} must set securityContext.capabilities.drop=[\"ALL\"]", containers(&keeping)));
    }
    if !adding.is_empty() {
        let names: Names<'_> = pod.containers().flat_map(added).collect();
        details.push(format!(
            "{} must not include {} in securityContext.capabilities.add",
            containers(&adding),
            quoted(names)
        ));
    }
    (!details.is_empty())
        .then(|| Violation { reason: "unrestricted capabilities", detail: details.join("; ") })
}

pub fn capabilities_but_windows(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { capabilities(pod) }
}

pub fn volumes(pod: &Pod<'_>) -> Option<Violation> {
    let has = |volume: &Value, kind: &str| volume.get(kind).is_some_and(|source| !source.is_null());
    let bad: Vec<&Value> =
        pod.volumes().filter(|v| !ALLOWED_VOLUMES.iter().any(|kind| has(v, kind))).collect();
    if bad.is_empty() {
        return None;
    }
    let kind =
        |volume: &&Value| KNOWN_VOLUMES.into_iter().find(|kind| has(volume, kind)).unwrap_or("unknown");
    let kinds: Names<'_> = bad.iter().map(kind).collect();
    let uses = if bad.len() == 1 { "uses" } else { "use" };
    violation(
        "restricted volume types",
        format!(
            "{} {} {uses} {} {}",
            plural("volume", bad.len()),
            quoted(bad.iter().map(|v| str_at(v, &["name"]))),
            plural("restricted volume type", kinds.len()),
            quoted(kinds)
        ),
    )
}

pub fn run_as_non_root(pod: &Pod<'_>) -> Option<Violation> {
    const REASON: &str = "runAsNonRoot != true";
    let says = |holder: &Value| setting(holder, &["runAsNonRoot"]).and_then(Value::as_bool);
    let explicit = setters(says(pod.spec) == Some(false), &pod.names(|c| says(c) == Some(false)));
    if let Some(setters) = explicit {
        return violation(REASON, format!("{setters} must not set securityContext.runAsNonRoot=false"));
    }
    let implicit = pod.names(|c| says(c).is_none() && says(pod.spec) != Some(true));
    if implicit.is_empty() {
        return None;
    }
    violation(REASON, format!("pod or {} must set securityContext.runAsNonRoot=true", containers(&implicit)))
}

pub fn run_as_non_root_outside_user_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { run_as_non_root(pod) }
}

pub fn run_as_user(pod: &Pod<'_>) -> Option<Violation> {
    let root = |holder: &Value| setting(holder, &["runAsUser"]).and_then(Value::as_i64) == Some(0);
    let setters = setters(root(pod.spec), &pod.names(root))?;
    violation("runAsUser=0", format!("{setters} must not set runAsUser=0"))
}

pub fn run_as_user_outside_user_namespaces(pod: &Pod<'_>) -> Option<Violation> {
    if pod.has_user_namespace() { None } else { run_as_user(pod) }
}

pub fn seccomp_profile(pod: &Pod<'_>) -> Option<Violation> {
    if let Some(explicit) = super::baseline::seccomp_profile(pod) {
        return Some(explicit);
    }
    let says = |holder: &Value| setting(holder, &["seccompProfile"]).is_some();
    let good = says(pod.spec) && bad_seccomp(pod.spec).is_none();
    let implicit = pod.names(|c| !says(c) && !good);
    if implicit.is_empty() {
        return None;
    }
    violation(
        "seccompProfile",
        format!(
            "pod or {} must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\"",
            containers(&implicit)
        ),
    )
}

pub fn seccomp_profile_but_windows(pod: &Pod<'_>) -> Option<Violation> {
    if pod.is_windows() { None } else { seccomp_profile(pod) }
}
