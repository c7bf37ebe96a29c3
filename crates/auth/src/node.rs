//! What a node may do (upstream: the Node authorizer): the rules of `system:node`, its own objects, and of secrets,
//! configuration, volumes, claims and tokens only those that pods bound to the node use.

use std::sync::LazyLock;

use crate::attributes::{Attributes, Decision};
use crate::bootstrap;
use crate::rbac::PolicyRule;

mod graph;
mod references;
#[cfg(test)]
mod tests;

use graph::Graph;

/// The namespace that holds every node's lease.
const NAMESPACE_NODE_LEASE: &str = "kube-node-lease";

/// Decides for identities that speak for nodes.
#[derive(Default)]
pub struct NodeAuthorizer {
    pub graph: Graph,
}

/// Allowed, or what stands in the way.
type Verdict = Result<(), String>;

impl NodeAuthorizer {
    /// Decides for an identity that speaks for a node; of others it knows nothing.
    pub fn authorize(&self, request: &Attributes<'_>) -> Decision {
        let Some(node) = request.user.node() else { return Decision::NoOpinion(String::new()) };
        match self.check(node, request) {
            Ok(()) => Decision::Allow(String::new()),
            Err(reason) => Decision::NoOpinion(reason),
        }
    }

    fn check(&self, node: &str, request: &Attributes<'_>) -> Verdict {
        match (request.group, request.resource) {
            ("", "secrets" | "configmaps") => self.check_read(node, request),
            ("", "persistentvolumeclaims") if request.subresource == "status" => {
                self.check_status_update(node, request)
            }
            // Upstream's nodes may only get these, and look at each again from time to time; ours are told of changes.
            ("", "persistentvolumeclaims") => self.check_read(node, request),
            ("", "persistentvolumes")
            | ("resource.k8s.io", "resourceclaims")
            | ("storage.k8s.io", "volumeattachments") => self.check_get(node, request),
            ("", "serviceaccounts") => self.check_service_account(node, request),
            ("coordination.k8s.io", "leases") => check_lease(node, request),
            ("storage.k8s.io", "csinodes") => check_csi_node(node, request),
            ("resource.k8s.io", "resourceslices") => self.check_resource_slice(node, request),
            ("", "nodes") => check_node(node, request),
            ("", "pods") => self.check_pod(node, request),
            _ => check_rules(request),
        }
    }

    fn check_status_update(&self, node: &str, request: &Attributes<'_>) -> Verdict {
        if !matches!(request.verb, "update" | "patch") {
            return refuse("can only get/update/patch this type");
        }
        self.check_related(node, request)
    }

    fn check_get(&self, node: &str, request: &Attributes<'_>) -> Verdict {
        if request.verb != "get" {
            return refuse("can only get individual resources of this type");
        }
        if !request.subresource.is_empty() {
            return refuse("cannot get subresource");
        }
        self.check_related(node, request)
    }

    fn check_read(&self, node: &str, request: &Attributes<'_>) -> Verdict {
        if !matches!(request.verb, "get" | "list" | "watch") {
            return refuse("can only read resources of this type");
        }
        if !request.subresource.is_empty() {
            return refuse("cannot read subresource");
        }
        if request.namespace.is_empty() {
            return refuse("can only read namespaced object of this type");
        }
        self.check_related(node, request)
    }

    fn check_related(&self, node: &str, request: &Attributes<'_>) -> Verdict {
        if request.name.is_empty() {
            return refuse("No Object name found");
        }
        if self.graph.leads_to(node, request.resource, request.namespace, request.name) {
            return Ok(());
        }
        Err(format!("no relationship found between node '{node}' and this object"))
    }

    fn check_service_account(&self, node: &str, request: &Attributes<'_>) -> Verdict {
        if request.verb == "get" && request.subresource.is_empty() {
            return self.check_read(node, request);
        }
        if request.verb != "create" || request.name.is_empty() {
            return refuse("can only create tokens for individual service accounts");
        }
        if request.subresource != "token" {
            return refuse("can only create token subresource of serviceaccount");
        }
        self.check_related(node, request)
    }

    fn check_resource_slice(&self, node: &str, request: &Attributes<'_>) -> Verdict {
        if !request.subresource.is_empty() {
            return refuse("cannot authorize ResourceSlice subresources");
        }
        match request.verb {
            // Whose it is stands in its body; admission checks it.
            "create" => Ok(()),
            "get" | "update" | "patch" | "delete" => self.check_related(node, request),
            "watch" | "list" | "deletecollection" if selects_node(request, node) => Ok(()),
            "watch" | "list" | "deletecollection" => {
                refuse("can only list/watch/deletecollection resourceslices with nodeName field selector")
            }
            _ => refuse(
                "only the following verbs are allowed for a ResourceSlice: get, watch, list, create, update, patch, delete, deletecollection",
            ),
        }
    }

    /// Writes are those of mirror pods, of status and evictions; admission checks that the pod is the node's.
    fn check_pod(&self, node: &str, request: &Attributes<'_>) -> Verdict {
        match (request.subresource, request.verb) {
            ("", "get") => self.check_get(node, request),
            ("", "list" | "watch") if selects_node(request, node) => Ok(()),
            ("", "list" | "watch") if !request.name.is_empty() => self.check_related(node, request),
            ("", "list" | "watch") => refuse("can only list/watch pods with spec.nodeName field selector"),
            ("", "create" | "delete") | ("status", "update" | "patch") | ("eviction", "create") => Ok(()),
            _ => refuse(""),
        }
    }
}

fn refuse(reason: &str) -> Verdict {
    Err(reason.to_owned())
}

/// Whether only objects of this node are asked for.
fn selects_node(request: &Attributes<'_>, node: &str) -> bool {
    request.fields.iter().any(|term| term.field == "spec.nodeName" && term.equal && term.value == node)
}

fn check_lease(node: &str, request: &Attributes<'_>) -> Verdict {
    if !matches!(request.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a node lease");
    }
    if request.namespace != NAMESPACE_NODE_LEASE {
        return Err(format!("can only access leases in the {NAMESPACE_NODE_LEASE:?} system namespace"));
    }
    // The name of a new lease is in its body; admission checks it.
    if request.verb != "create" && request.name != node {
        return refuse("can only access node lease with the same name as the requesting node");
    }
    Ok(())
}

fn check_csi_node(node: &str, request: &Attributes<'_>) -> Verdict {
    if !matches!(request.verb, "get" | "create" | "update" | "patch" | "delete") {
        return refuse("can only get, create, update, patch, or delete a CSINode");
    }
    if !request.subresource.is_empty() {
        return refuse("cannot authorize CSINode subresources");
    }
    if request.verb != "create" && request.name != node {
        return refuse("can only access CSINode with the same name as the requesting node");
    }
    Ok(())
}

/// Reads are of the node's own Node, even before it is there; admission sees to it that writes are too.
fn check_node(node: &str, request: &Attributes<'_>) -> Verdict {
    match (request.subresource, request.verb, request.name) {
        ("", "create" | "update" | "patch", _) | ("status", "update" | "patch", _) => Ok(()),
        ("", "get" | "list" | "watch", name) if name == node => Ok(()),
        ("", "get" | "list" | "watch", "") => {
            Err(format!("node '{node}' cannot read all nodes, only its own Node object"))
        }
        ("", "get" | "list" | "watch", other) => {
            Err(format!("node '{node}' cannot read '{other}', only its own Node object"))
        }
        _ => refuse(""),
    }
}

fn check_rules(request: &Attributes<'_>) -> Verdict {
    static RULES: LazyLock<Vec<PolicyRule>> =
        LazyLock::new(|| bootstrap::rules_of("system:node").expect("is among the bootstrap roles"));
    if RULES.iter().any(|rule| rule.allows(request)) { Ok(()) } else { refuse("") }
}
