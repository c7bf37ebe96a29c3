//! The node's heartbeat: a Lease in `kube-node-lease`, renewed at a quarter of its life (KEP-589).

use std::time::Duration;

use api::resource::{LEASES, NODES};
use api::view::core::Node;
use apimachinery::{json, time};
use client::{Client, PatchType};
use jiff::Timestamp;

const NAMESPACE: &str = "kube-node-lease";
/// The part of its life after which a lease is renewed (upstream: `nodeLeaseRenewIntervalFraction`).
const RENEW_FRACTION: f64 = 0.25;
const RETRY: Duration = Duration::from_secs(1);

/// Until it is dropped; `duration_seconds` is how long a lease holds.
pub async fn run(client: Client, node: String, duration_seconds: i32) {
    let duration = Duration::from_secs(u64::try_from(duration_seconds).unwrap_or(0));
    loop {
        match renew(&client, &node, duration_seconds).await {
            Ok(()) => tokio::time::sleep(duration.mul_f64(RENEW_FRACTION)).await,
            Err(error) => {
                tracing::warn!(%error, "node lease could not be renewed, will retry");
                tokio::time::sleep(RETRY).await;
            }
        }
    }
}

async fn renew(client: &Client, node: &str, duration_seconds: i32) -> Result<(), client::Error> {
    let renewed = time::format_micro_time(Timestamp::now());
    let patch = json!({"spec": {"leaseDurationSeconds": duration_seconds, "renewTime": renewed}});
    match client.patch(LEASES, NAMESPACE, node, None, PatchType::Merge, &patch).await {
        Err(error) if error.is_not_found() => create(client, node, duration_seconds).await,
        other => other.map(drop),
    }
}

/// Owned by the node, so that it goes with it.
async fn create(client: &Client, name: &str, duration_seconds: i32) -> Result<(), client::Error> {
    let node: Node = client.get(NODES, "", name).await?;
    let lease = json!({
        "kind": "Lease", "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"name": name, "namespace": NAMESPACE,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": node.metadata.uid}]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": duration_seconds,
            "renewTime": time::format_micro_time(Timestamp::now())},
    });
    client.create(LEASES, NAMESPACE, &lease).await.map(drop)
}
