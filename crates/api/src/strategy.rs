//! What a kind adds to the one request pipeline: defaults, preparation, validation, warnings, printed columns.
//! Everything is a pure function of objects; clocks, allocation and storage belong to the caller.
//! Follows `k8s.io/apiserver/pkg/registry/rest` (RESTCreateStrategy, RESTUpdateStrategy, RESTDeleteStrategy).
//!
//! The pipeline calls the methods of [`crate::catalogue::Kind`], which add the rules of `ObjectMeta` to these.

use apimachinery::Value;
use apimachinery::field::ErrorList;
use apimachinery::managedfields::{Set, reset_fields};
use apimachinery::names;
use jiff::Timestamp;

use crate::shown::{ALL_BUT_MANAGED_FIELDS, Shown};

/// A column of the table form of a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: &'static str,
    /// OpenAPI type: `string`, `integer`.
    pub column_type: &'static str,
    /// OpenAPI format; `name` marks the column that names the object.
    pub format: &'static str,
    pub description: &'static str,
    /// 0 is always shown, more only in wide output.
    pub priority: i32,
}

/// What a `generateName` is validated with before its suffix exists, and a name with after.
pub type NameRule = fn(&str) -> Vec<String>;

/// What happens to dependents when a DELETE does not say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GarbagePolicy {
    /// The garbage collector deletes them afterwards.
    Background,
    /// They lose their owner and live on.
    Orphan,
    /// There are none, whatever the DELETE says.
    Unsupported,
}

/// Who makes a request, and when.
pub struct Writer<'a> {
    pub now: Timestamp,
    /// The user as `authentication.k8s.io/v1 UserInfo`.
    pub user: &'a dyn Fn() -> Value,
}

impl Writer<'_> {
    /// The time of the request as API fields spell it.
    pub fn time(&self) -> Value {
        apimachinery::time::format_time(self.now).into()
    }
}

/// The rules of one kind. Metadata rules that all kinds share are not repeated here.
pub trait Strategy: Send + Sync {
    /// Fills in what the schema's own defaults cannot say.
    fn default(&self, _obj: &mut Value) {}

    /// Drops what a creator may not set and sets what the server decides.
    fn prepare_for_create(&self, _obj: &mut Value) {}

    /// Takes from `old` what an update of the main resource may not change, and counts the generation up.
    fn prepare_for_update(&self, _obj: &mut Value, _old: &Value) {}

    /// Takes from `old` what an update of the `status` subresource may not change.
    fn prepare_for_status_update(&self, obj: &mut Value, old: &Value) {
        keep(obj, old, "spec");
    }

    /// What a write to this endpoint cannot change, so that its writer does not come to own it (upstream:
    /// `GetResetFields`); `subresource` is empty for the object itself.
    fn reset_fields(&self, subresource: &str) -> &'static Set {
        reset_fields(subresource)
    }

    /// The group that complaints about an object name, where upstream's own form of it is in another one than is served.
    fn internal_group(&self) -> Option<&'static str> {
        None
    }

    /// Whether objects written in this version are held to rules of its own, not to those of the version that is stored.
    fn judges_its_version(&self) -> bool {
        false
    }

    /// Takes from `old` what an update of another subresource (`finalize`, `resize`, ...) may not change.
    fn prepare_for_subresource_update(&self, _subresource: &str, obj: &mut Value, old: &Value) {
        self.prepare_for_update(obj, old);
    }

    /// Sets what depends on who writes, and when; `old` is the object before an update, `subresource` is empty for the
    /// object itself.
    fn stamp(&self, _subresource: &str, _obj: &mut Value, _old: Option<&Value>, _writer: &Writer) {}

    /// All that is wrong with a new object; `metadata` is what is wrong with its metadata, which is said first.
    fn validate_new(&self, obj: &Value, metadata: ErrorList) -> ErrorList {
        let mut errors = metadata;
        errors.extend(self.validate(obj));
        errors
    }

    fn validate(&self, _obj: &Value) -> ErrorList {
        ErrorList::new()
    }

    fn validate_update(&self, obj: &Value, _old: &Value) -> ErrorList {
        self.validate(obj)
    }

    fn validate_status_update(&self, _obj: &Value, _old: &Value) -> ErrorList {
        ErrorList::new()
    }

    fn validate_subresource_update(&self, _subresource: &str, obj: &Value, old: &Value) -> ErrorList {
        self.validate_update(obj, old)
    }

    /// What the writer should know of a new object's fields before `prepare_for_create` changes them.
    fn warnings_of_proposal(&self, _obj: &Value) -> Vec<String> {
        Vec::new()
    }

    /// What the writer should know though the write is accepted; `old` is the object before an update.
    fn warnings(&self, _obj: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }

    /// Brings an accepted object into its one stored form.
    fn canonicalize(&self, _obj: &mut Value) {}

    /// Fields a field selector may name, beyond `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self, _obj: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }

    /// The names of [`Strategy::selectable_fields`], to refuse others before any object is read.
    fn selectable_field_names(&self) -> &[&'static str] {
        &[]
    }

    /// The columns of the kind's table.
    fn columns(&self) -> &'static [Column] {
        &NAME_AND_CREATED_AT
    }

    /// What of an object [`Strategy::row`] reads. A kind of which there are many objects, or large ones, names it, so that
    /// nothing else is read for a table.
    fn shown(&self) -> &Shown {
        &ALL_BUT_MANAGED_FIELDS
    }

    /// The cells of one object, as many as there are columns.
    fn row(&self, obj: &Value, _now: Timestamp) -> Vec<Value> {
        vec![crate::columns::name(obj), crate::columns::created_at(obj)]
    }

    /// What the rows of a table go by before their names, where that is not the names alone.
    fn table_rank(&self) -> Option<fn(&Value) -> i64> {
        None
    }

    /// Seconds between the request and the removal, `requested` being the caller's wish.
    /// `None` for kinds that go at once.
    fn graceful_deletion(&self, _obj: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }

    fn default_garbage_policy(&self) -> GarbagePolicy {
        GarbagePolicy::Background
    }

    /// What to tell somebody who deletes an object and does not say what becomes of its dependents.
    fn deletion_warning(&self) -> Option<&'static str> {
        None
    }

    /// Why this object cannot be deleted.
    fn undeletable(&self, _name: &str) -> Option<&'static str> {
        None
    }

    /// Whether a PUT to a name that does not exist creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }

    /// Whether an update without a resourceVersion overwrites whatever is there.
    fn allow_unconditional_update(&self) -> bool {
        true
    }

    /// Whether a creation without any name gets one that is nobody else's.
    fn names_itself(&self) -> bool {
        false
    }

    fn name_rule(&self) -> NameRule {
        names::is_dns1123_subdomain
    }
}

/// The columns of a kind without a printer of its own (follows `rest.NewDefaultTableConvertor`).
pub const NAME_AND_CREATED_AT: [Column; 2] = [crate::columns::NAME, crate::columns::CREATED_AT];

/// A kind without rules of its own; virtual kinds that are answered and never stored use it too.
pub struct Plain;

impl Strategy for Plain {}

/// Removes a top-level field, usually `status` from what a creator sent.
pub fn drop_field(obj: &mut Value, field: &str) {
    if let Some(map) = obj.as_object_mut() {
        map.remove(field);
    }
}

/// Restores a top-level field to what it was. Mostly it is that still, which is found sooner than it is copied.
pub fn keep(obj: &mut Value, old: &Value, field: &str) {
    let Some(map) = obj.as_object_mut() else { return };
    match old.get(field) {
        Some(value) if map.get(field) == Some(value) => {}
        Some(value) => {
            map.insert(field, value.clone());
        }
        None => {
            map.remove(field);
        }
    }
}

/// Restores one field of `metadata`.
pub fn keep_metadata(obj: &mut Value, old: &Value, field: &str) {
    if let Some(metadata) = obj.get_mut("metadata") {
        keep(metadata, old.get("metadata").unwrap_or(&Value::Null), field);
    }
}

/// Restores what an update of the status alone may not touch (follows `ResetObjectMetaForStatus`). Who owns which field
/// has been settled and stays.
pub fn keep_all_metadata(obj: &mut Value, old: &Value) {
    for field in ["deletionTimestamp", "generation", "labels", "annotations", "finalizers", "ownerReferences"]
    {
        keep_metadata(obj, old, field);
    }
}

/// The first generation of a new object.
pub fn set_first_generation(obj: &mut Value) {
    set_generation(obj, 1);
}

/// One more than the old generation if a top-level field (usually `spec`) differs, else the old one.
pub fn bump_generation(obj: &mut Value, old: &Value, fields: &[&str]) {
    let changed = fields.iter().any(|field| obj.get(field) != old.get(field));
    advance_generation(obj, old, changed);
}

/// One more than the old generation if the object has `changed`, else the old one.
pub fn advance_generation(obj: &mut Value, old: &Value, changed: bool) {
    let generation = old.pointer("/metadata/generation").and_then(Value::as_i64).unwrap_or_default();
    set_generation(obj, generation + i64::from(changed));
}

/// Writes `metadata.generation`; 0 is never written.
fn set_generation(obj: &mut Value, generation: i64) {
    if generation == 0 {
        return;
    }
    if let Some(metadata) = obj.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("generation", generation.into());
    }
}
