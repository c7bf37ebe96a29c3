//! What a node may write besides its pods and itself: the sizes of claims it has grown, its CSINode, the devices it
//! offers, and requests for certificates in its own name.

use api::storage::localpath::{FINALIZER, NODE_LABEL, PROVISIONER};
use api::view::core::persistentvolume::PROVISIONED_BY;
use apimachinery::meta::str_at;
use apimachinery::{Value, json};

use super::{Refusal, forbidden};
use crate::certificates;
use crate::request::{Operation, Request};

const KUBELET_SIGNERS: [&str; 2] =
    ["kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet"];
/// What a node tells about a claim.
const CLAIM_STATUS: [&str; 4] = ["capacity", "conditions", "allocatedResourceStatuses", "allocatedResources"];

pub(super) fn check_claim(node: &str, request: &Request<'_>, claim: &Value) -> Result<(), Refusal> {
    if request.subresource != "status" {
        return forbidden("may only update PVC status".to_owned());
    }
    let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else {
        return forbidden(format!("unexpected operation {:?}", request.operation.name()));
    };
    let rest = |claim: &Value| {
        let mut claim = claim.clone();
        for (holder, fields) in
            [("status", CLAIM_STATUS.as_slice()), ("metadata", &["resourceVersion", "managedFields"])]
        {
            if let Some(map) = claim.get_mut(holder).and_then(Value::as_object_mut) {
                fields.iter().for_each(|field| drop(map.remove(field)));
            }
        }
        if claim["status"].as_object().is_none_or(|status| status.is_empty()) {
            claim["status"] = Value::Null;
        }
        claim
    };
    if rest(claim) == rest(old) {
        return Ok(());
    }
    forbidden(format!(
        "node {node:?} is not allowed to update fields other than status.quantity and status.conditions"
    ))
}

/// Of a volume that the built-in provisioner made on it, a node says that the data is gone; nothing else.
pub(super) fn check_volume(node: &str, request: &Request<'_>, volume: &Value) -> Result<(), Refusal> {
    let refused = || {
        forbidden(format!(
            "node {node:?} may only remove the finalizer {FINALIZER:?} of deleted persistent volumes on itself"
        ))
    };
    let Some(old) = request.old.filter(|_| request.operation == Operation::Update) else { return refused() };
    let without_finalizer = |volume: &Value| {
        let mut volume = volume.clone();
        if let Some(metadata) = volume["metadata"].as_object_mut() {
            metadata.remove("managedFields");
            metadata.remove("resourceVersion");
            let mut left = metadata.remove("finalizers").unwrap_or_default();
            if let Some(finalizers) = left.as_array_mut() {
                finalizers.retain(|finalizer| finalizer != FINALIZER);
            }
            metadata.insert("finalizers", left.as_array().cloned().unwrap_or_default().into());
        }
        volume
    };
    let terms = &old["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    let is_here =
        *terms == json!([{"matchExpressions": [{"key": NODE_LABEL, "operator": "In", "values": [node]}]}]);
    let is_ours = old["metadata"]["annotations"][PROVISIONED_BY] == PROVISIONER;
    let is_deleted = !str_at(old, &["metadata", "deletionTimestamp"]).is_empty();
    if is_here && is_ours && is_deleted && without_finalizer(volume) == without_finalizer(old) {
        return Ok(());
    }
    refused()
}

pub(super) fn check_csi_node(node: &str, request: &Request<'_>, object: &Value) -> Result<(), Refusal> {
    let named = match request.operation {
        Operation::Create => str_at(object, &["metadata", "name"]),
        _ => request.name,
    };
    if named == node {
        return Ok(());
    }
    forbidden("can only access CSINode with the same name as the requesting node".to_owned())
}

pub(super) fn check_resource_slice(node: &str, request: &Request<'_>, object: &Value) -> Result<(), Refusal> {
    let (slice, verb) = match (request.operation, request.old) {
        (Operation::Create, _) => (object, "create"),
        (Operation::Delete, Some(old)) => (old, "delete"),
        _ => return Ok(()),
    };
    if str_at(slice, &["spec", "nodeName"]) == node {
        return Ok(());
    }
    forbidden(format!("can only {verb} ResourceSlice with the same NodeName as the requesting node"))
}

pub(super) fn check_signing_request(
    node: &str,
    request: &Request<'_>,
    object: &Value,
) -> Result<(), Refusal> {
    let signer = str_at(object, &["spec", "signerName"]);
    if request.operation != Operation::Create
        || !request.subresource.is_empty()
        || !KUBELET_SIGNERS.contains(&signer)
    {
        return Ok(());
    }
    let subject = certificates::subject(str_at(object, &["spec", "request"]))
        .map_err(|why| Refusal::Forbidden(format!("unable to parse csr: {why}")))?;
    if subject.common_name == format!("system:node:{node}") {
        return Ok(());
    }
    forbidden(format!("can only create a node CSR with CN=system:node:{node}"))
}
