//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration (follow
//! `pkg/registry/admissionregistration/validatingwebhookconfiguration` and `mutatingwebhookconfiguration`).

use std::collections::BTreeSet;

use apimachinery::field::ErrorList;
use apimachinery::{Value, names};
use jiff::Timestamp;

use super::matching::{self, FAILURE_POLICIES, MATCH_POLICIES, REINVOCATION_POLICIES};
use super::{Phase, client, static_suffix_warning};
use crate::columns::{AGE, NAME, age, column, items, name};
use crate::defaults::{Fill, each, fill, object};
use crate::strategy::{Column, Strategy, bump_generation, set_first_generation};
use crate::validation::{At, domain, label_selector, same_field};

const SIDE_EFFECTS: [&str; 4] = ["None", "NoneOnDryRun", "Some", "Unknown"];
const NO_SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const TIMEOUT_SECONDS_MAX: i64 = 30;
const SERVICE_PORT: &[(&str, Fill)] = &[("port", Fill::Int(443))];
const REINVOCATION: &[(&str, Fill)] = &[("reinvocationPolicy", Fill::Text("Never"))];
const HOOK: &[(&str, Fill)] = &[("failurePolicy", Fill::Text("Fail")), ("timeoutSeconds", Fill::Int(10))];

const COLUMNS: [Column; 3] = [NAME, column("Webhooks", "integer", "How many webhooks it has."), AGE];

/// The webhooks that are called in this phase.
pub struct WebhookConfiguration(pub Phase);

impl Strategy for WebhookConfiguration {
    fn default(&self, obj: &mut Value) {
        default(obj);
        if self.0 == Phase::Mutating {
            for hook in each(obj, "webhooks") {
                fill(hook, REINVOCATION);
            }
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        bump_generation(obj, old, &["webhooks"]);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        validate(obj, Strictness::NEW)
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        validate(obj, Strictness::of_update(obj, old))
    }

    fn warnings(&self, obj: &Value, _old: Option<&Value>) -> Vec<String> {
        static_suffix_warning(obj).into_iter().collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        vec![name(obj), items(obj, &["webhooks"]).len().into(), age(obj, now)]
    }
}

fn default(obj: &mut Value) {
    for hook in each(obj, "webhooks") {
        fill(hook, HOOK);
        matching::default(hook);
        fill(hook, &[("clientConfig", Fill::Empty)]);
        if let Some(service) = object(hook, "clientConfig").and_then(|config| object(config, "service")) {
            fill(service, SERVICE_PORT);
        }
    }
}

/// Rules that came after objects which break them: an object that broke one before may do so again.
#[derive(Clone, Copy)]
struct Strictness {
    side_effects: bool,
    review_versions: bool,
    unique_names: bool,
    conditions: bool,
}

impl Strictness {
    const NEW: Strictness =
        Strictness { side_effects: true, review_versions: true, unique_names: true, conditions: true };

    fn of_update(obj: &Value, old: &Value) -> Strictness {
        let root = At::root(old);
        let hooks: Vec<At> = root.get("webhooks").items().collect();
        let mut seen = BTreeSet::new();
        let new_hooks = items(obj, &["webhooks"]);
        let same_conditions = new_hooks.len() == hooks.len()
            && hooks.iter().zip(new_hooks).all(|(old, new)| same_field(old.value, new, "matchConditions"));
        Strictness {
            side_effects: hooks.iter().all(|hook| NO_SIDE_EFFECTS.contains(&hook.get("sideEffects").text())),
            review_versions: hooks.iter().all(|hook| {
                let versions = hook.get("admissionReviewVersions").texts();
                versions.is_empty() || versions.iter().any(|v| REVIEW_VERSIONS.contains(v))
            }),
            unique_names: hooks.iter().all(|hook| seen.insert(hook.get("name").text())),
            conditions: !same_conditions,
        }
    }
}

fn validate(obj: &Value, strictness: Strictness) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut seen = BTreeSet::new();
    for hook in At::root(obj).get("webhooks").items() {
        webhook(&hook, strictness, &mut errors);
        review_versions(&hook.get("admissionReviewVersions"), strictness, &mut errors);
        let name = hook.get("name");
        if strictness.unique_names && !name.is_empty() && !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
    }
    errors
}

fn webhook(hook: &At, strictness: Strictness, errors: &mut ErrorList) {
    domain::fully_qualified_name(&hook.get("name"), errors);
    for rule in hook.get("rules").items() {
        matching::rule(&rule, errors);
    }
    hook.get("failurePolicy").check_optional_enum(&FAILURE_POLICIES, errors);
    hook.get("matchPolicy").check_optional_enum(&MATCH_POLICIES, errors);
    let allowed: &[&str] = if strictness.side_effects { &NO_SIDE_EFFECTS } else { &SIDE_EFFECTS };
    let effects = hook.get("sideEffects");
    if effects.is_set() {
        effects.check_optional_enum(allowed, errors);
    } else {
        errors.push(effects.required(format!("must specify one of {}", allowed.join(", "))));
    }
    let timeout = hook.get("timeoutSeconds");
    if timeout.is_set() && !(1..=TIMEOUT_SECONDS_MAX).contains(&timeout.int()) {
        errors.push(timeout.invalid("the timeout value must be between 1 and 30 seconds"));
    }
    label_selector(&hook.get("namespaceSelector"), errors);
    label_selector(&hook.get("objectSelector"), errors);
    hook.get("reinvocationPolicy").check_optional_enum(&REINVOCATION_POLICIES, errors);
    client::validate(&hook.get("clientConfig"), errors);
    if strictness.conditions {
        matching::conditions(&hook.get("matchConditions"), false, errors);
    }
}

fn review_versions(list: &At, strictness: Strictness, errors: &mut ErrorList) {
    if list.is_empty() {
        errors.push(list.required(format!("must specify one of {}", REVIEW_VERSIONS.join(", "))));
        return;
    }
    let mut seen = BTreeSet::new();
    for version in list.items() {
        if seen.insert(version.text()) {
            version.check(names::is_dns1035_label, errors);
        } else {
            errors.push(version.invalid("duplicate version"));
        }
    }
    if strictness.review_versions && !REVIEW_VERSIONS.iter().any(|version| seen.contains(version)) {
        errors.push(list.invalid(format!("must include at least one of {}", REVIEW_VERSIONS.join(", "))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    fn configuration(change: Value) -> Value {
        let mut hook = json!({"name": "a.e.com", "clientConfig": {"url": "https://e.com"}, "sideEffects": "None",
            "admissionReviewVersions": ["v1"]});
        for (key, value) in change.as_object().into_iter().flatten() {
            hook[key] = value.clone();
        }
        let mut obj = json!({"metadata": {"name": "c"}, "webhooks": [hook]});
        WebhookConfiguration(Phase::Mutating).default(&mut obj);
        obj
    }

    #[test]
    fn webhooks_are_checked_field_by_field() {
        let rule = |operations: &[&str], resources: &[&str]| json!({"rules": [{"operations": operations, "apiGroups": ["*"], "apiVersions": ["v1"], "resources": resources}]});
        let table: Vec<(Value, &[&str])> = vec![
            (json!({}), &[]),
            (
                json!({"name": "a.b"}),
                &["webhooks[0].name: Invalid value: \"a.b\": should be a domain with at least"],
            ),
            (
                json!({"sideEffects": "Some"}),
                &[
                    "webhooks[0].sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
                ],
            ),
            (
                json!({"sideEffects": null}),
                &["webhooks[0].sideEffects: Required value: must specify one of None, NoneOnDryRun"],
            ),
            (
                json!({"timeoutSeconds": 31}),
                &["webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must"],
            ),
            (
                json!({"admissionReviewVersions": ["v2", "v2"]}),
                &[
                    "webhooks[0].admissionReviewVersions[1]: Invalid value: \"v2\": duplicate version",
                    "webhooks[0].admissionReviewVersions: Invalid value: [\"v2\",\"v2\"]: must include at least one of v1, v1beta1",
                ],
            ),
            (json!({"failurePolicy": "x"}), &["webhooks[0].failurePolicy: Unsupported value: \"x\""]),
            (rule(&["CREATE"], &["pods", "pods/*"]), &[]),
            (
                rule(&["*", "CREATE"], &["*", "pods"]),
                &[
                    "webhooks[0].rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not",
                    "webhooks[0].rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not",
                ],
            ),
            (
                rule(&["LIST"], &["pods/*", "pods/status"]),
                &[
                    "webhooks[0].rules[0].operations[0]: Unsupported value: \"LIST\": supported values: \"*\", \"CONNECT\"",
                    "webhooks[0].rules[0].resources[1]: Invalid value: \"pods/status\": if 'pods/*' is present",
                ],
            ),
            (
                json!({"matchConditions": [{"name": "a", "expression": " "}, {"name": "a", "expression": "true"}]}),
                &[
                    "webhooks[0].matchConditions[0].expression: Required value",
                    "webhooks[0].matchConditions[1].name: Duplicate value: \"a\"",
                ],
            ),
        ];
        for (change, expect) in table {
            expect_errors(&WebhookConfiguration(Phase::Mutating).validate(&configuration(change)), expect);
        }
    }

    #[test]
    fn what_was_wrong_before_may_stay_wrong() {
        let old = configuration(json!({"sideEffects": "Unknown", "admissionReviewVersions": ["v9"]}));
        assert_eq!(WebhookConfiguration(Phase::Validating).validate(&old).len(), 2);
        expect_errors(&WebhookConfiguration(Phase::Validating).validate_update(&old, &old), &[]);
    }

    #[test]
    fn hooks_are_filled_in() {
        let obj = configuration(json!({"clientConfig": {"service": {"name": "s", "namespace": "n"}}}));
        let hook = &obj["webhooks"][0];
        assert_eq!(hook["clientConfig"]["service"]["port"], 443);
        assert_eq!((&hook["timeoutSeconds"], &hook["matchPolicy"]), (&json!(10), &json!("Equivalent")));
        assert_eq!((&hook["objectSelector"], &hook["reinvocationPolicy"]), (&json!({}), &json!("Never")));
    }
}
