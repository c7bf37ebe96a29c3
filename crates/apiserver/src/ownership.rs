//! Who owns which field (`metadata.managedFields`), kept by every write in the version that its request speaks.

use std::borrow::Cow;

use api::catalogue::{CATALOGUE, Kind, SCALES};
use apimachinery::managedfields::{
    FieldManager, OneVersion, SCALE_VERSION, Versions, reset_fields, reset_fields_of_custom,
};
use apimachinery::meta::str_at;
use apimachinery::schema::TypeId;
use apimachinery::{Status, Text, Value, json};
use jiff::Timestamp;

use crate::call::Call;
use crate::conversion;
use crate::kind::KindRef;
use crate::part::Part;
use crate::query::WriteOptions;
use crate::wire::Expected;
use crate::write::Place;

/// As whom this server owns fields.
const SERVER: &str = "kube-apiserver";

/// The versions in which a built-in kind is served.
struct BuiltIn(&'static Kind);

impl BuiltIn {
    fn row(&self, api_version: &str) -> Option<&'static Kind> {
        let is_meant =
            |row: &&Kind| row.storage == self.0.storage && row.resource.api_version() == api_version;
        CATALOGUE.iter().find(is_meant)
    }
}

impl Versions for BuiltIn {
    fn root(&self, api_version: &str) -> Option<TypeId> {
        self.row(api_version).map(|row| api::schema::type_id(row.type_name))
    }

    fn convert(&self, object: Value, from: &str, to: &str) -> Value {
        let (Some(from), Some(to)) = (self.row(from), self.row(to)) else { return object };
        conversion::from_stored(to, conversion::to_stored(from, object))
    }
}

/// Runs `with` with the field manager of a kind, in the version of the request, on the endpoint of `part`.
fn manage<T>(kind: &KindRef, part: Part, with: impl FnOnce(&FieldManager<'_>) -> T) -> T {
    let subresource = part.subresource();
    match kind {
        KindRef::BuiltIn(row) => with(&FieldManager {
            schema: api::schema(),
            root: api::schema::type_id(row.type_name),
            api_version: &row.resource.api_version(),
            subresource,
            reset_fields: row.strategy.reset_fields(subresource),
            versions: &BuiltIn(row),
        }),
        KindRef::Custom(custom) => {
            let typed = custom.typed();
            with(&FieldManager {
                schema: &typed.schema,
                root: typed.root,
                api_version: &kind.hub().resource.api_version(),
                subresource,
                reset_fields: reset_fields_of_custom(subresource, custom.version.has_status),
                versions: &OneVersion,
            })
        }
    }
}

/// The creator owns all it has set.
pub fn created(call: &Call, kind: &KindRef, object: &mut Value, options: &WriteOptions) {
    let manager = call.field_manager(&options.field_manager);
    let empty = match kind {
        KindRef::BuiltIn(row) => api::schema::empty(row.type_name),
        KindRef::Custom(_) => json!({}),
    };
    in_request_version(kind, object, |object| {
        manage(kind, Part::Main, |fields| fields.create(&empty, object, &manager, call.now));
    });
}

/// Who posts something to a subresource, of another kind than the object's own, owns all they have set of it.
pub fn posted(call: &Call, expected: &Expected, object: &mut Value, options: &WriteOptions) {
    let manager = call.field_manager(&options.field_manager);
    let root = api::schema::type_id(expected.type_name);
    of_one_version(root, expected.api_version, &call.info.subresource).create(
        &api::schema().empty(root),
        object,
        &manager,
        call.now,
    );
}

/// The field manager of a built-in kind that is known in this version alone.
fn of_one_version<'a>(root: TypeId, api_version: &'a str, subresource: &'a str) -> FieldManager<'a> {
    FieldManager {
        schema: api::schema(),
        root,
        api_version,
        subresource,
        reset_fields: reset_fields(subresource),
        versions: &OneVersion,
    }
}

/// The writer owns all that differs from the old object.
pub fn updated(call: &Call, place: &Place, old: &Value, object: &mut Value, options: &WriteOptions) {
    let manager = call.field_manager(&options.field_manager);
    let kind = &place.kind;
    in_request_version(kind, object, |object| {
        let old = shown(kind, old);
        manage(kind, place.part, |fields| fields.update(Some(&old), object, &manager, call.now));
    });
}

/// The server itself owns what it has found out and written into the status.
pub fn reported(kind: &KindRef, old: &Value, object: &mut Value, now: Timestamp) {
    manage(kind, Part::Status, |fields| fields.update(Some(old), object, SERVER, now));
}

/// A stored object in the version of the request.
fn shown<'o>(kind: &Kind, stored: &'o Value) -> Cow<'o, Value> {
    match conversion::is_stored_version(kind) {
        true => Cow::Borrowed(stored),
        false => Cow::Owned(conversion::from_stored(kind, stored.clone())),
    }
}

/// Lets `settle` settle the managed fields of an object, which is in the stored version, in that of the request.
fn in_request_version(kind: &Kind, object: &mut Value, settle: impl FnOnce(&mut Value)) {
    if conversion::is_stored_version(kind) {
        return settle(object);
    }
    let mut shown = conversion::from_stored(kind, object.clone());
    settle(&mut shown);
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    match shown["metadata"].get_mut("managedFields").map(Value::take) {
        Some(fields) => metadata.insert("managedFields", fields),
        None => metadata.remove("managedFields"),
    };
}

/// Refuses a configuration, as it was written, that does not fit its kind.
pub fn check_declared(place: &Place, config: &Value) -> Result<(), Status> {
    manage(&place.kind, place.part, |fields| fields.check_declared(config))
}

/// An object of the type with all that a configuration says, which nobody then owns.
pub fn laid_over(
    kind: &KindRef,
    type_name: &str,
    object: &Value,
    configuration: &Value,
) -> Result<Value, String> {
    let custom = kind.custom().filter(|custom| custom.kind.type_name == type_name);
    let (schema, root) = match custom.map(|custom| custom.typed()) {
        Some(typed) => (&typed.schema, typed.root),
        None => (api::schema(), api::schema::type_id(type_name)),
    };
    let fields = FieldManager {
        schema,
        root,
        api_version: str_at(object, &["apiVersion"]),
        subresource: "",
        reset_fields: reset_fields(""),
        versions: &OneVersion,
    };
    fields.lay_over(object, configuration)
}

/// Merges an applied configuration into the live object as it is stored, none yet for a new one. Configuration and
/// answer are in the version of the request.
pub fn applied(
    place: &Place,
    live: Option<&Value>,
    config: &Value,
    options: &WriteOptions,
    now: Timestamp,
) -> Result<Value, Status> {
    let force = options.force.unwrap_or_default();
    let live = live.map(|live| shown(&place.kind, live));
    let live = live.as_deref();
    manage(&place.kind, place.part, |fields| fields.apply(live, config, &options.field_manager, force, now))
}

/// As [`applied`], into a Scale, which is stored nowhere.
pub fn applied_to_scale(
    scale: &Value,
    config: &Value,
    options: &WriteOptions,
    now: Timestamp,
) -> Result<Value, Status> {
    let root = api::schema::type_id(SCALES.type_name);
    let fields = of_one_version(root, SCALE_VERSION, Part::Scale.subresource());
    fields.check_declared(config)?;
    let force = options.force.unwrap_or_default();
    fields.apply(Some(scale), config, &options.field_manager, force, now)
}

/// A write that changes nothing but the times in the bookkeeping changes nothing at all
/// (upstream: IgnoreManagedFieldsTimestampsTransformer).
pub fn forget_unchanged(object: &mut Value, old: &Value) {
    let (new_fields, old_fields) = (entries(object), entries(old));
    let same = new_fields.len() == old_fields.len()
        && new_fields.iter().zip(old_fields).all(|(new, old)| same_but_time(new, old));
    if same && new_fields != old_fields && !old_fields.is_empty() {
        object["metadata"]["managedFields"] = old["metadata"]["managedFields"].clone();
    }
}

fn entries(object: &Value) -> &[Value] {
    object.pointer("/metadata/managedFields").and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn same_but_time(new: &Value, old: &Value) -> bool {
    fn fields(entry: &Value) -> impl Iterator<Item = (&Text, &Value)> {
        entry.as_object().into_iter().flatten().filter(|(key, _)| *key != "time")
    }
    fields(new).eq(fields(old))
}
