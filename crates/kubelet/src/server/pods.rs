//! `/pods`, those that are to run here, and `/runningpods/`, those that the runtime runs.

use api::resource::PODS;
use api::view::core::Pod;
use apimachinery::{Value, json};

use super::{Refusal, Server};
use crate::stats::PodReading;

impl Server {
    /// The pods as the API server has them, or, while it does not answer, what this kubelet knows of them.
    pub(super) async fn list_pods(&self) -> Value {
        let query = format!("fieldSelector=spec.nodeName%3D{}", self.shared.config.node_name);
        let items = match self.shared.client.list(PODS, "", &query).await {
            Ok(mut list) => list["items"].take(),
            Err(error) => {
                tracing::debug!(%error, "pods are told as this kubelet knows them");
                self.pods.list().iter().map(|pod| known(pod)).collect()
            }
        };
        pod_list(items)
    }

    pub(super) async fn list_running_pods(&self) -> Result<Value, Refusal> {
        Ok(pod_list(self.reading().await?.pods.iter().map(running).collect()))
    }
}

fn pod_list(items: Value) -> Value {
    json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
}

fn known(pod: &Pod) -> Value {
    let mut shown = json!({"metadata": pod.metadata, "spec": pod.spec, "status": pod.status});
    remove_empty(&mut shown);
    shown
}

/// A view writes all its fields; what is not set is not to be shown.
fn remove_empty(value: &mut Value) {
    let is_empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(fields) => {
            fields.values_mut().for_each(remove_empty);
            fields.retain(|_, value| !is_empty(value));
        }
        Value::Array(items) => items.iter_mut().for_each(remove_empty),
        _ => {}
    }
}

fn running(pod: &PodReading) -> Value {
    let containers: Vec<Value> = pod
        .containers
        .iter()
        .map(|of| json!({"name": of.name, "image": of.image, "resources": {}}))
        .collect();
    json!({
        "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
        "spec": {"containers": containers}, "status": {},
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_pod_is_shown_with_its_spec_and_without_what_is_not_set() {
        let pod = json!({"metadata": {"name": "a", "namespace": "n"},
            "spec": {"containers": [{"name": "c", "image": "i"}]}, "status": {"phase": "Running"}});
        let shown = known(&apimachinery::from_value(pod).expect("a pod"));
        assert_eq!(shown["spec"]["containers"][0]["image"], "i");
        assert_eq!(shown["status"]["phase"], "Running");
        assert_eq!(shown["spec"].get("initContainers"), None);
    }
}
