//! Issuing tokens for service accounts. Follows `TokenREST.Create`.

use api::defaults::{Fill, fill};
use api::resource;
use apimachinery::field::{Error, Path};
use apimachinery::meta::str_at;
use apimachinery::{GroupKind, GroupResource, Status, Value, json, time};
use auth::serviceaccount::{Binding, EXPIRATION_SECONDS_MAX, EXPIRATION_SECONDS_MIN, Reference, TokenSpec};
use bytes::Bytes;
use http::Response;

use crate::admit;
use crate::body::Body;
use crate::call::Call;
use crate::conversion;
use crate::kind::KindRef;
use crate::metadata;
use crate::negotiation::format_of_request;
use crate::ownership;
use crate::part::Part;
use crate::query::WriteOptions;
use crate::wire::{self, Document, Expected};
use crate::write::Place;

const EXPECTED: Expected = Expected {
    type_name: "io.k8s.api.authentication.v1.TokenRequest",
    api_version: "authentication.k8s.io/v1",
    kind: "TokenRequest",
};

/// The life of a token whose request does not say (upstream's default of `spec.expirationSeconds`).
const EXPIRATION_SECONDS: i64 = 3600;

pub async fn request(call: &mut Call, kind: &KindRef, body: &Bytes) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let format = format_of_request(&call.headers, call.core.config.formats)?;
    let mut request =
        wire::decode_body(EXPECTED, format, body, options.field_validation, &mut call.warnings)?;
    call.audit_request(&request);
    metadata::settle_namespace(&mut request, true, &call.info.namespace)?;
    metadata::forget_version(&mut request)?;
    fill(&mut request, &[("spec", Fill::Empty)]);
    fill(&mut request["spec"], &[("expirationSeconds", Fill::Int(EXPIRATION_SECONDS))]);
    ownership::posted(call, &EXPECTED, &mut request, &options);
    check_name(call, &request)?;
    let place = Place::of(call, kind, Part::Main);
    let account = conversion::decode(&place.current(call)?.bytes);
    check_uid(call, &account, &request)?;
    request["metadata"]["name"] = account["metadata"]["name"].clone();
    request["metadata"]["uid"] = account["metadata"]["uid"].clone();
    request["metadata"]["creationTimestamp"] = time::format_time(call.now).into();
    admit::posted(call, &place, "token", &mut request, options.dry_run).await?;
    let expiration = request.pointer("/spec/expirationSeconds").and_then(Value::as_i64).unwrap_or_default();
    check_expiration(expiration)?;
    let audiences = request.pointer("/spec/audiences").and_then(Value::as_array);
    let spec = TokenSpec {
        namespace: call.info.namespace.clone(),
        account: reference(&account),
        audiences: audiences.into_iter().flatten().filter_map(|a| a.as_str().map(str::to_owned)).collect(),
        expiration_seconds: Some(expiration),
        binding: binding(call, &account, &request)?,
    };
    let id = metadata::new_uid(&call.core.config.random);
    let token = call.core.authenticator.issuer().issue(&spec, id, call.now).map_err(Status::internal)?;
    request["spec"]["audiences"] = json!(token.audiences);
    // Upstream always writes what a token is bound to, be it nothing.
    fill(&mut request["spec"], &[("boundObjectRef", Fill::Null)]);
    request["status"] =
        json!({"token": token.token, "expirationTimestamp": time::format_time(token.expires_at)});
    call.target = call.target.plain();
    call.respond(201, Document::value(EXPECTED.type_name, &request))
}

fn kind() -> GroupKind {
    GroupKind::new("authentication.k8s.io", EXPECTED.kind)
}

fn check_expiration(seconds: i64) -> Result<(), Status> {
    let path = Path::new("spec").child("expirationSeconds");
    let why = match seconds {
        s if s < EXPIRATION_SECONDS_MIN => "may not specify a duration less than 10 minutes",
        s if s > EXPIRATION_SECONDS_MAX => "may not specify a duration larger than 2^32 seconds",
        _ => return Ok(()),
    };
    let error = Error::invalid(&path, seconds, why);
    Err(Status::invalid(&kind(), "", &[error]))
}

/// Who names an account in the request, too, must mean that of the path.
fn check_name(call: &Call, request: &Value) -> Result<(), Status> {
    let name = str_at(request, &["metadata", "name"]);
    if name.is_empty() || name == call.info.name {
        return Ok(());
    }
    let why = "must match the service account name if specified";
    let error = Error::invalid(&Path::new("metadata").child("name"), name, why);
    Err(Status::invalid(&kind(), &call.info.name, &[error]))
}

/// The same of its UID.
fn check_uid(call: &Call, account: &Value, request: &Value) -> Result<(), Status> {
    let [asked, is] = [request, account].map(|object| str_at(object, &["metadata", "uid"]));
    if asked.is_empty() || asked == is {
        return Ok(());
    }
    let why = format!(
        "the UID in the token request ({asked}) does not match the UID of the service account ({is})"
    );
    Err(Status::conflict(&GroupResource::new(kind().group, EXPECTED.kind), &call.info.name, why))
}

fn reference(object: &Value) -> Reference {
    Reference::new(str_at(object, &["metadata", "name"]), str_at(object, &["metadata", "uid"]))
}

/// What the token's life is bound to, which must exist and be what the request thinks it is.
fn binding(call: &Call, account: &Value, request: &Value) -> Result<Binding, Status> {
    let Some(bound) = request.pointer("/spec/boundObjectRef").filter(|r| r.is_object()) else {
        return Ok(Binding::Account);
    };
    let text = |field: &str| str_at(bound, &[field]);
    // Whatever the version, there is but one kind of that name in the group.
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let (resource, namespace) = match (group, text("kind")) {
        ("", "Pod") => (resource::PODS, call.info.namespace.as_str()),
        ("", "Secret") => (resource::SECRETS, call.info.namespace.as_str()),
        ("", "Node") => (resource::NODES, ""),
        (group, kind) => {
            return Err(Status::bad_request(format!(
                "cannot bind token to object of type {group}/{version}, Kind={kind}"
            )));
        }
    };
    let found = call.core.object(resource, namespace, text("name"));
    let object = found.ok_or_else(|| Status::not_found(&resource.group_resource(), text("name")))?;
    let target = reference(&object);
    let binding = match resource {
        resource::SECRETS => Binding::Secret(target.clone()),
        resource::NODES => Binding::Node(target.clone()),
        _ => pod_binding(call, account, &object, target.clone())?,
    };
    if !text("uid").is_empty() && text("uid") != target.uid {
        let why = format!(
            "the UID in the bound object reference ({}) does not match the UID in record. The object might have been deleted and then recreated",
            text("uid")
        );
        return Err(Status::conflict(&GroupResource::new("", resource.kind), &target.name, why));
    }
    Ok(binding)
}

fn pod_binding(call: &Call, account: &Value, pod: &Value, target: Reference) -> Result<Binding, Status> {
    let account = str_at(account, &["metadata", "name"]);
    let used = str_at(pod, &["spec", "serviceAccountName"]);
    if used != account {
        return Err(Status::bad_request(format!(
            "cannot bind token for serviceaccount {account:?} to pod running with different serviceaccount name."
        )));
    }
    let node = str_at(pod, &["spec", "nodeName"]);
    let node = (!node.is_empty()).then(|| {
        let object = call.core.object(resource::NODES, "", node);
        object.as_ref().map_or_else(|| Reference::new(node, ""), reference)
    });
    Ok(Binding::Pod(target, node))
}
