//! A pod with what scheduling works out from it once.

use std::collections::BTreeSet;
use std::sync::Arc;

use api::view::core::hostport::{self, HostPort};
use api::view::core::{Pod, PodAffinity, PodAffinityTerm, Toleration};
use apimachinery::meta::{LabelSelector, LabelSelectorRequirement, NamespacedName};

use crate::resource::{Resource, non_zero_requests, pod_requests};
use crate::snapshot::Snapshot;

#[derive(Debug)]
pub struct PodInfo {
    pub pod: Arc<Pod>,
    pub requests: Resource,
    pub non_zero_requests: Resource,
    pub affinity: Terms,
    pub anti_affinity: Terms,
}

/// Affinity, or anti-affinity, to other pods.
#[derive(Debug, Default)]
pub struct Terms {
    pub required: Vec<AffinityTerm>,
    /// With their weights.
    pub preferred: Vec<(i64, AffinityTerm)>,
}

/// Names other pods, and the node label within which they count.
#[derive(Debug)]
pub struct AffinityTerm {
    namespaces: BTreeSet<String>,
    /// `None` selects no namespace, an empty selector all.
    namespace_selector: Option<LabelSelector>,
    /// `None` selects no pod.
    selector: Option<LabelSelector>,
    pub topology_key: String,
}

impl PodInfo {
    pub fn new(pod: Arc<Pod>) -> Self {
        let affinity = pod.spec.affinity.as_ref();
        PodInfo {
            requests: pod_requests(&pod.spec),
            non_zero_requests: non_zero_requests(&pod.spec),
            affinity: Terms::new(&pod, affinity.and_then(|a| a.pod_affinity.as_ref())),
            anti_affinity: Terms::new(&pod, affinity.and_then(|a| a.pod_anti_affinity.as_ref())),
            pod,
        }
    }

    pub fn uid(&self) -> &str {
        &self.pod.metadata.uid
    }

    pub fn namespace(&self) -> &str {
        &self.pod.metadata.namespace
    }

    pub fn name(&self) -> NamespacedName {
        self.pod.metadata.namespaced_name()
    }

    pub fn priority(&self) -> i32 {
        self.pod.spec.priority.unwrap_or(0)
    }

    pub fn tolerations(&self) -> &[Toleration] {
        &self.pod.spec.tolerations
    }

    /// The claims it uses, and whether each is made for it.
    pub fn claims(&self) -> impl Iterator<Item = (String, bool)> {
        let pod = &self.pod.metadata.name;
        let volumes = self.pod.spec.volumes.iter();
        volumes.filter_map(|volume| Some((volume.claim_name(pod)?, volume.persistent_volume_claim.is_none())))
    }

    pub fn has_claims(&self) -> bool {
        self.claims().next().is_some()
    }

    /// Ports the pod takes of its node's (upstream: GetHostPorts).
    pub fn host_ports(&self) -> impl Iterator<Item = HostPort> {
        hostport::host_ports(&self.pod.spec)
    }
}

impl Terms {
    fn new(pod: &Pod, affinity: Option<&PodAffinity>) -> Self {
        let Some(affinity) = affinity else { return Terms::default() };
        let required = affinity.required_during_scheduling_ignored_during_execution.iter();
        let preferred = affinity.preferred_during_scheduling_ignored_during_execution.iter();
        Terms {
            required: required.map(|term| AffinityTerm::new(pod, term)).collect(),
            preferred: preferred
                .map(|term| (i64::from(term.weight), AffinityTerm::new(pod, &term.pod_affinity_term)))
                .collect(),
        }
    }
}

impl AffinityTerm {
    fn new(pod: &Pod, term: &PodAffinityTerm) -> Self {
        let mut namespaces: BTreeSet<String> = term.namespaces.iter().cloned().collect();
        if namespaces.is_empty() && term.namespace_selector.is_none() {
            namespaces.insert(pod.metadata.namespace.clone());
        }
        let mut selector = term.label_selector.clone();
        if let Some(selector) = &mut selector {
            add_own_labels(selector, pod, &term.match_label_keys, "In");
            add_own_labels(selector, pod, &term.mismatch_label_keys, "NotIn");
        }
        AffinityTerm {
            namespaces,
            namespace_selector: term.namespace_selector.clone(),
            selector,
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether the term means `pod` (upstream: AffinityTerm.Matches).
    pub fn matches(&self, pod: &Pod, snapshot: &Snapshot) -> bool {
        let namespace = &pod.metadata.namespace;
        let in_namespace = self.namespaces.contains(namespace)
            || self
                .namespace_selector
                .as_ref()
                .is_some_and(|s| s.matches(snapshot.namespace_labels(namespace)));
        in_namespace && self.selector.as_ref().is_some_and(|selector| selector.matches(&pod.metadata.labels))
    }
}

/// Extends `selector` by the pod's own values of `keys`; keys the pod has no label for are ignored.
pub fn add_own_labels(selector: &mut LabelSelector, pod: &Pod, keys: &[String], operator: &str) {
    for key in keys {
        if let Some(value) = pod.metadata.labels.get(key) {
            selector.match_expressions.push(LabelSelectorRequirement {
                key: key.clone(),
                operator: operator.to_owned(),
                values: vec![value.clone()],
            });
        }
    }
}
