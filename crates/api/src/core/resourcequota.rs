//! ResourceQuota (follows `pkg/registry/core/resourcequota`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Text, Value, json};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, name};
use crate::core::pod::validation::requirements::resource_name;
use crate::defaults::{Fill, fill};
use crate::strategy::{Column, Strategy, keep};
use crate::validation::{At, is_huge_page_resource, resource_quantity};

/// What a quota may limit, beside `count/...`, huge pages and what has a domain.
const STANDARD: [&str; 23] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.storage",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "persistentvolumeclaims",
    "configmaps",
    "services.nodeports",
    "services.loadbalancers",
    "resourceclaims",
    "deviceclass",
    "hugepages-2Mi",
    "hugepages-1Gi",
];
/// What a quota for pods of a class of service may limit.
const OF_PODS: [&str; 9] = [
    "pods",
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
];
const SCOPES: [&str; 7] = [
    "Terminating",
    "NotTerminating",
    "BestEffort",
    "NotBestEffort",
    "PriorityClass",
    "CrossNamespacePodAffinity",
    "VolumeAttributesClass",
];
/// Scopes that are there or not, without values.
const MERE: [&str; 5] =
    ["BestEffort", "NotBestEffort", "Terminating", "NotTerminating", "CrossNamespacePodAffinity"];
const CONFLICTING: [[&str; 2]; 2] = [["BestEffort", "NotBestEffort"], ["Terminating", "NotTerminating"]];

const COLUMNS: [Column; 4] = [
    NAME,
    column("Request", "string", "Used and allowed of what is requested and counted."),
    column("Limit", "string", "Used and allowed of what limits say."),
    AGE,
];

pub struct ResourceQuota;

impl Strategy for ResourceQuota {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("spec", Fill::Empty), ("status", Fill::Empty)]);
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        obj["status"] = json!({});
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let spec = At::root(obj).get("spec");
        amounts(&spec.get("hard"), &mut errors);
        scopes(&spec, &mut errors);
        scope_selector(&spec, &mut errors);
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        let scopes = At::root(obj).at(&["spec", "scopes"]);
        let set = |at: &At| at.texts().into_iter().map(str::to_owned).collect::<BTreeSet<_>>();
        if set(&scopes) != set(&At::root(old).at(&["spec", "scopes"])) {
            errors.push(scopes.invalid(crate::objectmeta::FIELD_IMMUTABLE));
        }
        errors
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let status = At::root(obj).get("status");
        amounts(&status.get("hard"), &mut errors);
        amounts(&status.get("used"), &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let (hard, used) = (&obj["status"]["hard"], &obj["status"]["used"]);
        let text = |limits: bool| {
            let entries = hard.as_object().into_iter().flatten();
            let entries = entries.filter(|(name, _)| name.starts_with("limits.") == limits);
            let cell = |(name, hard): (&Text, &Value)| {
                format!(
                    "{name}: {}/{}",
                    used[name].as_str().unwrap_or("0"),
                    hard.as_str().unwrap_or_default()
                )
            };
            entries.map(cell).collect::<Vec<_>>().join(", ")
        };
        vec![name(obj), text(false).into(), text(true).into(), age(obj, now)]
    }
}

fn is_standard(name: &str) -> bool {
    STANDARD.contains(&name) || is_huge_page_resource(name.strip_prefix("requests.").unwrap_or(name))
}

fn amounts(list: &At, errors: &mut ErrorList) {
    for (name, quantity) in list.entries() {
        resource_name(name, &quantity, errors);
        if !name.contains('/') && !is_standard(name) {
            errors.push(Error::invalid(&quantity.path, name, "must be a standard resource for quota"));
        }
        resource_quantity(name, &quantity, errors);
    }
}

/// Whether a quota of this scope may limit this resource (follows `IsResourceQuotaScopeValidForResource`).
fn fits(scope: &str, resource: &str) -> bool {
    match scope {
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => {
            OF_PODS.contains(&resource) || resource == "limits.ephemeral-storage"
        }
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => matches!(resource, "requests.storage" | "persistentvolumeclaims"),
        _ => true,
    }
}

fn misfits(spec: &At, scope: &str) -> usize {
    let limited = spec.get("hard");
    limited.entries().filter(|(name, _)| is_standard(name) && !fits(scope, name)).count()
}

fn conflict(named: &[&str]) -> usize {
    CONFLICTING.iter().filter(|pair| pair.iter().all(|scope| named.contains(scope))).count()
}

fn scopes(spec: &At, errors: &mut ErrorList) {
    let scopes = spec.get("scopes");
    let named = scopes.texts();
    for scope in &named {
        if !SCOPES.contains(scope) {
            errors.push(scopes.invalid("unsupported scope"));
        }
        for _ in 0..misfits(spec, scope) {
            errors.push(scopes.invalid("unsupported scope applied to resource"));
        }
    }
    for _ in 0..conflict(&named) {
        errors.push(scopes.invalid("conflicting scopes"));
    }
}

fn scope_selector(spec: &At, errors: &mut ErrorList) {
    let Some(selector) = spec.field("scopeSelector") else { return };
    let path = selector.path.child("matchExpressions");
    let expressions = selector.get("matchExpressions");
    let mut named = Vec::new();
    for expression in expressions.items() {
        let expression = expression.under(&path);
        let (scope, operator) = (expression.get("scopeName"), expression.get("operator"));
        if !SCOPES.contains(&scope.text()) {
            errors.push(scope.invalid("unsupported scope"));
        }
        for _ in 0..misfits(spec, scope.text()) {
            let detail = "unsupported scope applied to resource";
            errors.push(Error::invalid(&path, selector.value.clone(), detail));
        }
        if MERE.contains(&scope.text()) && operator.text() != "Exists" {
            errors.push(operator.invalid("must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity"));
        }
        values(&expression, operator.text(), errors);
        named.push(scope.text());
    }
    for _ in 0..conflict(&named) {
        errors.push(spec.get("scopes").under(&path).invalid("conflicting scopes"));
    }
}

fn values(expression: &At, operator: &str, errors: &mut ErrorList) {
    let values = expression.get("values");
    match operator {
        "In" | "NotIn" if values.is_empty() => errors
            .push(values.required(
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            )),
        "Exists" | "DoesNotExist" if !values.is_empty() => errors.push(
            values
                .invalid("must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector"),
        ),
        "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
        _ => errors.push(expression.get("operator").invalid("not a valid selector operator")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;

    fn check(spec: Value, expect: &[&str]) {
        expect_errors(&ResourceQuota.validate(&json!({"metadata": {"name": "q"}, "spec": spec})), expect);
    }

    #[test]
    fn quotas_limit_what_can_be_counted() {
        check(
            json!({"hard": {"pods": "3", "requests.cpu": "1", "count/jobs.batch": "2", "requests.example.com/gpu": "1"}}),
            &[],
        );
        check(
            json!({"hard": {"pods": "1500m"}}),
            &["spec.hard[pods]: Invalid value: \"1500m\": must be an integer"],
        );
        check(
            json!({"hard": {"pods": "-1"}}),
            &["spec.hard[pods]: Invalid value: \"-1\": must be greater than or equal to 0"],
        );
        check(
            json!({"hard": {"apples": "1"}}),
            &[
                "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource type or fully qualified",
                "spec.hard[apples]: Invalid value: \"apples\": must be a standard resource for quota",
            ],
        );
    }

    #[test]
    fn everything_that_quotas_count_is_a_standard_resource() {
        for name in
            ["services.loadbalancers", "services.nodeports", "requests.hugepages-2Mi", "hugepages-1Gi"]
        {
            check(json!({"hard": {name: "2"}}), &[]);
        }
    }

    #[test]
    fn scopes_fit_each_other_and_what_is_limited() {
        check(json!({"hard": {"pods": "1"}, "scopes": ["BestEffort"]}), &[]);
        check(
            json!({"hard": {"cpu": "1"}, "scopes": ["BestEffort"]}),
            &["spec.scopes: Invalid value: [\"BestEffort\"]: unsupported scope applied to resource"],
        );
        check(
            json!({"scopes": ["BestEffort", "NotBestEffort"]}),
            &["spec.scopes: Invalid value: [\"BestEffort\",\"NotBestEffort\"]: conflicting scopes"],
        );
        check(
            json!({"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}}),
            &["spec.scopeSelector.matchExpressions.values: Required value: must be at least one value"],
        );
        let (old, new) = (json!({"spec": {}}), json!({"spec": {"scopes": ["Terminating"]}}));
        expect_errors(
            &ResourceQuota.validate_update(&new, &old),
            &["spec.scopes: Invalid value: [\"Terminating\"]: field is immutable"],
        );
    }

    #[test]
    fn a_row_shows_used_and_allowed() {
        let obj = json!({"metadata": {"name": "q"}, "status": {"hard": {"pods": "3", "limits.cpu": "2"}, "used": {"pods": "1"}}});
        let row = ResourceQuota.row(&obj, Timestamp::UNIX_EPOCH);
        assert_eq!(row[..3], [json!("q"), json!("pods: 1/3"), json!("limits.cpu: 0/2")]);
    }
}
