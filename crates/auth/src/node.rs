//! What a node may do (upstream: the Node authorizer): the rules of `system:node`, and of secrets, configuration,
//! volumes and tokens only those that pods bound to the node use.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};

use apimachinery::Value;
use apimachinery::meta::str_at;
use serde_json::Value::Array;

use crate::attributes::{Attributes, Decision};
use crate::bootstrap;
use crate::rbac::PolicyRule;

/// The namespace that holds every node's lease.
const NAMESPACE_NODE_LEASE: &str = "kube-node-lease";

/// The objects a pod makes its node need, as resource and name in the pod's namespace.
type Uses = HashSet<(&'static str, Box<str>)>;

/// A namespace and a name.
type NamespacedName = (Box<str>, Box<str>);
/// A resource, and which object of it.
type Used = (&'static str, Box<str>, Box<str>);

/// Which nodes need what, kept up to date pod by pod.
#[derive(Default)]
pub struct NodeIndex {
    /// Per bound pod: its node and what it uses.
    pods: HashMap<NamespacedName, (Arc<str>, Uses)>,
    /// Per object: how many pods of each node use it.
    users: HashMap<Used, HashMap<Arc<str>, usize>>,
}

impl NodeIndex {
    /// Takes in a pod, new or changed.
    pub fn apply_pod(&mut self, pod: &Value) {
        self.remove_pod(pod);
        let node = str_at(pod, &["spec", "nodeName"]);
        if node.is_empty() {
            return;
        }
        let node: Arc<str> = node.into();
        let namespace = str_at(pod, &["metadata", "namespace"]);
        let uses = uses(&pod["spec"]);
        for (resource, name) in &uses {
            let key = (*resource, Box::from(namespace), name.clone());
            *self.users.entry(key).or_default().entry(node.clone()).or_default() += 1;
        }
        self.pods.insert(pod_key(pod), (node, uses));
    }

    /// Forgets a deleted pod.
    pub fn remove_pod(&mut self, pod: &Value) {
        let Some((node, uses)) = self.pods.remove(&pod_key(pod)) else { return };
        let namespace = str_at(pod, &["metadata", "namespace"]);
        for (resource, name) in uses {
            let key = (resource, Box::from(namespace), name);
            let Some(nodes) = self.users.get_mut(&key) else { continue };
            let count = nodes.get_mut(&node).map_or(0, |count| {
                *count -= 1;
                *count
            });
            if count == 0 {
                nodes.remove(&node);
            }
            if nodes.is_empty() {
                self.users.remove(&key);
            }
        }
    }

    fn needs(&self, node: &str, resource: &'static str, namespace: &str, name: &str) -> bool {
        let key = (resource, Box::from(namespace), Box::from(name));
        self.users.get(&key).is_some_and(|nodes| nodes.contains_key(node))
    }

    /// Decides for an identity that speaks for a node; of others it knows nothing.
    pub fn authorize(&self, request: &Attributes<'_>) -> Decision {
        let Some(node) = request.user.node() else { return Decision::NoOpinion(String::new()) };
        match self.check(node, request) {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        }
    }

    fn check(&self, node: &str, request: &Attributes<'_>) -> Result<(), String> {
        match (request.group, request.resource) {
            ("", "secrets") => self.check_read(node, "secrets", request),
            ("", "configmaps") => self.check_read(node, "configmaps", request),
            ("", "persistentvolumeclaims") => self.check_read(node, "persistentvolumeclaims", request),
            ("", "serviceaccounts") => self.check_service_account(node, request),
            ("coordination.k8s.io", "leases") => check_lease(node, request),
            ("", "nodes") => check_node(node, request),
            _ => check_rules(request),
        }
    }

    fn check_read(&self, node: &str, resource: &'static str, request: &Attributes<'_>) -> Result<(), String> {
        if !matches!(request.verb, "get" | "list" | "watch") {
            return Err("can only read resources of this type".to_owned());
        }
        if !request.subresource.is_empty() {
            return Err("cannot read subresource".to_owned());
        }
        if request.namespace.is_empty() {
            return Err("can only read namespaced object of this type".to_owned());
        }
        if request.name.is_empty() {
            return Err("No Object name found".to_owned());
        }
        self.check_needs(node, resource, request)
    }

    fn check_needs(
        &self,
        node: &str,
        resource: &'static str,
        request: &Attributes<'_>,
    ) -> Result<(), String> {
        if self.needs(node, resource, request.namespace, request.name) {
            Ok(())
        } else {
            Err(format!("no relationship found between node '{node}' and this object"))
        }
    }

    fn check_service_account(&self, node: &str, request: &Attributes<'_>) -> Result<(), String> {
        if request.verb == "get" && request.subresource.is_empty() {
            return self.check_read(node, "serviceaccounts", request);
        }
        if request.verb != "create" || request.name.is_empty() {
            return Err("can only create tokens for individual service accounts".to_owned());
        }
        if request.subresource != "token" {
            return Err("can only create token subresource of serviceaccount".to_owned());
        }
        self.check_needs(node, "serviceaccounts", request)
    }
}

fn check_lease(node: &str, request: &Attributes<'_>) -> Result<(), String> {
    if !matches!(request.verb, "get" | "create" | "update" | "patch" | "delete") {
        return Err("can only get, create, update, patch, or delete a node lease".to_owned());
    }
    if request.namespace != NAMESPACE_NODE_LEASE {
        return Err(format!("can only access leases in the {NAMESPACE_NODE_LEASE:?} system namespace"));
    }
    // The name of a new lease is in its body; admission checks it.
    if request.verb != "create" && request.name != node {
        return Err("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

fn check_node(node: &str, request: &Attributes<'_>) -> Result<(), String> {
    let reads = matches!(request.verb, "get" | "list" | "watch") && request.subresource.is_empty();
    if reads && request.name != node {
        return Err(format!("node '{node}' cannot read '{}', only its own Node object", request.name));
    }
    check_rules(request)
}

fn check_rules(request: &Attributes<'_>) -> Result<(), String> {
    static RULES: LazyLock<Vec<PolicyRule>> =
        LazyLock::new(|| bootstrap::rules_of("system:node").expect("is among the bootstrap roles"));
    if RULES.iter().any(|rule| rule.allows(request)) { Ok(()) } else { Err(String::new()) }
}

fn pod_key(pod: &Value) -> NamespacedName {
    let text = |field| Box::from(str_at(pod, &["metadata", field]));
    (text("namespace"), text("name"))
}

fn items<'a>(value: &'a Value, field: &str) -> &'a [Value] {
    match &value[field] {
        Array(items) => items,
        _ => &[],
    }
}

/// What this pod spec refers to in its namespace.
fn uses(spec: &Value) -> Uses {
    let mut uses = Uses::new();
    let mut put = |resource: &'static str, name: &Value| {
        if let Some(name) = name.as_str().filter(|name| !name.is_empty()) {
            uses.insert((resource, Box::from(name)));
        }
    };
    put("serviceaccounts", &spec["serviceAccountName"]);
    for secret in items(spec, "imagePullSecrets") {
        put("secrets", &secret["name"]);
    }
    for list in ["initContainers", "containers", "ephemeralContainers"] {
        for container in items(spec, list) {
            for source in items(container, "envFrom") {
                put("secrets", &source["secretRef"]["name"]);
                put("configmaps", &source["configMapRef"]["name"]);
            }
            for variable in items(container, "env") {
                put("secrets", &variable["valueFrom"]["secretKeyRef"]["name"]);
                put("configmaps", &variable["valueFrom"]["configMapKeyRef"]["name"]);
            }
        }
    }
    for volume in items(spec, "volumes") {
        put("secrets", &volume["secret"]["secretName"]);
        put("configmaps", &volume["configMap"]["name"]);
        put("persistentvolumeclaims", &volume["persistentVolumeClaim"]["claimName"]);
        for source in items(&volume["projected"], "sources") {
            put("secrets", &source["secret"]["name"]);
            put("configmaps", &source["configMap"]["name"]);
        }
    }
    uses
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::user::{NODES, UserInfo};

    fn pod(node: &str) -> Value {
        json!({"metadata": {"namespace": "ns", "name": "p"}, "spec": {
            "nodeName": node, "serviceAccountName": "sa",
            "containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "s"}}}]}],
            "volumes": [{"projected": {"sources": [{"configMap": {"name": "c"}}]}}]
        }})
    }

    /// `what` reads `verb group/resource[/subresource]`, the core group being empty.
    fn check(index: &NodeIndex, what: &str, namespace: &str, name: &str, expect: bool) {
        let user = UserInfo::new("system:node:a", [NODES]);
        let (verb, resource) = what.split_once(' ').expect("a verb");
        let mut parts = resource.split('/');
        let mut part = || parts.next().unwrap_or_default();
        let request = Attributes {
            verb,
            group: part(),
            resource: part(),
            subresource: part(),
            namespace,
            name,
            ..Attributes::of(&user)
        };
        let decision = index.authorize(&request);
        assert_eq!(decision.is_allowed(), expect, "{what} {namespace}/{name}: {decision:?}");
    }

    #[test]
    fn a_node_reads_what_its_pods_use_while_they_do() {
        let mut index = NodeIndex::default();
        check(&index, "get /secrets", "ns", "s", false);
        index.apply_pod(&pod("a"));
        index.apply_pod(&pod("a"));
        check(&index, "get /secrets", "ns", "s", true);
        check(&index, "watch /configmaps", "ns", "c", true);
        check(&index, "create /serviceaccounts/token", "ns", "sa", true);
        check(&index, "create /serviceaccounts/token", "ns", "other", false);
        check(&index, "update /secrets", "ns", "s", false);
        check(&index, "get /secrets", "other", "s", false);
        check(&index, "list /secrets", "ns", "", false);
        index.apply_pod(&pod("b"));
        check(&index, "get /secrets", "ns", "s", false);
        index.remove_pod(&pod("b"));
        assert!(index.users.is_empty() && index.pods.is_empty());
    }

    #[test]
    fn a_node_works_on_its_own_objects() {
        let index = NodeIndex::default();
        check(&index, "create /nodes", "", "", true);
        check(&index, "get /nodes", "", "a", true);
        check(&index, "get /nodes", "", "b", false);
        check(&index, "list /pods", "", "", true);
        check(&index, "patch /pods/status", "ns", "p", true);
        check(&index, "create /events", "ns", "", true);
        check(&index, "update coordination.k8s.io/leases", "kube-node-lease", "a", true);
        check(&index, "update coordination.k8s.io/leases", "kube-node-lease", "b", false);
        check(&index, "update coordination.k8s.io/leases", "kube-system", "a", false);
        check(&index, "delete apps/deployments", "ns", "d", false);
    }
}
