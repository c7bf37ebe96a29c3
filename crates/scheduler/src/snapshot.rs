//! The nodes, their pods and the namespaces at one moment: what a decision is made from.

use std::collections::BTreeMap;
use std::sync::Arc;

use apimachinery::meta::StringMap;

use crate::devices::Devices;
use crate::nodeinfo::NodeInfo;
use crate::volumes::Volumes;
use crate::workloads::Workloads;

/// Cheap to clone; nothing in it changes.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// By name.
    pub nodes: Vec<Arc<NodeInfo>>,
    pub namespaces: Arc<BTreeMap<String, StringMap>>,
    pub volumes: Arc<Volumes>,
    pub devices: Arc<Devices>,
    pub workloads: Arc<Workloads>,
}

static NO_LABELS: StringMap = StringMap::new();

impl Snapshot {
    pub fn namespace_labels(&self, namespace: &str) -> &StringMap {
        self.namespaces.get(namespace).unwrap_or(&NO_LABELS)
    }

    pub fn node(&self, name: &str) -> Option<&Arc<NodeInfo>> {
        let found = self.nodes.binary_search_by(|node| node.name().cmp(name));
        found.ok().map(|index| &self.nodes[index])
    }

    /// The same moment, had this node been different.
    pub fn with_node(&self, node: NodeInfo) -> Snapshot {
        let mut other = self.clone();
        if let Ok(index) = other.nodes.binary_search_by(|known| known.name().cmp(node.name())) {
            other.nodes[index] = Arc::new(node);
        }
        other
    }
}
