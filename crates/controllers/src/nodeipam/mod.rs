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

/// Upstream: `--node-cidr-mask-size-ipv4` and `-ipv6`.
const NODE_MASK_SIZE_IPV4: u8 = 24;
const NODE_MASK_SIZE_IPV6: u8 = 64;

/// There is one key: nodes are served one after another, or two could get the same CIDR.
struct NodeIpam {
    cluster_cidrs: Vec<IpNet>,
    nodes: Informer<Node>,
}

pub fn new(config: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(NodeIpam { cluster_cidrs: config.cluster_cidrs.clone(), nodes: informers.get() })
}

#[async_trait]
impl Controller for NodeIpam {
    fn watch(&self, watches: &mut Watches) {
        watches.on(NODES, &self.nodes, |_| vec![Key::default()]);
    }

    async fn reconcile(&self, _: &Key, _: &Client, _: Timestamp) -> client::error::Result<Plan> {
        Ok(reconcile(&self.cluster_cidrs, &self.nodes.list()))
    }
}

fn reconcile(cluster_cidrs: &[IpNet], nodes: &[Arc<Node>]) -> Plan {
    let mut plan = Plan::default();
    if cluster_cidrs.is_empty() {
        return plan;
    }
    let mut taken: HashSet<IpNet> =
        nodes.iter().flat_map(|node| &node.spec.pod_cidrs).filter_map(|cidr| cidr.parse().ok()).collect();
    let waiting = nodes.iter().filter(|n| n.spec.pod_cidrs.is_empty() && !n.metadata.is_being_deleted());
    for node in waiting {
        let free: Option<Vec<IpNet>> =
            cluster_cidrs.iter().map(|cluster| first_free(cluster, &taken)).collect();
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
fn first_free(cluster: &IpNet, taken: &HashSet<IpNet>) -> Option<IpNet> {
    let size = match cluster {
        IpNet::V4(_) => NODE_MASK_SIZE_IPV4,
        IpNet::V6(_) => NODE_MASK_SIZE_IPV6,
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
        let plan = reconcile(&shares, &cluster.list::<Node>());
        cluster.apply(&plan);
        assert!(reconcile(&shares, &cluster.list::<Node>()).is_empty());
        let given = |name: &str| cluster.get::<Node>("", name).expect("it is there").spec.clone();
        assert_eq!(given("b").pod_cidrs, ["10.42.0.0/24", "fd00::/64"]);
        assert_eq!(given("c").pod_cidrs, ["10.42.2.0/24", "fd00:0:0:2::/64"]);
        assert_eq!(given("c").pod_cidr, "10.42.2.0/24");
    }

    #[test]
    fn a_full_cluster_says_so() {
        let mut cluster = Cluster::new();
        for name in ["a", "b"] {
            cluster.create(NODES, json!({"metadata": {"name": name}, "spec": {}}));
        }
        let plan = reconcile(&cidrs(&["10.42.0.0/24"]), &cluster.list::<Node>());
        assert_eq!(plan.steps.len(), 1);
        assert_eq!(plan.events[0].reason, "CIDRNotAvailable");
    }
}
