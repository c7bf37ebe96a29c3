//! Gives every node a pod CIDR from the cluster's (follows upstream's `pkg/controller/nodeipam`, `RangeAllocator`).

use std::collections::HashSet;
use std::sync::Arc;

use api::resource::NODES;
use api::view::core::Node;
use apimachinery::json;
use async_trait::async_trait;
use client::{Client, Informer, Informers};
use ipnet::IpNet;
use jiff::Timestamp;

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches};
use crate::plan::{Action, Event, Plan, reference};

/// Prefix lengths of nodes' shares (upstream: `--node-cidr-mask-size-ipv4` and `-ipv6`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NodeCidrMaskSizes {
    pub ipv4: u8,
    pub ipv6: u8,
}

impl Default for NodeCidrMaskSizes {
    /// Upstream's.
    fn default() -> Self {
        NodeCidrMaskSizes { ipv4: 24, ipv6: 64 }
    }
}

/// There is one key: nodes are served one after another, or two could get the same CIDR.
struct NodeIpam {
    cluster_cidrs: Vec<IpNet>,
    mask_sizes: NodeCidrMaskSizes,
    nodes: Informer<Node>,
}

pub fn new(config: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(NodeIpam {
        cluster_cidrs: config.cluster_cidrs.clone(),
        mask_sizes: config.node_cidr_mask_sizes,
        nodes: informers.get(),
    })
}

#[async_trait]
impl Controller for NodeIpam {
    fn watch(&self, watches: &mut Watches) {
        watches.on(NODES, &self.nodes, |_| vec![Key::default()]);
    }

    async fn reconcile(&self, _: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        Ok(reconcile(&self.cluster_cidrs, self.mask_sizes, &self.nodes.list()))
    }
}

fn reconcile(cluster_cidrs: &[IpNet], mask_sizes: NodeCidrMaskSizes, nodes: &[Arc<Node>]) -> Plan {
    let mut plan = Plan::default();
    if cluster_cidrs.is_empty() {
        return plan;
    }
    let mut taken: HashSet<IpNet> =
        nodes.iter().flat_map(|node| &node.spec.pod_cidrs).filter_map(|cidr| cidr.parse().ok()).collect();
    let waiting = nodes.iter().filter(|n| n.spec.pod_cidrs.is_empty() && !n.metadata.is_being_deleted());
    for node in waiting {
        let free: Option<Vec<IpNet>> =
            cluster_cidrs.iter().map(|cluster| first_free(cluster, mask_sizes, &taken)).collect();
        let Some(cidrs) = free else {
            let message = format!("Node {} status is now: CIDRNotAvailable", node.metadata.name);
            plan.events.push(Event::normal(reference(NODES, &node.metadata), "CIDRNotAvailable", message));
            continue;
        };
        taken.extend(&cidrs);
        let cidrs: Vec<String> = cidrs.iter().map(IpNet::to_string).collect();
        let patch = json!({"spec": {"podCIDR": cidrs[0], "podCIDRs": cidrs}});
        plan.act(Action::patch(NODES, &node.metadata, patch));
    }
    plan
}

/// A cluster CIDR smaller than a node's share is one share.
fn first_free(cluster: &IpNet, mask_sizes: NodeCidrMaskSizes, taken: &HashSet<IpNet>) -> Option<IpNet> {
    let size = match cluster {
        IpNet::V4(_) => mask_sizes.ipv4,
        IpNet::V6(_) => mask_sizes.ipv6,
    };
    let mut shares = cluster.subnets(size.max(cluster.prefix_len())).ok()?;
    shares.find(|share| !taken.contains(share))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Cluster;

    fn cidrs(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().expect("a CIDR")).collect()
    }

    #[test]
    fn every_node_gets_its_own_share_and_keeps_it() {
        let mut cluster = Cluster::new();
        cluster.create(
            NODES,
            json!({"metadata": {"name": "a"}, "spec": {"podCIDRs": ["10.42.1.0/24", "fd00:0:0:1::/64"]}}),
        );
        for name in ["b", "c"] {
            cluster.create(NODES, json!({"metadata": {"name": name}, "spec": {}}));
        }
        let shares = cidrs(&["10.42.0.0/16", "fd00::/48"]);
        let sizes = NodeCidrMaskSizes::default();
        let plan = reconcile(&shares, sizes, &cluster.list::<Node>());
        cluster.apply(&plan);
        assert!(reconcile(&shares, sizes, &cluster.list::<Node>()).is_empty());
        let given = |name: &str| cluster.get::<Node>("", name).expect("it is there").spec.clone();
        assert_eq!(given("b").pod_cidrs, ["10.42.0.0/24", "fd00::/64"]);
        assert_eq!(given("c").pod_cidrs, ["10.42.2.0/24", "fd00:0:0:2::/64"]);
        assert_eq!(given("c").pod_cidr, "10.42.2.0/24");
    }

    #[test]
    fn a_nodes_share_is_as_large_as_it_is_to_be() {
        let mut cluster = Cluster::new();
        for name in ["a", "b"] {
            cluster.create(NODES, json!({"metadata": {"name": name}, "spec": {}}));
        }
        let sizes = NodeCidrMaskSizes { ipv4: 22, ipv6: 56 };
        let plan = reconcile(&cidrs(&["10.42.0.0/16", "fd00::/48"]), sizes, &cluster.list::<Node>());
        cluster.apply(&plan);
        let node = cluster.get::<Node>("", "b").expect("it is there");
        assert_eq!(node.spec.pod_cidrs, ["10.42.4.0/22", "fd00:0:0:100::/56"]);
    }

    #[test]
    fn a_full_cluster_says_so() {
        let mut cluster = Cluster::new();
        for name in ["a", "b"] {
            cluster.create(NODES, json!({"metadata": {"name": name}, "spec": {}}));
        }
        let plan =
            reconcile(&cidrs(&["10.42.0.0/24"]), NodeCidrMaskSizes::default(), &cluster.list::<Node>());
        assert_eq!(plan.steps.len(), 1);
        assert_eq!(plan.events[0].reason, "CIDRNotAvailable");
    }
}
