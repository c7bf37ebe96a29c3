//! Assigning a pod to a node. Follows `BindingREST.Create` and `assignPod`.

use api::catalogue;
use api::resource;
use apimachinery::field::{Error, Path};
use apimachinery::meta::str_at;
use apimachinery::status::StatusDetails;
use apimachinery::{GroupResource, Map, Status, Value, json, time};
use bytes::Bytes;
use http::Response;
use jiff::Timestamp;
use store::Key;

use crate::admit;
use crate::body::Body;
use crate::call::Call;
use crate::negotiation::format_of_request;
use crate::part::Part;
use crate::query::WriteOptions;
use crate::wire::{self, Document, Expected};
use crate::write::{self, Place, Proposal};

const EXPECTED: Expected =
    Expected { type_name: "io.k8s.api.core.v1.Binding", api_version: "v1", kind: "Binding" };

/// Serves both `pods/{name}/binding` and the older `bindings` collection, which names the pod in the body.
pub async fn bind(call: &mut Call, body: &Bytes) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let format = format_of_request(&call.headers, call.core.config.formats)?;
    let mut binding =
        wire::decode_body(EXPECTED, format, body, options.field_validation, &mut call.warnings)?;
    call.audit_request(&binding);
    let name = match call.info.name.as_str() {
        "" => str_at(&binding, &["metadata", "name"]).to_owned(),
        name => name.to_owned(),
    };
    check(&binding, &name)?;
    let pods = catalogue::by_resource("", "v1", resource::PODS.plural).ok_or_else(Status::path_not_found)?;
    let place = Place {
        kind: pods.into(),
        part: Part::Binding,
        key: Key::new(pods.storage, call.info.namespace.as_str(), name),
    };
    admit::posted(call, &place, "binding", &mut binding, options.dry_run).await?;
    let now = call.now;
    let change = |pod: &Value| assign(pod, &binding, now).map(|object| Proposal { object, owned: false });
    write::update(call, &place, &options, &change).await?;
    call.target = call.target.plain();
    let mut success = Status::success(StatusDetails::default());
    success.details = None;
    success.code = 201;
    call.respond(201, Document::status(&success))
}

fn check(binding: &Value, pod: &str) -> Result<(), Status> {
    let target = Path::new("target");
    let (kind, node) = (str_at(binding, &["target", "kind"]), str_at(binding, &["target", "name"]));
    let mut errors = Vec::new();
    if !matches!(kind, "" | "Node") {
        errors.push(Error::not_supported_of(&target.child("kind"), kind, &["Node", "<empty>"]));
    }
    if node.is_empty() {
        errors.push(Error::required(&target.child("name"), ""));
    }
    let named = str_at(binding, &["metadata", "name"]);
    if !named.is_empty() && named != pod {
        return Err(Status::bad_request("name in URL does not match name in Binding object"));
    }
    // Upstream hands these on as they are, without making a Status of them.
    let said: Vec<String> = errors.iter().map(ToString::to_string).collect();
    match said.as_slice() {
        [] => Ok(()),
        [one] => Err(Status::failure(500, "", one.as_str())),
        several => Err(Status::failure(500, "", format!("[{}]", several.join(", ")))),
    }
}

fn assign(pod: &Value, binding: &Value, now: Timestamp) -> Result<Value, Status> {
    let name = str_at(pod, &["metadata", "name"]);
    let conflict = |why: String| Status::conflict(&GroupResource::new("", "pods/binding"), name, why);
    let (uid, asked) = (str_at(pod, &["metadata", "uid"]), str_at(binding, &["metadata", "uid"]));
    if !asked.is_empty() && asked != uid {
        return Err(conflict(format!(
            "Precondition failed: UID in precondition: {asked}, UID in object meta: {uid}"
        )));
    }
    if crate::deletion::is_being_deleted(pod) {
        return Err(conflict(format!("pod {name} is being deleted, cannot be assigned to a host")));
    }
    let node = str_at(pod, &["spec", "nodeName"]);
    if !node.is_empty() {
        return Err(conflict(format!("pod {name} is already assigned to node {node:?}")));
    }
    if pod.pointer("/spec/schedulingGates").and_then(Value::as_array).is_some_and(|gates| !gates.is_empty()) {
        return Err(conflict(format!("pod {name} has non-empty .spec.schedulingGates")));
    }
    let mut next = pod.clone();
    next["spec"]["nodeName"] = str_at(binding, &["target", "name"]).into();
    for field in ["annotations", "labels"] {
        merge(&mut next["metadata"], field, binding.pointer(&format!("/metadata/{field}")));
    }
    set_scheduled(&mut next, now);
    Ok(next)
}

fn merge(metadata: &mut Value, field: &str, added: Option<&Value>) {
    let Some(added) = added.and_then(Value::as_object).filter(|map| !map.is_empty()) else { return };
    let mut all = metadata.get(field).and_then(Value::as_object).cloned().unwrap_or_default();
    all.extend(added.clone());
    metadata[field] = Value::Object(all);
}

/// The condition `PodScheduled`, true from now on.
fn set_scheduled(pod: &mut Value, now: Timestamp) {
    if !pod["status"].is_object() {
        pod["status"] = Value::Object(Map::new());
    }
    let scheduled = json!({"type": "PodScheduled", "status": "True", "lastProbeTime": null,
                           "lastTransitionTime": time::format_time(now)});
    let conditions = pod["status"].get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    let mut conditions: Vec<Value> = conditions.into_iter().filter(|c| c["type"] != "PodScheduled").collect();
    conditions.push(scheduled);
    pod["status"]["conditions"] = conditions.into();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_assigned_once() {
        let pod = json!({"metadata": {"name": "p", "uid": "u"}, "spec": {}});
        let binding = json!({"metadata": {"annotations": {"a": "b"}}, "target": {"name": "n"}});
        let bound = assign(&pod, &binding, Timestamp::UNIX_EPOCH).expect("is assigned");
        assert_eq!(bound["spec"]["nodeName"], "n");
        assert_eq!(bound["metadata"]["annotations"]["a"], "b");
        assert_eq!(bound["status"]["conditions"][0]["type"], "PodScheduled");
        let status = assign(&bound, &binding, Timestamp::UNIX_EPOCH).expect_err("is assigned already");
        assert_eq!(
            status.message,
            "Operation cannot be fulfilled on pods/binding \"p\": pod p is already assigned to node \"n\""
        );
    }
}
