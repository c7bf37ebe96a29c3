//! From a resource path to what serves it: the verbs on objects and collections, which are the same for every kind.

use apimachinery::meta::str_at;
use apimachinery::quote::Quoted;
use apimachinery::{Status, Value, names};
use bytes::Bytes;
use http::{Method, Response, Uri};

use crate::body::{self, Body};
use crate::call::Call;
use crate::conversion;
use crate::customresource::{self, CustomKind};
use crate::discovery::Served;
use crate::kind::KindRef;
use crate::list::StartRevision;
use crate::negotiation::{Format, Shape, Target, format_of_request};
use crate::nonresource::page_not_found;
use crate::part::Part;
use crate::pipeline::{Payload, attributes};
use crate::query::WriteOptions;
use crate::wire::{self, Expected};
use crate::write::{self, Place, Proposal};
use crate::{componentstatus, delete, list, patch, review, subresource, watch};

pub async fn serve(call: &mut Call, payload: Payload, uri: Uri) -> Result<Response<Body>, Status> {
    // Whoever asks for revision 0 takes what is there.
    if call.query.text("resourceVersion") != "0" {
        call.core.caught_up().await?;
    }
    let info = &call.info;
    let Some(kind) = &call.core.kind(&info.group, &info.version, &info.resource) else {
        let is_group = !Served::new(&call.core).versions(&info.group).is_empty();
        return if is_group { Err(Status::path_not_found()) } else { page_not_found() };
    };
    check_route(call, kind)?;
    if let Some(custom) = kind.custom() {
        prepare_custom(call, custom)?;
    }
    if !call.info.subresource.is_empty() {
        return Box::pin(subresource::serve(call, kind, payload, uri)).await;
    }
    warn_of_deprecation(call, kind.deprecation().map(str::to_owned));
    let info = &call.info;
    if !kind.supports(info.verb) {
        return Err(Status::no_such_method());
    }
    if kind.resource == api::resource::COMPONENT_STATUSES {
        return Box::pin(componentstatus::serve(call, kind)).await;
    }
    if !kind.is_stored() {
        let body = body::read(payload.body).await?;
        return Box::pin(review::create(call, kind, &body)).await;
    }
    // Boxed: all requests would move what the largest of these needs.
    match info.verb {
        "get" => get(call, kind).await,
        "list" => Box::pin(list::list(call, kind)).await,
        "watch" => Box::pin(watch::watch(call, kind)).await,
        "create" if info.name.is_empty() => {
            let body = read(call, payload).await?;
            Box::pin(create(call, kind, &body)).await
        }
        "update" => {
            let body = read(call, payload).await?;
            Box::pin(replace(call, kind, Part::Main, &body)).await
        }
        "patch" => {
            let body = read(call, payload).await?;
            Box::pin(patch::patch(call, kind, Part::Main, &body)).await
        }
        "delete" => {
            let body = body::read(payload.body).await?;
            Box::pin(delete::delete(call, kind, &body)).await
        }
        "deletecollection" => {
            let body = body::read(payload.body).await?;
            Box::pin(delete::delete_collection(call, kind, &body)).await
        }
        _ => Err(Status::no_such_method()),
    }
}

/// The body of a request that says what to write.
async fn read(call: &Call, payload: Payload) -> Result<Bytes, Status> {
    let body = body::read(payload.body).await?;
    call.core.metrics.body(&call.info, body.len());
    Ok(body)
}

/// Who asks for what is deprecated is told so, and so is who watches the server.
fn warn_of_deprecation(call: &mut Call, warning: Option<String>) {
    if let Some(warning) = warning {
        call.core.metrics.deprecated(&call.info);
        call.warnings.push(warning);
    }
}

/// What holds for requests for custom resources only: they have no protobuf form, and none may come once their
/// definition is deleted.
fn prepare_custom(call: &mut Call, custom: &CustomKind) -> Result<(), Status> {
    if call.target.format == Format::Protobuf && call.target.shape == Shape::Object {
        let pretty = call.target.pretty;
        call.target =
            Target { pretty, ..Target::negotiate_untyped(&call.headers, call.core.config.formats)? };
    }
    warn_of_deprecation(call, custom.deprecation.clone());
    if custom.terminating && call.info.verb == "create" && call.info.subresource.is_empty() {
        let resource = custom.kind.resource.group_resource();
        let mut status = Status::method_not_allowed(&resource, call.info.verb);
        status.message = "create not allowed while custom resource definition is terminating".to_owned();
        return Err(status);
    }
    Ok(())
}

/// What paths and methods there are: a single object of a namespaced kind is reached through its namespace only, one of
/// a cluster-wide kind through none; all namespaces together can only be read; writes name an object, or create one.
fn check_route(call: &Call, kind: &KindRef) -> Result<(), Status> {
    let info = &call.info;
    let is_collection = info.path_name.is_empty();
    let everywhere = kind.resource.namespaced && info.namespace.is_empty();
    let misplaced =
        !kind.resource.namespaced && !info.namespace.is_empty() && kind.resource != api::resource::NAMESPACES;
    let nowhere = match is_collection {
        true => everywhere && !kind.supports("list"),
        false => !kind.supports("get") && info.subresource.is_empty(),
    };
    // Of custom objects all paths lead to one handler, which looks for the object first.
    let no_part = kind.custom().is_none()
        && !info.subresource.is_empty()
        && kind.subresource(&info.subresource).is_none();
    if misplaced || nowhere || no_part || (everywhere && !is_collection) {
        return Err(Status::path_not_found());
    }
    let has_method = match call.method {
        Method::GET => true,
        Method::POST => !everywhere && (is_collection || !info.subresource.is_empty()),
        Method::DELETE => !everywhere,
        Method::PUT | Method::PATCH => !is_collection,
        _ => info.is_long_running(),
    };
    if !has_method {
        return Err(Status::no_such_method());
    }
    let errors = names::is_path_segment_name(&info.path_name);
    if is_collection || errors.is_empty() {
        return Ok(());
    }
    let why = format!("Name parameter invalid: {}: {}", Quoted(&info.path_name), errors.join(";"));
    Err(Status::bad_request(why))
}

pub async fn get(call: &Call, kind: &KindRef) -> Result<Response<Body>, Status> {
    refuse_export(call)?;
    if let StartRevision::At(revision) = list::start_revision(call.query.text("resourceVersion"))? {
        list::refuse_future(&call.core, revision)?;
    }
    let entry = Place::of(call, kind, Part::Main).current(call)?;
    call.respond_object(200, kind, &entry.bytes, Some(entry.revision)).await
}

/// Objects without what a cluster adds to them are not had any more.
fn refuse_export(call: &Call) -> Result<(), Status> {
    if call.query.flag("export") {
        let why = "the export parameter, deprecated since v1.14, is no longer supported";
        return Err(Status::bad_request(why));
    }
    Ok(())
}

/// The object in a body, defaulted, in the version the store keeps.
pub fn decode(
    call: &mut Call,
    kind: &KindRef,
    body: &Bytes,
    options: &WriteOptions,
) -> Result<Value, Status> {
    let format = format_of_request(&call.headers, call.core.config.formats)?;
    if let Some(custom) = kind.custom() {
        let (strictness, formats) = (options.field_validation, call.core.config.formats);
        let body = customresource::Body { format, bytes: body, strictness, formats };
        let object = customresource::decoded(custom, body, &mut call.warnings)?;
        call.audit_request(&object);
        return Ok(customresource::defaulted(custom, object));
    }
    let api_version = kind.resource.api_version();
    let expected =
        Expected { type_name: kind.type_name, api_version: &api_version, kind: kind.resource.kind };
    let object = wire::decode_body(expected, format, body, options.field_validation, &mut call.warnings)?;
    call.audit_request(&object);
    Ok(defaulted(kind, object))
}

/// Fills in defaults in the version of `kind`, and hands on the version the store keeps.
pub fn defaulted(kind: &KindRef, mut object: Value) -> Value {
    if let Some(custom) = kind.custom() {
        return customresource::defaulted(custom, object);
    }
    api::schema().default(api::schema::type_id(kind.type_name), &mut object);
    kind.default(&mut object);
    conversion::to_stored(kind, object)
}

async fn create(call: &mut Call, kind: &KindRef, body: &Bytes) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "CreateOptions")?;
    let object = decode(call, kind, body, &options)?;
    let written = write::create(call, kind, Proposal { object, owned: false }, &options).await?;
    call.respond_object(201, kind, &written.bytes, None).await
}

pub async fn replace(
    call: &mut Call,
    kind: &KindRef,
    part: Part,
    body: &Bytes,
) -> Result<Response<Body>, Status> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions")?;
    let object = decode(call, kind, body, &options)?;
    write::check_name(str_at(&object, &["metadata", "name"]), &call.info.name)?;
    let place = Place::of(call, kind, part);
    let may_create = part == Part::Main && kind.strategy.allow_create_on_update();
    let written = if may_create && call.core.store.get(&place.key).is_none() {
        check_create(call).await?;
        write::create(call, kind, Proposal { object, owned: false }, &options).await?
    } else {
        let change = |_: &Value| Ok(Proposal { object: object.clone(), owned: false });
        write::update(call, &place, &options, &change).await?
    };
    call.respond_object(written.code(), kind, &written.bytes, None).await
}

/// Who creates by update or apply must be allowed to create.
pub async fn check_create(call: &Call) -> Result<(), Status> {
    let mut wanted = attributes(&call.info, &call.user);
    wanted.verb = "create";
    call.core.check(&wanted).await
}
