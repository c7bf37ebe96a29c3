//! The `scale` subresource: a workload seen as a number of replicas. Follows `ScaleREST`.

use api::catalogue::SCALES;
use apimachinery::codec::Strictness;
use apimachinery::field::{Error, Path};
use apimachinery::managedfields::{SCALE_VERSION, ScaleHandler};
use apimachinery::meta::{LabelSelector, str_at};
use apimachinery::{GroupKind, Status, Value, json, labels};
use bytes::Bytes;
use http::Response;

use crate::body::Body;
use crate::call::Call;
use crate::conversion;
use crate::draft::to_json;
use crate::kind::KindRef;
use crate::negotiation::{Format, format_of_request};
use crate::ownership;
use crate::part::Part;
use crate::patch;
use crate::query::WriteOptions;
use crate::wire::{self, Document, Expected};
use crate::write::{self, Place, Proposal, Written};

const EXPECTED: Expected =
    Expected { type_name: "io.k8s.api.autoscaling.v1.Scale", api_version: SCALE_VERSION, kind: "Scale" };

pub async fn serve(call: &mut Call, kind: &KindRef, body: &Bytes) -> Result<Response<Body>, Status> {
    let place = Place::of(call, kind, Part::Scale);
    let (bytes, revision) = match call.info.verb {
        "get" => {
            let entry = place.current(call)?;
            (entry.bytes.clone(), Some(entry.revision))
        }
        "patch" => {
            let patch = patch::Patch::of_request(call, kind, body)?;
            let options = patch.options(call)?;
            let written = match patch.is_apply() {
                true => apply(call, &place, &patch, &options).await?,
                false => {
                    let change = |object: &Value| {
                        let patched = patch.apply_plain(&scale(kind, object), EXPECTED)?;
                        scaled(kind, object, &patched).map(|object| Proposal { object, owned: false })
                    };
                    write::update(call, &place, &options, &change).await?
                }
            };
            (written.bytes, None)
        }
        _ => {
            let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
            let format: Format = format_of_request(&call.headers, call.core.config.formats)?;
            let wanted =
                wire::decode_body(EXPECTED, format, body, options.field_validation, &mut call.warnings)?;
            call.audit_request(&wanted);
            let change = |object: &Value| {
                scaled(kind, object, &wanted).map(|object| Proposal { object, owned: false })
            };
            (write::update(call, &place, &options, &change).await?.bytes, None)
        }
    };
    let shown = conversion::shown(&call.core, kind, &bytes, revision).await?;
    let object = conversion::decode(&shown);
    if let Some(paths) = paths(kind).filter(|paths| !apiextensions::scale::says_replicas(&object, paths)) {
        let path = &paths.spec_replicas_path;
        return Err(Status::internal(format!("the spec replicas field {path:?} does not exist")));
    }
    let scale = to_json(&scale(kind, &object)).into();
    let view = call.view(&KindRef::BuiltIn(&SCALES))?;
    call.respond(200, Document { type_name: view.type_name(false), json: vec![view.object(&scale)] })
}

/// Applies a configuration to the Scale, whose owners are those of the workload's replicas.
async fn apply(
    call: &mut Call,
    place: &Place,
    patch: &patch::Patch,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let kind = &place.kind;
    let config = patch.configuration_of(EXPECTED, options.field_validation, &mut call.warnings)?;
    let (api_version, path) = (kind.resource.api_version(), replicas_path(kind));
    let unreadable = |error| Status::internal(format!("failed to decode managed fields: {error}"));
    let now = call.now;
    let change = |object: &Value| {
        let fields = object["metadata"].get("managedFields");
        let owners = ScaleHandler::new(fields, &api_version, &path).map_err(unreadable)?;
        let mut live = scale(kind, object);
        live["metadata"]["managedFields"] = owners.to_subresource();
        let merged = ownership::applied_to_scale(&live, &config, options, now)?;
        let merged = wire::decode_value(EXPECTED, merged, Strictness::Ignore, &mut Vec::new())?;
        let mut object = scaled(kind, object, &merged)?;
        let fields = owners.to_parent(merged["metadata"].get("managedFields")).map_err(unreadable)?;
        if !fields.is_null() {
            object["metadata"]["managedFields"] = fields;
        }
        Ok(Proposal { object, owned: true })
    };
    write::update(call, place, options, &change).await
}

/// A workload as its Scale. Custom ones say where they keep what it shows.
pub fn scale(kind: &KindRef, object: &Value) -> Value {
    let (spec, status) = match paths(kind) {
        None => usual(object),
        Some(paths) => apiextensions::scale::show(object, paths),
    };
    let mut metadata = json!({});
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata[field] = value.clone();
        }
    }
    json!({"kind": "Scale", "apiVersion": SCALE_VERSION, "metadata": metadata, "spec": spec, "status": status})
}

/// Where a custom workload keeps its numbers.
fn paths(kind: &KindRef) -> Option<&apiextensions::definition::Scale> {
    kind.custom()?.version.scale.as_ref()
}

/// The names that lead to a workload's replicas.
fn replicas_path(kind: &KindRef) -> Vec<&str> {
    paths(kind).map_or_else(
        || vec!["spec", "replicas"],
        |paths| apiextensions::scale::names(&paths.spec_replicas_path),
    )
}

/// The spec and status of a built-in workload's Scale.
fn usual(object: &Value) -> (Value, Value) {
    let replicas =
        |part: &str| object.pointer(&format!("/{part}/replicas")).and_then(Value::as_i64).unwrap_or_default();
    let mut status = json!({"replicas": replicas("status")});
    let selector = selector_text(object);
    if !selector.is_empty() {
        status["selector"] = selector.into();
    }
    let mut spec = json!({});
    if replicas("spec") != 0 {
        spec["replicas"] = replicas("spec").into();
    }
    (spec, status)
}

fn selector_text(object: &Value) -> String {
    let mut selector = object.pointer("/spec/selector").cloned().unwrap_or_default();
    if object["kind"] == "ReplicationController" {
        selector = json!({"matchLabels": selector});
    }
    let selector: Option<LabelSelector> = apimachinery::from_value(selector).ok();
    selector.and_then(|s| labels::Selector::try_from(&s).ok()).map(|s| s.to_string()).unwrap_or_default()
}

/// The workload with the replicas a Scale asks for.
pub fn scaled(kind: &KindRef, object: &Value, scale: &Value) -> Result<Value, Status> {
    let replicas = scale.pointer("/spec/replicas").and_then(Value::as_i64).unwrap_or_default();
    if replicas < 0 {
        let path = Path::new("spec").child("replicas");
        let error = Error::invalid(&path, replicas, api::objectmeta::IS_NEGATIVE);
        let name = str_at(scale, &["metadata", "name"]);
        return Err(Status::invalid(&GroupKind::new("autoscaling", "Scale"), name, &[error]));
    }
    let mut next = object.clone();
    match paths(kind) {
        None => next["spec"]["replicas"] = replicas.into(),
        Some(paths) => apiextensions::scale::put(&mut next, &paths.spec_replicas_path, replicas.into()),
    }
    for field in ["name", "uid", "resourceVersion"] {
        match scale["metadata"].get(field) {
            Some(value) => next["metadata"][field] = value.clone(),
            None if field == "resourceVersion" => {
                if let Some(metadata) = next["metadata"].as_object_mut() {
                    metadata.remove(field);
                }
            }
            None => {}
        }
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workload_is_seen_and_set_as_a_number() {
        let object = json!({"metadata": {"name": "d", "resourceVersion": "4"},
            "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 1}});
        let kind: KindRef = api::catalogue::by_resource("apps", "v1", "deployments").expect("a row").into();
        let mut seen = scale(&kind, &object);
        assert_eq!(seen["spec"]["replicas"], 2);
        assert_eq!(seen["status"], json!({"replicas": 1, "selector": "app=web"}));
        seen["spec"]["replicas"] = 5.into();
        assert_eq!(scaled(&kind, &object, &seen).expect("scales")["spec"]["replicas"], 5);
        seen["spec"]["replicas"] = (-1).into();
        assert_eq!(scaled(&kind, &object, &seen).expect_err("is negative").code, 422);
    }
}
