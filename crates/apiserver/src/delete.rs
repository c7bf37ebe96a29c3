//! The delete and deletecollection verbs: carries out what `deletion` decides. Follows `Store.Delete`,
//! `Store.DeleteCollection` and `DeleteResource`.

use admission::Operation;
use api::catalogue::Kind;
use api::resource;
use apimachinery::meta::str_at;
use apimachinery::status::StatusDetails;
use apimachinery::{Status, Value};
use bytes::Bytes;
use http::Response;
use store::{CommitError, Expected, Key, Op};

use crate::admit::{self, Asked};
use crate::body::Body;
use crate::call::Call;
use crate::conversion;
use crate::customresource;
use crate::deletion::{self, DeleteOptions, Verdict};
use crate::draft::encode_as;
use crate::kind::KindRef;
use crate::list;
use crate::negotiation::format_of_request;
use crate::part::Part;
use crate::query::ListOptions;
use crate::selection::Selection;
use crate::wire::{self, Document};
use crate::write::{Place, commit_failed};

/// How often a deletion starts again because somebody else wrote in between.
const DELETE_ATTEMPTS: usize = 32;

/// Kinds whose deletion answers with the object it removed, as upstream's `ReturnDeletedObject` says; others answer
/// with a Status.
const RETURN_DELETED_OBJECT: [api::Resource; 17] = [
    resource::CSI_DRIVERS,
    resource::CSI_NODES,
    resource::DEVICE_CLASSES,
    resource::NAMESPACES,
    resource::PERSISTENT_VOLUMES,
    resource::PERSISTENT_VOLUME_CLAIMS,
    resource::PODS,
    resource::POD_TEMPLATES,
    resource::RESOURCE_CLAIMS,
    resource::RESOURCE_CLAIM_TEMPLATES,
    resource::RESOURCE_QUOTAS,
    resource::RESOURCE_SLICES,
    resource::SERVICES,
    resource::SERVICE_ACCOUNTS,
    resource::STORAGE_CLASSES,
    resource::VOLUME_ATTACHMENTS,
    resource::VOLUME_ATTRIBUTES_CLASSES,
];

/// What a deletion has led to.
pub enum Deleted {
    /// The object is gone; its final state.
    Gone(Bytes),
    /// The object stays for now.
    Marked(Bytes),
    /// Its deletion was under way already.
    Pending(Bytes),
}

pub async fn delete(call: &mut Call, kind: &KindRef, body: &Bytes) -> Result<Response<Body>, Status> {
    let options = options(call, body)?;
    let dry_run = options.validate()?;
    warn(call, kind, &options);
    let place = Place::of(call, kind, Part::Main);
    let deleted = delete_object(call, &place, &options, dry_run).await?;
    match &deleted {
        Deleted::Marked(bytes) | Deleted::Pending(bytes) => {
            let code = if options.orphan_dependents == Some(false) { 202 } else { 200 };
            call.respond_object(code, kind, bytes, None).await
        }
        Deleted::Gone(bytes) if RETURN_DELETED_OBJECT.contains(&kind.resource) => {
            call.respond_object(200, kind, bytes, None).await
        }
        Deleted::Gone(bytes) => {
            let object = conversion::decode(bytes);
            call.target = call.target.plain();
            call.respond(200, Document::status(&success(kind, &object)))
        }
    }
}

/// Warns who leaves it to the kind what becomes of dependents, if that is not what one would expect.
fn warn(call: &mut Call, kind: &Kind, options: &DeleteOptions) {
    if options.propagation_policy.is_none() && options.orphan_dependents.is_none() {
        call.warnings.extend(kind.strategy.deletion_warning().map(str::to_owned));
    }
}

fn success(kind: &Kind, object: &Value) -> Status {
    Status::success(StatusDetails {
        name: str_at(object, &["metadata", "name"]).to_owned(),
        group: kind.resource.group.to_owned(),
        kind: kind.resource.plural.to_owned(),
        uid: str_at(object, &["metadata", "uid"]).to_owned(),
        ..StatusDetails::default()
    })
}

fn options(call: &Call, body: &Bytes) -> Result<DeleteOptions, Status> {
    if body.is_empty() {
        return DeleteOptions::from_query(&call.query);
    }
    let format = format_of_request(&call.headers, call.core.config.formats)?;
    let value = wire::decode_options(format, body)?;
    let mut options: DeleteOptions = apimachinery::from_value(value).map_err(|error| {
        Status::bad_request(format!("DeleteOptions in the request body are not valid: {error}"))
    })?;
    options.dry_run.extend(call.query.all("dryRun").map(str::to_owned));
    Ok(options)
}

/// Deletes one object as far as its grace period and finalizers allow.
pub async fn delete_object(
    call: &mut Call,
    place: &Place,
    options: &DeleteOptions,
    dry_run: bool,
) -> Result<Deleted, Status> {
    let stored = place.kind.hub();
    if let Some(why) = stored.strategy.undeletable(&place.key.name) {
        return Err(Status::forbidden(&stored.resource.group_resource(), &place.key.name, why));
    }
    for _ in 0..DELETE_ATTEMPTS {
        let current = place.current(call)?;
        let mut old = conversion::hub_object(&call.core, &place.kind, &current).await?;
        options.check_preconditions(&place.kind, &old)?;
        let asked = Asked { operation: Operation::Delete, old: Some(&old), dry_run };
        admit::mutate(call, place, asked, &mut Value::Null).await?;
        admit::validate(call, place, asked, &Value::Null).await?;
        customresource::add_finalizer(stored, &mut old);
        let (mut next, gone) = match deletion::decide(stored, &old, options, call.now) {
            Verdict::Pending => return Ok(Deleted::Pending(current.bytes.clone())),
            Verdict::Mark(next) => (next, false),
            Verdict::Remove(next) => (next, true),
        };
        customresource::mark_terminating(stored, &mut next, call.now);
        let done = |bytes| if gone { Deleted::Gone(bytes) } else { Deleted::Marked(bytes) };
        if dry_run {
            return Ok(done(encode_as(&next, current.revision).into()));
        }
        let next = conversion::drafted(&call.core, &place.kind, &next).await?;
        let op = if gone { Op::Delete(next) } else { Op::Put(next) };
        let expected = Expected::At(current.revision);
        let services = &call.core.services;
        match services.commit_deletion(&call.core, stored, &place.key, expected, op, &old).await {
            Ok(entry) => {
                customresource::definition_written(&call.core, stored, &place.key.name);
                return Ok(done(entry.bytes.clone()));
            }
            Err(CommitError::Conflict { .. }) => {}
            Err(error) => return Err(commit_failed(&error)),
        }
    }
    Err(Status::modified(&place.kind.resource.group_resource(), &place.key.name))
}

pub async fn delete_collection(
    call: &mut Call,
    kind: &KindRef,
    body: &Bytes,
) -> Result<Response<Body>, Status> {
    let delete_options = options(call, body)?;
    let dry_run = delete_options.validate()?;
    warn(call, kind, &delete_options);
    let list_options = ListOptions::parse(&call.query, false)?;
    let selection = Selection::parse(kind, &list_options)?;
    let (page, meta) = list::wanted(call, kind, &list_options, &selection).await?;
    for entry in &page.entries {
        let key = Key::new(kind.storage, entry.key.namespace.clone(), entry.key.name.clone());
        let place = Place { kind: kind.clone(), part: Part::Main, key };
        match delete_object(call, &place, &delete_options, dry_run).await {
            Ok(_) => {}
            Err(status) if status.is_not_found() => {}
            Err(status) => return Err(status),
        }
    }
    let view = call.view(kind)?;
    let entries = conversion::shown_entries(&call.core, kind, &page.entries).await?.into_owned();
    call.respond_list(&view, entries, &meta).await
}
