//! Preemption: which pods of lower priority would have to go so that a pod fits (upstream:
//! DefaultPreemption and its Evaluator).

use std::cmp::Reverse;
use std::sync::Arc;

use jiff::Timestamp;

use crate::diagnosis::Diagnosis;
use crate::framework::Rejection;
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::schedule::Filters;
use crate::snapshot::Snapshot;

const NAME: &str = "DefaultPreemption";
const NOT_HELPFUL: &str = "Preemption is not helpful for scheduling";
const NO_VICTIMS: &str = "No preemption victims found for incoming pod";
const NEVER: &str = "not eligible due to preemptionPolicy=Never.";
const TERMINATING: &str = "not eligible due to a terminating pod on the nominated node.";

/// Pods to remove from a node.
#[derive(Debug)]
pub struct Preemption {
    pub node: String,
    /// The most important first.
    pub victims: Vec<Arc<PodInfo>>,
    /// How many of them a disruption budget would keep.
    violations: usize,
}

/// What to remove so that the pod fits, or the message that says why nothing helps.
pub fn preempt(pod: &PodInfo, snapshot: &Snapshot, failure: &Diagnosis) -> Result<Preemption, String> {
    match find(pod, snapshot, failure) {
        Ok(preemption) => Ok(preemption),
        Err(message) => Err(format!("preemption: {message}")),
    }
}

fn find(pod: &PodInfo, snapshot: &Snapshot, failure: &Diagnosis) -> Result<Preemption, String> {
    if let Some(message) = ineligibility(pod, snapshot, failure) {
        return Err(message.to_owned());
    }
    let mut diagnosis = Diagnosis { nodes_total: snapshot.nodes.len(), ..Diagnosis::default() };
    let mut candidates = Vec::new();
    for node in &snapshot.nodes {
        let helpful = failure.nodes.get(node.name()).is_some_and(|(_, rejection)| rejection.resolvable);
        let result = if helpful {
            select_victims(pod, node, snapshot)
        } else {
            Err(Rejection::unresolvable(NOT_HELPFUL))
        };
        match result {
            Ok(preemption) => candidates.push(preemption),
            Err(rejection) => drop(diagnosis.nodes.insert(node.name().to_owned(), (NAME, rejection))),
        }
    }
    candidates.into_iter().min_by_key(cost).ok_or_else(|| diagnosis.message())
}

/// Why the pod may not preempt at all (upstream: PodEligibleToPreemptOthers).
fn ineligibility(pod: &PodInfo, snapshot: &Snapshot, failure: &Diagnosis) -> Option<&'static str> {
    if pod.pod.spec.preemption_policy.as_deref() == Some("Never") {
        return Some(NEVER);
    }
    let nominated = &pod.pod.status.nominated_node_name;
    let hopeless = failure.nodes.get(nominated).is_some_and(|(_, rejection)| !rejection.resolvable);
    let leaving =
        |other: &Arc<PodInfo>| other.pod.metadata.is_being_deleted() && other.priority() < pod.priority();
    let waits = !hopeless && snapshot.node(nominated).is_some_and(|node| node.pods.iter().any(leaving));
    waits.then_some(TERMINATING)
}

/// The fewest and least important pods of one node that must go (upstream: SelectVictimsOnNode).
fn select_victims(pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) -> Result<Preemption, Rejection> {
    let mut potential: Vec<_> =
        node.pods.iter().filter(|other| other.priority() < pod.priority()).cloned().collect();
    if potential.is_empty() {
        return Err(Rejection::unresolvable(NO_VICTIMS));
    }
    let mut reduced = node.clone();
    potential.iter().for_each(|victim| reduced.remove_pod(victim.uid()));
    fits(pod, &reduced, snapshot)?;
    potential.sort_by_key(|victim| importance(victim));
    let (protected, others) = by_budgets(potential, snapshot);
    let (mut victims, mut violations) = (Vec::new(), 0);
    for (victim, is_protected) in with(protected, true).chain(with(others, false)) {
        let mut back = reduced.clone();
        back.add_pod(victim.clone());
        if fits(pod, &back, snapshot).is_ok() {
            reduced = back;
        } else {
            victims.push(victim);
            violations += usize::from(is_protected);
        }
    }
    victims.sort_by_key(|victim| importance(victim));
    Ok(Preemption { node: node.name().to_owned(), victims, violations })
}

type Pods = Vec<Arc<PodInfo>>;

fn with(pods: Pods, is_protected: bool) -> impl Iterator<Item = (Arc<PodInfo>, bool)> {
    pods.into_iter().map(move |pod| (pod, is_protected))
}

/// Parts the pods whose eviction would break a disruption budget, after those before them have gone, from the others
/// (upstream: `filterPodsWithPDBViolation`).
fn by_budgets(pods: Pods, snapshot: &Snapshot) -> (Pods, Pods) {
    let mut budgets: Vec<_> = snapshot
        .workloads
        .budgets()
        .filter(|budget| budget.spec.selector.as_ref().is_some_and(|selector| !selector.is_empty()))
        .map(|budget| (budget, budget.status.disruptions_allowed))
        .collect();
    pods.into_iter().partition(|pod| {
        let metadata = &pod.pod.metadata;
        let mut is_protected = false;
        for (budget, allowed) in &mut budgets {
            let is_going = budget.status.disrupted_pods.contains_key(&metadata.name);
            if !metadata.labels.is_empty() && budget.selects(metadata) && !is_going {
                *allowed -= 1;
                is_protected |= *allowed < 0;
            }
        }
        is_protected
    })
}

fn fits(pod: &PodInfo, node: &NodeInfo, snapshot: &Snapshot) -> Result<(), Rejection> {
    let other = snapshot.with_node(node.clone());
    Filters::new(pod, &other).check(node).map_err(|(_, rejection)| rejection)
}

/// The more important pod is less: higher priority, then longer running (upstream: MoreImportantPod).
fn importance(pod: &PodInfo) -> (Reverse<i32>, Timestamp) {
    (Reverse(pod.priority()), started(pod))
}

fn started(pod: &PodInfo) -> Timestamp {
    pod.pod.status.start_time.unwrap_or(Timestamp::MAX)
}

/// Less is better: the fewest broken disruption budgets, the lowest of the highest victims, the smallest sum of priorities, the fewest
/// victims, the latest start of the highest (upstream: pickOneNodeForPreemption).
fn cost(candidate: &Preemption) -> (usize, i32, i64, usize, Reverse<Timestamp>) {
    let highest = candidate.victims.iter().map(|victim| victim.priority()).max().unwrap_or(i32::MIN);
    // Shifted so that one victim of negative priority is not better than none.
    let sum =
        candidate.victims.iter().map(|victim| i64::from(victim.priority()) + i64::from(i32::MAX) + 1).sum();
    let top = candidate.victims.iter().filter(|victim| victim.priority() == highest);
    let earliest = top.map(|victim| started(victim)).min().unwrap_or(Timestamp::MAX);
    (candidate.violations, highest, sum, candidate.victims.len(), Reverse(earliest))
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;
    use crate::cache::Cache;
    use crate::schedule::schedule;
    use crate::testing::{labelled_pod, node};

    fn prioritized(name: &str, priority: i32, cpu: &str) -> Arc<PodInfo> {
        let containers = json!([{"resources": {"requests": {"cpu": cpu}}}]);
        labelled_pod(name, json!({}), json!({"priority": priority, "containers": containers}))
    }

    /// Nodes of 4 CPUs with these pods: (name, priority, CPU).
    fn check(nodes: &[&[(&str, i32, &str)]], pod: &PodInfo, expect: Result<(&str, &[&str]), &str>) {
        let mut cache = Cache::default();
        for (n, pods) in nodes.iter().enumerate() {
            let name = format!("n{n}");
            cache.set_node(&node(&name, json!({"cpu": "4"})).node);
            for (pod, priority, cpu) in *pods {
                cache.set_pod(prioritized(pod, *priority, cpu), &name);
            }
        }
        let snapshot = cache.snapshot();
        let failure = schedule(pod, &snapshot, &[]).unwrap_err();
        let result = preempt(pod, &snapshot, &failure);
        let result = result.as_ref().map_err(String::as_str);
        let names = |preemption: &Preemption| -> (String, Vec<String>) {
            let victims = preemption.victims.iter().map(|victim| victim.uid().to_owned());
            (preemption.node.clone(), victims.collect())
        };
        let expect = expect.map(|(node, victims)| {
            (node.to_owned(), victims.iter().map(ToString::to_string).collect::<Vec<_>>())
        });
        assert_eq!(result.map(names), expect);
    }

    #[test]
    fn the_fewest_and_least_important_pods_go() {
        let full: &[_] = &[("a", 1, "1"), ("b", 2, "2"), ("c", 0, "1")];
        check(&[full], &prioritized("p", 10, "1"), Ok(("n0", &["c"])));
        check(&[full], &prioritized("p", 10, "2"), Ok(("n0", &["a", "c"])));
    }

    #[test]
    fn the_node_with_the_least_important_victims_is_taken() {
        check(&[&[("a", 5, "4")], &[("b", 3, "4")]], &prioritized("p", 10, "4"), Ok(("n1", &["b"])));
        check(
            &[&[("a", 3, "2"), ("b", 3, "2")], &[("c", 3, "4")]],
            &prioritized("p", 10, "4"),
            Ok(("n1", &["c"])),
        );
    }

    #[test]
    fn pods_that_a_disruption_budget_keeps_go_last() {
        let mut cache = Cache::default();
        let budget = json!({"metadata": {"name": "b", "namespace": "default"}, "spec": {"selector": {"matchLabels": {"a": "b"}}}});
        let budget = Arc::new(apimachinery::from_value(budget).unwrap());
        cache.workloads().apply(&crate::workloads::Change::Budget(client::Delta::Added(budget)));
        let containers = || json!([{"resources": {"requests": {"cpu": "4"}}}]);
        for (name, labels, priority) in [("kept", json!({"a": "b"}), 1), ("other", json!({}), 5)] {
            let on = format!("node-of-{name}");
            cache.set_node(&node(&on, json!({"cpu": "4"})).node);
            cache.set_pod(
                labelled_pod(name, labels, json!({"priority": priority, "containers": containers()})),
                &on,
            );
        }
        let pod = prioritized("p", 10, "4");
        let snapshot = cache.snapshot();
        let failure = schedule(&pod, &snapshot, &[]).unwrap_err();
        assert_eq!(preempt(&pod, &snapshot, &failure).unwrap().node, "node-of-other");
    }

    #[test]
    fn what_does_not_help_is_said() {
        let none = "preemption: 0/1 nodes are available: 1 No preemption victims found for incoming pod.";
        check(&[&[("a", 10, "4")]], &prioritized("p", 10, "1"), Err(none));
        let unhelpful = "preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
        check(&[&[("a", 1, "4")]], &prioritized("p", 10, "5"), Err(unhelpful));
        let still = "preemption: 0/1 nodes are available: 1 Insufficient cpu.";
        check(&[&[("a", 1, "1"), ("b", 10, "3")]], &prioritized("p", 10, "2"), Err(still));
    }

    #[test]
    fn a_pod_that_must_not_preempt_does_not() {
        let spec: Value = json!({"priority": 10, "preemptionPolicy": "Never",
            "containers": [{"resources": {"requests": {"cpu": "4"}}}]});
        let message = "preemption: not eligible due to preemptionPolicy=Never.";
        check(&[&[("a", 1, "4")]], &labelled_pod("p", json!({}), spec), Err(message));
    }
}
