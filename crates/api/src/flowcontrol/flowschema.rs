//! FlowSchema (follows `pkg/registry/flowcontrol/flowschema`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::managedfields::{Set, reset_fields_and_metadata};
use apimachinery::meta::str_at;
use apimachinery::{Value, json, names};
use jiff::Timestamp;

use super::{conditions, mandatory};
use crate::columns::{AGE, NAME, NONE, age, column, count, items, name};
use crate::defaults::{Fill, fill, object_or_new};
use crate::strategy::{
    Column, Strategy, bump_generation, drop_field, keep, keep_all_metadata, set_first_generation,
};
use crate::validation::{At, dns1123_label, dns1123_subdomain};

const PRECEDENCE_MAX: i64 = 10_000;
const DISTINGUISHERS: [&str; 2] = ["ByNamespace", "ByUser"];
const VERBS: [&str; 9] =
    ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// Kinds of subjects, with the field of each and its name in messages.
const SUBJECTS: [(&str, &str); 3] =
    [("ServiceAccount", "serviceAccount"), ("User", "user"), ("Group", "group")];

const COLUMNS: [Column; 6] = [
    NAME,
    column("PriorityLevel", "string", "Level of its requests."),
    column("MatchingPrecedence", "string", "Which of several schemas takes a request: the lowest."),
    column("DistinguisherMethod", "string", "What makes two of its requests one flow."),
    AGE,
    column("MissingPL", "string", "Whether its level is missing."),
];

pub struct FlowSchema;

impl Strategy for FlowSchema {
    fn default(&self, obj: &mut Value) {
        fill(obj, &[("status", Fill::Empty)]);
        if let Some(spec) = object_or_new(obj, "spec") {
            fill(
                spec,
                &[("matchingPrecedence", Fill::NonZero(1000)), ("priorityLevelConfiguration", Fill::Empty)],
            );
        }
    }

    fn prepare_for_create(&self, obj: &mut Value) {
        drop_field(obj, "status");
        fill(obj, &[("status", Fill::Empty)]);
        set_first_generation(obj);
    }

    fn prepare_for_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "status");
        bump_generation(obj, old, &["spec"]);
    }

    fn reset_fields(&self, subresource: &str) -> &'static Set {
        reset_fields_and_metadata(subresource)
    }

    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
        keep_all_metadata(obj, old);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        spec(&At::root(obj).get("spec"), str_at(obj, &["metadata", "name"]), &mut errors);
        mandatory(obj, "FlowSchema", None, &mut errors);
        conditions(obj, &mut errors);
        errors
    }

    fn validate_status_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        conditions(obj, &mut errors);
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &COLUMNS
    }

    /// In the order in which they are asked.
    fn table_rank(&self) -> Option<fn(&Value) -> i64> {
        Some(|obj| count(obj, &["spec", "matchingPrecedence"]))
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let method = obj.pointer("/spec/distinguisherMethod").map_or(NONE, |m| str_at(m, &["type"]));
        let dangling =
            items(obj, &["status", "conditions"]).iter().find(|c| str_at(c, &["type"]) == "Dangling");
        vec![
            name(obj),
            str_at(obj, &["spec", "priorityLevelConfiguration", "name"]).into(),
            count(obj, &["spec", "matchingPrecedence"]).into(),
            method.into(),
            age(obj, now),
            dangling.map_or("?", |c| str_at(c, &["status"])).into(),
        ]
    }
}

fn spec(spec: &At, name: &str, errors: &mut ErrorList) {
    let precedence = spec.get("matchingPrecedence");
    if precedence.int() <= 0 {
        errors.push(precedence.invalid("must be a positive value"));
    }
    if precedence.int() > PRECEDENCE_MAX {
        errors.push(precedence.invalid(format!("must not be greater than {PRECEDENCE_MAX}")));
    }
    if precedence.int() == 1 && name != "exempt" {
        errors.push(precedence.invalid("only the schema named 'exempt' may have matchingPrecedence 1"));
    }
    let method = spec.field("distinguisherMethod").map(|method| method.get("type"));
    if let Some(method) = method.filter(|method| !DISTINGUISHERS.contains(&method.text())) {
        // Upstream shows its inner type.
        let shown = json!({"Type": method.text()});
        errors.push(Error::not_supported(&method.path, shown, &DISTINGUISHERS));
    }
    let level = spec.at(&["priorityLevelConfiguration", "name"]);
    if level.is_empty() {
        errors.push(level.required("must reference a priority level"));
    } else {
        dns1123_subdomain(&level, errors);
    }
    for rule in spec.get("rules").items() {
        policy_rule(&rule, errors);
    }
}

fn policy_rule(rule: &At, errors: &mut ErrorList) {
    let (resources, paths) = (rule.get("resourceRules"), rule.get("nonResourceRules"));
    if rule.get("subjects").is_empty() {
        errors.push(rule.get("subjects").required("subjects must contain at least one value"));
    }
    for at in rule.get("subjects").items() {
        subject(&at, errors);
    }
    if resources.is_empty() && paths.is_empty() {
        let detail = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(rule.required(detail));
    }
    for at in resources.items() {
        resource_rule(&at, errors);
    }
    for at in paths.items() {
        non_resource_rule(&at, errors);
    }
}

fn subject(subject: &At, errors: &mut ErrorList) {
    let kind = subject.get("kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(name, _)| *name == kind.text()) else {
        errors.push(Error::not_supported(&kind.path, kind.text(), &SUBJECTS.map(|(name, _)| name)));
        return;
    };
    let at = subject.get(own);
    if !at.is_set() {
        errors.push(at.required(format!("{own} is required when subject kind is '{}'", kind.text())));
    } else if at.get("name").is_empty() {
        errors.push(at.get("name").required(""));
    } else if *own == "serviceAccount" && at.get("name").text() != "*" {
        dns1123_subdomain(&at.get("name"), errors);
    }
    if *own == "serviceAccount" && at.is_set() {
        let namespace = at.get("namespace");
        if namespace.is_empty() {
            errors.push(namespace.required("must specify namespace for service account"));
        } else {
            dns1123_label(&namespace, errors);
        }
    }
    for (name, field) in SUBJECTS.iter().filter(|(_, field)| field != own) {
        if subject.get(field).is_set() {
            let detail = format!("{field} is forbidden when subject kind is not '{name}'");
            errors.push(subject.get(field).forbidden(detail));
        }
    }
}

fn verbs(list: &At, errors: &mut ErrorList) {
    let texts = list.texts();
    if texts.is_empty() {
        errors.push(list.required("verbs must contain at least one value"));
    } else if texts.contains(&"*") {
        alone(list, "verbs", errors);
    } else if !texts.iter().all(|verb| VERBS.contains(verb)) {
        errors.push(list.not_supported(&VERBS));
    }
}

/// A list in which `*` stands alone.
fn alone(list: &At, what: &str, errors: &mut ErrorList) {
    if list.len() > 1 && list.texts().contains(&"*") {
        errors.push(list.invalid(format!("if '*' is present, must not specify other {what}")));
    }
}

fn resource_rule(rule: &At, errors: &mut ErrorList) {
    verbs(&rule.get("verbs"), errors);
    for (field, what, required) in [
        ("apiGroups", "api groups", "resource rules must supply at least one api group"),
        ("resources", "resources", "resource rules must supply at least one resource"),
    ] {
        let list = rule.get(field);
        if list.is_empty() {
            errors.push(list.required(required));
        }
        alone(&list, what, errors);
    }
    let namespaces = rule.get("namespaces");
    if namespaces.is_empty() && !rule.get("clusterScope").is_true() {
        errors.push(
            namespaces
                .required("resource rules that are not cluster scoped must supply at least one namespace"),
        );
    } else if namespaces.texts().contains(&"*") {
        alone(&namespaces, "namespaces", errors);
    } else {
        for namespace in namespaces.items() {
            for complaint in names::is_dns1123_label(namespace.text()) {
                let detail = format!("each member of this list must be '*' or a DNS-1123 label; {complaint}");
                errors.push(namespace.invalid(detail));
            }
        }
    }
}

fn non_resource_rule(rule: &At, errors: &mut ErrorList) {
    verbs(&rule.get("verbs"), errors);
    let urls = rule.get("nonResourceURLs");
    if urls.is_empty() {
        errors.push(urls.required("nonResourceURLs must contain at least one value"));
    } else if urls.texts().contains(&"*") {
        alone(&urls, "non-resource URLs", errors);
    } else {
        errors.extend(urls.items().filter_map(|url| path_complaint(url.text()).map(|c| url.invalid(c))));
    }
}

fn path_complaint(path: &str) -> Option<&'static str> {
    let stars = path.matches('*').count();
    match () {
        () if path.is_empty() => Some("must not be empty"),
        () if path == "/" => None,
        () if !path.starts_with('/') => Some("must start with slash"),
        () if path.contains(' ') => Some("must not contain white-space"),
        () if path.contains("//") => Some("must not contain double slash"),
        () if stars > 1 || (stars == 1 && !path.ends_with("/*")) => {
            Some("wildcard can only do suffix matching")
        }
        () => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn schemas_are_checked_field_by_field() {
        let check = |change: Value, expect: &[&str]| {
            let mut obj =
                json!({"metadata": {"name": "s"}, "spec": {"priorityLevelConfiguration": {"name": "l"}}});
            for (key, value) in change.as_object().into_iter().flatten() {
                obj["spec"][key] = value.clone();
            }
            FlowSchema.default(&mut obj);
            expect_errors(&FlowSchema.validate(&obj), expect);
        };
        check(json!({}), &[]);
        check(
            json!({"priorityLevelConfiguration": {}}),
            &["spec.priorityLevelConfiguration.name: Required value: must"],
        );
        check(
            json!({"matchingPrecedence": 1}),
            &["spec.matchingPrecedence: Invalid value: 1: only the schema named"],
        );
        check(
            json!({"matchingPrecedence": 10001}),
            &["spec.matchingPrecedence: Invalid value: 10001: must not be greater"],
        );
        check(
            json!({"rules": [{}]}),
            &[
                "spec.rules[0].subjects: Required value: subjects must contain at least one value",
                "spec.rules[0]: Required value: at least one of resourceRules and nonResourceRules",
            ],
        );
        let rule = |subject: Value, resource: Value, url: &str| {
            json!({"rules": [{"subjects": [subject], "resourceRules": [resource],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": [url]}]}]})
        };
        let user = json!({"kind": "User", "user": {"name": "u"}});
        let pods = json!({"verbs": ["*"], "apiGroups": [""], "resources": ["pods"], "namespaces": ["*"]});
        check(rule(user.clone(), pods.clone(), "/healthz/*"), &[]);
        check(
            rule(json!({"kind": "User", "group": {"name": "g"}}), pods, "/a*"),
            &[
                "spec.rules[0].subjects[0].user: Required value: user is required when subject kind is 'User'",
                "spec.rules[0].subjects[0].group: Forbidden: group is forbidden when subject kind is not 'Group'",
                "spec.rules[0].nonResourceRules[0].nonResourceURLs[0]: Invalid value: \"/a*\": wildcard can only do",
            ],
        );
        check(
            rule(user, json!({"verbs": ["eat"], "apiGroups": ["*", "a"], "resources": ["pods"]}), "/"),
            &[
                "spec.rules[0].resourceRules[0].verbs: Unsupported value: [\"eat\"]",
                "spec.rules[0].resourceRules[0].apiGroups: Invalid value: [\"*\",\"a\"]: if '*' is present",
                "spec.rules[0].resourceRules[0].namespaces: Required value: resource rules that are not cluster scoped",
            ],
        );
    }
}
