//! Labels of nodes that selectors should no longer name (follows `pkg/api/node` `GetWarningsForNodeSelector`).

use super::At;

const DEPRECATED: [(&str, &str); 8] = [
    ("beta.kubernetes.io/arch", "deprecated since v1.14; use \"kubernetes.io/arch\" instead"),
    ("beta.kubernetes.io/os", "deprecated since v1.14; use \"kubernetes.io/os\" instead"),
    (
        "failure-domain.beta.kubernetes.io/region",
        "deprecated since v1.17; use \"topology.kubernetes.io/region\" instead",
    ),
    (
        "failure-domain.beta.kubernetes.io/zone",
        "deprecated since v1.17; use \"topology.kubernetes.io/zone\" instead",
    ),
    (
        "beta.kubernetes.io/instance-type",
        "deprecated since v1.17; use \"node.kubernetes.io/instance-type\" instead",
    ),
    ("app.kubernetes.io/created-by", "deprecated since v1.9"),
    (
        "scheduler.alpha.kubernetes.io/preferAvoidPods",
        "deprecated since v1.22; use Taints and Tolerations instead",
    ),
    ("node-role.kubernetes.io/master", "use \"node-role.kubernetes.io/control-plane\" instead"),
];

/// Why a label should not be used any more.
pub fn deprecation(label: &str) -> Option<&'static str> {
    DEPRECATED.iter().find(|(name, _)| *name == label).map(|(_, message)| *message)
}

/// Warnings about the requirements of a node selector term or a label selector.
pub fn in_expressions(selector: &At) -> Vec<String> {
    let warn = |requirement: At| {
        let key = requirement.get("key");
        deprecation(key.text()).map(|message| format!("{}: {} is {message}", key.path, key.text()))
    };
    selector.get("matchExpressions").items().filter_map(warn).collect()
}

/// Warnings about a label selector of nodes.
pub fn in_selector(selector: &At) -> Vec<String> {
    let labels = selector.get("matchLabels");
    let warn = |(label, _): (&str, At)| {
        deprecation(label).map(|message| format!("{}: {message}", labels.path.child(label)))
    };
    in_expressions(selector).into_iter().chain(labels.entries().filter_map(warn)).collect()
}

/// Warnings about the keys of a plain node selector.
pub fn in_map(selector: &At) -> Vec<String> {
    let warn =
        |(label, _): (&str, At)| deprecation(label).map(|message| format!("{}: {message}", selector.path));
    selector.entries().filter_map(warn).collect()
}
