//! Follows the cluster's nodes, and the routes to them, so that the pod network knows the ways to
//! their pods.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use api::view::core::Node;
use client::{CancellationToken, Informer, Informers};
use ipnet::IpNet;

use crate::pod_network::{Error, Peer, PodNetwork};

/// Pause after a failed attempt.
const RETRY: Duration = Duration::from_secs(2);

/// Runs until `stop`.
pub async fn run(
    informers: Informers,
    network: PodNetwork,
    node_name: String,
    stop: CancellationToken,
) -> Result<(), Error> {
    follow(informers.get(), network, &node_name, stop).await
}

async fn follow(
    nodes: Informer<Node>,
    network: PodNetwork,
    node_name: &str,
    stop: CancellationToken,
) -> Result<(), Error> {
    let mut changes = nodes.subscribe();
    let mut route_changes = network.route_changes()?;
    if stop.run_until_cancelled(nodes.synced()).await.is_none() {
        return Ok(());
    }
    let mut known = None;
    loop {
        while changes.try_recv().is_ok() {}
        let peers = peers(&nodes.list(), node_name);
        if known.as_ref() != Some(&peers) {
            match network.set_peers(peers.clone()).await {
                Ok(()) => known = Some(peers),
                Err(error) => {
                    tracing::error!(%error, "ways to other nodes cannot be set up, trying again");
                    if stop.run_until_cancelled(tokio::time::sleep(RETRY)).await.is_none() {
                        return Ok(());
                    }
                    continue;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = changes.recv() => if changed.is_none() {
                return Ok(());
            },
            // A link that was down may have taken ways along, or another way may lead to a node now.
            changed = route_changes.happened() => {
                changed?;
                known = None;
            }
        }
    }
}

/// The other nodes that have pods, by name.
fn peers(nodes: &[Arc<Node>], own: &str) -> Vec<Peer> {
    let others = nodes.iter().filter(|node| node.metadata.name != own);
    let peer = |node: &Arc<Node>| {
        let addresses = node.status.addresses.iter().filter(|address| address.kind == "InternalIP");
        let addresses: Vec<IpAddr> = addresses.filter_map(|address| address.address.parse().ok()).collect();
        let pod_cidrs = pod_cidrs(node);
        (!addresses.is_empty() && !pod_cidrs.is_empty()).then_some(Peer { addresses, pod_cidrs })
    };
    others.filter_map(peer).collect()
}

/// The pod CIDRs a node was given.
pub fn pod_cidrs(node: &Node) -> Vec<IpNet> {
    let spec = &node.spec;
    let listed: Vec<IpNet> = spec.pod_cidrs.iter().filter_map(|cidr| cidr.parse().ok()).collect();
    if listed.is_empty() { spec.pod_cidr.parse().into_iter().collect() } else { listed }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::node::{Node as Machine, OUTSIDE};
    use crate::testing::{PATIENCE, ip};
    use apimachinery::json;

    fn node(name: &str, cidrs: &[&str], address: &str) -> Arc<Node> {
        let addresses =
            json!([{"type": "Hostname", "address": name}, {"type": "InternalIP", "address": address}]);
        let object = json!({"metadata": {"name": name}, "spec": {"podCIDRs": cidrs}, "status": {"addresses": addresses}});
        Arc::new(apimachinery::from_value(object).expect("a Node"))
    }

    #[test]
    fn a_way_that_is_lost_is_set_up_again() {
        let machine = Machine::new("ways");
        let network = machine.start();
        let mut links = machine.host.links();
        machine.host.block_on(async move || {
            let (nodes, feed) = Informer::detached();
            let stop = CancellationToken::new();
            let following = tokio::spawn({
                let stop = stop.clone();
                async move { follow(nodes, network, "here", stop).await }
            });
            feed.apply((*node("there", &["10.42.9.0/24"], OUTSIDE)).clone());
            let cidr: IpNet = "10.42.9.0/24".parse().unwrap();
            for _ in 0..2 {
                let appears = tokio::time::timeout(PATIENCE, async {
                    while links.delete_present_route(cidr).is_err() {
                        tokio::task::yield_now().await;
                    }
                });
                appears.await.expect("the route is there in time");
            }
            stop.cancel();
            following.await.unwrap().unwrap();
        });
    }

    #[test]
    fn other_nodes_with_addresses_and_pod_cidrs_are_peers() {
        let nodes = [
            node("a", &["10.42.0.0/24"], "192.0.2.1"),
            node("b", &["10.42.1.0/24", "fd00:1::/64"], "192.0.2.2"),
            node("c", &[], "192.0.2.3"),
            node("d", &["10.42.3.0/24"], ""),
        ];
        let expected = Peer {
            addresses: vec![ip("192.0.2.2")],
            pod_cidrs: vec!["10.42.1.0/24".parse().unwrap(), "fd00:1::/64".parse().unwrap()],
        };
        assert_eq!(peers(&nodes, "a"), [expected]);
    }
}
