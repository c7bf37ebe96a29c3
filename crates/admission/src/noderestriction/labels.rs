//! Which labels a node may give itself: none of the project's own, but those that kubelets have always set.

use std::collections::BTreeSet;

use apimachinery::{Map, Text, Value};

const NODE_RESTRICTION: &str = "node-restriction.kubernetes.io";
/// Domains within which a node is free.
const KUBELET_DOMAINS: [&str; 2] = ["kubelet.kubernetes.io", "node.kubernetes.io"];
const KUBELET_LABELS: [&str; 12] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "beta.kubernetes.io/instance-type",
    "node.kubernetes.io/instance-type",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
    "failure-domain.kubernetes.io/zone",
];

/// The labels that differ from the stored node's and that a node may not touch, sorted.
pub(super) fn forbidden(node: &Value, old: Option<&Value>) -> Vec<String> {
    let labels = |object: Option<&Value>| -> Map {
        object.and_then(|o| o["metadata"]["labels"].as_object()).cloned().unwrap_or_default()
    };
    let (new, old) = (labels(Some(node)), labels(old));
    let changed: BTreeSet<&Text> =
        new.keys().chain(old.keys()).filter(|key| new.get(key) != old.get(key)).collect();
    changed.into_iter().filter(|key| is_forbidden(key)).map(Text::to_string).collect()
}

fn is_forbidden(label: &str) -> bool {
    let domain = label.split_once('/').map_or("", |(domain, _)| domain);
    let within = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    let is_kubelets = KUBELET_LABELS.contains(&label) || KUBELET_DOMAINS.iter().any(|of| within(of));
    within(NODE_RESTRICTION) || ((within("kubernetes.io") || within("k8s.io")) && !is_kubelets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_projects_own_labels_are_guarded() {
        for free in
            ["app", "example.com/x", "kubernetes.io/os", "x.node.kubernetes.io/y", "notkubernetes.io/x"]
        {
            assert!(!is_forbidden(free), "{free}");
        }
        for guarded in
            ["node-role.kubernetes.io/control-plane", "k8s.io/x", "a.node-restriction.kubernetes.io/b"]
        {
            assert!(is_forbidden(guarded), "{guarded}");
        }
    }
}
