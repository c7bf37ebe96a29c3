//! What steers the scheduler: tolerations, gates, topology spread (follows `ValidateTolerations`,
//! `validateSchedulingGates`, `validateTopologySpreadConstraints`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList};
use apimachinery::names;

use crate::objectmeta::validate_label_name;
use crate::validation::{At, label_selector, qualified_name};

pub const TAINT_EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];
pub const PREEMPTION_POLICIES: [&str; 2] = ["PreemptLowerPriority", "Never"];
const TOLERATION_OPERATORS: [&str; 2] = ["Equal", "Exists"];
/// What an operator behind a disabled feature is told is supported.
const COMPARISON_OPERATORS: [&str; 4] = ["Equal", "Exists", "Lt", "Gt"];
const SCHEDULE_ACTIONS: [&str; 2] = ["DoNotSchedule", "ScheduleAnyway"];
const NODE_INCLUSION_POLICIES: [&str; 2] = ["Honor", "Ignore"];

pub fn tolerations(tolerations: &At, errors: &mut ErrorList) {
    for toleration in tolerations.items() {
        self::toleration(&toleration, errors);
    }
}

fn toleration(toleration: &At, errors: &mut ErrorList) {
    let [key, operator, value, effect] =
        ["key", "operator", "value", "effect"].map(|field| toleration.get(field));
    if !key.is_empty() {
        validate_label_name(key.text(), &key.path, errors);
    } else if operator.text() != "Exists" {
        let detail =
            "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        errors.push(Error::invalid(&operator.path, operator.text(), detail));
    }
    if toleration.get("tolerationSeconds").is_set() && effect.text() != "NoExecute" {
        let detail = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        errors.push(Error::invalid(&effect.path, effect.text(), detail));
    }
    match operator.text() {
        "" | "Equal" => {
            let complaints = names::is_label_value(value.text());
            if !complaints.is_empty() {
                errors.push(Error::invalid(&operator.path, value.text(), complaints.join(";")));
            }
        }
        "Exists" => {
            if !value.is_empty() {
                let detail = "value must be empty when `operator` is 'Exists'";
                errors.push(Error::invalid(&operator.path, value.text(), detail));
            }
        }
        "Lt" | "Gt" => errors.push(operator.not_supported_of(&COMPARISON_OPERATORS)),
        _ => errors.push(operator.not_supported(&TOLERATION_OPERATORS)),
    }
    if !effect.is_empty() {
        effect.check_optional_enum_of(&TAINT_EFFECTS, errors);
    }
}

pub fn readiness_gates(gates: &At, errors: &mut ErrorList) {
    for gate in gates.items() {
        qualified_name(&gate.get("conditionType"), errors);
    }
}

pub fn gates(gates: &At, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    for gate in gates.items() {
        let name = gate.get("name").under(&gate.path);
        qualified_name(&name, errors);
        if !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
    }
}

pub fn topology_spread_constraints(constraints: &At, errors: &mut ErrorList) {
    let mut seen = BTreeSet::new();
    // Of two that repeat each other, upstream reports the first.
    let all: Vec<At> = constraints.items().collect();
    let mut repeated = BTreeSet::new();
    for (index, constraint) in all.iter().enumerate().rev() {
        if !seen.insert((constraint.get("topologyKey").text(), constraint.get("whenUnsatisfiable").text())) {
            repeated.insert(index);
        }
    }
    for (index, constraint) in all.iter().enumerate() {
        spread_constraint(constraint, repeated.contains(&index), errors);
    }
}

fn spread_constraint(constraint: &At, repeated: bool, errors: &mut ErrorList) {
    constraint.get("maxSkew").check_positive(errors);
    let (key, action) = (constraint.get("topologyKey"), constraint.get("whenUnsatisfiable"));
    if key.is_empty() {
        errors.push(key.required("can not be empty"));
    }
    if !SCHEDULE_ACTIONS.contains(&action.text()) {
        errors.push(Error::not_supported(&action.path, action.text(), &SCHEDULE_ACTIONS));
    }
    if repeated {
        let pair = format!("{{{}, {}}}", key.text(), action.text());
        errors.push(Error::duplicate(&constraint.path.child("{topologyKey, whenUnsatisfiable}"), pair));
    }
    if let Some(domains) = constraint.field("minDomains") {
        domains.check_positive(errors);
        if action.text() != "DoNotSchedule" {
            let detail =
                format!("can only use minDomains if whenUnsatisfiable=DoNotSchedule, not {}", action.text());
            errors.push(domains.invalid(detail));
        }
    }
    for field in ["nodeAffinityPolicy", "nodeTaintsPolicy"] {
        constraint.get(field).check_optional_enum(&NODE_INCLUSION_POLICIES, errors);
    }
    label_keys(constraint, errors);
    label_selector(&constraint.get("labelSelector"), errors);
}

/// `matchLabelKeys` and `mismatchLabelKeys` (follows `ValidateMatchLabelKeysAndMismatchLabelKeys`). On creation the
/// server has already merged the former into the selector, so a key there twice was given twice.
pub fn label_keys(term: &At, errors: &mut ErrorList) {
    let selector = term.get("labelSelector");
    let lists = ["matchLabelKeys", "mismatchLabelKeys"].map(|field| term.get(field));
    for keys in &lists {
        if !keys.is_empty() && !selector.is_set() {
            errors.push(keys.forbidden("must not be specified when labelSelector is not set"));
            continue;
        }
        for key in keys.items() {
            validate_label_name(key.text(), &key.path, errors);
        }
    }
    let [matching, mismatching] = lists;
    let match_keys = matching.texts();
    let mut selector_keys: BTreeSet<&str> =
        selector.get("matchLabels").map().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    for expression in selector.get("matchExpressions").items() {
        let key = expression.get("key").text();
        let position = match_keys.iter().position(|k| *k == key);
        if let (Some(index), true) = (position, selector_keys.contains(key)) {
            let detail = "exists in both matchLabelKeys and labelSelector";
            errors.push(Error::invalid(&term.path.index(index), key, detail));
        }
        selector_keys.insert(key);
    }
    for key in matching.items() {
        if mismatching.texts().contains(&key.text()) {
            errors.push(key.invalid("exists in both matchLabelKeys and mismatchLabelKeys"));
        }
    }
}
