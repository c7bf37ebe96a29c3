//! One decision: filter the nodes, score those that are left, take the best (upstream: schedulePod).

use std::borrow::Cow;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::diagnosis::Diagnosis;
use crate::framework::{Filter, Rejection};
use crate::nodeinfo::NodeInfo;
use crate::plugins::PLUGINS;
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;

/// A pod that waits for victims to leave the node it was promised.
#[derive(Clone, Debug)]
pub struct Nominated {
    pub node: String,
    pub pod: Arc<PodInfo>,
}

/// The filters that have a say on one pod.
pub struct Filters<'a>(Vec<(&'static str, Box<dyn Filter + 'a>)>);

impl<'a> Filters<'a> {
    pub fn new(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Self {
        let prepared =
            PLUGINS.iter().filter_map(|plugin| Some((plugin.name, plugin.filter?(pod, snapshot)?)));
        Filters(prepared.collect())
    }

    /// The first refusal, with the plugin it comes from.
    pub fn check(&self, node: &NodeInfo) -> Result<(), (&'static str, Rejection)> {
        self.0
            .iter()
            .try_for_each(|(name, filter)| filter.filter(node).map_err(|rejection| (*name, rejection)))
    }

    fn refusal(&self) -> Option<(&'static str, Cow<'static, str>)> {
        self.0.iter().find_map(|(name, filter)| Some((*name, filter.refuses_all()?)))
    }

    /// The nodes in question, and who narrowed them down; `None` means all.
    fn candidates(&self) -> Option<(Vec<&str>, Vec<&'static str>)> {
        let narrowed = self.0.iter().filter_map(|(name, filter)| Some((filter.candidates()?, vec![*name])));
        narrowed.reduce(|(mut nodes, mut plugins), (others, other_plugins)| {
            nodes.retain(|node| others.contains(node));
            plugins.extend(other_plugins);
            (nodes, plugins)
        })
    }
}

/// The name of the best node for the pod, or why there is none. `nominated` are the pods that others'
/// nodes are promised to; those of lower priority are passed over.
pub fn schedule(pod: &PodInfo, snapshot: &Snapshot, nominated: &[Nominated]) -> Result<String, Diagnosis> {
    let feasible = find_feasible(pod, snapshot, nominated)?;
    if let [only] = feasible.as_slice() {
        return Ok(only.name().to_owned());
    }
    let scores = score(pod, snapshot, &feasible);
    let best = scores.iter().copied().max().unwrap_or(0);
    let equal: Vec<_> = feasible.iter().zip(&scores).filter(|(_, score)| **score == best).collect();
    Ok(equal[choice(pod.uid(), equal.len())].0.name().to_owned())
}

fn find_feasible<'a>(
    pod: &PodInfo,
    snapshot: &'a Snapshot,
    nominated: &[Nominated],
) -> Result<Vec<&'a NodeInfo>, Diagnosis> {
    let filters = Filters::new(pod, snapshot);
    let mut diagnosis = Diagnosis { nodes_total: snapshot.nodes.len(), ..Diagnosis::default() };
    if let Some(refusal) = filters.refusal() {
        diagnosis.refused = Some(refusal);
        return Err(diagnosis);
    }
    // As upstream, a node must do with the promised pods on it and without: they may add as well as take.
    let promised = with_nominated(pod, snapshot, nominated);
    let promised_filters = promised.as_ref().map(|snapshot| (snapshot, Filters::new(pod, snapshot)));
    let candidates = filters.candidates();
    let nodes: Vec<&NodeInfo> = match &candidates {
        None => snapshot.nodes.iter().map(|node| &**node).collect(),
        Some((names, _)) => names.iter().filter_map(|name| snapshot.node(name)).map(|node| &**node).collect(),
    };
    let mut feasible = Vec::new();
    for node in nodes {
        let alone = filters.check(node);
        let result = alone.and_then(|()| match &promised_filters {
            Some((snapshot, filters)) => {
                snapshot.node(node.name()).map_or(Ok(()), |node| filters.check(node))
            }
            None => Ok(()),
        });
        match result {
            Ok(()) => feasible.push(node),
            Err(rejected) => drop(diagnosis.nodes.insert(node.name().to_owned(), rejected)),
        }
    }
    diagnosis.narrowed_by = candidates.map(|(_, plugins)| plugins).unwrap_or_default();
    if feasible.is_empty() { Err(diagnosis) } else { Ok(feasible) }
}

/// The moment with the promised pods of at least the pod's own priority on their nodes; `None` when
/// that makes no difference.
fn with_nominated(pod: &PodInfo, snapshot: &Snapshot, nominated: &[Nominated]) -> Option<Snapshot> {
    let mut other: Option<Snapshot> = None;
    for promise in nominated {
        if promise.pod.uid() == pod.uid() || promise.pod.priority() < pod.priority() {
            continue;
        }
        let base = other.as_ref().unwrap_or(snapshot);
        let Some(node) = base.node(&promise.node) else { continue };
        let mut node = NodeInfo::clone(node);
        node.add_pod(promise.pod.clone());
        other = Some(base.with_node(node));
    }
    other
}

/// The weighted sum of all plugins' scores, in the order of `feasible`.
fn score(pod: &PodInfo, snapshot: &Snapshot, feasible: &[&NodeInfo]) -> Vec<i64> {
    let mut sums = vec![0; feasible.len()];
    for weighted in PLUGINS.iter().filter_map(|plugin| plugin.score.as_ref()) {
        let Some(plugin) = (weighted.prepare)(pod, snapshot, feasible) else { continue };
        let mut scores: Vec<i64> = feasible.iter().map(|node| plugin.score(node)).collect();
        plugin.normalize(feasible, &mut scores);
        sums.iter_mut().zip(scores).for_each(|(sum, score)| *sum += weighted.weight * score);
    }
    sums
}

/// One of `count` equals. Upstream draws lots; the pod's UID is as good, and repeatable.
fn choice(uid: &str, count: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    uid.hash(&mut hasher);
    (hasher.finish() % count as u64) as usize
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};
    use proptest::prelude::*;

    use super::*;
    use crate::cache::Cache;
    use crate::testing::{cluster, labelled_pod, node, pod};

    fn nodes(cpus: &[&str]) -> Cache {
        let mut cache = Cache::default();
        for (n, cpu) in cpus.iter().enumerate() {
            cache.set_node(&node(&format!("n{n}"), json!({"cpu": cpu, "memory": "8Gi"})).node);
        }
        cache
    }

    fn check(cpus: &[&str], requests: Value, expect: Result<&str, &str>) {
        let result = schedule(&pod("p", requests), &nodes(cpus).snapshot(), &[]);
        let result = result.map_err(|diagnosis| diagnosis.message());
        assert_eq!(
            result.as_deref().map_err(String::as_str),
            expect.as_ref().map(|name| *name).map_err(|m| *m)
        );
    }

    #[test]
    fn a_pod_goes_where_it_fits_and_rather_where_there_is_more_room() {
        check(&["1", "4"], json!({"cpu": "2"}), Ok("n1"));
        check(&["8", "4"], json!({"cpu": "2", "memory": "4Gi"}), Ok("n0"));
        check(&["1"], json!({"cpu": "2"}), Err("0/1 nodes are available: 1 Insufficient cpu."));
        check(&[], json!({}), Err("no nodes available to schedule pods"));
    }

    #[test]
    fn a_pod_that_names_its_node_in_its_affinity_looks_at_no_other() {
        let field = json!({"key": "metadata.name", "operator": "In", "values": ["n0"]});
        let selector = json!({"nodeSelectorTerms": [{"matchFields": [field]}]});
        let mut spec = json!({"containers": [{"resources": {"requests": {"cpu": "2"}}}]});
        spec["affinity"] =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": selector}});
        let diagnosis = schedule(&labelled_pod("p", json!({}), spec), &nodes(&["1", "4"]).snapshot(), &[]);
        let diagnosis = diagnosis.unwrap_err();
        let expect =
            "0/2 nodes are available: 1 Insufficient cpu, 1 node(s) didn't satisfy plugin(s) [NodeAffinity].";
        assert_eq!(diagnosis.message(), expect);
        assert_eq!(diagnosis.rejectors(), ["NodeAffinity", "NodeResourcesFit"]);
    }

    #[test]
    fn a_promised_node_is_kept_from_pods_of_no_higher_priority() {
        let snapshot = nodes(&["2"]).snapshot();
        let priority = |name: &str, priority: i32| {
            let spec =
                json!({"priority": priority, "containers": [{"resources": {"requests": {"cpu": "2"}}}]});
            labelled_pod(name, json!({}), spec)
        };
        let promise = [Nominated { node: "n0".into(), pod: priority("promised", 5) }];
        assert!(schedule(&priority("low", 5), &snapshot, &promise).is_err());
        assert!(schedule(&priority("high", 6), &snapshot, &promise).is_ok());
        assert!(schedule(&promise[0].pod, &snapshot, &promise).is_ok());
    }

    #[test]
    fn equal_nodes_share_the_pods() {
        let snapshot = nodes(&["4", "4"]).snapshot();
        let chosen = |n: usize| schedule(&pod(&format!("p{n}"), json!({})), &snapshot, &[]).unwrap();
        assert!((0..50).any(|n| chosen(n) == "n0") && (0..50).any(|n| chosen(n) == "n1"));
        assert_eq!(chosen(7), chosen(7));
        assert!(cluster([]).nodes.is_empty());
    }

    proptest! {
        #[test]
        fn what_is_placed_never_exceeds_what_a_node_has(
            nodes in proptest::collection::vec((0..4000i64, 0..4000i64, 0..6u8), 1..5),
            pods in proptest::collection::vec((0..1500i64, 0..1500i64, 0..3u16), 1..40),
        ) {
            let mut cache = Cache::default();
            for (n, (cpu, memory, pods)) in nodes.iter().enumerate() {
                let amounts = json!({"cpu": format!("{cpu}m"), "memory": memory.to_string(), "pods": pods.to_string()});
                cache.set_node(&node(&format!("n{n}"), amounts).node);
            }
            for (n, (cpu, memory, port)) in pods.iter().enumerate() {
                let requests = json!({"cpu": format!("{cpu}m"), "memory": memory.to_string()});
                let spec = json!({"containers": [{"resources": {"requests": requests}, "ports": [{"hostPort": port}]}]});
                let pod = labelled_pod(&format!("p{n}"), json!({}), spec);
                if let Ok(node) = schedule(&pod, &cache.snapshot(), &[]) {
                    cache.set_pod(pod, &node);
                }
            }
            for node in &cache.snapshot().nodes {
                prop_assert!(node.requested.milli_cpu <= node.allocatable.milli_cpu);
                prop_assert!(node.requested.memory <= node.allocatable.memory);
                prop_assert!(node.pods.len() as i64 <= node.allowed_pods);
                let ports: Vec<_> = node.pods.iter().flat_map(|pod| pod.host_ports()).collect();
                let free = |at: usize| ports[..at].iter().all(|other| !other.conflicts(&ports[at]));
                prop_assert!((0..ports.len()).all(free));
            }
        }
    }
}
