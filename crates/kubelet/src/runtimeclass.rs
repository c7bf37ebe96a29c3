//! Which of the runtime's handlers a pod is for, by its RuntimeClass (follows the kubelet's `runtimeclass`).

use api::resource::RUNTIME_CLASSES;
use api::view::core::Pod;
use apimachinery::Value;
use apimachinery::meta::str_at;
use client::Client;

/// The default handler is empty. A class is asked for when it is needed, which is once in a sandbox's life.
pub async fn handler(client: &Client, pod: &Pod) -> Result<String, String> {
    let Some(name) = pod.spec.runtime_class_name.as_deref().filter(|name| !name.is_empty()) else {
        return Ok(String::new());
    };
    match client.get::<Value>(RUNTIME_CLASSES, "", name).await {
        Ok(class) => Ok(str_at(&class, &["handler"]).to_owned()),
        Err(error) if error.is_not_found() => Err(format!("RuntimeClass {name:?} not found")),
        Err(error) => Err(format!("failed to get RuntimeClass {name}: {error}")),
    }
}
