//! What in a pod leads to other API objects: a mirror pod, which no API server has checked, must have none of it.
//! Follows `HasAPIObjectReference`.

use apimachinery::Value;
use apimachinery::meta::{str_at, value_at};

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
/// Volumes that lead to objects, and what is said of them.
const VOLUMES: [(&str, &str); 7] = [
    ("configMap", "configmaps (via configmap volumes)"),
    ("secret", "secrets (via secret volumes)"),
    ("csi", "csidrivers (via CSI volumes)"),
    ("glusterfs", "endpoints (via glusterFS volumes)"),
    ("persistentVolumeClaim", "persistentvolumeclaims"),
    ("ephemeral", "persistentvolumeclaims (via ephemeral volumes)"),
    ("azureFile", "secrets (via azureFile volumes)"),
];
/// The same of the sources of projected volumes.
const SOURCES: [(&str, &str); 5] = [
    ("configMap", "configmaps (via projected volumes)"),
    ("secret", "secrets (via projected volumes)"),
    ("serviceAccountToken", "serviceaccounts (via projected volumes)"),
    ("clusterTrustBundle", "clustertrustbundles"),
    ("podCertificate", "podcertificates"),
];
/// Where volumes of other kinds name a Secret.
const VOLUME_SECRETS: [&str; 8] =
    ["cephfs", "cinder", "flexVolume", "iscsi", "rbd", "scaleIO", "storageos", "azureFile"];

/// What the pod refers to first, none when it stands by itself.
pub(super) fn first(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    if !str_at(spec, &["serviceAccountName"]).is_empty() {
        return Some("serviceaccounts");
    }
    if names_secret(spec) {
        return Some("secrets");
    }
    if in_environment(spec, "configMapRef", "configMapKeyRef") || has_volume(spec, "configMap") {
        return Some("configmaps");
    }
    if items(spec, "resourceClaims").next().is_some() {
        return Some("resourceclaims");
    }
    items(spec, "volumes").find_map(|volume| {
        let direct = VOLUMES.iter().find(|(kind, _)| is_set(volume, kind)).map(|(_, what)| *what);
        let mut sources = items(&volume["projected"], "sources");
        direct.or_else(|| {
            sources.find_map(|source| {
                SOURCES.iter().find(|(kind, _)| is_set(source, kind)).map(|(_, what)| *what)
            })
        })
    })
}

fn names_secret(spec: &Value) -> bool {
    let by_volume = |volume: &Value| {
        VOLUME_SECRETS.iter().any(|kind| {
            is_set(&volume[*kind], "secretRef") || !str_at(volume, &[kind, "secretName"]).is_empty()
        })
    };
    items(spec, "imagePullSecrets").next().is_some()
        || in_environment(spec, "secretRef", "secretKeyRef")
        || has_volume(spec, "secret")
        || items(spec, "volumes").any(by_volume)
}

/// Whether a volume, or a source of a projected one, is of this kind.
fn has_volume(spec: &Value, kind: &str) -> bool {
    items(spec, "volumes").any(|volume| {
        is_set(volume, kind) || items(&volume["projected"], "sources").any(|source| is_set(source, kind))
    })
}

fn in_environment(spec: &Value, whole: &str, key: &str) -> bool {
    CONTAINERS.into_iter().flat_map(|field| items(spec, field)).any(|container| {
        items(container, "envFrom").any(|from| is_set(from, whole))
            || items(container, "env")
                .any(|env| value_at(env, &["valueFrom", key]).is_some_and(|v| !v.is_null()))
    })
}

fn items<'a>(holder: &'a Value, field: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    holder.get(field).and_then(Value::as_array).into_iter().flatten()
}

fn is_set(holder: &Value, field: &str) -> bool {
    holder.get(field).is_some_and(|value| !value.is_null())
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn whatever_leads_to_another_object_is_found() {
        let table = [
            (
                json!({"containers": [{"name": "a", "env": [{"name": "x", "value": "y"}]}], "volumes": [{"emptyDir": {}}, {"hostPath": {}}]}),
                None,
            ),
            (json!({"serviceAccountName": "x"}), Some("serviceaccounts")),
            (json!({"imagePullSecrets": [{"name": "x"}]}), Some("secrets")),
            (json!({"containers": [{"env": [{"valueFrom": {"configMapKeyRef": {}}}]}]}), Some("configmaps")),
            (json!({"initContainers": [{"envFrom": [{"secretRef": {}}]}]}), Some("secrets")),
            (json!({"volumes": [{"persistentVolumeClaim": {}}]}), Some("persistentvolumeclaims")),
            (json!({"volumes": [{"projected": {"sources": [{"downwardAPI": {}}]}}]}), None),
            (
                json!({"volumes": [{"projected": {"sources": [{"serviceAccountToken": {}}]}}]}),
                Some("serviceaccounts (via projected volumes)"),
            ),
        ];
        for (spec, expect) in table {
            assert_eq!(first(&json!({"spec": spec})), expect, "{spec}");
        }
    }
}
