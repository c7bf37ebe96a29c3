//! Which requests a webhook or policy is about: rules, selectors, conditions (follows `validateRuleWithOperations`,
//! `validateMatchResources`, `validateMatchConditions`).

use std::collections::BTreeSet;

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Value, names};

use super::expression::{self, Offers, Returns, Types};
use crate::defaults::{Fill, each, fill};
use crate::validation::{At, label_selector, qualified_name};

pub const FAILURE_POLICIES: [&str; 2] = ["Fail", "Ignore"];
pub const MATCH_POLICIES: [&str; 2] = ["Equivalent", "Exact"];
pub const REINVOCATION_POLICIES: [&str; 2] = ["IfNeeded", "Never"];
const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
/// What there is an object to change in.
const MUTATING_OPERATIONS: [&str; 4] = ["*", "CONNECT", "CREATE", "UPDATE"];
const SCOPES: [&str; 3] = ["*", "Cluster", "Namespaced"];
/// Conditions of one webhook or policy.
const CONDITIONS_MAX: usize = 64;

const SELECTORS: &[(&str, Fill)] = &[
    ("matchPolicy", Fill::Text("Equivalent")),
    ("namespaceSelector", Fill::Empty),
    ("objectSelector", Fill::Empty),
];

/// Defaults of a `MatchResources`, or of the part of a webhook that is the same.
pub fn default(resources: &mut Value) {
    fill(resources, SELECTORS);
    for list in ["rules", "resourceRules", "excludeResourceRules"] {
        for rule in each(resources, list) {
            fill(rule, &[("scope", Fill::Text("*"))]);
        }
    }
}

/// A `MatchResources`.
pub fn resources(at: &At, errors: &mut ErrorList) {
    at.get("matchPolicy").check_enum(&MATCH_POLICIES, errors);
    for field in ["namespaceSelector", "objectSelector"] {
        match at.field(field) {
            Some(selector) => label_selector(&selector, errors),
            None => errors.push(at.get(field).required("")),
        }
    }
    for list in ["resourceRules", "excludeResourceRules"] {
        for named in at.get(list).items() {
            let mut seen = BTreeSet::new();
            for name in named.get("resourceNames").items() {
                name.check(names::is_path_segment_name, errors);
                if !seen.insert(name.text()) {
                    errors.push(name.duplicate());
                }
            }
            rule(&named, errors);
        }
    }
}

/// Rules of something that changes objects name no DELETE.
pub fn mutating_operations(resources: &At, errors: &mut ErrorList) {
    let path = resources.path.child("resourceRules").child("operations");
    for rule in resources.get("resourceRules").items() {
        for operation in rule.get("operations").texts() {
            if !MUTATING_OPERATIONS.contains(&operation) {
                errors.push(Error::not_supported(&path, operation, &MUTATING_OPERATIONS));
            }
        }
    }
}

/// A `RuleWithOperations`.
pub fn rule(rule: &At, errors: &mut ErrorList) {
    alone(&rule.get("operations"), "operations", errors);
    for operation in rule.get("operations").items() {
        operation.check_optional_enum(&OPERATIONS, errors);
    }
    alone(&rule.get("apiGroups"), "API groups", errors);
    alone(&rule.get("apiVersions"), "API versions", errors);
    for version in rule.get("apiVersions").items().filter(At::is_empty) {
        errors.push(version.required(""));
    }
    kinds(&rule.get("resources"), errors);
    rule.get("scope").check_optional_enum(&SCOPES, errors);
}

/// A list in which `*` stands alone.
fn alone(list: &At, what: &str, errors: &mut ErrorList) {
    if list.is_empty() {
        errors.push(list.required(""));
    }
    if list.len() > 1 && list.texts().contains(&"*") {
        errors.push(list.invalid(format!("if '*' is present, must not specify other {what}")));
    }
}

/// Resources and subresources, without any that a wildcard beside it covers (follows `validateResources`).
fn kinds(list: &At, errors: &mut ErrorList) {
    if list.is_empty() {
        errors.push(list.required(""));
    }
    let (mut all_of, mut of_all) = (BTreeSet::new(), BTreeSet::new());
    let mut plain = false;
    for at in list.items() {
        if at.is_empty() {
            errors.push(at.required(""));
            continue;
        }
        let Some((resource, sub)) = at.text().split_once('/') else {
            plain = at.text() != "*";
            continue;
        };
        if all_of.contains(resource) {
            errors.push(at.invalid(format!("if '{resource}/*' is present, must not specify {}", at.text())));
        }
        if of_all.contains(sub) {
            errors.push(at.invalid(format!("if '*/{sub}' is present, must not specify {}", at.text())));
        }
        if sub == "*" {
            all_of.insert(resource);
        }
        if resource == "*" {
            of_all.insert(sub);
        }
    }
    let texts = list.texts();
    if texts.len() > 1 && texts.contains(&"*/*") {
        errors.push(list.invalid("if '*/*' is present, must not specify other resources"));
    }
    if texts.contains(&"*") && plain {
        errors.push(list.invalid("if '*' is present, must not specify other resources without subresources"));
    }
}

/// Named conditions in CEL. Of webhooks they know no parameters.
pub fn conditions(list: &At, has_params: bool, errors: &mut ErrorList) {
    if list.len() > CONDITIONS_MAX {
        errors.push(Error::too_many(&list.path, list.len(), CONDITIONS_MAX));
    }
    let offers = Offers { params: has_params, authorizer: true, patches: false };
    let env = expression::env(offers, &Types::default());
    let mut seen = BTreeSet::new();
    for condition in list.items() {
        let (name, expression) = (condition.get("name"), condition.get("expression"));
        match expression.text().trim() {
            "" => errors.push(expression.required("")),
            text => expression::check(&env, text, Returns::Bool, &expression.path, errors),
        }
        if name.is_empty() {
            errors.push(name.required(""));
            continue;
        }
        qualified_name(&name, errors);
        if !seen.insert(name.text()) {
            errors.push(name.duplicate());
        }
    }
}
