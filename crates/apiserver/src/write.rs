//! Creations and updates of every kind: metadata, field ownership, admission, strategy, validation, commit.
//! Whatever a verb or subresource does, it ends here. Follows `Store.Create`, `Store.Update` and `GuaranteedUpdate`.

use std::sync::Arc;

use admission::Operation;
use api::dynamicresource::adminaccess;
use api::strategy::Writer;
use api::{Kind, resource};
use apimachinery::field::ErrorList;
use apimachinery::meta::str_at;
use apimachinery::{GroupKind, Status, Text, Value, field, json};
use bytes::Bytes;
use store::{CommitError, Entry, Expected, Key, Op};

use crate::admit::{self, Asked};
use crate::call::Call;
use crate::conversion;
use crate::customresource;
use crate::deletion;
use crate::draft::{encode_as, to_json};
use crate::kind::KindRef;
use crate::metadata;
use crate::ownership;
use crate::part::Part;
use crate::query::WriteOptions;
use crate::service_allocation::Reservation;

/// How often a generated name may turn out to be taken.
const GENERATED_NAME_ATTEMPTS: usize = 8;

/// How often other servers may have given away what a new Service was to get.
const ALLOCATION_ATTEMPTS: usize = 32;

/// Seconds after which a client may try again what the store could not do.
const STORE_RETRY_SECONDS: i32 = 1;

/// How often an update starts again because somebody else wrote in between.
const UPDATE_ATTEMPTS: usize = 32;

/// What a write has led to.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object in the version the store keeps.
    pub bytes: Bytes,
    pub created: bool,
}

impl Written {
    pub fn code(&self) -> u16 {
        if self.created { 201 } else { 200 }
    }
}

/// The object a writer wants, in the version the store keeps, with defaults.
pub struct Proposal {
    pub object: Value,
    /// Field ownership has been settled by the writer (server-side apply).
    pub owned: bool,
}

/// One object as the target of a write.
#[derive(Clone)]
pub struct Place {
    pub kind: KindRef,
    pub part: Part,
    pub key: Key,
}

impl Place {
    /// The place that the request's path names.
    pub fn of(call: &Call, kind: &KindRef, part: Part) -> Place {
        let namespace = if kind.resource.namespaced { call.info.namespace.as_str() } else { "" };
        Place { kind: kind.clone(), part, key: Key::new(kind.storage, namespace, call.info.name.as_str()) }
    }

    pub fn not_found(&self) -> Status {
        Status::not_found(&self.kind.resource.group_resource(), &self.key.name)
    }

    pub fn current(&self, call: &Call) -> Result<Arc<Entry>, Status> {
        call.core.store.get(&self.key).ok_or_else(|| self.not_found())
    }

    fn already_exists(&self, call: &Call) -> Status {
        let mut status = Status::already_exists(&self.kind.resource.group_resource(), &self.key.name);
        let object = call.core.store.get(&self.key).map(|entry| conversion::decode(&entry.bytes));
        if object.is_some_and(|object| object["metadata"]["deletionTimestamp"].is_string()) {
            status.message = format!("object is being deleted: {}", status.message);
        }
        status
    }

    fn modified(&self) -> Status {
        Status::modified(&self.kind.resource.group_resource(), &self.key.name)
    }

    pub fn invalid(&self, object: &Value, errors: &[apimachinery::field::Error]) -> Status {
        let named = GroupKind::new(self.kind.internal_group(), self.kind.resource.kind);
        Status::invalid(&named, str_at(object, &["metadata", "name"]), errors)
    }
}

/// Creates an object. Its namespace is that of the request, its name its own or generated.
pub async fn create(
    call: &mut Call,
    kind: &KindRef,
    proposal: Proposal,
    options: &WriteOptions,
) -> Result<Written, Status> {
    let Proposal { mut object, owned } = proposal;
    let stored = kind.hub();
    metadata::settle_namespace(&mut object, kind.resource.namespaced, &call.info.namespace)?;
    let prefix = metadata::generate_name(&object).map(str::to_owned);
    if let Some(prefix) = &prefix {
        metadata::set_name(&mut object, &metadata::generated_name(prefix, &call.core.config.random))?;
    }
    if kind.strategy.names_itself() && str_at(&object, &["metadata", "name"]).is_empty() {
        metadata::set_name(&mut object, &metadata::new_uid(&call.core.config.random))?;
    }
    let uid = metadata::new_uid(&call.core.config.random);
    metadata::fill_new(&mut object, uid, call.now)?;
    let place = place_of(kind, &object);
    if !call.info.name.is_empty() {
        check_name(&place.key.name, &call.info.name)?;
    }
    if !owned {
        ownership::created(call, kind, &mut object, options);
    }
    admit::await_default_account(call, &place, &object).await;
    let asked = Asked { operation: Operation::Create, old: None, dry_run: options.dry_run };
    admit::mutate(call, &place, asked, &mut object).await?;
    call.warnings.extend(field::found(|| stored.strategy.warnings_of_proposal(&object)));
    stored.prepare_for_create(&mut object);
    stamp(call, stored, Part::Main, &mut object, None);
    let reservation = call
        .core
        .services
        .reserve(&call.core.store, stored, &mut object, None)
        .map_err(|e| place.invalid(&object, &e))?;
    let mut errors = admin_access(call, &place, &object, None);
    errors.extend(kind.judge().validate(&object));
    if !errors.is_empty() {
        return Err(place.invalid(&object, &errors));
    }
    admit::validate(call, &place, asked, &object).await?;
    call.warnings.extend(field::found(|| stored.strategy.warnings(&object, None)));
    stored.strategy.canonicalize(&mut object);
    settle(call, kind, &mut object, options.dry_run);
    let bytes = if options.dry_run {
        match call.core.store.get(&place.key) {
            Some(_) => return Err(place.already_exists(call)),
            None => to_json(&object).into(),
        }
    } else {
        // Who updates into being, or applies, may say from which state they come.
        match call.info.verb {
            "create" => metadata::check_unversioned(&object)?,
            _ => metadata::forget_version(&mut object)?,
        }
        commit_new(call, place, &mut object, prefix.as_deref(), reservation).await?
    };
    Ok(Written { bytes, created: true })
}

/// Lets the server say what becomes of a definition, which its author does not come to own. Nothing becomes of one that
/// is not written.
fn settle(call: &Call, kind: &KindRef, object: &mut Value, dry_run: bool) {
    if dry_run || !customresource::is_definition(kind) {
        return;
    }
    let before = object.clone();
    customresource::settle_definition(&call.core, object, call.now);
    if object["status"] != before["status"] {
        ownership::reported(kind, &before, object, call.now);
    }
}

/// Devices are had as their administrator only where the namespace lets that be.
fn admin_access(call: &Call, place: &Place, object: &Value, old: Option<&Value>) -> ErrorList {
    adminaccess::validate(&place.kind.resource, object, old, || {
        call.core.object(resource::NAMESPACES, "", &place.key.namespace)
    })
}

/// Lets the kind set what depends on who writes, and when.
fn stamp(call: &Call, kind: &Kind, part: Part, object: &mut Value, old: Option<&Value>) {
    let writer = Writer { now: call.now, user: &|| json!(call.user) };
    kind.strategy.stamp(part.subresource(), object, old, &writer);
}

/// Stores a new object; if its name was generated and is taken, under another one, and if another server has given away
/// its addresses or ports, with others.
async fn commit_new(
    call: &Call,
    mut place: Place,
    object: &mut Value,
    prefix: Option<&str>,
    mut reservation: Reservation,
) -> Result<Bytes, Status> {
    let (mut names, mut allocations) = (1, 1);
    loop {
        let op = Op::Put(conversion::drafted(&call.core, &place.kind, object).await?);
        match reservation.commit(&call.core, &place.key, Expected::Absent, op, object).await {
            Ok(entry) => {
                reservation.keep(Some(object));
                customresource::definition_written(&call.core, &place.kind, &place.key.name);
                return Ok(entry.bytes.clone());
            }
            Err(CommitError::Conflict { .. }) => {
                let Some(prefix) = prefix.filter(|_| names < GENERATED_NAME_ATTEMPTS) else {
                    return Err(place.already_exists(call));
                };
                names += 1;
                metadata::set_name(object, &metadata::generated_name(prefix, &call.core.config.random))?;
                place = place_of(&place.kind, object);
            }
            Err(CommitError::Overtaken) if allocations < ALLOCATION_ATTEMPTS => {
                allocations += 1;
                let again = reservation.again(&call.core.store, place.kind.hub(), object);
                reservation = again.map_err(|errors| place.invalid(object, &errors))?;
            }
            Err(error) => return Err(commit_failed(&error)),
        }
    }
}

fn place_of(kind: &KindRef, object: &Value) -> Place {
    let namespace = if kind.resource.namespaced { str_at(object, &["metadata", "namespace"]) } else { "" };
    let key = Key::new(kind.storage, namespace, str_at(object, &["metadata", "name"]));
    Place { kind: kind.clone(), part: Part::Main, key }
}

/// Changes an object. `change` makes the wanted object from the current one, and is called again when somebody else
/// wrote in between. A resourceVersion it leaves in the object must be the current one.
pub async fn update(
    call: &mut Call,
    place: &Place,
    options: &WriteOptions,
    change: &(dyn Fn(&Value) -> Result<Proposal, Status> + Sync),
) -> Result<Written, Status> {
    for _ in 0..UPDATE_ATTEMPTS {
        let current = place.current(call)?;
        let old = conversion::hub_object(&call.core, &place.kind, &current).await?;
        let proposal = change(&old)?;
        match attempt(call, place, options, &current, &old, proposal).await? {
            Attempt::Done(written) => return Ok(written),
            Attempt::Overtaken => {}
        }
    }
    Err(place.modified())
}

enum Attempt {
    Done(Written),
    /// Somebody else wrote in between.
    Overtaken,
}

async fn attempt(
    call: &mut Call,
    place: &Place,
    options: &WriteOptions,
    current: &Arc<Entry>,
    old: &Value,
    proposal: Proposal,
) -> Result<Attempt, Status> {
    let Proposal { mut object, owned } = proposal;
    let stored = place.kind.hub();
    place.part.confine(&mut object, old);
    check_identity(place, &mut object, old, call.info.verb)?;
    // What a binding writes is nobody's.
    if !owned && place.part != Part::Binding {
        ownership::updated(call, place, old, &mut object, options);
    }
    let asked = Asked { operation: Operation::Update, old: Some(old), dry_run: options.dry_run };
    admit::mutate(call, place, asked, &mut object).await?;
    place.part.prepare(stored, &mut object, old);
    stamp(call, stored, place.part, &mut object, Some(old));
    let reservation = call
        .core
        .services
        .reserve(&call.core.store, stored, &mut object, Some(old))
        .map_err(|e| place.invalid(old, &e))?;
    let mut errors = admin_access(call, place, &object, Some(old));
    errors.extend(place.part.validate(place.kind.judge(), &object, old));
    if !errors.is_empty() {
        return Err(place.invalid(&object, &errors));
    }
    admit::validate(call, place, asked, &object).await?;
    stored.strategy.canonicalize(&mut object);
    settle(call, &place.kind, &mut object, options.dry_run);
    ownership::forget_unchanged(&mut object, old);
    let completes = deletion::completes_deletion(stored, &object, old);
    let bytes = if !completes && same(&object, old) {
        current.bytes.clone()
    } else if options.dry_run {
        encode_as(&object, current.revision).into()
    } else {
        let next = conversion::drafted(&call.core, &place.kind, &object).await?;
        let op = if completes { Op::Delete(next) } else { Op::Put(next) };
        let expected = Expected::At(current.revision);
        match reservation.commit(&call.core, &place.key, expected, op, &object).await {
            Ok(entry) => {
                reservation.keep((!completes).then_some(&object));
                customresource::definition_written(&call.core, stored, &place.key.name);
                entry.bytes.clone()
            }
            Err(CommitError::Conflict { .. } | CommitError::Overtaken) => return Ok(Attempt::Overtaken),
            Err(error) => return Err(commit_failed(&error)),
        }
    };
    // Who reports a status is not told what is odd about the rest.
    if place.part != Part::Status {
        call.warnings.extend(field::found(|| stored.strategy.warnings(&object, Some(old))));
    }
    Ok(Attempt::Done(Written { bytes, created: false }))
}

/// A body that names an object names that of the path.
pub fn check_name(name: &str, path: &str) -> Result<(), Status> {
    if name.is_empty() {
        return Err(Status::bad_request(format!(
            "the name of the object ({path} based on URL) was undeterminable: name must be provided"
        )));
    }
    if name != path {
        return Err(Status::bad_request(format!(
            "the name of the object ({name}) does not match the name on the URL ({path})"
        )));
    }
    Ok(())
}

/// An update is about the object the path names, in the state the writer saw.
fn check_identity(place: &Place, object: &mut Value, old: &Value, verb: &str) -> Result<(), Status> {
    metadata::settle_namespace(object, place.kind.resource.namespaced, &place.key.namespace)?;
    let metadata = metadata::metadata_mut(object)?;
    let text = |field: &str| metadata.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (name, uid, version) = (text("name"), text("uid"), text("resourceVersion"));
    check_name(&name, &place.key.name)?;
    let old_uid = str_at(old, &["metadata", "uid"]);
    // A patch that changes the uid makes an object that is not valid; validation says so.
    if verb != "patch" && !uid.is_empty() && uid != old_uid {
        let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {old_uid}");
        return Err(Status::conflict(&place.kind.resource.group_resource(), &name, why));
    }
    let current = str_at(old, &["metadata", "resourceVersion"]);
    // "0" names no state either.
    if metadata::version(&version).map_err(|why| Status::failure(500, "", why))?.is_none() {
        let names_state = !matches!(place.part, Part::Scale | Part::Binding);
        if names_state && !place.kind.strategy.allow_unconditional_update() {
            let path = apimachinery::field::Path::new("metadata").child("resourceVersion");
            let error = apimachinery::field::Error::invalid(&path, 0, "must be specified for an update");
            let resource = &place.kind.resource;
            return Err(Status::invalid(&GroupKind::new(resource.group, resource.plural), &name, &[error]));
        }
        metadata.insert("resourceVersion", current.into());
    } else if version != current {
        return Err(place.modified());
    }
    Ok(())
}

/// Whether nothing but the resourceVersion differs.
fn same(object: &Value, old: &Value) -> bool {
    let (Some(new), Some(old)) = (object.as_object(), old.as_object()) else { return object == old };
    let rest = |map: &apimachinery::Map| map.len() - usize::from(map.contains_key("metadata"));
    rest(new) == rest(old)
        && new.iter().filter(|(key, _)| *key != "metadata").all(|(key, value)| old.get(key) == Some(value))
        && same_metadata(new.get("metadata"), old.get("metadata"))
}

fn same_metadata(new: Option<&Value>, old: Option<&Value>) -> bool {
    fn fields(metadata: Option<&Value>) -> impl Iterator<Item = (&Text, &Value)> {
        metadata.and_then(Value::as_object).into_iter().flatten().filter(|(key, _)| *key != "resourceVersion")
    }
    fields(new).eq(fields(old))
}

/// A write the store could not make.
pub fn commit_failed(error: &CommitError) -> Status {
    match error {
        CommitError::TooLarge { .. } => {
            Status::failure(413, "RequestEntityTooLarge", format!("Request entity too large: {error}"))
        }
        CommitError::Etcd(_) | CommitError::Behind(_) | CommitError::Overtaken => {
            tracing::warn!(error = error as &dyn std::error::Error, "a write could not be made");
            Status::timeout(error.to_string(), STORE_RETRY_SECONDS)
        }
        CommitError::Closed => Status::service_unavailable("the server is shutting down"),
        error => Status::internal(error),
    }
}
