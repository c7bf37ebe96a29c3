//! Roles and bindings that the cluster gets from `cox` itself, as objects.

use apimachinery::{Value, json};

const GROUP: &str = "rbac.authorization.k8s.io";

pub fn user(name: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": "User", "name": name})
}

pub fn group(name: &str) -> Value {
    json!({"apiGroup": GROUP, "kind": "Group", "name": name})
}

/// What may be done with resources of an API group.
pub fn rule(api_group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [api_group], "resources": resources, "verbs": verbs})
}

pub fn cluster_role(name: &str, rules: &[Value]) -> Value {
    json!({"kind": "ClusterRole", "apiVersion": version(), "metadata": {"name": name}, "rules": rules})
}

pub fn cluster_role_binding(name: &str, role: &str, subjects: &[Value]) -> Value {
    json!({"kind": "ClusterRoleBinding", "apiVersion": version(), "metadata": {"name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": role}, "subjects": subjects})
}

pub fn role(namespace: &str, name: &str, rules: &[Value]) -> Value {
    json!({"kind": "Role", "apiVersion": version(), "metadata": {"namespace": namespace, "name": name}, "rules": rules})
}

/// Binds the role of the same name.
pub fn role_binding(namespace: &str, name: &str, subjects: &[Value]) -> Value {
    json!({"kind": "RoleBinding", "apiVersion": version(), "metadata": {"namespace": namespace, "name": name},
        "roleRef": {"apiGroup": GROUP, "kind": "Role", "name": name}, "subjects": subjects})
}

fn version() -> String {
    format!("{GROUP}/v1")
}
