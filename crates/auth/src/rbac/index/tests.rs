//! Decisions as roles and bindings come and go.

use apimachinery::json;

use super::*;

fn role(kind: &str, namespace: &str, name: &str, rules: Value) -> Value {
    json!({"kind": kind, "metadata": {"namespace": namespace, "name": name}, "rules": rules})
}

fn binding(kind: &str, namespace: &str, name: &str, role: (&str, &str), subject: Value) -> Value {
    json!({"kind": kind, "metadata": {"namespace": namespace, "name": name},
        "roleRef": {"kind": role.0, "name": role.1}, "subjects": [subject]})
}

fn get_pods() -> Value {
    json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}])
}

fn index(objects: &[Value]) -> RbacIndex {
    let mut index = RbacIndex::default();
    objects.iter().for_each(|object| index.apply(object));
    index
}

fn decide(index: &RbacIndex, user: &UserInfo, namespace: &str) -> Decision {
    index.authorize(&Attributes {
        verb: "get",
        resource: "pods",
        namespace,
        name: "a",
        ..Attributes::of(user)
    })
}

fn alice() -> UserInfo {
    UserInfo::new("alice", ["dev"])
}

#[test]
fn a_cluster_role_binding_holds_everywhere() {
    let index = index(&[
        role("ClusterRole", "", "reader", get_pods()),
        binding(
            "ClusterRoleBinding",
            "",
            "devs",
            ("ClusterRole", "reader"),
            json!({"kind": "Group", "name": "dev"}),
        ),
    ]);
    let reason = "RBAC: allowed by ClusterRoleBinding \"devs\" of ClusterRole \"reader\" to Group \"dev\"";
    assert_eq!(decide(&index, &alice(), "any"), Decision::Allow(reason.to_owned()));
    assert!(decide(&index, &alice(), "").is_allowed());
    assert!(!decide(&index, &UserInfo::new("bob", ["ops"]), "any").is_allowed());
}

#[test]
fn a_role_binding_holds_in_its_namespace() {
    let mut index = index(&[
        role("Role", "ns", "reader", get_pods()),
        binding(
            "RoleBinding",
            "ns",
            "b",
            ("Role", "reader"),
            json!({"kind": "ServiceAccount", "name": "sa", "namespace": "other"}),
        ),
    ]);
    let account = UserInfo::service_account("other", "sa", "u");
    let reason = "RBAC: allowed by RoleBinding \"b/ns\" of Role \"reader\" to ServiceAccount \"sa/other\"";
    assert_eq!(decide(&index, &account, "ns"), Decision::Allow(reason.to_owned()));
    assert!(!decide(&index, &account, "other").is_allowed());
    assert!(!decide(&index, &account, "").is_allowed());
    index.remove(&json!({"kind": "Role", "metadata": {"namespace": "ns", "name": "reader"}}));
    assert!(!decide(&index, &account, "ns").is_allowed());
}

#[test]
fn a_changed_binding_forgets_its_old_subjects() {
    let to = |name: &str| {
        binding(
            "ClusterRoleBinding",
            "",
            "b",
            ("ClusterRole", "reader"),
            json!({"kind": "User", "name": name}),
        )
    };
    let mut index = index(&[to("alice"), role("ClusterRole", "", "reader", get_pods())]);
    assert!(decide(&index, &alice(), "x").is_allowed());
    index.apply(&to("bob"));
    assert!(!decide(&index, &alice(), "x").is_allowed());
    index.remove(&to("bob"));
    assert!(!decide(&index, &UserInfo::new("bob", [""; 0]), "x").is_allowed());
    assert!(index.by_user.is_empty() && index.bindings.is_empty());
}

#[test]
fn aggregated_roles_gather_rules_through_each_other() {
    let labelled = |name: &str, label: &str, selects: Option<&str>, rules: Value| {
        let selector = selects.map(|s| json!({"clusterRoleSelectors": [{"matchLabels": {s: "true"}}]}));
        json!({"kind": "ClusterRole", "metadata": {"name": name, "labels": {label: "true"}},
            "rules": rules, "aggregationRule": selector})
    };
    let mut index = index(&[
        labelled("admin", "x", Some("to-admin"), Value::Null),
        labelled("edit", "to-admin", Some("to-edit"), Value::Null),
        labelled("pods", "to-edit", None, get_pods()),
    ]);
    assert_eq!(index.aggregated_rules("admin").map(|rules| rules.len()), Some(1));
    assert_eq!(index.aggregated_rules("pods"), None);
    index.remove(&json!({"kind": "ClusterRole", "metadata": {"name": "pods"}}));
    assert_eq!(index.aggregated_rules("admin"), Some(Vec::new()));
}

#[test]
fn a_rules_review_lists_what_the_user_may() {
    let rules = json!([
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]},
        {"nonResourceURLs": ["/version"], "verbs": ["get"]}
    ]);
    let index = index(&[
        role("ClusterRole", "", "r", rules),
        binding(
            "ClusterRoleBinding",
            "",
            "b",
            ("ClusterRole", "r"),
            json!({"kind": "User", "name": "alice"}),
        ),
    ]);
    let review = index.rules_review(&alice(), "ns");
    assert_eq!(
        review,
        json!({"incomplete": false,
        "resourceRules": [{"verbs": ["get"], "apiGroups": [""], "resources": ["pods"]}],
        "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/version"]}]})
    );
}
