//! Cluster DNS answers on every node, though the API names one of them: asked through its Service, each node's own is
//! meant. So names are found while the other nodes, or the ways to them, are down.

use std::net::IpAddr;
use std::sync::Arc;

use api::view::discovery::{Endpoint, EndpointSlice};

/// Says who made a slice.
const LABEL_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";

/// Who makes the slices of cluster DNS. Somebody who runs another DNS behind the Service makes slices of his own.
pub const MANAGER: &str = "coxswain";

/// The slice as it holds on the node `node` with DNS at `own`; none there, and it is left as it is.
pub(super) fn seen_from(slice: Arc<EndpointSlice>, own: &[IpAddr], node: &str) -> Arc<EndpointSlice> {
    let is_dns = slice.metadata.labels.get(LABEL_MANAGED_BY).is_some_and(|manager| manager == MANAGER);
    let of_family = |address: &&IpAddr| address.is_ipv4() == (slice.address_type == "IPv4");
    let addresses: Vec<String> = own.iter().filter(of_family).map(IpAddr::to_string).collect();
    if !is_dns || addresses.is_empty() {
        return slice;
    }
    let endpoint = Endpoint { addresses, node_name: Some(node.to_owned()), ..Endpoint::default() };
    Arc::new(EndpointSlice { endpoints: vec![endpoint], ..EndpointSlice::clone(&slice) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::ip;
    use apimachinery::json;

    fn slice(manager: &str) -> Arc<EndpointSlice> {
        let slice = json!({
            "metadata": {"name": "kube-dns", "labels": {"endpointslice.kubernetes.io/managed-by": manager}},
            "addressType": "IPv4", "ports": [{"name": "dns", "port": 53, "protocol": "UDP"}],
            "endpoints": [{"addresses": ["10.42.0.1"]}],
        });
        Arc::new(apimachinery::from_value(slice).expect("an EndpointSlice"))
    }

    fn addresses(manager: &str, own: &[IpAddr]) -> Vec<String> {
        seen_from(slice(manager), own, "node2").endpoints[0].addresses.clone()
    }

    #[test]
    fn each_node_asks_its_own_dns() {
        assert_eq!(addresses(MANAGER, &[ip("10.42.1.1"), ip("fd00:42:1::1")]), ["10.42.1.1"]);
        assert_eq!(addresses(MANAGER, &[ip("fd00:42:1::1")]), ["10.42.0.1"], "none of the family");
        assert_eq!(addresses("somebody.example.org", &[ip("10.42.1.1")]), ["10.42.0.1"]);
    }
}
