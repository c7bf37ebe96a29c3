//! Which nodes a pod's node selector and node affinity mean (follows component-helpers'
//! `nodeaffinity`).

use apimachinery::meta::StringMap;

use super::{Node, NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

/// The only field that `matchFields` knows.
pub const NAME_FIELD: &str = "metadata.name";

/// Whether node selector and required node affinity allow the node (upstream:
/// GetRequiredNodeAffinity(pod).Match(node)).
pub fn matches_required(spec: &PodSpec, node: &Node) -> bool {
    let labels = &node.metadata.labels;
    let selected = spec.node_selector.iter().all(|(key, value)| labels.get(key) == Some(value));
    selected && required_terms(spec).is_none_or(|terms| terms.iter().any(|term| matches_term(term, node)))
}

/// The required terms, of which one must hold; `None` when nothing is required.
pub fn required_terms(spec: &PodSpec) -> Option<&[NodeSelectorTerm]> {
    let affinity = spec.affinity.as_ref()?.node_affinity.as_ref()?;
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref()?;
    Some(&required.node_selector_terms)
}

/// Whether all of a term's requirements hold. A term without any means no node.
pub fn matches_term(term: &NodeSelectorTerm, node: &Node) -> bool {
    if term.match_expressions.is_empty() && term.match_fields.is_empty() {
        return false;
    }
    let field = |key: &str| (key == NAME_FIELD).then_some(node.metadata.name.as_str());
    expressions_hold(term, &node.metadata.labels)
        && term.match_fields.iter().all(|requirement| matches(requirement, field(&requirement.key)))
}

/// The same by labels alone, as for the node affinity of volumes; a term that asks for a field means no node.
pub fn matches_labels(term: &NodeSelectorTerm, labels: &StringMap) -> bool {
    !term.match_expressions.is_empty() && term.match_fields.is_empty() && expressions_hold(term, labels)
}

fn expressions_hold(term: &NodeSelectorTerm, labels: &StringMap) -> bool {
    let label = |key: &str| labels.get(key).map(String::as_str);
    term.match_expressions.iter().all(|requirement| matches(requirement, label(&requirement.key)))
}

fn matches(requirement: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let listed = |value: &str| requirement.values.iter().any(|listed| listed == value);
    match requirement.operator.as_str() {
        "In" => value.is_some_and(listed),
        "NotIn" => value.is_none_or(|value| !listed(value)),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare(requirement, value).is_some_and(|(value, bound)| value > bound),
        "Lt" => compare(requirement, value).is_some_and(|(value, bound)| value < bound),
        _ => false,
    }
}

fn compare(requirement: &NodeSelectorRequirement, value: Option<&str>) -> Option<(i64, i64)> {
    Some((value?.parse().ok()?, requirement.values.first()?.parse().ok()?))
}
