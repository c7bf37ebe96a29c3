//! Evicts pods that do not tolerate their node's NoExecute taints, at once or when their patience ends (follows
//! upstream's `pkg/controller/tainteviction`).

use api::resource::{NODES, PODS};
use api::view::core::{Node, Pod, Taint, Toleration};
use apimachinery::json;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::{SignedDuration, Timestamp};

use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::nodelifecycle::{BY_NODE, index_by_node};
use crate::plan::{Action, Event, Plan, reference};
use crate::podstatus;
use crate::taint::NO_EXECUTE;

/// What an eviction is called.
pub struct Words {
    /// The reason of the event.
    pub event: &'static str,
    /// Reason and message of the pod's condition.
    pub reason: &'static str,
    pub text: &'static str,
}

const WORDS: Words = Words {
    event: "TaintManagerEviction",
    reason: "DeletionByTaintManager",
    text: "Taint manager: deleting due to NoExecute taint",
};

struct TaintEviction {
    nodes: Informer<Node>,
    pods: Informer<Pod>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    let pods: Informer<Pod> = informers.get();
    index_by_node(&pods);
    Box::new(TaintEviction { nodes: informers.get(), pods })
}

#[async_trait]
impl Controller for TaintEviction {
    fn watch(&self, watches: &mut Watches) {
        watches.on(PODS, &self.pods, itself);
        let pods = self.pods.clone();
        watches.on(NODES, &self.nodes, move |delta| {
            let node = match delta {
                Delta::Updated { old, new } if old.spec.taints == new.spec.taints => return Vec::new(),
                Delta::Added(node) | Delta::Updated { new: node, .. } => node,
                Delta::Deleted(_) => return Vec::new(),
            };
            let pods = pods.by_index(BY_NODE, &node.metadata.name);
            pods.iter().map(|pod| pod.metadata.namespaced_name()).collect()
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let Some(pod) = self.pods.get(&key.namespace, &key.name) else { return Ok(Plan::default()) };
        let node = self.nodes.get("", &pod.spec.node_name);
        Ok(node.map_or_else(Plan::default, |node| reconcile(&pod, &node.spec.taints, now)))
    }
}

fn reconcile(pod: &Pod, taints: &[Taint], now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if pod.metadata.is_being_deleted() {
        return plan;
    }
    let taints: Vec<&Taint> = taints.iter().filter(|taint| taint.effect == NO_EXECUTE).collect();
    match eviction_time(pod, &taints, now) {
        None => {}
        Some(at) if at > now => plan.requeue(at),
        Some(_) => {
            let message = format!("Marking for deletion Pod {}", pod.metadata.namespaced_name());
            evict(pod, &WORDS, message, now, &mut plan);
        }
    }
    plan
}

/// When the pod has to go; `None` is never.
fn eviction_time(pod: &Pod, taints: &[&Taint], now: Timestamp) -> Option<Timestamp> {
    let mut soonest: Option<Timestamp> = None;
    for taint in taints {
        let toleration = pod.spec.tolerations.iter().find(|toleration| toleration.tolerates(taint));
        let end = match toleration {
            None => return Some(now),
            Some(toleration) => patience_ends(pod, taint, toleration, now),
        };
        soonest = soonest.into_iter().chain(end).min();
    }
    soonest
}

/// A pod's patience begins with the taint, or with the pod where the taint was there before it.
fn patience_ends(pod: &Pod, taint: &Taint, toleration: &Toleration, now: Timestamp) -> Option<Timestamp> {
    let seconds = toleration.toleration_seconds?.max(0);
    let since = taint.time_added.max(pod.metadata.creation_timestamp).unwrap_or(now);
    Some(since.saturating_add(SignedDuration::from_secs(seconds)).unwrap_or(Timestamp::MAX))
}

/// Announces the end of the pod, says why in its status, and deletes it.
pub fn evict(pod: &Pod, words: &Words, message: String, now: Timestamp, plan: &mut Plan) {
    plan.events.push(Event::normal(reference(PODS, &pod.metadata), words.event, message));
    if let Some(condition) = podstatus::disruption(pod, words.reason, words.text, now) {
        plan.act(podstatus::patch(pod, Some(&condition), json!({})));
    }
    plan.act(Action::delete(PODS, &pod.metadata));
}

#[cfg(test)]
mod tests {
    use apimachinery::Value;

    use super::*;
    use crate::testing::at;

    #[derive(Debug, PartialEq)]
    enum Fate {
        Stays,
        GoesAt(Timestamp),
        Goes,
    }

    fn check(tolerations: Value, taints: &[&str], expect: Fate) {
        let pod: Pod = apimachinery::from_value(json!({"metadata": {"name": "p", "namespace": "a"},
            "spec": {"nodeName": "n", "tolerations": tolerations}}))
        .expect("a pod");
        let taint = |key: &&str| Taint {
            key: key.to_string(),
            effect: NO_EXECUTE.into(),
            time_added: Some(at(0)),
            ..Taint::default()
        };
        let taints: Vec<Taint> = taints.iter().map(taint).collect();
        let plan = reconcile(&pod, &taints, at(100));
        let fate = match (plan.steps.len(), plan.requeue_at) {
            (0, None) => Fate::Stays,
            (0, Some(at)) => Fate::GoesAt(at),
            _ => Fate::Goes,
        };
        assert_eq!(fate, expect, "{tolerations} {taints:?}");
    }

    #[test]
    fn a_pod_stays_as_long_as_it_tolerates_every_taint() {
        let tolerate = |key: &str, seconds: Value| json!({"key": key, "operator": "Exists", "tolerationSeconds": seconds});
        check(json!([]), &[], Fate::Stays);
        check(json!([]), &["a"], Fate::Goes);
        check(json!([tolerate("a", json!(null))]), &["a"], Fate::Stays);
        check(json!([tolerate("a", json!(null))]), &["a", "b"], Fate::Goes);
        check(json!([tolerate("a", json!(300))]), &["a"], Fate::GoesAt(at(300)));
        check(
            json!([tolerate("a", json!(300)), tolerate("b", json!(200))]),
            &["a", "b"],
            Fate::GoesAt(at(200)),
        );
        check(json!([tolerate("a", json!(100))]), &["a"], Fate::Goes);
        check(json!([tolerate("a", json!(-1))]), &["a"], Fate::Goes);
    }

    #[test]
    fn an_eviction_is_announced_and_bound_to_this_pod() {
        let pod: Pod =
            apimachinery::from_value(json!({"metadata": {"name": "p", "namespace": "a", "uid": "u"}}))
                .expect("a pod");
        let taint = Taint { key: "a".into(), effect: NO_EXECUTE.into(), ..Taint::default() };
        let plan = reconcile(&pod, &[taint], at(0));
        assert_eq!(plan.events[0].message, "Marking for deletion Pod a/p");
        let Action::Patch { patch, .. } = &plan.steps[0].action else { panic!("a patch") };
        assert_eq!(patch["status"]["conditions"][0]["reason"], "DeletionByTaintManager");
        let Action::Delete { options, .. } = &plan.steps[1].action else { panic!("a deletion") };
        assert_eq!(options.uid.as_deref(), Some("u"));
    }
}
