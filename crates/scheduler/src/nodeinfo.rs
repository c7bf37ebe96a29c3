//! A node with the pods on it, and the sums over them (upstream: NodeInfo).

use std::sync::Arc;

use api::view::core::Node;
use api::view::core::hostport::HostPort;
use apimachinery::meta::StringMap;

use crate::podinfo::PodInfo;
use crate::resource::{Resource, allowed_pods};

#[derive(Clone, Debug, Default)]
pub struct NodeInfo {
    pub node: Arc<Node>,
    pub allocatable: Resource,
    pub allowed_pods: i64,
    /// Pods on the node, those assumed to be included.
    pub pods: Vec<Arc<PodInfo>>,
    /// The sum of the pods' requests.
    pub requested: Resource,
    /// The same with defaults for containers that request nothing; for scoring.
    pub non_zero_requested: Resource,
    /// Ports taken by pods, once per pod that takes them.
    used_ports: Vec<HostPort>,
}

impl NodeInfo {
    pub fn name(&self) -> &str {
        &self.node.metadata.name
    }

    pub fn labels(&self) -> &StringMap {
        &self.node.metadata.labels
    }

    pub fn set_node(&mut self, node: Arc<Node>) {
        self.allocatable = Resource::from_list(&node.status.allocatable);
        self.allowed_pods = allowed_pods(&node.status.allocatable);
        self.node = node;
    }

    pub fn add_pod(&mut self, pod: Arc<PodInfo>) {
        self.requested.add(&pod.requests);
        self.non_zero_requested.add(&pod.non_zero_requests);
        self.used_ports.extend(pod.host_ports());
        self.pods.push(pod);
    }

    pub fn remove_pod(&mut self, uid: &str) {
        let Some(index) = self.pods.iter().position(|pod| pod.uid() == uid) else { return };
        let pod = self.pods.swap_remove(index);
        self.requested.sub(&pod.requests);
        self.non_zero_requested.sub(&pod.non_zero_requests);
        for port in pod.host_ports() {
            if let Some(index) = self.used_ports.iter().position(|used| *used == port) {
                self.used_ports.swap_remove(index);
            }
        }
    }

    /// Whether a pod on the node has taken the port.
    pub fn is_port_used(&self, port: &HostPort) -> bool {
        self.used_ports.iter().any(|used| used.conflicts(port))
    }
}
