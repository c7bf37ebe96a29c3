//! InterPodAffinity: pods that want to be near others, or far from them.

use std::collections::HashMap;

use api::view::core::Pod;

use crate::framework::{Filter, MAX_NODE_SCORE, Rejection, Score};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::{AffinityTerm, PodInfo};
use crate::snapshot::Snapshot;

const REASON_EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
const REASON_AFFINITY: &str = "node(s) didn't match pod affinity rules";
const REASON_ANTI_AFFINITY: &str = "node(s) didn't match pod anti-affinity rules";
/// What a required affinity of a placed pod is worth to pods it wants (upstream: HardPodAffinityWeight).
const HARD_POD_AFFINITY_WEIGHT: i64 = 1;

/// Amounts by topology key and value.
#[derive(Default)]
struct Counts<'a>(HashMap<(&'a str, &'a str), i64>);

impl<'a> Counts<'a> {
    /// Adds to the domain that `node` belongs to by `key`, if it belongs to one.
    fn add(&mut self, node: &'a NodeInfo, key: &'a str, amount: i64) {
        if let Some(value) = node.labels().get(key) {
            *self.0.entry((key, value)).or_insert(0) += amount;
        }
    }

    /// The amount of the node's domain; `None` when it belongs to none by this key.
    fn of(&self, node: &NodeInfo, key: &str) -> Option<i64> {
        let value = node.labels().get(key)?;
        Some(self.0.get(&(key, value.as_str())).copied().unwrap_or(0))
    }

    /// The amounts of all domains the node belongs to.
    fn all_of(&self, node: &NodeInfo) -> impl Iterator<Item = i64> {
        node.labels().iter().filter_map(|(key, value)| self.0.get(&(key.as_str(), value.as_str())).copied())
    }
}

fn matches_all(terms: &[AffinityTerm], pod: &Pod, snapshot: &Snapshot) -> bool {
    !terms.is_empty() && terms.iter().all(|term| term.matches(pod, snapshot))
}

struct Required<'a> {
    pod: &'a PodInfo,
    /// Placed pods that want to be far from the incoming one.
    existing_anti_affinity: Counts<'a>,
    /// Placed pods that match all affinity terms of the incoming one.
    affinity: Counts<'a>,
    /// Placed pods that match an anti-affinity term of the incoming one.
    anti_affinity: Counts<'a>,
    /// Whether the incoming pod matches its own affinity terms.
    likes_itself: bool,
}

pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    let mut state = Required {
        pod,
        existing_anti_affinity: Counts::default(),
        affinity: Counts::default(),
        anti_affinity: Counts::default(),
        likes_itself: matches_all(&pod.affinity.required, &pod.pod, snapshot),
    };
    for node in &snapshot.nodes {
        for existing in &node.pods {
            state.count(node, existing, snapshot);
        }
    }
    let idle = state.existing_anti_affinity.0.is_empty()
        && pod.affinity.required.is_empty()
        && pod.anti_affinity.required.is_empty();
    (!idle).then(|| Box::new(state) as _)
}

impl<'a> Required<'a> {
    fn count(&mut self, node: &'a NodeInfo, existing: &'a PodInfo, snapshot: &Snapshot) {
        for term in &existing.anti_affinity.required {
            if term.matches(&self.pod.pod, snapshot) {
                self.existing_anti_affinity.add(node, &term.topology_key, 1);
            }
        }
        if matches_all(&self.pod.affinity.required, &existing.pod, snapshot) {
            for term in &self.pod.affinity.required {
                self.affinity.add(node, &term.topology_key, 1);
            }
        }
        for term in &self.pod.anti_affinity.required {
            if term.matches(&existing.pod, snapshot) {
                self.anti_affinity.add(node, &term.topology_key, 1);
            }
        }
    }

    fn satisfies_affinity(&self, node: &NodeInfo) -> bool {
        let mut pods_exist = true;
        for term in &self.pod.affinity.required {
            match self.affinity.of(node, &term.topology_key) {
                None => return false,
                Some(count) => pods_exist &= count > 0,
            }
        }
        // The first of a group of pods that want to be together has to go somewhere.
        pods_exist || (self.affinity.0.is_empty() && self.likes_itself)
    }

    fn satisfies_anti_affinity(&self, node: &NodeInfo) -> bool {
        let terms = &self.pod.anti_affinity.required;
        terms.iter().all(|term| self.anti_affinity.of(node, &term.topology_key).unwrap_or(0) == 0)
    }
}

impl Filter for Required<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        if !self.satisfies_affinity(node) {
            return Err(Rejection::unresolvable(REASON_AFFINITY));
        }
        if !self.satisfies_anti_affinity(node) {
            return Err(Rejection::resolvable(REASON_ANTI_AFFINITY));
        }
        if self.existing_anti_affinity.all_of(node).any(|count| count > 0) {
            return Err(Rejection::resolvable(REASON_EXISTING));
        }
        Ok(())
    }
}

struct Preferred<'a>(Counts<'a>);

pub fn score<'a>(
    pod: &'a PodInfo,
    snapshot: &'a Snapshot,
    _: &[&'a NodeInfo],
) -> Option<Box<dyn Score + 'a>> {
    let mut counts = Counts::default();
    for node in &snapshot.nodes {
        for existing in &node.pods {
            weigh(&mut counts, pod, existing, node, snapshot);
        }
    }
    (!counts.0.is_empty()).then(|| Box::new(Preferred(counts)) as _)
}

/// What this placed pod is worth to the incoming one, and the other way round.
fn weigh<'a>(
    counts: &mut Counts<'a>,
    pod: &'a PodInfo,
    existing: &'a PodInfo,
    node: &'a NodeInfo,
    snapshot: &Snapshot,
) {
    let mut add = |terms: &'a [(i64, AffinityTerm)], of: &PodInfo, sign: i64| {
        for (weight, term) in terms.iter().filter(|(_, term)| term.matches(&of.pod, snapshot)) {
            counts.add(node, &term.topology_key, sign * weight);
        }
    };
    add(&pod.affinity.preferred, existing, 1);
    add(&pod.anti_affinity.preferred, existing, -1);
    add(&existing.affinity.preferred, pod, 1);
    add(&existing.anti_affinity.preferred, pod, -1);
    for term in existing.affinity.required.iter().filter(|term| term.matches(&pod.pod, snapshot)) {
        counts.add(node, &term.topology_key, HARD_POD_AFFINITY_WEIGHT);
    }
}

impl Score for Preferred<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        self.0.all_of(node).sum()
    }

    fn normalize(&self, _: &[&NodeInfo], scores: &mut [i64]) {
        let (min, max) =
            (scores.iter().copied().min().unwrap_or(0), scores.iter().copied().max().unwrap_or(0));
        for score in scores {
            let share = if max > min { (*score - min) as f64 / (max - min) as f64 } else { 0.0 };
            *score = (MAX_NODE_SCORE as f64 * share) as i64;
        }
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use crate::testing::{check_feasible, check_scores_in, cluster, labelled_pod};

    fn term(app: &str) -> Value {
        json!({"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": app}}})
    }

    fn required(kind: &str, app: &str) -> Value {
        json!({"affinity": {kind: {"requiredDuringSchedulingIgnoredDuringExecution": [term(app)]}}})
    }

    /// Node `a` in zone a with one pod labelled `app=db`, node `b` in zone b, node `c` in none.
    fn zones(spec: Value) -> crate::snapshot::Snapshot {
        let node = |name: &str, labels: Value| json!({"metadata": {"name": name, "labels": labels}});
        let db = labelled_pod("db", json!({"app": "db"}), spec);
        cluster([
            (node("a", json!({"zone": "a"})), vec![db]),
            (node("b", json!({"zone": "b"})), vec![]),
            (node("c", json!({})), vec![]),
        ])
    }

    fn check(app: &str, spec: Value, existing: Value, feasible: &[&str]) {
        let pod = labelled_pod("p", json!({"app": app}), spec);
        check_feasible(super::filter, &pod, &zones(existing), feasible);
    }

    #[test]
    fn affinity_draws_pods_into_the_domain_of_others() {
        check("web", required("podAffinity", "db"), json!({}), &["a"]);
        check("web", required("podAffinity", "none"), json!({}), &[]);
    }

    #[test]
    fn the_first_of_a_group_may_go_to_any_domain() {
        check("web", required("podAffinity", "web"), json!({}), &["a", "b"]);
    }

    #[test]
    fn anti_affinity_works_both_ways() {
        check("web", required("podAntiAffinity", "db"), json!({}), &["b", "c"]);
        check("web", json!({}), required("podAntiAffinity", "web"), &["b", "c"]);
        check("web", json!({}), required("podAntiAffinity", "api"), &["a", "b", "c"]);
    }

    #[test]
    fn terms_mean_their_own_namespace_unless_they_say_otherwise() {
        let mut spec = required("podAffinity", "db");
        let term = &mut spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        term["namespaces"] = json!(["other"]);
        check("web", spec.clone(), json!({}), &[]);
        let term = &mut spec["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
        term["namespaceSelector"] = json!({});
        check("web", spec, json!({}), &["a"]);
    }

    #[test]
    fn preferences_raise_and_lower_scores() {
        let preferred = |kind: &str| {
            let terms = json!([{"weight": 5, "podAffinityTerm": term("db")}]);
            json!({"affinity": {kind: {"preferredDuringSchedulingIgnoredDuringExecution": terms}}})
        };
        let check = |kind, expect| {
            let pod = labelled_pod("p", json!({"app": "web"}), preferred(kind));
            check_scores_in(super::score, &pod, &zones(json!({})), expect);
        };
        check("podAffinity", &[100, 0, 0]);
        check("podAntiAffinity", &[0, 100, 100]);
    }
}
