//! The pods that benchmarks create, and when they count as running.

use bytes::Bytes;
use serde_json::{Value, json};

/// A scheduler that does not exist, so that no node ever runs the pod.
const NO_SCHEDULER: &str = "none";

/// What a real pod runs.
#[derive(Clone, Debug, clap::Args)]
pub struct Image {
    /// The image of the pods' one container; it should be on the node already
    #[arg(long)]
    image: String,
    /// The container's command, if not the image's own
    #[arg(last = true)]
    command: Vec<String>,
}

/// A pod of ordinary size that only the API server ever sees.
pub fn unscheduled(name: &str) -> Bytes {
    encode(ordinary(name))
}

/// The same with the label `group`.
pub fn labelled(name: &str, group: &str) -> Bytes {
    let mut pod = ordinary(name);
    pod["metadata"]["labels"]["group"] = json!(group);
    encode(pod)
}

fn ordinary(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "labels": { "app": "bench", "tier": "backend", "pod-template-hash": "6d4cf56db6" },
            "annotations": { "example.com/owner": "bench" },
        },
        "spec": {
            "schedulerName": NO_SCHEDULER,
            "automountServiceAccountToken": false,
            "containers": [{
                "name": "main",
                "image": "registry.example.com/team/app:1.2.3",
                "ports": [{ "name": "http", "containerPort": 8080 }],
                "env": [{ "name": "MODE", "value": "bench" }],
                "resources": { "requests": { "cpu": "10m", "memory": "16Mi" }, "limits": { "memory": "64Mi" } },
            }],
        },
    })
}

/// A pod that runs.
pub fn running(name: &str, image: &Image) -> Bytes {
    let mut pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": name, "labels": { "app": "bench" } },
        "spec": {
            "automountServiceAccountToken": false,
            "terminationGracePeriodSeconds": 1,
            "containers": [{ "name": "main", "image": image.image, "imagePullPolicy": "IfNotPresent" }],
        },
    });
    if !image.command.is_empty() {
        pod["spec"]["containers"][0]["command"] = json!(image.command);
    }
    encode(pod)
}

fn encode(pod: Value) -> Bytes {
    Bytes::from(pod.to_string())
}

pub fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap_or_default()
}

pub fn is_running(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
}

/// Why the pod will never run, if so. One that is being deleted has run, and may end as Failed by the signal.
pub fn failure(pod: &Value) -> Option<String> {
    let waiting = &pod["status"]["containerStatuses"][0]["state"]["waiting"];
    let stuck =
        matches!(waiting["reason"].as_str(), Some("ErrImagePull" | "ImagePullBackOff" | "InvalidImageName"));
    let failed = pod["status"]["phase"] == "Failed" && pod["metadata"]["deletionTimestamp"].is_null();
    (stuck || failed).then(|| format!("pod {} cannot run: {}", name(pod), pod["status"]))
}
