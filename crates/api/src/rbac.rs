//! The group `rbac.authorization.k8s.io`: roles and their bindings (follows `pkg/apis/rbac/validation`).

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::meta::str_at;
use apimachinery::{Value, names};
use jiff::Timestamp;

use crate::columns::{AGE, NAME, age, column, items, name, wide};
use crate::defaults::{Fill, each, fill, object_or_new, store_as_none};
use crate::strategy::{Column, NameRule, Strategy};
use crate::validation::{At, dns1123_subdomain, label_selector, same_field};

const GROUP: &str = "rbac.authorization.k8s.io";
const SUBJECT_KINDS: [&str; 3] = ["ServiceAccount", "User", "Group"];

const BINDING_COLUMNS: [Column; 6] = [
    NAME,
    column("Role", "string", "The role that is granted."),
    AGE,
    wide("Users", "string", "Users it is granted to."),
    wide("Groups", "string", "Groups it is granted to."),
    wide("ServiceAccounts", "string", "Service accounts it is granted to."),
];

/// A Role, or with `cluster` a ClusterRole.
pub struct Role {
    pub cluster: bool,
}

impl Strategy for Role {
    /// Upstream always writes the rules, be they none.
    fn default(&self, obj: &mut Value) {
        if let Some(map) = obj.as_object_mut() {
            map.entry("rules").or_insert(Value::Null);
        }
    }

    /// No rules are stored as none at all.
    fn canonicalize(&self, obj: &mut Value) {
        store_as_none(obj, &["rules"]);
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let root = At::root(obj);
        for rule in root.get("rules").items() {
            policy_rule(&rule, self.cluster, &mut errors);
        }
        if let Some(aggregation) = root.field("aggregationRule") {
            let selectors = aggregation.get("clusterRoleSelectors");
            if selectors.is_empty() {
                let detail = "at least one clusterRoleSelector required if aggregationRule is non-nil";
                errors.push(selectors.required(detail));
            }
            for selector in selectors.items() {
                label_selector(&selector, &mut errors);
            }
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }
}

fn policy_rule(rule: &At, cluster: bool, errors: &mut ErrorList) {
    if rule.get("verbs").is_empty() {
        errors.push(rule.get("verbs").required("verbs must contain at least one value"));
    }
    let urls = rule.get("nonResourceURLs");
    if !urls.is_empty() {
        if !cluster {
            errors.push(urls.invalid("namespaced rules cannot apply to non-resource URLs"));
        }
        if ["apiGroups", "resources", "resourceNames"].iter().any(|field| !rule.get(field).is_empty()) {
            let detail = "rules cannot apply to both regular resources and non-resource URLs";
            errors.push(urls.invalid(detail));
        }
        return;
    }
    for (field, detail) in [
        ("apiGroups", "resource rules must supply at least one api group"),
        ("resources", "resource rules must supply at least one resource"),
    ] {
        if rule.get(field).is_empty() {
            errors.push(rule.get(field).required(detail));
        }
    }
}

/// A RoleBinding, or with `cluster` a ClusterRoleBinding.
pub struct RoleBinding {
    pub cluster: bool,
}

impl Strategy for RoleBinding {
    fn default(&self, obj: &mut Value) {
        if let Some(reference) = object_or_new(obj, "roleRef") {
            fill(reference, &[("apiGroup", Fill::Text(GROUP))]);
        }
        for subject in each(obj, "subjects") {
            if matches!(str_at(subject, &["kind"]), "User" | "Group") {
                fill(subject, &[("apiGroup", Fill::Text(GROUP))]);
            }
        }
    }

    fn validate(&self, obj: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let reference = At::root(obj).get("roleRef");
        let (group, kind, name) = (reference.get("apiGroup"), reference.get("kind"), reference.get("name"));
        if group.text() != GROUP {
            errors.push(Error::not_supported(&group.path, group.text(), &[GROUP]));
        }
        let kinds: &[&str] = if self.cluster { &["ClusterRole"] } else { &["Role", "ClusterRole"] };
        if !kinds.contains(&kind.text()) {
            errors.push(Error::not_supported_of(&kind.path, kind.text(), kinds));
        }
        if name.is_empty() {
            errors.push(name.required(""));
        } else {
            name.check(names::is_path_segment_name, &mut errors);
        }
        for subject in At::root(obj).get("subjects").items() {
            validate_subject(&subject, self.cluster, &mut errors);
        }
        errors
    }

    fn validate_update(&self, obj: &Value, old: &Value) -> ErrorList {
        let mut errors = self.validate(obj);
        if !same_field(obj, old, "roleRef") {
            let value = obj.get("roleRef").cloned().unwrap_or_default();
            errors.push(Error::invalid(&Path::new("roleRef"), value, "cannot change roleRef"));
        }
        errors
    }

    fn columns(&self) -> &'static [Column] {
        &BINDING_COLUMNS
    }

    fn row(&self, obj: &Value, now: Timestamp) -> Vec<Value> {
        let role = format!("{}/{}", str_at(obj, &["roleRef", "kind"]), str_at(obj, &["roleRef", "name"]));
        let [users, groups, accounts] =
            ["User", "Group", "ServiceAccount"].map(|kind| Value::from(subjects(obj, kind)));
        vec![name(obj), role.into(), age(obj, now), users, groups, accounts]
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn name_rule(&self) -> NameRule {
        names::is_path_segment_name
    }
}

fn validate_subject(subject: &At, cluster: bool, errors: &mut ErrorList) {
    let (name, group, kind) = (subject.get("name"), subject.get("apiGroup"), subject.get("kind"));
    if name.is_empty() {
        errors.push(name.required(""));
    }
    match kind.text() {
        "ServiceAccount" => {
            if !name.is_empty() {
                dns1123_subdomain(&name, errors);
            }
            if !group.is_empty() {
                errors.push(group.not_supported(&[""]));
            }
            if cluster && subject.get("namespace").is_empty() {
                errors.push(subject.get("namespace").required(""));
            }
        }
        "User" | "Group" => {
            if group.text() != GROUP {
                errors.push(Error::not_supported(&group.path, group.text(), &[GROUP]));
            }
        }
        other => errors.push(Error::not_supported_of(&kind.path, other, &SUBJECT_KINDS)),
    }
}

fn subjects(obj: &Value, kind: &str) -> String {
    let names: Vec<String> = items(obj, &["subjects"])
        .iter()
        .filter(|subject| str_at(subject, &["kind"]) == kind)
        .map(|subject| match (kind, str_at(subject, &["name"])) {
            ("ServiceAccount", name) => format!("{}/{name}", str_at(subject, &["namespace"])),
            (_, name) => name.to_owned(),
        })
        .collect();
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::json;

    #[test]
    fn rules_are_about_resources_or_urls() {
        let check = |cluster: bool, rule: Value, expect: &[&str]| {
            expect_errors(&Role { cluster }.validate(&json!({"rules": [rule]})), expect);
        };
        check(false, json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}), &[]);
        check(true, json!({"verbs": ["get"], "nonResourceURLs": ["/x"]}), &[]);
        check(
            false,
            json!({"nonResourceURLs": ["/x"], "resources": ["pods"]}),
            &[
                "rules[0].verbs: Required value: verbs must contain at least one value",
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: namespaced rules cannot apply to non-resource URLs",
                "rules[0].nonResourceURLs: Invalid value: [\"/x\"]: rules cannot apply to both",
            ],
        );
        check(
            true,
            json!({"verbs": ["*"]}),
            &["rules[0].apiGroups: Required value", "rules[0].resources: Required value"],
        );
    }

    fn binding() -> Value {
        let mut obj = json!({"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "system:x"},
            "subjects": [{"kind": "User", "name": "u"}, {"kind": "ServiceAccount", "name": "a", "namespace": "n"}]});
        RoleBinding { cluster: true }.default(&mut obj);
        obj
    }

    #[test]
    fn a_binding_names_one_role_forever() {
        let strategy = RoleBinding { cluster: true };
        expect_errors(&strategy.validate(&binding()), &[]);
        let mut other = binding();
        other["roleRef"]["name"] = json!("y");
        expect_errors(&strategy.validate_update(&other, &binding()), &["roleRef: Invalid value: {"]);
        let bad = json!({"roleRef": {"kind": "Role", "apiGroup": GROUP, "name": "a/b"}, "subjects": [{"kind": "Robot"}]});
        expect_errors(
            &strategy.validate(&bad),
            &[
                "roleRef.kind: Unsupported value: \"Role\": supported values: \"ClusterRole\"",
                "roleRef.name: Invalid value: \"a/b\": may not contain '/'",
                "subjects[0].name: Required value",
                "subjects[0].kind: Unsupported value: \"Robot\"",
            ],
        );
    }

    #[test]
    fn a_row_lists_subjects_by_kind() {
        let cells = RoleBinding { cluster: true }.row(&binding(), Timestamp::UNIX_EPOCH);
        assert_eq!(cells[1], "ClusterRole/system:x");
        assert_eq!(cells[3..], [json!("u"), json!(""), json!("n/a")]);
    }
}
