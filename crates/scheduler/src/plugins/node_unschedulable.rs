//! NodeUnschedulable: no pods for a cordoned node, but for those that tolerate its taint.

use api::view::core::Taint;

use crate::framework::{Filter, Rejection};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

const REASON: &str = "node(s) were unschedulable";
/// The taint the node lifecycle controller gives a cordoned node.
const TAINT_KEY: &str = "node.kubernetes.io/unschedulable";

struct NodeUnschedulable;

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    let taint = Taint { key: TAINT_KEY.into(), effect: "NoSchedule".into(), ..Taint::default() };
    let tolerated = pod.tolerations().iter().any(|toleration| toleration.tolerates(&taint));
    (!tolerated).then(|| Box::new(NodeUnschedulable) as _)
}

impl Filter for NodeUnschedulable {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if node.node.spec.unschedulable { Err(Rejection::unresolvable(REASON)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use crate::testing::check_filter;

    #[test]
    fn a_cordoned_node_takes_only_pods_that_tolerate_it() {
        let cordoned = json!({"spec": {"unschedulable": true}});
        let toleration = json!({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"});
        check_filter(super::filter, json!({}), json!({}), Ok(()));
        check_filter(super::filter, json!({}), cordoned.clone(), Err("node(s) were unschedulable"));
        check_filter(super::filter, json!({"tolerations": [toleration]}), cordoned, Ok(()));
    }
}
