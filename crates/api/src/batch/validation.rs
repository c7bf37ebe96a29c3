//! What a Job's spec may say (follows `pkg/apis/batch/validation`).

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList};

use super::indexes;
use crate::apps::template_matches;
use crate::core::pod::validation::validate_template;
use crate::validation::domain::prefixed_path;
use crate::validation::{At, label_selector, qualified_name, same};

const PARALLELISM_MAX: i64 = 100_000;
const FAILED_INDEXES_MAX: i64 = 100_000;
/// Past this many completions, an Indexed Job with a limit per index is bound by the two numbers below.
pub const COMPLETIONS_HIGH: i64 = 100_000;
pub const PARALLELISM_HIGH_MAX: i64 = 10_000;
const FAILED_INDEXES_HIGH_MAX: i64 = 10_000;
const FAILURE_RULES_MAX: usize = 20;
const EXIT_CODES_MAX: usize = 255;
const CONDITION_PATTERNS_MAX: usize = 20;
const MANAGED_BY_BYTES_MAX: usize = 63;
const SUCCESS_RULES_MAX: usize = 20;
const SUCCEEDED_INDEXES_BYTES_MAX: usize = 64 * 1024;

const COMPLETION_MODES: [&str; 2] = ["NonIndexed", "Indexed"];
const FAILURE_ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const EXIT_CODE_OPERATORS: [&str; 2] = ["In", "NotIn"];
const CONDITION_STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const REPLACEMENT_POLICIES: [&str; 2] = ["Failed", "TerminatingOrFailed"];
const COUNTS: [&str; 7] = [
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
];

/// A Job's spec, its selector included.
pub fn job_spec(spec: &At, errors: &mut ErrorList) {
    spec_of_template(spec, errors);
    let selector = spec.get("selector");
    if selector.is_set() {
        label_selector(&selector, errors);
    } else {
        errors.push(selector.required(""));
    }
    template_matches(&selector, &spec.get("template"), errors);
}

/// The spec in a CronJob's template, which has no selector yet.
pub fn spec_of_template(spec: &At, errors: &mut ErrorList) {
    COUNTS.iter().for_each(|field| spec.get(field).check_nonnegative(errors));
    if spec.get("maxFailedIndexes").is_set() && !spec.get("backoffLimitPerIndex").is_set() {
        errors.push(spec.get("backoffLimitPerIndex").required("when maxFailedIndexes is specified"));
    }
    managed_by(spec, errors);
    completion_mode(spec, errors);
    if let Some(policy) = spec.field("podFailurePolicy") {
        failure_policy(spec, &policy, errors);
    }
    if let Some(policy) = spec.field("successPolicy") {
        if is_indexed(spec) {
            success_policy(spec, &policy, errors);
        } else {
            errors.push(policy.invalid("requires indexed completion mode"));
        }
    }
    replacement_policy(spec, errors);
    let template = spec.get("template");
    validate_template(&template, errors);
    restart_policy(spec, &template.at(&["spec", "restartPolicy"]), errors);
}

pub fn is_indexed(spec: &At) -> bool {
    spec.get("completionMode").text() == "Indexed"
}

fn managed_by(spec: &At, errors: &mut ErrorList) {
    let Some(manager) = spec.field("managedBy") else { return };
    prefixed_path(&manager, errors);
    if manager.len() > MANAGED_BY_BYTES_MAX {
        errors.push(Error::too_long(&manager.path, MANAGED_BY_BYTES_MAX));
    }
}

fn completion_mode(spec: &At, errors: &mut ErrorList) {
    let (per_index, failed) = (spec.get("backoffLimitPerIndex"), spec.get("maxFailedIndexes"));
    spec.get("completionMode").check_optional_enum_of(&COMPLETION_MODES, errors);
    if !is_indexed(spec) {
        for at in [&per_index, &failed] {
            if at.is_set() {
                errors.push(at.invalid("requires indexed completion mode"));
            }
        }
        return;
    }
    let (completions, parallelism) = (spec.get("completions"), spec.get("parallelism"));
    if !completions.is_set() {
        errors.push(completions.required("when completion mode is Indexed"));
    }
    at_most(&parallelism, PARALLELISM_MAX, " when completion mode is Indexed", errors);
    if completions.is_set() && failed.int() > completions.int() {
        errors.push(failed.invalid("must be less than or equal to completions"));
    }
    at_most(&failed, FAILED_INDEXES_MAX, "", errors);
    if completions.int() > COMPLETIONS_HIGH && per_index.is_set() {
        if !failed.is_set() {
            let detail = format!("must be specified when completions is above {COMPLETIONS_HIGH}");
            errors.push(failed.required(detail));
        }
        let when =
            format!(" when completions are above {COMPLETIONS_HIGH} and used with backoff limit per index");
        at_most(&parallelism, PARALLELISM_HIGH_MAX, &when, errors);
        at_most(&failed, FAILED_INDEXES_HIGH_MAX, &when, errors);
    }
}

fn at_most(at: &At, max: i64, when: &str, errors: &mut ErrorList) {
    if at.int() > max {
        errors.push(at.invalid(format!("must be less than or equal to {max}{when}")));
    }
}

fn failure_policy(spec: &At, policy: &At, errors: &mut ErrorList) {
    let rules = policy.get("rules");
    if rules.len() > FAILURE_RULES_MAX {
        errors.push(Error::too_many(&rules.path, rules.len(), FAILURE_RULES_MAX));
    }
    for rule in rules.items() {
        let (codes, conditions) = (rule.get("onExitCodes"), rule.get("onPodConditions"));
        failure_action(spec, &rule.get("action"), errors);
        if codes.is_set() {
            exit_codes(spec, &codes, errors);
        }
        pod_conditions(&conditions, errors);
        match (codes.is_set(), !conditions.is_empty()) {
            (true, true) => errors.push(Error::invalid_without_value(
                &rule.path,
                "specifying both OnExitCodes and OnPodConditions is not supported",
            )),
            (false, false) => errors.push(Error::invalid_without_value(
                &rule.path,
                "specifying one of OnExitCodes and OnPodConditions is required",
            )),
            _ => {}
        }
    }
}

fn failure_action(spec: &At, action: &At, errors: &mut ErrorList) {
    match action.text() {
        "" => errors.push(action.required(valid_values(&FAILURE_ACTIONS))),
        "FailIndex" if !spec.get("backoffLimitPerIndex").is_set() => {
            errors.push(action.invalid("requires the backoffLimitPerIndex to be set"));
        }
        _ => action.check_enum(&FAILURE_ACTIONS, errors),
    }
}

/// As Go prints a list of quoted words.
fn valid_values(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("valid values: [{}]", quoted.join(" "))
}

fn exit_codes(spec: &At, codes: &At, errors: &mut ErrorList) {
    let operator = codes.get("operator");
    if operator.text().is_empty() {
        errors.push(operator.required(valid_values(&EXIT_CODE_OPERATORS)));
    } else {
        operator.check_enum(&EXIT_CODE_OPERATORS, errors);
    }
    if let Some(container) = codes.field("containerName") {
        let pod = spec.at(&["template", "spec"]);
        let known = ["containers", "initContainers"]
            .iter()
            .any(|list| pod.get(list).items().any(|c| c.get("name").text() == container.text()));
        if !known {
            let detail = "must be one of the container or initContainer names in the pod template";
            errors.push(container.invalid(detail));
        }
    }
    let values = codes.get("values");
    if values.is_empty() {
        errors.push(values.invalid("at least one value is required"));
    } else if values.len() > EXIT_CODES_MAX {
        errors.push(Error::too_many(&values.path, values.len(), EXIT_CODES_MAX));
    }
    let numbers: Vec<i64> = values.items().map(|value| value.int()).collect();
    for (position, value) in values.items().enumerate() {
        if operator.text() == "In" && value.int() == 0 {
            errors.push(value.invalid("must not be 0 for the In operator"));
        }
        if numbers[..position].contains(&value.int()) {
            errors.push(value.duplicate());
        }
    }
    if !numbers.is_sorted() {
        errors.push(values.invalid("must be ordered"));
    }
}

fn pod_conditions(patterns: &At, errors: &mut ErrorList) {
    if patterns.len() > CONDITION_PATTERNS_MAX {
        errors.push(Error::too_many(&patterns.path, patterns.len(), CONDITION_PATTERNS_MAX));
    }
    for pattern in patterns.items() {
        qualified_name(&pattern.get("type"), errors);
        let status = pattern.get("status");
        if status.text().is_empty() {
            errors.push(status.required(valid_values(&CONDITION_STATUSES)));
        } else {
            status.check_enum(&CONDITION_STATUSES, errors);
        }
    }
}

fn success_policy(spec: &At, policy: &At, errors: &mut ErrorList) {
    let rules = policy.get("rules");
    if rules.is_empty() {
        errors
            .push(rules.required("at least one rules must be specified when the successPolicy is specified"));
    }
    if rules.len() > SUCCESS_RULES_MAX {
        errors.push(Error::too_many(&rules.path, rules.len(), SUCCESS_RULES_MAX));
    }
    let completions = spec.get("completions").int();
    for rule in rules.items() {
        success_rule(&rule, completions, errors);
    }
}

fn success_rule(rule: &At, completions: i64, errors: &mut ErrorList) {
    let (count, named) = (rule.get("succeededCount"), rule.get("succeededIndexes"));
    if !count.is_set() && !named.is_set() {
        let detail = "at least one of succeededCount or succeededIndexes must be specified";
        errors.push(rule.required(detail));
    }
    let mut total = 0;
    if named.is_set() {
        if named.len() > SUCCEEDED_INDEXES_BYTES_MAX {
            errors.push(Error::too_long(&named.path, SUCCEEDED_INDEXES_BYTES_MAX));
        }
        match indexes::parse(named.text(), completions) {
            Ok(intervals) => total = indexes::count(&intervals),
            Err(error) => errors.push(named.invalid(format!("error parsing succeededIndexes: {error}"))),
        }
    }
    count.check_nonnegative(errors);
    if count.int() > completions {
        let detail =
            format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.push(count.invalid(detail));
    }
    if named.is_set() && count.int() > total {
        errors.push(count.invalid(format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        )));
    }
}

fn replacement_policy(spec: &At, errors: &mut ErrorList) {
    let supported: &[&str] = if spec.get("podFailurePolicy").is_set() {
        &REPLACEMENT_POLICIES[..1]
    } else {
        &REPLACEMENT_POLICIES
    };
    spec.get("podReplacementPolicy").check_optional_enum(supported, errors);
}

fn restart_policy(spec: &At, policy: &At, errors: &mut ErrorList) {
    match policy.text() {
        "" | "Always" => errors.push(policy.required("valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if spec.get("podFailurePolicy").is_set() => {
            errors.push(policy.invalid("only \"Never\" is supported when podFailurePolicy is specified"));
        }
        "OnFailure" | "Never" => {}
        _ => errors.push(policy.not_supported_of(&["OnFailure", "Never"])),
    }
}

/// What an update of a Job may change (follows `ValidateJobSpecUpdate`).
pub fn job_spec_update(spec: &At, old: &Value, mutable: Mutable, errors: &mut ErrorList) {
    job_spec(spec, errors);
    let old = At::new(old, spec.path.clone());
    completions_update(spec, &old, errors);
    spec.get("selector").check_unchanged(&old.get("selector"), errors);
    template_update(spec, &old, mutable, errors);
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    {
        spec.get(field).check_unchanged(&old.get(field), errors);
    }
}

/// What of a Job's template may change.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mutable {
    /// Where its pods run, and their labels and annotations.
    pub scheduling: bool,
    /// What its containers ask for.
    pub resources: bool,
}

fn completions_update(spec: &At, old: &At, errors: &mut ErrorList) {
    let (new, before) = (spec.get("completions"), old.get("completions"));
    if !is_indexed(spec) {
        new.check_unchanged(&before, errors);
    } else if !same(new.value, before.value) && new.value != spec.get("parallelism").value {
        let detail = "can only be modified in tandem with spec.parallelism such that spec.completions == spec.parallelism";
        errors.push(new.invalid(format!(
            "{detail}; completions: {}, parallelism: {}",
            new.int(),
            spec.get("parallelism").int()
        )));
    }
}

fn template_update(spec: &At, old: &At, mutable: Mutable, errors: &mut ErrorList) {
    let template = spec.get("template");
    let mut expected = old.get("template").value.clone();
    if mutable.scheduling {
        for field in ["labels", "annotations"] {
            take(&mut expected, template.value, &["metadata", field]);
        }
        for field in ["nodeSelector", "tolerations", "schedulingGates"] {
            take(&mut expected, template.value, &["spec", field]);
        }
        take(&mut expected, template.value, &["spec", "affinity", "nodeAffinity"]);
    }
    if mutable.resources {
        for list in ["containers", "initContainers"] {
            take_resources(&mut expected, template.value, list);
        }
    }
    if !same(template.value, &expected) {
        errors.push(template.invalid(crate::objectmeta::FIELD_IMMUTABLE));
    }
}

/// Makes one field of `to` what it is in `from`.
fn take(to: &mut Value, from: &Value, path: &[&str]) {
    let [field, rest @ ..] = path else { return };
    let value = from.get(field).cloned().unwrap_or_default();
    let Some(map) = to.as_object_mut() else { return };
    if rest.is_empty() {
        map.insert(*field, value);
        return;
    }
    let inner = map.entry(*field).or_insert_with(|| Value::Object(Default::default()));
    if !inner.is_object() {
        *inner = Value::Object(Default::default());
    }
    take(inner, &value, rest);
}

fn take_resources(to: &mut Value, from: &Value, list: &str) {
    let path = format!("/spec/{list}");
    let Some(new) = from.pointer(&path).and_then(Value::as_array) else { return };
    let Some(old) = to.pointer_mut(&path).and_then(Value::as_array_mut) else { return };
    if new.len() != old.len() {
        return;
    }
    for (container, new) in old.iter_mut().zip(new).filter(|(old, new)| old["name"] == new["name"]) {
        take(container, new, &["resources"]);
    }
}
