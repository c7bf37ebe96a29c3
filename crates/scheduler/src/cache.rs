//! Nodes and the pods on them, kept up to date from changes (upstream: scheduler cache).
//!
//! A pod that a decision has placed is assumed to be on its node until the API server says so,
//! so that the next decision reckons with it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use api::view::core::{Namespace, Node, Pod};
use apimachinery::meta::StringMap;

use crate::devices::Devices;
use crate::framework::ClusterEvent;
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::Volumes;
use crate::workloads::Workloads;

#[derive(Default)]
pub struct Cache {
    nodes: BTreeMap<String, Entry>,
    /// The node of each placed pod, by UID.
    placed: HashMap<String, String>,
    namespaces: Arc<BTreeMap<String, StringMap>>,
    volumes: Arc<Volumes>,
    devices: Arc<Devices>,
    workloads: Arc<Workloads>,
}

/// Pods may be known before their node, and outlive it.
#[derive(Default)]
struct Entry {
    info: Arc<NodeInfo>,
    exists: bool,
}

impl Cache {
    pub fn snapshot(&self) -> Snapshot {
        let nodes = self.nodes.values().filter(|entry| entry.exists);
        Snapshot {
            nodes: nodes.map(|entry| entry.info.clone()).collect(),
            namespaces: self.namespaces.clone(),
            volumes: self.volumes.clone(),
            devices: self.devices.clone(),
            workloads: self.workloads.clone(),
        }
    }

    /// Takes a node as it is now and says what that may change for pods.
    pub fn set_node(&mut self, node: &Arc<Node>) -> Vec<ClusterEvent> {
        let entry = self.nodes.entry(node.metadata.name.clone()).or_default();
        let events =
            if entry.exists { node_events(&entry.info.node, node) } else { vec![ClusterEvent::NodeAdd] };
        entry.exists = true;
        Arc::make_mut(&mut entry.info).set_node(node.clone());
        events
    }

    pub fn remove_node(&mut self, name: &str) {
        if let Some(entry) = self.nodes.get_mut(name) {
            entry.exists = false;
            if entry.info.pods.is_empty() {
                self.nodes.remove(name);
            }
        }
    }

    /// Puts a pod on a node, or renews it there.
    pub fn set_pod(&mut self, pod: Arc<PodInfo>, node: &str) -> Vec<ClusterEvent> {
        let old = self.take(pod.uid());
        let events = match &old {
            None => vec![ClusterEvent::AssignedPodAdd],
            Some(old) if is_same_for_others(&old.pod, &pod.pod) => Vec::new(),
            Some(_) => vec![ClusterEvent::AssignedPodUpdate],
        };
        self.placed.insert(pod.uid().to_owned(), node.to_owned());
        Arc::make_mut(&mut self.nodes.entry(node.to_owned()).or_default().info).add_pod(pod);
        events
    }

    /// Takes a pod off its node; nothing happens when it is on none.
    pub fn remove_pod(&mut self, uid: &str) -> Vec<ClusterEvent> {
        self.take(uid).map(|_| ClusterEvent::AssignedPodDelete).into_iter().collect()
    }

    pub fn set_namespace(&mut self, namespace: &Namespace) -> Vec<ClusterEvent> {
        let metadata = &namespace.metadata;
        let old = Arc::make_mut(&mut self.namespaces).insert(metadata.name.clone(), metadata.labels.clone());
        let changed = old.is_none_or(|old| old != metadata.labels);
        changed.then_some(ClusterEvent::NamespaceLabel).into_iter().collect()
    }

    pub fn remove_namespace(&mut self, name: &str) {
        Arc::make_mut(&mut self.namespaces).remove(name);
    }

    /// What is known of storage, to be changed.
    pub fn volumes(&mut self) -> &mut Volumes {
        Arc::make_mut(&mut self.volumes)
    }

    /// What is known of devices, to be changed.
    pub fn devices(&mut self) -> &mut Devices {
        Arc::make_mut(&mut self.devices)
    }

    pub fn workloads(&mut self) -> &mut Workloads {
        Arc::make_mut(&mut self.workloads)
    }

    fn take(&mut self, uid: &str) -> Option<Arc<PodInfo>> {
        let name = self.placed.remove(uid)?;
        let entry = self.nodes.get_mut(&name)?;
        let pod = entry.info.pods.iter().find(|pod| pod.uid() == uid).cloned();
        Arc::make_mut(&mut entry.info).remove_pod(uid);
        if !entry.exists && entry.info.pods.is_empty() {
            self.nodes.remove(&name);
        }
        pod
    }
}

fn node_events(old: &Node, new: &Node) -> Vec<ClusterEvent> {
    let changes = [
        (old.status.allocatable != new.status.allocatable, ClusterEvent::NodeAllocatable),
        (old.metadata.labels != new.metadata.labels, ClusterEvent::NodeLabel),
        (old.spec.taints != new.spec.taints, ClusterEvent::NodeTaint),
        (old.spec.unschedulable != new.spec.unschedulable, ClusterEvent::NodeTaint),
    ];
    changes.into_iter().filter_map(|(changed, event)| changed.then_some(event)).collect()
}

/// Whether a change of a placed pod leaves other pods' chances as they are.
fn is_same_for_others(old: &Pod, new: &Pod) -> bool {
    old.metadata.labels == new.metadata.labels
        && old.metadata.deletion_timestamp == new.metadata.deletion_timestamp
        && old.spec == new.spec
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::testing::{node, pod};

    #[test]
    fn pods_count_on_their_node_in_whatever_order_both_arrive() {
        let mut cache = Cache::default();
        cache.set_pod(pod("a", json!({"cpu": "1"})), "n");
        assert!(cache.snapshot().nodes.is_empty());
        assert_eq!(cache.set_node(&node("n", json!({"cpu": "4"})).node), [ClusterEvent::NodeAdd]);
        assert_eq!(cache.snapshot().nodes[0].requested.milli_cpu, 1000);
        cache.remove_node("n");
        assert!(cache.snapshot().nodes.is_empty());
        assert_eq!(cache.remove_pod("a"), [ClusterEvent::AssignedPodDelete]);
        assert!(cache.nodes.is_empty());
    }

    #[test]
    fn an_assumed_pod_is_renewed_and_not_counted_twice() {
        let mut cache = Cache::default();
        cache.set_node(&node("n", json!({"cpu": "4"})).node);
        let assumed = pod("a", json!({"cpu": "1"}));
        assert_eq!(cache.set_pod(assumed.clone(), "n"), [ClusterEvent::AssignedPodAdd]);
        assert_eq!(cache.set_pod(assumed, "n"), []);
        assert_eq!(cache.snapshot().nodes[0].requested.milli_cpu, 1000);
    }

    #[test]
    fn a_changed_node_tells_what_changed() {
        let mut cache = Cache::default();
        let old = node("n", json!({"cpu": "4"})).node.clone();
        cache.set_node(&old);
        assert_eq!(cache.set_node(&old), []);
        let mut new = (*old).clone();
        new.spec.unschedulable = true;
        new.metadata.labels.insert("a".into(), "b".into());
        assert_eq!(cache.set_node(&Arc::new(new)), [ClusterEvent::NodeLabel, ClusterEvent::NodeTaint]);
    }
}
