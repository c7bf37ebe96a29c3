//! NodeAffinity: node selector and node affinity, required and preferred.

use std::borrow::Cow;
use std::collections::BTreeSet;

use api::view::core::nodeselector::{NAME_FIELD, matches_required, matches_term, required_terms};
use api::view::core::{NodeSelectorTerm, PreferredSchedulingTerm};

use crate::framework::{Filter, Rejection, Score, normalize};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

const REASON: &str = "node(s) didn't match Pod's node affinity/selector";
const REASON_CONFLICT: &str = "pod affinity terms conflict";

struct Required<'a> {
    pod: &'a PodInfo,
    /// The nodes the terms name; `None` when some term names none.
    names: Option<BTreeSet<&'a str>>,
}

pub fn filter<'a>(pod: &'a PodInfo, _: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    let terms = required_terms(&pod.pod.spec);
    if terms.is_none() && pod.pod.spec.node_selector.is_empty() {
        return None;
    }
    let names = terms.filter(|terms| !terms.is_empty()).and_then(named_nodes);
    Some(Box::new(Required { pod, names }))
}

/// DaemonSet pods name their node in each term; the union over the terms is all that can match.
fn named_nodes(terms: &[NodeSelectorTerm]) -> Option<BTreeSet<&str>> {
    let mut names = BTreeSet::new();
    for term in terms {
        let named = |r: &&api::view::core::NodeSelectorRequirement| r.key == NAME_FIELD && r.operator == "In";
        let sets = term.match_fields.iter().filter(named);
        let sets = sets.map(|r| r.values.iter().map(String::as_str).collect::<BTreeSet<_>>());
        names.extend(sets.reduce(|all, set| &all & &set)?);
    }
    Some(names)
}

impl Filter for Required<'_> {
    fn refuses_all(&self) -> Option<Cow<'static, str>> {
        self.names.as_ref().is_some_and(BTreeSet::is_empty).then_some(REASON_CONFLICT.into())
    }

    fn candidates(&self) -> Option<Vec<&str>> {
        self.names.as_ref().map(|names| names.iter().copied().collect())
    }

    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let matches = matches_required(&self.pod.pod.spec, &node.node);
        if matches { Ok(()) } else { Err(Rejection::unresolvable(REASON)) }
    }
}

struct Preferred<'a>(&'a [PreferredSchedulingTerm]);

pub fn score<'a>(pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
    let affinity = pod.pod.spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let terms = affinity.preferred_during_scheduling_ignored_during_execution.as_slice();
    (!terms.is_empty()).then(|| Box::new(Preferred(terms)) as _)
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let matching = self.0.iter().filter(|term| matches_term(&term.preference, &node.node));
        matching.map(|term| i64::from(term.weight)).sum()
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        normalize(scores, false);
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use crate::testing::{check_filter, check_scores, node_info, pod_info};

    fn node() -> Value {
        json!({"metadata": {"name": "n", "labels": {"disk": "ssd", "cores": "8"}}})
    }

    fn required(terms: Value) -> Value {
        let selector = json!({"nodeSelectorTerms": terms});
        json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}}})
    }

    fn expression(key: &str, operator: &str, values: &[&str]) -> Value {
        json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]})
    }

    #[test]
    fn the_node_selector_must_hold() {
        let reason = Err("node(s) didn't match Pod's node affinity/selector");
        check_filter(super::filter, json!({"nodeSelector": {"disk": "ssd"}}), node(), Ok(()));
        check_filter(super::filter, json!({"nodeSelector": {"disk": "hdd"}}), node(), reason);
    }

    #[test]
    fn one_of_the_required_terms_must_hold() {
        let check = |terms, fits: bool| {
            let reason = "node(s) didn't match Pod's node affinity/selector";
            check_filter(super::filter, required(terms), node(), if fits { Ok(()) } else { Err(reason) });
        };
        check(json!([expression("disk", "In", &["hdd", "ssd"])]), true);
        check(json!([expression("disk", "NotIn", &["ssd"])]), false);
        check(json!([expression("disk", "NotIn", &["ssd"]), expression("disk", "Exists", &[])]), true);
        check(json!([expression("gpu", "DoesNotExist", &[])]), true);
        check(json!([expression("cores", "Gt", &["4"])]), true);
        check(json!([expression("cores", "Lt", &["8"])]), false);
        check(json!([expression("disk", "Gt", &["4"])]), false);
        check(json!([{}]), false);
        check(json!([]), false);
    }

    #[test]
    fn terms_that_name_nodes_narrow_the_search() {
        let field = |names: &[&str]| json!({"key": "metadata.name", "operator": "In", "values": names});
        let term = |fields: Value| json!({"matchFields": fields});
        let check = |terms, expect: Option<Vec<&str>>| {
            let (pod, snapshot) = (pod_info(required(terms)), crate::snapshot::Snapshot::default());
            let filter = super::filter(&pod, &snapshot).unwrap();
            assert_eq!(filter.candidates(), expect);
            assert_eq!(filter.refuses_all().is_some(), expect.is_some_and(|names| names.is_empty()));
        };
        check(json!([term(json!([field(&["b"])])), term(json!([field(&["a"])]))]), Some(vec!["a", "b"]));
        check(json!([term(json!([field(&["a"]), field(&["b"])]))]), Some(vec![]));
        check(json!([term(json!([field(&["a"])])), expression("disk", "Exists", &[])]), None);
        assert!(super::filter(&pod_info(json!({})), &Default::default()).is_none());
        assert_eq!(node_info(node()).name(), "n");
    }

    #[test]
    fn preferred_terms_add_their_weights() {
        let preferred = json!([
            {"weight": 10, "preference": expression("disk", "In", &["ssd"])},
            {"weight": 30, "preference": expression("zone", "Exists", &[])},
        ]);
        let spec = json!({"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}});
        let zoned = json!({"metadata": {"labels": {"zone": "z", "disk": "ssd"}}});
        check_scores(super::score, spec, &[node(), zoned, json!({})], &[25, 100, 0]);
    }
}
