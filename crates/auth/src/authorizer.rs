//! The authorizers that decide from stored objects: nodes and RBAC. They follow the objects, and a write of a role or
//! binding must not give away what its author does not have.

use apimachinery::{GroupResource, Status, Value};
use parking_lot::RwLock;
use serde::Deserialize;

use crate::attributes::{Attributes, Decision};
use crate::node::NodeAuthorizer;
use crate::rbac::{PolicyRule, RbacIndex, uncovered};
use crate::user::{MASTERS, UserInfo};

pub const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Readers do not wait for each other.
#[derive(Default)]
pub struct Authorizer {
    rbac: RwLock<RbacIndex>,
    nodes: RwLock<NodeAuthorizer>,
}

impl Authorizer {
    /// Takes in a stored object that is new or changed: the RBAC kinds and what leads to nodes matter, others are skipped.
    pub fn apply(&self, object: &Value) {
        if is_rbac(object) {
            self.rbac.write().apply(object);
        } else {
            self.nodes.write().graph.apply(object);
        }
    }

    /// Forgets a deleted object.
    pub fn remove(&self, object: &Value) {
        if is_rbac(object) {
            self.rbac.write().remove(object);
        } else {
            self.nodes.write().graph.remove(object);
        }
    }

    /// Whether the user may do everything, whoever else decides.
    pub fn is_superuser(user: &UserInfo) -> bool {
        user.is_in(MASTERS)
    }

    /// What nodes may do, if the user is one.
    pub fn node(&self, request: &Attributes<'_>) -> Decision {
        match request.user.node() {
            Some(_) => self.nodes.read().authorize(request),
            None => Decision::NoOpinion(String::new()),
        }
    }

    /// What roles and bindings give the user.
    pub fn rbac(&self, request: &Attributes<'_>) -> Decision {
        self.rbac.read().authorize(request)
    }

    /// `status` of a SelfSubjectRulesReview.
    pub fn rules_review(&self, user: &UserInfo, namespace: &str) -> Value {
        self.rbac.read().rules_review(user, namespace)
    }

    /// What the `rules` of an aggregated ClusterRole should be; none for other roles.
    pub fn aggregated_rules(&self, cluster_role: &str) -> Option<Vec<PolicyRule>> {
        self.rbac.read().aggregated_rules(cluster_role)
    }

    /// Refuses a write of a role or binding that would grant more than its author has. `old` is the stored object; `may`
    /// says what the author may do.
    pub fn check_escalation(
        &self,
        user: &UserInfo,
        object: &Value,
        old: Option<&Value>,
        may: &dyn Fn(&Attributes<'_>) -> bool,
    ) -> Result<(), Status> {
        if Authorizer::is_superuser(user) {
            return Ok(());
        }
        match object["kind"].as_str() {
            Some("Role" | "ClusterRole") => self.check_role(user, object, old, may),
            Some("RoleBinding" | "ClusterRoleBinding") => self.check_binding(user, object, old, may),
            _ => Ok(()),
        }
    }

    fn check_role(
        &self,
        user: &UserInfo,
        role: &Value,
        old: Option<&Value>,
        may: &dyn Fn(&Attributes<'_>) -> bool,
    ) -> Result<(), Status> {
        let unchanged =
            |old: &Value| old["rules"] == role["rules"] && old["aggregationRule"] == role["aggregationRule"];
        if old.is_some_and(unchanged) {
            return Ok(());
        }
        let resource = if role["kind"] == "ClusterRole" { "clusterroles" } else { "roles" };
        let (namespace, name) = names(role);
        let escalate = Attributes {
            verb: "escalate",
            group: RBAC_GROUP,
            resource,
            namespace,
            name,
            ..Attributes::of(user)
        };
        if may(&escalate) {
            return Ok(());
        }
        let aggregates = !role["aggregationRule"].is_null();
        let wanted = if aggregates {
            // Whatever gets selected later is granted too: only who may do everything may write such a role.
            everything()
        } else {
            Option::<Vec<PolicyRule>>::deserialize(&role["rules"])
                .map_err(|e| Status::bad_request(e.to_string()))?
                .unwrap_or_default()
        };
        self.check_covered(user, namespace, &wanted)
            .map_err(|why| Status::forbidden(&GroupResource::new(RBAC_GROUP, resource), name, why))
    }

    fn check_binding(
        &self,
        user: &UserInfo,
        binding: &Value,
        old: Option<&Value>,
        may: &dyn Fn(&Attributes<'_>) -> bool,
    ) -> Result<(), Status> {
        let same =
            |old: &Value| old["roleRef"] == binding["roleRef"] && old["subjects"] == binding["subjects"];
        if old.is_some_and(same) {
            return Ok(());
        }
        let (namespace, name) = names(binding);
        let role = |field: &str| binding["roleRef"][field].as_str().unwrap_or_default();
        let (kind, role) = (role("kind"), role("name"));
        let bind = Attributes {
            verb: "bind",
            group: RBAC_GROUP,
            resource: if kind == "Role" { "roles" } else { "clusterroles" },
            namespace,
            name: role,
            ..Attributes::of(user)
        };
        if may(&bind) {
            return Ok(());
        }
        let wanted = self.rbac.read().rules_of_role(kind, namespace, role).map(<[_]>::to_vec);
        let wanted = wanted.ok_or_else(|| {
            let resource = if kind == "Role" { "roles" } else { "clusterroles" };
            Status::not_found(&GroupResource::new(RBAC_GROUP, resource), role)
        })?;
        let resource =
            if binding["kind"] == "ClusterRoleBinding" { "clusterrolebindings" } else { "rolebindings" };
        self.check_covered(user, namespace, &wanted)
            .map_err(|why| Status::forbidden(&GroupResource::new(RBAC_GROUP, resource), name, why))
    }

    fn check_covered(&self, user: &UserInfo, namespace: &str, wanted: &[PolicyRule]) -> Result<(), String> {
        let rbac = self.rbac.read();
        let missing = uncovered(&rbac.rules_for(user, namespace), wanted);
        if missing.is_empty() {
            return Ok(());
        }
        let mut shown: Vec<String> = missing.iter().map(ToString::to_string).collect();
        shown.sort_unstable();
        let groups: Vec<String> = user.groups.iter().map(|group| format!("{group:?}")).collect();
        Err(format!(
            "user {:?} (groups=[{}]) is attempting to grant RBAC permissions not currently held:\n{}",
            user.name,
            groups.join(" "),
            shown.join("\n")
        ))
    }
}

fn is_rbac(object: &Value) -> bool {
    matches!(object["kind"].as_str(), Some("Role" | "ClusterRole" | "RoleBinding" | "ClusterRoleBinding"))
}

fn names(object: &Value) -> (&str, &str) {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    (text("namespace"), text("name"))
}

fn everything() -> Vec<PolicyRule> {
    let all = || -> Box<[_]> { Box::new(["*".into()]) };
    vec![
        PolicyRule { verbs: all(), api_groups: all(), resources: all(), ..Default::default() },
        PolicyRule { verbs: all(), non_resource_urls: all(), ..Default::default() },
    ]
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;
    use crate::bootstrap::bootstrap_objects;

    fn authorizer() -> Authorizer {
        let authorizer = Authorizer::default();
        bootstrap_objects().iter().for_each(|object| authorizer.apply(object));
        authorizer.apply(&json!({"kind": "RoleBinding", "metadata": {"namespace": "ns", "name": "admins"},
            "roleRef": {"kind": "ClusterRole", "name": "admin"}, "subjects": [{"kind": "User", "name": "alice"}]}));
        authorizer
    }

    fn check(user: &UserInfo, verb: &str, resource: &str, namespace: &str, expect: bool) {
        let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
        let (resource, group) = resource.split_once('.').unwrap_or((resource, ""));
        let request =
            Attributes { verb, group, resource, subresource, namespace, name: "x", ..Attributes::of(user) };
        let authorizer = authorizer();
        let is_allowed = Authorizer::is_superuser(user)
            || authorizer.node(&request).is_allowed()
            || authorizer.rbac(&request).is_allowed();
        assert_eq!(is_allowed, expect, "{} {verb} {resource} {namespace}", user.name);
    }

    #[test]
    fn everyone_has_the_rights_upstream_starts_with() {
        let alice = UserInfo::new("alice", [""; 0]);
        check(&alice, "create", "deployments.apps", "ns", true);
        check(&alice, "create", "pods/exec", "ns", true);
        check(&alice, "get", "secrets", "ns", true);
        check(&alice, "get", "secrets", "other", false);
        check(&alice, "get", "nodes", "", false);
        check(&alice, "create", "selfsubjectaccessreviews.authorization.k8s.io", "", true);
        check(&UserInfo::new("root", [MASTERS]), "delete", "nodes", "", true);
        check(&UserInfo::new("system:kube-scheduler", [""; 0]), "create", "pods/binding", "ns", true);
        check(&UserInfo::new("system:kube-scheduler", [""; 0]), "create", "pods", "ns", false);
        let controller = UserInfo::service_account("kube-system", "replicaset-controller", "");
        check(&controller, "create", "pods", "any", true);
        check(&controller, "create", "secrets", "any", false);
    }

    #[test]
    fn nobody_grants_what_they_lack() {
        let authorizer = authorizer();
        let alice = UserInfo::new("alice", [""; 0]);
        let check = |object: &Value, old: Option<&Value>| {
            authorizer.check_escalation(&alice, object, old, &|asked| authorizer.rbac(asked).is_allowed())
        };
        let role = |resource: &str| {
            json!({"kind": "Role", "metadata": {"namespace": "ns", "name": "r"},
                "rules": [{"apiGroups": [""], "resources": [resource], "verbs": ["get"]}]})
        };
        assert_eq!(check(&role("pods"), None), Ok(()));
        let refused = check(&role("nodes"), None).expect_err("escalates");
        assert_eq!(
            refused.message,
            "roles.rbac.authorization.k8s.io \"r\" is forbidden: user \"alice\" (groups=[\"system:authenticated\"]) is attempting to grant RBAC permissions not currently held:\n{APIGroups:[\"\"], Resources:[\"nodes\"], Verbs:[\"get\"]}"
        );
        assert_eq!(check(&role("nodes"), Some(&role("nodes"))), Ok(()));
        let binding = |role: &str| {
            json!({"kind": "RoleBinding", "metadata": {"namespace": "ns", "name": "b"},
                "roleRef": {"kind": "ClusterRole", "name": role}, "subjects": []})
        };
        assert_eq!(check(&binding("view"), None), Ok(()));
        assert!(check(&binding("cluster-admin"), None).is_err());
        assert!(check(&binding("nothing"), None).expect_err("no such role").is_not_found());
    }
}
