//! NodeRestriction: a node writes its own Node and Lease, the status of pods bound to it, and tokens for those pods;
//! and it does not give itself labels or taints that would draw pods to it.

mod labels;
mod others;
mod references;

use apimachinery::meta::str_at;
use apimachinery::{GroupResource, Status, Value};

use crate::chain::Plugin;
use crate::request::{Operation, Request, World};

const NAMESPACE_NODE_LEASE: &str = "kube-node-lease";
const MIRROR_POD_ANNOTATION: &str = "kubernetes.io/config.mirror";

pub struct NodeRestriction;

impl Plugin for NodeRestriction {
    fn name(&self) -> &'static str {
        "NodeRestriction"
    }

    fn admit(&self, request: &Request<'_>, object: &mut Value, world: &dyn World) -> Result<(), Status> {
        let Some(node) = request.user.node() else { return Ok(()) };
        let outcome = match (request.group, request.resource, request.subresource) {
            ("", "pods", "") => check_pod(node, request, object, world),
            ("", "pods", "status") => check_pod_status(node, request, object),
            ("", "pods", "eviction") => check_eviction(node, request, world),
            ("", "pods", other) => Err(Refusal::Forbidden(format!(
                "unexpected pod subresource {other:?}, only 'status' and 'eviction' are allowed"
            ))),
            ("", "nodes", _) => check_node(node, request, object),
            ("", "persistentvolumeclaims", _) => others::check_claim(node, request, object),
            ("", "persistentvolumes", _) => others::check_volume(node, request, object),
            ("storage.k8s.io", "csinodes", _) => others::check_csi_node(node, request, object),
            ("resource.k8s.io", "resourceslices", _) => others::check_resource_slice(node, request, object),
            ("certificates.k8s.io", "certificatesigningrequests", _) => {
                others::check_signing_request(node, request, object)
            }
            ("", "serviceaccounts", "token") => check_token(node, request, object, world),
            ("coordination.k8s.io", "leases", _) => check_lease(node, request, object),
            _ => Ok(()),
        };
        outcome.map_err(|refusal| match refusal {
            Refusal::Forbidden(reason) => request.forbidden(object, reason),
            Refusal::NotFound { resource, name } => {
                Status::not_found(&GroupResource::new("", resource), &name)
            }
        })
    }
}

enum Refusal {
    Forbidden(String),
    NotFound { resource: &'static str, name: String },
}

fn forbidden<T>(reason: String) -> Result<T, Refusal> {
    Err(Refusal::Forbidden(reason))
}

fn node_of(pod: &Value) -> &str {
    str_at(pod, &["spec", "nodeName"])
}

fn check_pod(node: &str, request: &Request<'_>, pod: &Value, world: &dyn World) -> Result<(), Refusal> {
    match request.operation {
        Operation::Create => check_mirror_pod(node, pod, world),
        Operation::Delete if request.old.is_some_and(|old| node_of(old) == node) => Ok(()),
        Operation::Delete => {
            forbidden(format!("node {node:?} can only delete pods with spec.nodeName set to itself"))
        }
        other => forbidden(format!(
            "unexpected operation {:?}, node {node:?} can only create and delete mirror pods",
            other.name()
        )),
    }
}

/// A node creates only mirror pods, owned by itself.
fn check_mirror_pod(node: &str, pod: &Value, world: &dyn World) -> Result<(), Refusal> {
    if pod["metadata"]["annotations"][MIRROR_POD_ANNOTATION].is_null() {
        return forbidden(format!(
            "pod does not have {MIRROR_POD_ANNOTATION:?} annotation, node {node:?} can only create mirror pods"
        ));
    }
    if node_of(pod) != node {
        return forbidden(format!("node {node:?} can only create pods with spec.nodeName set to itself"));
    }
    let owner = match pod["metadata"]["ownerReferences"].as_array().map(Vec::as_slice) {
        Some([owner]) => owner,
        None | Some([]) => {
            return forbidden(format!(
                "node {node:?} can only create pods with an owner reference set to itself"
            ));
        }
        Some(_) => {
            return forbidden(format!(
                "node {node:?} can only create pods with a single owner reference set to itself"
            ));
        }
    };
    if owner["apiVersion"] != "v1" || owner["kind"] != "Node" || owner["name"].as_str() != Some(node) {
        return forbidden(format!(
            "node {node:?} can only create pods with an owner reference set to itself"
        ));
    }
    if owner["controller"] != true {
        return forbidden(format!(
            "node {node:?} can only create pods with a controller owner reference set to itself"
        ));
    }
    if owner["blockOwnerDeletion"] == true {
        return forbidden(format!("node {node:?} must not set blockOwnerDeletion on an owner reference"));
    }
    let stored = world.get("nodes", "", node);
    let stored = stored.ok_or_else(|| Refusal::NotFound { resource: "nodes", name: node.to_owned() })?;
    let (given, actual) = (str_at(owner, &["uid"]), str_at(&stored, &["metadata", "uid"]));
    if given != actual {
        return forbidden(format!("node {node} UID mismatch: expected {given} got {actual}"));
    }
    match references::first(pod) {
        Some(what) => forbidden(format!("node {node:?} can not create pods that reference {what}")),
        None => Ok(()),
    }
}

fn check_pod_status(node: &str, request: &Request<'_>, pod: &Value) -> Result<(), Refusal> {
    let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else {
        return forbidden(format!("unexpected operation {:?}", request.operation.name()));
    };
    if node_of(old) != node {
        return forbidden(format!(
            "node {node:?} can only update pod status for pods with spec.nodeName set to itself"
        ));
    }
    let differs = |path: [&str; 2]| old[path[0]][path[1]] != pod[path[0]][path[1]];
    if differs(["metadata", "labels"]) {
        return forbidden(format!("node {node:?} cannot update labels through pod status"));
    }
    if differs(["status", "resourceClaimStatuses"]) {
        return forbidden(format!("node {node:?} cannot update resource claim statues"));
    }
    if differs(["status", "extendedResourceClaimStatus"]) {
        return forbidden(format!("node {node:?} cannot update extended resource claim status"));
    }
    Ok(())
}

fn check_eviction(node: &str, request: &Request<'_>, world: &dyn World) -> Result<(), Refusal> {
    let pod = world.get("pods", request.namespace, request.name);
    let pod = pod.ok_or_else(|| Refusal::NotFound { resource: "pods", name: request.name.to_owned() })?;
    if node_of(&pod) != node {
        return forbidden(format!("node {node} can only evict pods with spec.nodeName set to itself"));
    }
    Ok(())
}

fn check_node(node: &str, request: &Request<'_>, object: &Value) -> Result<(), Refusal> {
    let named = if request.name.is_empty() { str_at(object, &["metadata", "name"]) } else { request.name };
    if named != node {
        return forbidden(format!("node {node:?} is not allowed to modify node {named:?}"));
    }
    let old = match (request.operation, request.old) {
        (Operation::Create, _) => None,
        (Operation::Update, Some(old)) => Some(old),
        _ => return Ok(()),
    };
    if let Some(old) = old {
        if object["spec"]["taints"] != old["spec"]["taints"] {
            return forbidden(format!("node {node:?} is not allowed to modify taints"));
        }
        if object["metadata"]["ownerReferences"] != old["metadata"]["ownerReferences"] {
            return forbidden(format!("node {node:?} is not allowed to modify ownerReferences"));
        }
    }
    let labels = labels::forbidden(object, old);
    match (labels.is_empty(), old.is_some()) {
        (true, _) => Ok(()),
        (false, false) => forbidden(format!(
            "node {node:?} is not allowed to set the following labels: {}",
            labels.join(", ")
        )),
        (false, true) => forbidden(format!("is not allowed to modify labels: {}", labels.join(", "))),
    }
}

/// A node asks for tokens only for pods bound to it, and only for audiences that they mount.
fn check_token(
    node: &str,
    request: &Request<'_>,
    token_request: &Value,
    world: &dyn World,
) -> Result<(), Refusal> {
    let bound = &token_request["spec"]["boundObjectRef"];
    let (name, uid) = (str_at(bound, &["name"]), str_at(bound, &["uid"]));
    if bound["apiVersion"] != "v1" || bound["kind"] != "Pod" || name.is_empty() {
        return forbidden("node requested token not bound to a pod".to_owned());
    }
    if uid.is_empty() {
        return forbidden("node requested token with a pod binding without a uid".to_owned());
    }
    let pod = world.get("pods", request.namespace, name);
    let pod = pod.ok_or_else(|| Refusal::NotFound { resource: "pods", name: name.to_owned() })?;
    if str_at(&pod, &["metadata", "uid"]) != uid {
        return forbidden(format!(
            "the UID in the bound object reference ({uid}) does not match the UID in record. The object might have been deleted and then recreated"
        ));
    }
    if node_of(&pod) != node {
        return forbidden("node requested token bound to a pod scheduled on a different node".to_owned());
    }
    check_audience(request, token_request, &pod)
}

fn check_audience(request: &Request<'_>, token_request: &Value, pod: &Value) -> Result<(), Refusal> {
    let audience = match token_request["spec"]["audiences"].as_array().map(Vec::as_slice) {
        None | Some([]) => "",
        Some([one]) => one.as_str().unwrap_or_default(),
        Some(_) => return forbidden("node may only request 0 or 1 audiences".to_owned()),
    };
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    let mut sources = volumes.flat_map(|v| v["projected"]["sources"].as_array().into_iter().flatten());
    let mounts = |source: &Value| {
        source["serviceAccountToken"].is_object()
            && str_at(source, &["serviceAccountToken", "audience"]) == audience
    };
    if sources.any(mounts) {
        return Ok(());
    }
    let user = &request.user.name;
    forbidden(format!(
        "audience {audience:?} not found in pod spec volume, {user} is not authorized to request tokens for this audience"
    ))
}

fn check_lease(node: &str, request: &Request<'_>, lease: &Value) -> Result<(), Refusal> {
    if request.namespace != NAMESPACE_NODE_LEASE {
        return forbidden(format!("can only access leases in the {NAMESPACE_NODE_LEASE:?} system namespace"));
    }
    let named = if request.name.is_empty() { str_at(lease, &["metadata", "name"]) } else { request.name };
    if named != node {
        return forbidden("can only access node lease with the same name as the requesting node".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests;
