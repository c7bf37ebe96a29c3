//! NodeName: a pod that names a node can only run there.

use crate::framework::{Filter, Rejection};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

const REASON: &str = "node(s) didn't match the requested node name";

struct NodeName<'a>(&'a str);

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    let name = pod.pod.spec.node_name.as_str();
    (!name.is_empty()).then(|| Box::new(NodeName(name)) as _)
}

impl Filter for NodeName<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.name() == self.0 { Ok(()) } else { Err(Rejection::unresolvable(REASON)) }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use crate::testing::check_filter;

    #[test]
    fn only_the_named_node_will_do() {
        let node = json!({"metadata": {"name": "a"}});
        let reason = "node(s) didn't match the requested node name";
        check_filter(super::filter, json!({"nodeName": "a"}), node.clone(), Ok(()));
        check_filter(super::filter, json!({"nodeName": "b"}), node, Err(reason));
    }
}
