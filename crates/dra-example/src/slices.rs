//! Publishes the node's devices, and does so again when somebody deletes them.

use std::time::Duration;

use api::resource::RESOURCE_SLICES;
use api::view::dynamicresource::ResourceSlice;
use apimachinery::{Value, json};
use client::{CancellationToken, Client, Delta, Informers};

use crate::driver::Settings;

/// Between attempts to publish.
const RETRY: Duration = Duration::from_secs(1);
/// Every other device is of the second model.
const MODELS: [&str; 2] = ["small", "large"];

/// Keeps the slice there until `stop`. A kubelet that starts deletes it: then it is published anew.
pub async fn publish(client: Client, settings: &Settings, stop: CancellationToken) {
    let informers = Informers::new(client.clone(), stop.clone());
    let selector = format!("spec.driver={},spec.nodeName={}", settings.name, settings.node_name);
    let slices = informers.get_selected::<ResourceSlice>(RESOURCE_SLICES, &selector);
    slices.synced().await;
    let mut changes = slices.subscribe();
    let name = name(settings);
    let keep = async {
        if slices.get("", &name).is_none() {
            create(&client, settings).await;
        }
        while let Some(delta) = changes.recv().await {
            if let Delta::Deleted(slice) = delta
                && slice.metadata.name == name
            {
                create(&client, settings).await;
            }
        }
    };
    stop.run_until_cancelled(keep).await;
}

async fn create(client: &Client, settings: &Settings) {
    loop {
        match client.create(RESOURCE_SLICES, "", &slice(settings)).await {
            Ok(_) => break tracing::info!("devices published"),
            Err(error) if error.is_already_exists() => break,
            Err(error) => tracing::warn!(%error, "devices not published, will retry"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

fn name(settings: &Settings) -> String {
    format!("{}-{}", settings.node_name, settings.name)
}

/// One slice is the whole pool, which has the node's name.
fn slice(settings: &Settings) -> Value {
    let device = |index: u16| {
        let model = MODELS[usize::from(index) % MODELS.len()];
        json!({"name": format!("device-{index}"),
            "attributes": {"index": {"int": index}, "model": {"string": model}},
            "capacity": {"memory": {"value": format!("{}Gi", index + 1)}}})
    };
    let pool = json!({"name": settings.node_name, "generation": 1, "resourceSliceCount": 1});
    let devices: Vec<Value> = (0..settings.devices).map(device).collect();
    json!({
        "apiVersion": RESOURCE_SLICES.api_version(), "kind": RESOURCE_SLICES.kind,
        "metadata": {"name": name(settings)},
        "spec": {"driver": settings.name, "nodeName": settings.node_name, "pool": pool, "devices": devices},
    })
}
