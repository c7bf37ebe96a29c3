//! A chart of several hundred objects, applied by the server as Helm 4 and `kubectl apply --server-side` do, more than once.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use e2e::{Cluster, Kubectl};
use serde_json::{Value, json};

/// Parts of the chart, each of which has an object of every kind.
const COMPONENTS: usize = 40;

/// The kinds whose objects nobody but the chart writes.
const WRITTEN_ONCE: [&str; 8] = [
    "serviceaccounts",
    "roles",
    "rolebindings",
    "configmaps",
    "secrets",
    "services",
    "networkpolicies",
    "limitranges",
];

/// Those whose status controllers write.
const WITH_STATUS: [&str; 4] =
    ["deployments", "poddisruptionbudgets", "horizontalpodautoscalers", "ingresses"];

/// All kinds, as arguments of kubectl.
fn kinds() -> Vec<&'static str> {
    WRITTEN_ONCE.into_iter().chain(WITH_STATUS).collect()
}

fn chart() -> String {
    let items: Vec<Value> = (0..COMPONENTS).flat_map(component).collect();
    json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string()
}

fn component(number: usize) -> Vec<Value> {
    let name = format!("part-{number}");
    let labels = json!({"app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "chart"});
    let selector = json!({"app.kubernetes.io/name": name});
    let object = |api_version: &str, kind: &str, rest: Value| {
        let mut object = json!({"apiVersion": api_version, "kind": kind,
            "metadata": {"name": name, "labels": labels}});
        for (key, value) in rest.as_object().into_iter().flatten() {
            object[key] = value.clone();
        }
        object
    };
    let rbac = "rbac.authorization.k8s.io";
    let container = json!({"name": "main", "image": "test.local/busybox:1", "ports": [{"containerPort": 8080, "name": "http"}],
        "env": [{"name": "PART", "value": name}], "resources": {"requests": {"cpu": "0.1", "memory": "64Mi"}},
        "envFrom": [{"configMapRef": {"name": name}}], "readinessProbe": {"httpGet": {"path": "/", "port": "http"}}});
    let pod = json!({"metadata": {"labels": selector}, "spec": {"serviceAccountName": name, "containers": [container]}});
    let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": name});
    let backend = json!({"service": {"name": name, "port": {"name": "http"}}});
    vec![
        object("v1", "ServiceAccount", json!({"automountServiceAccountToken": false})),
        object(
            &format!("{rbac}/v1"),
            "Role",
            json!({"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]}),
        ),
        object(
            &format!("{rbac}/v1"),
            "RoleBinding",
            json!({
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}]}),
        ),
        object(
            "v1",
            "ConfigMap",
            json!({"data": {"config.yaml": "a: 1\nb:\n- c\n", "number": number.to_string()}}),
        ),
        object("v1", "Secret", json!({"data": {"password": "c2VjcmV0"}})),
        object(
            "v1",
            "Service",
            json!({"spec": {"selector": selector, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]}}),
        ),
        object(
            "networking.k8s.io/v1",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {"matchLabels": selector},
            "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": 8080}]}]}}),
        ),
        object("v1", "LimitRange", json!({"spec": {"limits": [{"type": "Pod", "max": {"cpu": "2000m"}}]}})),
        object(
            "apps/v1",
            "Deployment",
            json!({"spec": {"replicas": 0, "selector": {"matchLabels": selector}, "template": pod}}),
        ),
        object(
            "policy/v1",
            "PodDisruptionBudget",
            json!({"spec": {"minAvailable": "50%", "selector": {"matchLabels": selector}}}),
        ),
        object(
            "autoscaling/v2",
            "HorizontalPodAutoscaler",
            json!({"spec": {"minReplicas": 1, "maxReplicas": 3, "scaleTargetRef": target,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}]}}),
        ),
        object(
            "networking.k8s.io/v1",
            "Ingress",
            json!({"spec": {"rules": [{"host": format!("{name}.example.com"),
            "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend}]}}]}}),
        ),
    ]
}

/// What applying again must leave alone, by object: the version of those that only the chart writes; of the others what
/// says that the chart has written them.
fn state(kubectl: &Kubectl) -> anyhow::Result<BTreeMap<String, Value>> {
    let selector = "app.kubernetes.io/managed-by=chart";
    let list = kubectl.json(&["get", &kinds().join(","), "--selector", selector, "--show-managed-fields"])?;
    let items = list["items"].as_array().context("a list has items")?;
    let state = items.iter().map(|object| {
        let metadata = &object["metadata"];
        let kind = object["kind"].as_str().unwrap_or_default();
        let has_status = object.get("status").is_some() && kind != "Service";
        let fields = metadata["managedFields"].as_array().into_iter().flatten();
        let of_chart: Vec<&Value> = fields.filter(|entry| entry["operation"] == "Apply").collect();
        let written = if has_status || kind == "HorizontalPodAutoscaler" || kind == "PodDisruptionBudget" {
            json!([metadata["generation"], of_chart])
        } else {
            metadata["resourceVersion"].clone()
        };
        (format!("{kind}/{}", metadata["name"]), written)
    });
    Ok(state.collect())
}

#[test]
fn a_large_chart_applied_twice_is_written_once() -> anyhow::Result<()> {
    let cluster = Cluster::start(&[])?;
    let kubectl = cluster.kubectl()?;
    let apply = ["apply", "--server-side", "--field-manager=chart", "-f", "-"];
    kubectl.attempt(&apply, &chart())?.success()?;
    let once = state(&kubectl)?;
    ensure!(once.len() == COMPONENTS * kinds().len(), "{} objects are there", once.len());
    kubectl.attempt(&apply, &chart())?.success()?;
    let twice = state(&kubectl)?;
    let changed: Vec<&String> = once.keys().filter(|key| once.get(*key) != twice.get(*key)).collect();
    ensure!(changed.is_empty(), "applying again has written {changed:?}");

    // Another manager's field is refused, and taken by force.
    let other = chart().replace("\"number\":\"7\"", "\"number\":\"eight\"");
    let apply_as_other = ["apply", "--server-side", "--field-manager=other", "-f", "-"];
    let refused = kubectl.attempt(&apply_as_other, &other)?.failure()?;
    ensure!(refused.contains("conflict with \"chart\": .data.number"), "{refused}");
    kubectl.attempt(&[&apply_as_other[..], &["--force-conflicts"]].concat(), &other)?.success()?;
    ensure!(kubectl.field("configmap/part-7", ".data.number")? == "eight");
    cluster.finish()
}
