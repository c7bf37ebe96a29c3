//! Where the Service `kubernetes` leads: to this server, and over a shared store to every server that lives. Each keeps a
//! lease there, which goes by itself when its server does not renew it. Follows `controlplane/reconcilers` (the lease
//! reconciler), with which it shares the leases.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::{Resource, resource};
use apimachinery::{Status, Value, json};
use store::{CommitError, EventKind, Expected, Gone, Key, Op, Scope, Watch, WatchItem};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::conversion;
use crate::core::Core;
use crate::draft::draft;
use crate::loopback;

/// What the store calls the leases. They are Endpoints with the address of one server, named by it.
pub const LEASES: &str = "masterleases";

/// How long a server counts as alive after it last said so (upstream: DefaultEndpointReconcilerTTL).
pub const LEASE_TTL: Duration = Duration::from_secs(15);

/// How often it says so (upstream: DefaultEndpointReconcilerInterval).
const RENEWAL_INTERVAL: Duration = Duration::from_secs(10);

/// The Service by which pods reach the API, in the namespace `default`.
pub const SERVICE: &str = "kubernetes";

/// Writes down where the Service leads now.
pub async fn publish(core: &Arc<Core>) -> Result<(), Status> {
    let mut addresses = living(core);
    addresses.insert(core.config.advertise.ip());
    publish_addresses(core, &addresses).await
}

async fn publish_addresses(core: &Arc<Core>, addresses: &BTreeSet<IpAddr>) -> Result<(), Status> {
    let port = core.config.advertise.port();
    replace(core, resource::ENDPOINTS, &endpoints(addresses, port)).await?;
    let is_ipv4 = core.config.advertise.is_ipv4();
    replace(core, resource::ENDPOINT_SLICES, &endpoint_slice(addresses, port, is_ipv4)).await
}

/// Keeps this server's lease, and the Service leading to all who have one, until `stop` or until the server drains.
pub async fn run(core: Arc<Core>, stop: CancellationToken) {
    while !stop.is_cancelled() && !core.draining.is_cancelled() {
        match keep(&core, &stop).await {
            Err(gone) if gone.is_end() => return,
            // What changed meanwhile is not known; it is all looked at again.
            Ok(()) | Err(_) => {}
        }
    }
    if let Err(error) = retire(&core).await {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "this server's lease stays until it runs out"
        );
    }
}

async fn keep(core: &Arc<Core>, stop: &CancellationToken) -> Result<(), Gone> {
    let mut watch: Watch = core.store.watch(Scope::resource(LEASES), core.store.revision())?;
    renew(core).await;
    publish_or_say(core).await;
    let mut renewal = Instant::now() + RENEWAL_INTERVAL;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = core.draining.cancelled() => return Ok(()),
            () = sleep_until(renewal) => {
                renew(core).await;
                renewal = Instant::now() + RENEWAL_INTERVAL;
            }
            item = watch.next() => match item? {
                WatchItem::Event { kind: EventKind::Added | EventKind::Deleted, .. } => publish_or_say(core).await,
                WatchItem::Event { .. } | WatchItem::Progress(_) => {}
            },
        }
    }
}

async fn publish_or_say(core: &Arc<Core>) {
    if let Err(status) = publish(core).await {
        tracing::warn!(status.message, "the Service kubernetes may not lead to all servers");
    }
}

async fn renew(core: &Core) {
    let lease = json!({"subsets": [{"addresses": [{"ip": core.config.advertise.ip().to_string()}]}]});
    let op = Op::Put(draft(lease_kind(), &with_type(lease)));
    if let Err(error) = core.commit(&lease_key(core), Expected::Any, op).await {
        tracing::warn!(error = &error as &dyn std::error::Error, "this server's lease is not renewed");
    }
}

/// The server leaves: no new connection is to come here.
async fn retire(core: &Arc<Core>) -> Result<(), CommitError> {
    let last = draft(lease_kind(), &with_type(json!({})));
    core.commit(&lease_key(core), Expected::Any, Op::Delete(last)).await?;
    Ok(())
}

fn lease_key(core: &Core) -> Key {
    Key::cluster(LEASES, core.config.advertise.ip().to_string())
}

fn lease_kind() -> &'static api::Kind {
    let r = resource::ENDPOINTS;
    api::catalogue::by_resource(r.group, r.version, r.plural).expect("Endpoints are in the catalogue")
}

fn with_type(mut endpoints: Value) -> Value {
    endpoints["apiVersion"] = resource::ENDPOINTS.api_version().into();
    endpoints["kind"] = resource::ENDPOINTS.kind.into();
    endpoints
}

/// The servers that have said lately that they live.
fn living(core: &Core) -> BTreeSet<IpAddr> {
    let page = core.store.range(LEASES, None, None, None, 0, &|_| true);
    let leases = page.map(|page| page.entries).unwrap_or_default();
    leases.iter().filter_map(|lease| address_of(&conversion::decode(&lease.bytes))).collect()
}

fn address_of(lease: &Value) -> Option<IpAddr> {
    lease.pointer("/subsets/0/addresses/0/ip")?.as_str()?.parse().ok()
}

fn endpoints(addresses: &BTreeSet<IpAddr>, port: u16) -> Value {
    let addresses: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip.to_string()})).collect();
    json!({
        "metadata": {"name": SERVICE, "namespace": "default", "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"}},
        "subsets": [{
            "addresses": addresses,
            "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
        }],
    })
}

fn endpoint_slice(addresses: &BTreeSet<IpAddr>, port: u16, is_ipv4: bool) -> Value {
    let of_family = addresses.iter().filter(|ip| ip.is_ipv4() == is_ipv4);
    let endpoints: Vec<Value> =
        of_family.map(|ip| json!({"addresses": [ip.to_string()], "conditions": {"ready": true}})).collect();
    json!({
        "metadata": {"name": SERVICE, "namespace": "default", "labels": {"kubernetes.io/service-name": SERVICE}},
        "addressType": if is_ipv4 { "IPv4" } else { "IPv6" },
        "endpoints": endpoints,
        "ports": [{"name": "https", "port": port, "protocol": "TCP"}],
    })
}

/// Makes the object as it should be, whatever was there.
pub async fn replace(core: &Arc<Core>, resource: Resource, object: &Value) -> Result<(), Status> {
    match loopback::create(core, resource, object).await {
        Err(status) if status.is_already_exists() => loopback::update(core, resource, object).await,
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_leads_to_all_servers_in_order() {
        let addresses: BTreeSet<IpAddr> =
            ["192.0.2.2", "192.0.2.1", "2001:db8::1"].map(|ip| ip.parse().expect("an address")).into();
        let slice = endpoint_slice(&addresses, 6443, true);
        assert_eq!(slice["endpoints"][0]["addresses"], json!(["192.0.2.1"]));
        assert_eq!(slice["endpoints"][1]["addresses"], json!(["192.0.2.2"]));
        assert_eq!(slice["endpoints"].as_array().map(Vec::len), Some(2), "those of the slice's family");
        let ips = &endpoints(&addresses, 6443)["subsets"][0]["addresses"];
        assert_eq!(*ips, json!([{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}, {"ip": "2001:db8::1"}]));
    }
}
