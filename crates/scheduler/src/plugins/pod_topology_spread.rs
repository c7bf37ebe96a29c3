//! PodTopologySpread: keeps alike pods spread evenly over zones, nodes or other domains.

use std::collections::{BTreeMap, BTreeSet};

use api::view::core::nodeselector::matches_required;
use api::view::core::{Pod, TopologySpreadConstraint};
use apimachinery::meta::{LabelSelector, StringMap};

use super::taint_toleration::has_untolerated_taint;
use crate::framework::{Filter, MAX_NODE_SCORE, Rejection, Score};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::{PodInfo, add_own_labels};
use crate::snapshot::Snapshot;

const REASON: &str = "node(s) didn't match pod topology spread constraints";
const REASON_LABEL: &str = "node(s) didn't match pod topology spread constraints (missing required label)";
const HOSTNAME: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";

/// One constraint of the incoming pod, with defaults applied.
struct Constraint<'a> {
    max_skew: i64,
    topology_key: &'a str,
    /// `None` selects nothing.
    selector: Option<LabelSelector>,
    min_domains: usize,
    honours_affinity: bool,
    honours_taints: bool,
}

impl<'a> Constraint<'a> {
    fn new(pod: &Pod, constraint: &'a TopologySpreadConstraint) -> Self {
        let mut selector = constraint.label_selector.clone();
        if let Some(selector) = &mut selector {
            add_own_labels(selector, pod, &constraint.match_label_keys, "In");
        }
        Constraint {
            max_skew: i64::from(constraint.max_skew),
            topology_key: &constraint.topology_key,
            selector,
            min_domains: usize::try_from(constraint.min_domains.unwrap_or(1)).unwrap_or(1),
            honours_affinity: constraint.node_affinity_policy.as_deref() != Some("Ignore"),
            honours_taints: constraint.node_taints_policy.as_deref() == Some("Honor"),
        }
    }

    fn selects(&self, labels: &StringMap) -> bool {
        self.selector.as_ref().is_some_and(|selector| selector.matches(labels))
    }

    /// Whether the node's pods and its domain count.
    fn includes(&self, pod: &PodInfo, node: &NodeInfo) -> bool {
        (!self.honours_affinity || matches_required(&pod.pod.spec, &node.node))
            && (!self.honours_taints || !has_untolerated_taint(node, pod.tolerations()))
    }

    /// Pods on the node that are alike. An empty selector counts none, as upstream.
    fn count(&self, node: &NodeInfo, namespace: &str) -> i64 {
        if self.selector.as_ref().is_none_or(LabelSelector::is_empty) {
            return 0;
        }
        let alike = |pod: &&std::sync::Arc<PodInfo>| {
            let metadata = &pod.pod.metadata;
            metadata.namespace == namespace && !metadata.is_being_deleted() && self.selects(&metadata.labels)
        };
        node.pods.iter().filter(alike).count() as i64
    }
}

fn constraints<'a>(pod: &'a PodInfo, when_unsatisfiable: &str) -> Vec<Constraint<'a>> {
    let all = pod.pod.spec.topology_spread_constraints.iter();
    let chosen = all.filter(|constraint| constraint.when_unsatisfiable == when_unsatisfiable);
    chosen.map(|constraint| Constraint::new(&pod.pod, constraint)).collect()
}

/// Pods that say nothing of it are spread over nodes and zones (upstream: `systemDefaultConstraints`).
const DEFAULTS: [(&str, i64); 2] = [(HOSTNAME, 3), (ZONE, 5)];

fn default_constraints(pod: &PodInfo, snapshot: &Snapshot) -> Vec<Constraint<'static>> {
    let Some(selector) = snapshot.workloads.alike(&pod.pod) else { return Vec::new() };
    let constraint = |(topology_key, max_skew)| Constraint {
        max_skew,
        topology_key,
        selector: Some(selector.clone()),
        min_domains: 1,
        honours_affinity: true,
        honours_taints: false,
    };
    DEFAULTS.into_iter().map(constraint).collect()
}

fn has_all_keys(node: &NodeInfo, constraints: &[Constraint]) -> bool {
    constraints.iter().all(|constraint| node.labels().contains_key(constraint.topology_key))
}

/// A constraint with the number of alike pods in each domain.
struct Counted<'a> {
    constraint: Constraint<'a>,
    domains: BTreeMap<&'a str, i64>,
    /// 1 when the incoming pod is itself alike.
    own: i64,
}

impl Counted<'_> {
    fn min(&self) -> i64 {
        if self.domains.len() < self.constraint.min_domains {
            return 0;
        }
        self.domains.values().copied().min().unwrap_or(i64::from(i32::MAX))
    }
}

struct Hard<'a>(Vec<Counted<'a>>);

pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    let constraints = constraints(pod, "DoNotSchedule");
    if constraints.is_empty() {
        return None;
    }
    let nodes: Vec<_> = snapshot.nodes.iter().filter(|node| has_all_keys(node, &constraints)).collect();
    let counted = constraints.into_iter().map(|constraint| {
        let mut domains = BTreeMap::new();
        for node in nodes.iter().filter(|node| constraint.includes(pod, node)) {
            let domain = node.labels()[constraint.topology_key].as_str();
            *domains.entry(domain).or_insert(0) += constraint.count(node, pod.namespace());
        }
        let own = i64::from(constraint.selects(&pod.pod.metadata.labels));
        Counted { constraint, domains, own }
    });
    Some(Box::new(Hard(counted.collect())))
}

impl Filter for Hard<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        for counted in &self.0 {
            let Some(domain) = node.labels().get(counted.constraint.topology_key) else {
                return Err(Rejection::unresolvable(REASON_LABEL));
            };
            let alike = counted.domains.get(domain.as_str()).copied().unwrap_or(0);
            if alike + counted.own - counted.min() > counted.constraint.max_skew {
                return Err(Rejection::resolvable(REASON));
            }
        }
        Ok(())
    }
}

/// The node's value of the constraint's key; nodes without one are a domain of their own.
fn domain<'a>(node: &'a NodeInfo, constraint: &Constraint) -> &'a str {
    node.labels().get(constraint.topology_key).map_or("", String::as_str)
}

struct Soft<'a> {
    namespace: &'a str,
    /// With its weight, and for other keys than the host name the pods of each domain.
    constraints: Vec<(Constraint<'a>, f64, BTreeMap<&'a str, i64>)>,
    /// Nodes that lack a key.
    ignored: BTreeSet<&'a str>,
}

pub fn score<'a>(
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    feasible: &[&'a NodeInfo],
) -> Option<Box<dyn Score + 'a>> {
    let is_defaulted = pod.pod.spec.topology_spread_constraints.is_empty();
    let constraints =
        if is_defaulted { default_constraints(pod, snapshot) } else { constraints(pod, "ScheduleAnyway") };
    if constraints.is_empty() {
        return None;
    }
    // By default, nodes without a zone are still spread over.
    let counts = |node: &NodeInfo| is_defaulted || has_all_keys(node, &constraints);
    let (counting, lacking): (Vec<&NodeInfo>, Vec<_>) = feasible.iter().partition(|node| counts(node));
    let all: Vec<_> = snapshot.nodes.iter().filter(|node| counts(node)).collect();
    let weighted = constraints.into_iter().map(|constraint| {
        let mut domains = BTreeMap::new();
        if constraint.topology_key != HOSTNAME {
            domains.extend(counting.iter().map(|node| (domain(node, &constraint), 0)));
        }
        for node in all.iter().filter(|node| constraint.includes(pod, node)) {
            if let Some(count) = domains.get_mut(domain(node, &constraint)) {
                *count += constraint.count(node, pod.namespace());
            }
        }
        let size = if constraint.topology_key == HOSTNAME { counting.len() } else { domains.len() };
        // The more domains, the less a difference of one pod matters (upstream: topologyNormalizingWeight).
        (constraint, ((size + 2) as f64).ln(), domains)
    });
    let constraints = weighted.collect();
    let ignored = lacking.iter().map(|node| node.name()).collect();
    Some(Box::new(Soft { namespace: pod.namespace(), constraints, ignored }))
}

impl Score for Soft<'_> {
    /// The weighted number of alike pods; fewer are better.
    fn score(&self, node: &NodeInfo) -> i64 {
        if self.ignored.contains(node.name()) {
            return 0;
        }
        let has_key = |constraint: &Constraint| node.labels().contains_key(constraint.topology_key);
        let constraints = self.constraints.iter().filter(|(constraint, ..)| has_key(constraint));
        let scores = constraints.map(|(constraint, weight, domains)| {
            let count = if constraint.topology_key == HOSTNAME {
                constraint.count(node, self.namespace)
            } else {
                domains.get(domain(node, constraint)).copied().unwrap_or(0)
            };
            count as f64 * weight + (constraint.max_skew - 1) as f64
        });
        scores.sum::<f64>().round() as i64
    }

    fn normalize(&self, nodes: &[&NodeInfo], scores: &mut [i64]) {
        let counting = |(node, _): &(&&NodeInfo, &i64)| !self.ignored.contains(node.name());
        let counted = || nodes.iter().zip(scores.iter()).filter(counting).map(|(_, score)| *score);
        let (min, max) = (counted().min().unwrap_or(0), counted().max().unwrap_or(0));
        for (node, score) in nodes.iter().zip(scores.iter_mut()) {
            *score = match (self.ignored.contains(node.name()), max) {
                (true, _) => 0,
                (false, 0) => MAX_NODE_SCORE,
                (false, max) => MAX_NODE_SCORE * (max + min - *score) / max,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use crate::testing::{check_feasible, check_scores_in, cluster, labelled_pod};

    /// Zones `a` and `b` of two nodes each, with this many pods labelled `app=web` on each node.
    fn zones(pods: [usize; 4]) -> crate::snapshot::Snapshot {
        let nodes = [("a1", "a"), ("a2", "a"), ("b1", "b"), ("b2", "b")];
        cluster(nodes.iter().zip(pods).map(|((name, zone), pods)| {
            let labels = json!({"zone": zone, "kubernetes.io/hostname": name});
            let pods =
                (0..pods).map(|n| labelled_pod(&format!("{name}-{n}"), json!({"app": "web"}), json!({})));
            (json!({"metadata": {"name": name, "labels": labels}}), pods.collect())
        }))
    }

    fn spread(key: &str, skew: i32, when: &str) -> Value {
        let selector = json!({"matchLabels": {"app": "web"}});
        json!({"topologySpreadConstraints":
            [{"topologyKey": key, "maxSkew": skew, "whenUnsatisfiable": when, "labelSelector": selector}]})
    }

    #[test]
    fn a_domain_may_lead_by_the_skew_and_no_more() {
        let check = |pods, key, skew, feasible: &[&str]| {
            let pod = labelled_pod("p", json!({"app": "web"}), spread(key, skew, "DoNotSchedule"));
            check_feasible(super::filter, &pod, &zones(pods), feasible);
        };
        check([1, 0, 0, 0], "zone", 1, &["b1", "b2"]);
        check([1, 0, 0, 0], "zone", 2, &["a1", "a2", "b1", "b2"]);
        check([1, 0, 0, 0], "kubernetes.io/hostname", 1, &["a2", "b1", "b2"]);
        check([1, 0, 0, 0], "rack", 1, &[]);
    }

    #[test]
    fn with_fewer_domains_than_asked_for_the_minimum_is_zero() {
        let mut spec = spread("zone", 1, "DoNotSchedule");
        spec["topologySpreadConstraints"][0]["minDomains"] = 3.into();
        let pod = labelled_pod("p", json!({"app": "web"}), spec);
        check_feasible(super::filter, &pod, &zones([1, 0, 1, 0]), &[]);
    }

    #[test]
    fn pods_of_one_owner_are_spread_without_asking_for_it() {
        let mut snapshot = zones([2, 0, 0, 0]);
        let mut workloads = crate::workloads::Workloads::default();
        let service: api::view::core::Service = apimachinery::from_value(
            json!({"metadata": {"name": "s", "namespace": "default"}, "spec": {"selector": {"app": "web"}}}),
        )
        .expect("a Service");
        let added = client::Delta::Added(std::sync::Arc::new(service));
        workloads.apply(&crate::workloads::Change::Service(added));
        snapshot.workloads = std::sync::Arc::new(workloads);
        let pod = labelled_pod("p", json!({"app": "web"}), json!({}));
        check_scores_in(super::score, &pod, &snapshot, &[33, 100, 100, 100]);
        let other = labelled_pod("p", json!({"app": "other"}), json!({}));
        let nodes: Vec<_> = snapshot.nodes.iter().map(|node| &**node).collect();
        assert!(super::score(&other, &snapshot, &nodes).is_none());
    }

    #[test]
    fn emptier_domains_are_better() {
        let pod = labelled_pod("p", json!({"app": "web"}), spread("zone", 1, "ScheduleAnyway"));
        check_scores_in(super::score, &pod, &zones([2, 0, 1, 0]), &[33, 33, 100, 100]);
    }
}
