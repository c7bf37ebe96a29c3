//! Who owns which field (`metadata.managedFields`), kept by every write.

use apimachinery::managedfields::{FieldManager, reset_fields, reset_fields_of_custom};
use apimachinery::meta::str_at;
use apimachinery::{Status, Value};
use jiff::Timestamp;

use crate::call::Call;
use crate::kind::KindRef;
use crate::part::Part;
use crate::query::WriteOptions;
use crate::write::Place;

/// Runs `with` with the field manager of a kind, as stored, on the endpoint of `part`.
fn manage<T>(kind: &KindRef, part: Part, with: impl FnOnce(&FieldManager<'_>) -> T) -> T {
    let stored = kind.hub();
    let api_version = stored.resource.api_version();
    if let Some(custom) = kind.custom() {
        let typed = custom.typed();
        return with(&FieldManager {
            schema: &typed.schema,
            root: typed.root,
            api_version: &api_version,
            subresource: part.subresource(),
            reset_fields: reset_fields_of_custom(part.subresource(), custom.version.has_status),
        });
    }
    with(&FieldManager {
        schema: api::schema(),
        root: api::schema::type_id(stored.type_name),
        api_version: &api_version,
        subresource: part.subresource(),
        reset_fields: reset_fields(part.subresource()),
    })
}

/// The creator owns all it has set.
pub fn created(call: &Call, kind: &KindRef, object: &mut Value, options: &WriteOptions) {
    let manager = call.field_manager(&options.field_manager);
    manage(kind, Part::Main, |fields| fields.update(None, object, &manager, call.now));
}

/// The writer owns all that differs from the old object.
pub fn updated(call: &Call, place: &Place, old: &Value, object: &mut Value, options: &WriteOptions) {
    let manager = call.field_manager(&options.field_manager);
    manage(&place.kind, place.part, |fields| fields.update(Some(old), object, &manager, call.now));
}

/// Refuses a configuration, as it was written, that names fields its kind does not have.
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
    };
    fields.lay_over(object, configuration)
}

/// Merges an applied configuration into the live object, none yet for a new one.
pub fn applied(
    place: &Place,
    live: Option<&Value>,
    config: &Value,
    options: &WriteOptions,
    now: Timestamp,
) -> Result<Value, Status> {
    let force = options.force.unwrap_or_default();
    manage(&place.kind, place.part, |fields| fields.apply(live, config, &options.field_manager, force, now))
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
    let fields = |entry: &Value| {
        let map = entry.as_object().cloned().unwrap_or_default();
        map.into_iter().filter(|(key, _)| key != "time").collect::<Vec<_>>()
    };
    fields(new) == fields(old)
}
