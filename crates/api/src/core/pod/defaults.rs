//! Defaults of pods and pod templates (follows `SetDefaults_Pod`, `SetDefaults_PodSpec` and those of their parts).

use apimachinery::meta::str_at;
use apimachinery::{Map, Value, json};

use crate::defaults::{Fill, each, fill, object, object_or_new};

const SPEC: &[(&str, Fill)] = &[
    ("dnsPolicy", Fill::Text("ClusterFirst")),
    ("restartPolicy", Fill::Text("Always")),
    ("securityContext", Fill::Empty),
    ("terminationGracePeriodSeconds", Fill::Int(30)),
    ("schedulerName", Fill::Text("default-scheduler")),
];

const CONTAINER: &[(&str, Fill)] = &[
    ("resources", Fill::Empty),
    ("terminationMessagePath", Fill::Text("/dev/termination-log")),
    ("terminationMessagePolicy", Fill::Text("File")),
];

const PROBE: &[(&str, Fill)] = &[
    ("timeoutSeconds", Fill::NonZero(1)),
    ("periodSeconds", Fill::NonZero(10)),
    ("successThreshold", Fill::NonZero(1)),
    ("failureThreshold", Fill::NonZero(3)),
];

const HTTP_GET: &[(&str, Fill)] = &[("path", Fill::Text("/")), ("scheme", Fill::Text("HTTP"))];
const GRPC: &[(&str, Fill)] = &[("service", Fill::Text(""))];
const FIELD_REF: &[(&str, Fill)] = &[("apiVersion", Fill::Text("v1"))];
const PROTOCOL: &[(&str, Fill)] = &[("protocol", Fill::Text("TCP"))];
const SERVICE_ACCOUNT_TOKEN: &[(&str, Fill)] = &[("expirationSeconds", Fill::Int(3600))];
/// Octal 0644.
const FILE_MODE: Fill = Fill::Int(0o644);

/// Defaults of single volume sources.
const VOLUME_SOURCES: &[(&str, &[(&str, Fill)])] = &[
    ("configMap", &[("defaultMode", FILE_MODE)]),
    ("downwardAPI", &[("defaultMode", FILE_MODE)]),
    ("hostPath", &[("type", Fill::Text(""))]),
    ("iscsi", &[("iscsiInterface", Fill::Text("default"))]),
    ("projected", &[("defaultMode", FILE_MODE)]),
    ("secret", &[("defaultMode", FILE_MODE)]),
];

const CONTAINER_LISTS: [&str; 3] = ["containers", "initContainers", "ephemeralContainers"];

/// Defaults of a Pod: those of its spec, and those that only a real pod gets and a template does not.
pub fn pod(obj: &mut Value) {
    if let Some(status) = object_or_new(obj, "status") {
        pod_status(status);
    }
    let Some(spec) = object_or_new(obj, "spec") else { return };
    pod_spec(spec);
    // Only pods are corrected: a template stays as it was written (follows `Convert_v1_Pod_To_core_Pod`).
    if spec.get("terminationGracePeriodSeconds").and_then(Value::as_i64).is_some_and(|seconds| seconds < 0) {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            requests_from_limits(container);
        }
    }
    pod_level_requests_from_limits(spec);
    fill(spec, &[("enableServiceLinks", Fill::Bool(true))]);
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        host_network_ports(spec);
    }
}

/// What Go's types always write, and the one address as the first of all (follows `Convert_v1_PodStatus_To_core_PodStatus`).
fn pod_status(status: &mut Value) {
    for list in ["containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"] {
        for container in each(status, list) {
            fill(container, &[("state", Fill::Empty), ("lastState", Fill::Empty)]);
        }
    }
    let first = str_at(&status["podIPs"][0], &["ip"]).to_owned();
    let address = str_at(status, &["podIP"]).to_owned();
    if address.is_empty() && !first.is_empty() {
        status["podIP"] = first.into();
    } else if address != first {
        status["podIPs"] = json!([{"ip": address}]);
    }
}

/// Defaults of a PodTemplateSpec.
pub fn pod_template(template: &mut Value) {
    fill(template, &[("metadata", Fill::Empty)]);
    if let Some(spec) = object_or_new(template, "spec") {
        pod_spec(spec);
    }
}

fn pod_spec(spec: &mut Value) {
    fill(spec, SPEC);
    sync_service_account(spec);
    for volume in each(spec, "volumes") {
        default_volume(volume);
    }
    for list in CONTAINER_LISTS {
        for container in each(spec, list) {
            default_container(container);
        }
    }
}

/// `serviceAccount` is the old name of `serviceAccountName`; both are always written.
pub fn sync_service_account(spec: &mut Value) {
    let name = match (str_at(spec, &["serviceAccountName"]), str_at(spec, &["serviceAccount"])) {
        ("", "") => return,
        ("", old) => old.to_owned(),
        (name, old) if name == old => return,
        (name, _) => name.to_owned(),
    };
    if let Some(map) = spec.as_object_mut() {
        map.insert("serviceAccount", name.clone().into());
        map.insert("serviceAccountName", name.into());
    }
}

fn default_container(container: &mut Value) {
    let policy = pull_policy(str_at(container, &["image"]));
    fill(container, CONTAINER);
    fill(container, &[("imagePullPolicy", Fill::Text(policy))]);
    for port in each(container, "ports") {
        fill(port, PROTOCOL);
    }
    for variable in each(container, "env") {
        if let Some(reference) = object(variable, "valueFrom").and_then(|from| object(from, "fieldRef")) {
            fill(reference, FIELD_REF);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe) = object(container, name) {
            fill(probe, PROBE);
            default_handler(probe);
        }
    }
    if let Some(lifecycle) = object(container, "lifecycle") {
        for name in ["postStart", "preStop"] {
            if let Some(handler) = object(lifecycle, name) {
                default_handler(handler);
            }
        }
    }
}

fn default_handler(handler: &mut Value) {
    if let Some(action) = object(handler, "httpGet") {
        fill(action, HTTP_GET);
    }
    if let Some(action) = object(handler, "grpc") {
        fill(action, GRPC);
    }
}

fn default_volume(volume: &mut Value) {
    let has_source =
        volume.as_object().is_some_and(|v| v.iter().any(|(k, source)| k != "name" && !source.is_null()));
    if !has_source {
        fill(volume, &[("emptyDir", Fill::Empty)]);
    }
    for (source, table) in VOLUME_SOURCES {
        if let Some(source) = object(volume, source) {
            fill(source, table);
        }
    }
    if let Some(image) = object(volume, "image") {
        let policy = pull_policy(str_at(image, &["reference"]));
        fill(image, &[("pullPolicy", Fill::Text(policy))]);
    }
    if let Some(source) = object(volume, "downwardAPI") {
        default_downward_api(source);
    }
    for source in volume.get_mut("projected").map(|p| each(p, "sources")).into_iter().flatten() {
        if let Some(token) = object(source, "serviceAccountToken") {
            fill(token, SERVICE_ACCOUNT_TOKEN);
        }
        if let Some(downward) = object(source, "downwardAPI") {
            default_downward_api(downward);
        }
    }
}

fn default_downward_api(source: &mut Value) {
    for item in each(source, "items") {
        if let Some(reference) = object(item, "fieldRef") {
            fill(reference, FIELD_REF);
        }
    }
}

/// `Always` for the tag `latest`, written or implied; `IfNotPresent` for any other tag or a digest, and for what is no
/// reference to an image.
fn pull_policy(image: &str) -> &'static str {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = match (last.split_once(':'), digest) {
        (Some((_, tag)), _) => tag,
        (None, None) if is_repository(name) => "latest",
        _ => "",
    };
    if tag == "latest" { "Always" } else { "IfNotPresent" }
}

fn requests_from_limits(container: &mut Value) {
    if let Some(resources) = object(container, "resources") {
        copy_missing_requests(resources);
    }
}

/// Limits of the whole pod become its requests for resources no container asks for.
fn pod_level_requests_from_limits(spec: &mut Value) {
    let limits = spec.pointer("/resources/limits").and_then(Value::as_object);
    if limits.is_none_or(Map::is_empty) {
        return;
    }
    let totals = super::resources::aggregate_requests(spec);
    let Some(resources) = object(spec, "resources") else { return };
    fill(resources, &[("requests", Fill::Empty)]);
    if let Some(requests) = resources.get_mut("requests").and_then(Value::as_object_mut) {
        for (name, total) in totals {
            if matches!(name.as_str(), "cpu" | "memory") && !requests.contains_key(&name) {
                requests.insert(name, total.to_string().into());
            }
        }
    }
    copy_missing_requests(resources);
}

fn copy_missing_requests(resources: &mut Value) {
    let Some(limits) = resources.get("limits").filter(|l| l.is_object()).cloned() else { return };
    fill(resources, &[("requests", Fill::Empty)]);
    let Some(requests) = resources.get_mut("requests").and_then(Value::as_object_mut) else { return };
    for (name, quantity) in limits.as_object().into_iter().flatten() {
        requests.entry(name.clone()).or_insert_with(|| quantity.clone());
    }
}

/// On the host's network a container port is a host port.
fn host_network_ports(spec: &mut Value) {
    for list in ["containers", "initContainers"] {
        for container in each(spec, list) {
            for port in each(container, "ports") {
                let number = port.get("containerPort").and_then(Value::as_i64).unwrap_or_default();
                fill(port, &[("hostPort", Fill::NonZero(number))]);
            }
        }
    }
}

/// Whether a name without a tag can be that of a repository: a registry, which may be left out, and components of lower
/// case.
fn is_repository(name: &str) -> bool {
    let path = match name.split_once('/') {
        Some((first, path))
            if first.contains(['.', ':']) || first == "localhost" || first != first.to_lowercase() =>
        {
            path
        }
        _ => name,
    };
    let is_letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    path.split('/').all(|component| {
        let bytes = component.as_bytes();
        bytes.first().is_some_and(|b| is_letter(*b))
            && bytes.last().is_some_and(|b| is_letter(*b))
            && bytes.iter().all(|&b| is_letter(b) || matches!(b, b'.' | b'_' | b'-'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn the_pull_policy_follows_the_tag() {
        let table = [
            ("nginx", "Always"),
            ("nginx:latest", "Always"),
            ("nginx:1.2", "IfNotPresent"),
            ("host:5000/nginx", "Always"),
            ("host:5000/nginx:1", "IfNotPresent"),
            ("nginx@sha256:abc", "IfNotPresent"),
            ("Host/a.b/c-d_e", "Always"),
            ("", "IfNotPresent"),
            ("Nginx", "IfNotPresent"),
            ("a b", "IfNotPresent"),
            ("a//b", "IfNotPresent"),
        ];
        for (image, expect) in table {
            assert_eq!(pull_policy(image), expect, "{image}");
        }
    }

    #[test]
    fn a_pod_is_filled_in_as_upstream_does() {
        let mut obj = json!({"spec": {
            "serviceAccountName": "sa",
            "hostNetwork": true,
            "containers": [{"name": "a", "image": "nginx:1", "ports": [{"containerPort": 80}],
                "resources": {"limits": {"cpu": "1"}},
                "env": [{"name": "X", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                "readinessProbe": {"httpGet": {"port": 80}}}],
            "volumes": [{"name": "e"}, {"name": "c", "configMap": {"name": "x"}},
                {"name": "p", "projected": {"sources": [{"serviceAccountToken": {"path": "token"}}]}}]}});
        pod(&mut obj);
        let expect = json!({"status": {}, "spec": {
            "serviceAccountName": "sa", "serviceAccount": "sa", "hostNetwork": true,
            "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "securityContext": {},
            "terminationGracePeriodSeconds": 30, "schedulerName": "default-scheduler", "enableServiceLinks": true,
            "containers": [{"name": "a", "image": "nginx:1", "imagePullPolicy": "IfNotPresent",
                "ports": [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}],
                "resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1"}},
                "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                "env": [{"name": "X", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.name"}}}],
                "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                    "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}}],
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}},
                {"name": "p", "projected": {"defaultMode": 420,
                    "sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]}}]}});
        assert_eq!(obj, expect);
    }

    #[test]
    fn defaulting_twice_changes_nothing() {
        let mut once = json!({"spec": {"containers": [{"name": "a", "image": "b"}],
            "resources": {"limits": {"memory": "1Gi"}}}});
        pod(&mut once);
        let mut twice = once.clone();
        pod(&mut twice);
        assert_eq!(once, twice);
        assert_eq!(once["spec"]["resources"]["requests"], json!({"memory": "1Gi"}));
    }
}
