//! A DaemonSet's pods, node by node.

use std::collections::BTreeMap;
use std::sync::Arc;

use api::view::core::Pod;

use super::nodes::target;
use crate::history::REVISION_LABEL;

/// Its pods by the node they are on or meant for, each node's oldest first. One that is for no node is under "".
pub type ByNode = BTreeMap<String, Vec<Arc<Pod>>>;

pub fn by_node(pods: Vec<Arc<Pod>>) -> ByNode {
    let mut nodes = ByNode::new();
    for pod in pods {
        let node = target(&pod).unwrap_or_default().to_owned();
        nodes.entry(node).or_default().push(pod);
    }
    for pods in nodes.values_mut() {
        pods.sort_by_key(|pod| (pod.metadata.creation_timestamp, pod.metadata.name.clone()));
    }
    nodes
}

pub fn is_updated(pod: &Pod, hash: &str) -> bool {
    pod.metadata.labels.get(REVISION_LABEL).is_some_and(|label| label == hash)
}

/// The new and the old pod of a node, as far as it has them.
type NewAndOld<'a> = (Option<&'a Arc<Pod>>, Option<&'a Arc<Pod>>);

/// The new and the old pod of one node during a rollout; `None` when it is not settled (upstream:
/// `findUpdatedPodsOnNode`).
pub fn new_and_old<'a>(pods: &'a [Arc<Pod>], hash: &str) -> Option<NewAndOld<'a>> {
    if pods.iter().any(|pod| pod.metadata.is_being_deleted()) {
        return None;
    }
    let (new, old): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| is_updated(pod, hash));
    match (new.as_slice(), old.as_slice()) {
        ([] | [_], [] | [_]) => Some((new.first().copied(), old.first().copied())),
        _ => None,
    }
}
