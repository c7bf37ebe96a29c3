//! The node's heartbeat: a Lease in `kube-node-lease`, renewed at a quarter of its life (KEP-589).

use std::time::Duration;

use api::resource::{LEASES, NODES};
use api::view::core::Node;
use apimachinery::{json, time};
use client::{Client, PatchType};
use jiff::Timestamp;

const NAMESPACE: &str = "kube-node-lease";
/// Upstream's `nodeLeaseDurationSeconds`.
const DURATION_SECONDS: u64 = 40;
const RENEW_PERIOD: Duration = Duration::from_secs(DURATION_SECONDS / 4);
const RETRY: Duration = Duration::from_secs(1);

pub async fn run(client: Client, node: String) {
    loop {
        match renew(&client, &node).await {
            Ok(()) => tokio::time::sleep(RENEW_PERIOD).await,
            Err(error) => {
                tracing::warn!(%error, "node lease could not be renewed, will retry");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn renew(client: &Client, node: &str) -> Result<(), client::Error> {
    let patch = json!({"spec": {"renewTime": time::format_micro_time(Timestamp::now())}});
    match client.patch(LEASES, NAMESPACE, node, None, PatchType::Merge, &patch).await {
        Err(error) if error.is_not_found() => create(client, node).await,
        other => other.map(drop),
    }
}

/// Owned by the node, so that it goes with it.
async fn create(client: &Client, name: &str) -> Result<(), client::Error> {
    let node: Node = client.get(NODES, "", name).await?;
    let lease = json!({
        "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": name, "namespace": NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid}]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": DURATION_SECONDS,
            "renewTime": time::format_micro_time(Timestamp::now())},
    });
    client.create(LEASES, NAMESPACE, &lease).await.map(drop)
}
