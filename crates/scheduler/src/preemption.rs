//! Preemption: which pods of lower priority would have to go so that a pod fits (upstream:
//! DefaultPreemption and its Evaluator). Disruption budgets are not consulted.

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
            Ok(victims) => candidates.push(Preemption { node: node.name().to_owned(), victims }),
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
fn select_victims(
    pod: &PodInfo,
    node: &NodeInfo,
    snapshot: &Snapshot,
) -> Result<Vec<Arc<PodInfo>>, Rejection> {
    let mut potential: Vec<_> =
        node.pods.iter().filter(|other| other.priority() < pod.priority()).cloned().collect();
    if potential.is_empty() {
        return Err(Rejection::unresolvable(NO_VICTIMS));
    }
    let mut reduced = node.clone();
    potential.iter().for_each(|victim| reduced.remove_pod(victim.uid()));
    fits(pod, &reduced, snapshot)?;
    potential.sort_by_key(|victim| importance(victim));
    let mut victims = Vec::new();
    for victim in potential {
        let mut with = reduced.clone();
        with.add_pod(victim.clone());
        if fits(pod, &with, snapshot).is_ok() {
            reduced = with;
        } else {
            victims.push(victim);
        }
    }
    Ok(victims)
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

/// Less is better: the lowest of the highest victims, the smallest sum of priorities, the fewest
/// victims, the latest start of the highest (upstream: pickOneNodeForPreemption).
fn cost(candidate: &Preemption) -> (i32, i64, usize, Reverse<Timestamp>) {
    let highest = candidate.victims.iter().map(|victim| victim.priority()).max().unwrap_or(i32::MIN);
    // Shifted so that one victim of negative priority is not better than none.
    let sum =
        candidate.victims.iter().map(|victim| i64::from(victim.priority()) + i64::from(i32::MAX) + 1).sum();
    let top = candidate.victims.iter().filter(|victim| victim.priority() == highest);
    let earliest = top.map(|victim| started(victim)).min().unwrap_or(Timestamp::MAX);
    (highest, sum, candidate.victims.len(), Reverse(earliest))
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
