//! The roles and bindings every cluster starts with, read from a compact table (upstream: bootstrappolicy).

mod reconcile;

use apimachinery::{Map, Value, json};
use serde::Deserialize;

use crate::authorizer::RBAC_GROUP;
use crate::rbac::{PolicyRule, RbacIndex};

pub use reconcile::{Reconciliation, reconcile};

/// See the table's own head for its notation.
const POLICY: &str = include_str!("bootstrap/policy.txt");
const READ: [&str; 3] = ["get", "list", "watch"];
const WRITE: [&str; 5] = ["create", "delete", "deletecollection", "patch", "update"];
/// ClusterRoles of this prefix are bound to the service account named after it.
const CONTROLLER_PREFIX: &str = "system:controller:";
const AGGREGATE_LABEL_PREFIX: &str = "rbac.authorization.k8s.io/aggregate-to-";

/// All ClusterRoles, Roles, ClusterRoleBindings and RoleBindings, ready to be stored. The caller creates what is
/// missing and reconciles what is there.
pub fn bootstrap_objects() -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    let mut bindings = Vec::new();
    let lines = POLICY.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    for line in lines {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["cluster-role", name, flags @ ..] => {
                objects.push(cluster_role(name, flags));
                bindings.extend(controller_binding(name));
            }
            ["role", name] => objects.push(object("Role", name)),
            ["cluster-binding", name, role, subjects @ ..] => {
                bindings.push(binding("ClusterRoleBinding", name, "ClusterRole", role, subjects));
            }
            ["binding", name, role, subjects @ ..] => {
                bindings.push(binding("RoleBinding", name, "Role", role, subjects));
            }
            rule => add_rule(objects.last_mut().expect("a rule follows a role"), rule),
        }
    }
    fill_aggregated(&mut objects);
    objects.extend(bindings);
    objects
}

/// Gives aggregated ClusterRoles the rules that they gather, so that whoever reads them sees what they grant.
fn fill_aggregated(objects: &mut [Value]) {
    let mut index = RbacIndex::default();
    objects.iter().for_each(|object| index.apply(object));
    for object in objects.iter_mut().filter(|object| object["aggregationRule"].is_object()) {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let rules = index.aggregated_rules(name).unwrap_or_default();
        object["rules"] = json!(rules);
    }
}

/// The rules of one of the ClusterRoles.
pub fn rules_of(cluster_role: &str) -> Option<Vec<PolicyRule>> {
    let is_it = |object: &&Value| {
        object["kind"] == "ClusterRole" && object["metadata"]["name"].as_str() == Some(cluster_role)
    };
    let objects = bootstrap_objects();
    Vec::<PolicyRule>::deserialize(&objects.iter().find(is_it)?["rules"]).ok()
}

/// An object without content; the name may be preceded by a namespace and a slash.
fn object(kind: &str, name: &str) -> Value {
    let (namespace, name) = match name.split_once('/') {
        Some((namespace, name)) => (Some(namespace), name),
        None => (None, name),
    };
    let mut object = json!({
        "apiVersion": format!("{RBAC_GROUP}/v1"),
        "kind": kind,
        "metadata": {
            "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
            "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"},
            "name": name
        }
    });
    if let Some(namespace) = namespace {
        object["metadata"]["namespace"] = namespace.into();
    }
    if kind.ends_with("Role") {
        object["rules"] = Value::Array(Vec::new());
    }
    object
}

fn cluster_role(name: &str, flags: &[&str]) -> Value {
    let mut role = object("ClusterRole", name);
    for flag in flags {
        let (what, label) = flag.split_once('=').expect("a flag has a value");
        let label = format!("{AGGREGATE_LABEL_PREFIX}{label}");
        match what {
            "joins" => role["metadata"]["labels"][label] = "true".into(),
            "gathers" => {
                let labels = Map::from_iter([(label, "true".into())]);
                role["aggregationRule"] = json!({"clusterRoleSelectors": [{"matchLabels": labels}]});
            }
            other => unreachable!("the table has no flag {other}"),
        }
    }
    role
}

fn add_rule(role: &mut Value, words: &[&str]) {
    let list = |text: &str| text.split(',').map(str::to_owned).collect::<Vec<String>>();
    let rule = match words {
        ["urls", urls, verbs] => json!({"nonResourceURLs": list(urls), "verbs": expand(verbs)}),
        [groups, resources, verbs] => {
            json!({"apiGroups": group_names(groups), "resources": list(resources), "verbs": expand(verbs)})
        }
        [groups, resources, verbs, names] => json!({
            "apiGroups": group_names(groups), "resources": list(resources), "verbs": expand(verbs),
            "resourceNames": list(names)
        }),
        other => unreachable!("the table has no such line: {other:?}"),
    };
    role["rules"].as_array_mut().expect("a role has rules").push(rule);
}

fn group_names(text: &str) -> Vec<&str> {
    text.split(',').map(|group| if group == "core" { "" } else { group }).collect()
}

/// The verbs behind `read`, `write` and plain words, sorted.
fn expand(text: &str) -> Vec<&str> {
    let mut verbs: Vec<&str> = Vec::new();
    for word in text.split(',') {
        match word {
            "read" => verbs.extend(READ),
            "write" => verbs.extend(WRITE),
            verb => verbs.push(verb),
        }
    }
    verbs.sort_unstable();
    verbs
}

fn controller_binding(role: &str) -> Option<Value> {
    let account = format!("account:kube-system/{}", role.strip_prefix(CONTROLLER_PREFIX)?);
    Some(binding("ClusterRoleBinding", role, "ClusterRole", role, &[&account]))
}

fn binding(kind: &str, name: &str, role_kind: &str, role: &str, subjects: &[&str]) -> Value {
    let mut binding = object(kind, name);
    binding["roleRef"] = json!({"apiGroup": RBAC_GROUP, "kind": role_kind, "name": role});
    if !subjects.is_empty() {
        binding["subjects"] = subjects.iter().map(|subject| self::subject(subject)).collect();
    }
    binding
}

fn subject(text: &str) -> Value {
    match text.split_once(':').expect("a subject has a kind") {
        ("user", name) => json!({"apiGroup": RBAC_GROUP, "kind": "User", "name": name}),
        ("group", name) => json!({"apiGroup": RBAC_GROUP, "kind": "Group", "name": name}),
        (_, account) => {
            let (namespace, name) = account.split_once('/').expect("an account has a namespace");
            json!({"kind": "ServiceAccount", "name": name, "namespace": namespace})
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_table_holds_as_many_objects_as_upstream_besides_our_own() {
        let objects = bootstrap_objects();
        let is_ours = |object: &Value| {
            let name = object["metadata"]["name"].as_str().expect("a name");
            name.starts_with("coxswain:") || name == "system:controller:ingress-controller"
        };
        let upstreams = || objects.iter().filter(|object| !is_ours(object));
        let count = |kind: &str| upstreams().filter(|object| object["kind"] == kind).count();
        assert_eq!(["ClusterRole", "Role", "ClusterRoleBinding", "RoleBinding"].map(count), [70, 7, 51, 7]);
        let names: HashSet<String> =
            objects.iter().map(|o| format!("{}{}", o["kind"], o["metadata"])).collect();
        assert_eq!(names.len(), objects.len());
    }

    #[test]
    fn every_binding_refers_to_a_role_of_the_table() {
        let objects = bootstrap_objects();
        for binding in objects.iter().filter(|object| object["roleRef"].is_object()) {
            let refers = |role: &&Value| {
                role["kind"] == binding["roleRef"]["kind"]
                    && role["metadata"]["name"] == binding["roleRef"]["name"]
            };
            assert!(objects.iter().any(|role| refers(&role)), "{binding}");
        }
    }

    #[test]
    fn a_role_reads_as_upstreams() {
        let rules = rules_of("cluster-admin").expect("is there");
        assert_eq!(rules[0].to_string(), r#"{APIGroups:["*"], Resources:["*"], Verbs:["*"]}"#);
        assert_eq!(rules_of("nothing"), None);
        let admin = rules_of("admin").expect("is there");
        let view = rules_of("view").expect("is there");
        assert!(view.len() > 10 && view.iter().all(|rule| admin.contains(rule)));
    }
}
