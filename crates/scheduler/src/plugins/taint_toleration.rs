//! TaintToleration: taints keep pods off, or make a node less liked.

use api::view::core::{Taint, Toleration};

use crate::framework::{Filter, Rejection, Score, normalize};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

const REASON: &str = "node(s) had untolerated taint(s)";

struct TaintToleration<'a>(&'a [Toleration]);

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    Some(Box::new(TaintToleration(pod.tolerations())))
}

pub fn score<'a>(pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
    Some(Box::new(TaintToleration(pod.tolerations())))
}

/// Whether a taint that keeps pods off is not tolerated (upstream: FindMatchingUntoleratedTaint).
pub fn has_untolerated_taint(node: &NodeInfo, tolerations: &[Toleration]) -> bool {
    let keeps_off = |taint: &&Taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute");
    node.node.spec.taints.iter().filter(keeps_off).any(|taint| !is_tolerated(taint, tolerations))
}

fn is_tolerated(taint: &Taint, tolerations: &[Toleration]) -> bool {
    tolerations.iter().any(|toleration| toleration.tolerates(taint))
}

impl Filter for TaintToleration<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if has_untolerated_taint(node, self.0) { Err(Rejection::unresolvable(REASON)) } else { Ok(()) }
    }
}

impl Score for TaintToleration<'_> {
    /// Counts what is not tolerated; fewer are better.
    fn score(&self, node: &NodeInfo) -> i64 {
        let taints = node.node.spec.taints.iter().filter(|taint| taint.effect == "PreferNoSchedule");
        taints.filter(|taint| !is_tolerated(taint, self.0)).count() as i64
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        normalize(scores, true);
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use crate::testing::{check_filter, check_scores};

    fn tainted(effect: &str) -> Value {
        json!({"spec": {"taints": [{"key": "a", "value": "b", "effect": effect}]}})
    }

    #[test]
    fn taints_keep_off_pods_that_do_not_tolerate_them() {
        let tolerant = json!({"tolerations": [{"key": "a", "operator": "Equal", "value": "b"}]});
        for effect in ["NoSchedule", "NoExecute"] {
            let reason = "node(s) had untolerated taint(s)";
            check_filter(super::filter, json!({}), tainted(effect), Err(reason));
            check_filter(super::filter, tolerant.clone(), tainted(effect), Ok(()));
        }
        check_filter(super::filter, json!({}), tainted("PreferNoSchedule"), Ok(()));
    }

    #[test]
    fn nodes_with_fewer_taints_that_say_rather_not_are_better() {
        check_scores(super::score, json!({}), &[json!({}), tainted("PreferNoSchedule")], &[100, 0]);
        let tolerant = json!({"tolerations": [{"operator": "Exists"}]});
        check_scores(super::score, tolerant, &[json!({}), tainted("PreferNoSchedule")], &[100, 100]);
    }
}
