//! Keeps `metadata.managedFields` true on every write, and carries out server-side apply (upstream: the chain of
//! managers that NewDefaultFieldManager builds).

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;

use super::compare::Comparison;
use super::conflict::{Conflict, conflict_status, conflicts_with};
use super::entry::{Entry, ManagedFields, Operation};
use super::set::Set;
use super::typed::{EMPTY_OBJECT, TypeRef, Typed};
use super::versions::{Comparisons, Differences, Versions};
use crate::gvk::GroupVersion;
use crate::meta::{str_at, value_at};
use crate::names::TOTAL_ANNOTATION_SIZE_MAX;
use crate::schema::{Schema, TypeId};
use crate::status::Status;
use crate::time::format_time;
use crate::{Map, Text, Value, json};

/// Where client-side apply keeps what it applied last.
const LAST_APPLIED_ANNOTATION: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The manager whose first server-side apply takes over from client-side apply.
const KUBECTL: &str = "kubectl";
/// Who owns what was there before the first apply.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
const UNKNOWN_MANAGER: &str = "unknown";

/// Bookkeeping that nobody manages.
static STRIPPED: LazyLock<Set> = LazyLock::new(|| {
    Set::from_paths(&[
        &["apiVersion"],
        &["kind"],
        &["metadata"],
        &["metadata", "name"],
        &["metadata", "namespace"],
        &["metadata", "creationTimestamp"],
        &["metadata", "selfLink"],
        &["metadata", "uid"],
        &["metadata", "clusterName"],
        &["metadata", "generation"],
        &["metadata", "managedFields"],
        &["metadata", "resourceVersion"],
    ])
});

/// The fields that most kinds' strategies reset, so that a writer cannot come to own them: `status` on the resource
/// itself, `spec` on its status.
pub fn reset_fields(subresource: &str) -> &'static Set {
    static STATUS: LazyLock<Set> = LazyLock::new(|| Set::from_paths(&[&["status"]]));
    static SPEC: LazyLock<Set> = LazyLock::new(|| Set::from_paths(&[&["spec"]]));
    static NONE: LazyLock<Set> = LazyLock::new(Set::default);
    match subresource {
        "" => &STATUS,
        "status" => &SPEC,
        _ => &NONE,
    }
}

/// As [`reset_fields`], of kinds whose status is written without changing the metadata.
pub fn reset_fields_and_metadata(subresource: &str) -> &'static Set {
    static REST: LazyLock<Set> = LazyLock::new(|| Set::from_paths(&[&["metadata"], &["spec"]]));
    match subresource {
        "status" => &REST,
        other => reset_fields(other),
    }
}

/// As [`reset_fields_and_metadata`], of a custom kind: its status is one only where it is a subresource.
pub fn reset_fields_of_custom(subresource: &str, has_status: bool) -> &'static Set {
    match subresource {
        "" if !has_status => reset_fields("scale"),
        other => reset_fields_and_metadata(other),
    }
}

/// Tracks fields of one kind, in one version, on one of its endpoints.
#[derive(Clone, Copy)]
pub struct FieldManager<'a> {
    pub schema: &'a Schema,
    /// The kind's own type.
    pub root: TypeId,
    /// `apps/v1`
    pub api_version: &'a str,
    /// Empty for the resource itself.
    pub subresource: &'a str,
    /// What writes to this endpoint cannot change; see [`reset_fields`].
    pub reset_fields: &'a Set,
    /// The versions in which the fields of others may be named.
    pub versions: &'a dyn Versions,
}

/// What an apply comes to before it is given to an object.
struct Applied {
    /// None when nothing changes.
    object: Option<Value>,
    managed: ManagedFields,
}

impl<'a> FieldManager<'a> {
    pub(super) fn typed(&self) -> Typed<'a> {
        Typed { schema: self.schema }
    }

    pub(super) fn root(&self) -> TypeRef {
        TypeRef::Known { id: self.root, map_type: None }
    }

    fn entry(&self, manager: &str, operation: Operation) -> Entry {
        let manager = if manager.is_empty() { UNKNOWN_MANAGER } else { manager };
        Entry {
            manager: manager.to_owned(),
            operation,
            api_version: self.api_version.to_owned(),
            subresource: self.subresource.to_owned(),
            ..Default::default()
        }
    }

    /// Sets `metadata.managedFields` of an object that is about to be stored by create, update or patch. Managed
    /// fields that the client sent count, except on subresources; sending an empty list resets them.
    pub fn update(&self, live: Option<&Value>, new: &mut Value, manager: &str, now: Timestamp) {
        let sent = take_managed_fields(new);
        let live_managed = live.and_then(|live| value_at(live, &["metadata", "managedFields"]));
        if sent.as_ref().is_none_or(|sent| Some(sent) == live_managed)
            && live.is_some_and(|live| is_unchanged(live, new))
        {
            put_managed_fields(new, live_managed.cloned().unwrap_or_default());
            return;
        }
        let managed = self.starting_point(live_managed, sent.as_ref());
        let is_untracked = managed.is_empty() && live.is_some_and(|live| live["metadata"]["uid"].is_string());
        if is_untracked {
            return;
        }
        let managed = self.track(live.unwrap_or(&EMPTY_OBJECT), new, managed, manager, now);
        put_managed_fields(new, managed.encode());
    }

    /// As [`FieldManager::update`] of an object that is about to be created. What every object of the kind has without
    /// anybody's doing is in `empty`.
    pub fn create(&self, empty: &Value, new: &mut Value, manager: &str, now: Timestamp) {
        let sent = take_managed_fields(new);
        let managed = self.starting_point(None, sent.as_ref());
        let managed = self.track(empty, new, managed, manager, now);
        put_managed_fields(new, managed.encode());
    }

    /// The managed fields that a write starts from.
    fn starting_point(&self, live: Option<&Value>, sent: Option<&Value>) -> ManagedFields {
        let of_live = || ManagedFields::decode(live).unwrap_or_default();
        let Some(sent) = sent.filter(|_| self.subresource.is_empty()) else { return of_live() };
        if is_reset(sent) {
            return ManagedFields::default();
        }
        match ManagedFields::decode(Some(sent)) {
            Ok(managed) if !managed.is_empty() => managed,
            _ => of_live(),
        }
    }

    /// Gives the writer all that changed, takes it from all others.
    fn track(
        &self,
        live: &Value,
        new: &Value,
        mut managed: ManagedFields,
        manager: &str,
        now: Timestamp,
    ) -> ManagedFields {
        let mut comparisons = Comparisons::new(*self, live, new);
        for entry in &mut managed.entries {
            let Differences { removed, changed } = comparisons.of(&entry.api_version);
            entry.fields = std::mem::take(&mut entry.fields).difference(removed).difference(changed);
        }
        let gained = comparisons.changed().difference(&STRIPPED);
        if !gained.is_empty() {
            let mut entry = self.entry(manager, Operation::Update);
            // What is written through a scale is handed over to its object without the time.
            entry.time = if self.subresource == "scale" { String::new() } else { format_time(now) };
            if let Some(at) = managed.find(&entry) {
                let previous = managed.entries.remove(at);
                entry.fields = previous.fields.union(gained);
            } else {
                entry.fields = gained;
            }
            managed.entries.push(entry);
        }
        managed.drop_empty();
        managed.cap_updates();
        managed
    }

    pub(super) fn compare(&self, live: &Value, new: &Value) -> Comparison {
        self.typed().compare(self.root(), live, new).without(self.reset_fields)
    }

    /// Merges a configuration into the live object (none yet for a new one). The answer carries its managed fields;
    /// it has yet to be defaulted, validated and stored. Conflicts are a 409 unless forced.
    pub fn apply(
        &self,
        live: Option<&Value>,
        config: &Value,
        manager: &str,
        force: bool,
        now: Timestamp,
    ) -> Result<Value, Status> {
        self.check_config(config)?;
        let mut bare_live = live.cloned().unwrap_or_else(|| EMPTY_OBJECT.clone());
        let stored = take_managed_fields(&mut bare_live);
        let mut managed = ManagedFields::decode(stored.as_ref())
            .map_err(|e| Status::internal(format!("failed to decode managed fields: {e}")))?;
        if managed.is_empty() {
            let nobody = ManagedFields::default();
            managed = self.track(&EMPTY_OBJECT, &bare_live, nobody, BEFORE_FIRST_APPLY, now);
        }
        let outcome = self.merge(&bare_live, config, managed.clone(), manager, force);
        let outcome = match outcome {
            Err(conflicts) if manager == KUBECTL => {
                self.retry_over_client_side_apply(&bare_live, config, managed, conflicts)
            }
            other => other,
        };
        let Applied { object, mut managed } = outcome.map_err(|conflicts| conflict_status(&conflicts))?;
        if object.is_some()
            && let Some(at) = managed.find(&self.entry(manager, Operation::Apply))
        {
            managed.entries[at].time = format_time(now);
        }
        let mut object = object.unwrap_or(bare_live);
        if manager == KUBECTL && live.is_some_and(|live| !last_applied(live).is_empty()) {
            put_last_applied(&mut object, config);
        }
        put_managed_fields(&mut object, managed.encode());
        Ok(object)
    }

    fn check_config(&self, config: &Value) -> Result<(), Status> {
        let version = str_at(config, &["apiVersion"]);
        if version != self.api_version {
            return Err(Status::bad_request(format!(
                "Incorrect version specified in apply patch. Specified patch version: {version}, expected: {}",
                self.api_version
            )));
        }
        if value_at(config, &["metadata", "managedFields"]).is_some_and(|fields| !fields.is_null()) {
            return Err(Status::bad_request("metadata.managedFields must be nil"));
        }
        refuse(config, &self.typed().complaints(self.root(), config))
    }

    /// Refuses a configuration, as it was written, that does not fit the kind's schema or names fields it does not have.
    /// Asked before it is brought into form, which would drop those.
    pub fn check_declared(&self, config: &Value) -> Result<(), Status> {
        refuse(config, &self.typed().complaints(self.root(), config))
    }

    fn merge(
        &self,
        live: &Value,
        config: &Value,
        mut managed: ManagedFields,
        manager: &str,
        force: bool,
    ) -> Result<Applied, Vec<Conflict>> {
        let (typed, root) = (self.typed(), self.root());
        let mut entry = self.entry(manager, Operation::Apply);
        let last = managed.find(&entry).map(|at| managed.entries.remove(at)).unwrap_or_default();
        entry.fields = typed.field_set(root, config).recursive_difference(self.reset_fields);
        entry.time = last.time;
        let mut object = typed.merge(root, live, config);
        if !last.fields.is_empty() {
            let mut owned = BTreeMap::from([(self.api_version.to_owned(), entry.fields.clone())]);
            for other in &managed.entries {
                let version = self.at(&other.api_version).api_version.to_owned();
                let known = owned.entry(version).or_default();
                *known = std::mem::take(known).union(other.fields.clone());
            }
            object = self.prune(object, (&last.api_version, &last.fields), owned);
        }
        let mut comparisons = Comparisons::new(*self, live, &object);
        let mut conflicts = Vec::new();
        for other in &mut managed.entries {
            let differences = comparisons.of(&other.api_version);
            let taken = other.fields.intersection(&differences.changed);
            if !taken.is_empty() {
                conflicts.extend(conflicts_with(other, &taken));
            }
            let kept = std::mem::take(&mut other.fields);
            other.fields = kept.difference(&taken).difference(&differences.removed);
        }
        if !force && !conflicts.is_empty() {
            return Err(conflicts);
        }
        entry.fields = entry.fields.difference(&STRIPPED);
        managed.entries.push(entry);
        managed.drop_empty();
        Ok(Applied { object: (object != *live).then_some(object), managed })
    }

    /// kubectl's first server-side apply after client-side applies takes what those applied and nobody changed since.
    fn retry_over_client_side_apply(
        &self,
        live: &Value,
        config: &Value,
        managed: ManagedFields,
        conflicts: Vec<Conflict>,
    ) -> Result<Applied, Vec<Conflict>> {
        let Some(allowed) = self.unchanged_last_applied(live) else {
            return Err(conflicts);
        };
        let remaining: Vec<Conflict> = conflicts.into_iter().filter(|c| !allowed.has(&c.path)).collect();
        if !remaining.is_empty() {
            return Err(remaining);
        }
        self.merge(live, config, managed, KUBECTL, true)
    }

    /// The fields of the last client-side apply that still have their values.
    fn unchanged_last_applied(&self, live: &Value) -> Option<Set> {
        let applied: Value = serde_json::from_str(last_applied(live)).ok()?;
        if str_at(&applied, &["apiVersion"]) != self.api_version {
            return None;
        }
        let (typed, root) = (self.typed(), self.root());
        let comparison = typed.compare(root, &applied, live);
        let fields = typed.field_set(root, &applied);
        Some(
            fields
                .difference(&comparison.modified)
                .difference(&comparison.added)
                .difference(&comparison.removed),
        )
    }
}

/// `NAMESPACE/NAME; GROUP/VERSION, Kind=KIND`, as upstream names an object in these messages.
fn refuse(config: &Value, complaints: &[String]) -> Result<(), Status> {
    let text = match complaints {
        [] => return Ok(()),
        [one] => one.clone(),
        many => format!("errors:\n  {}", many.join("\n  ")),
    };
    let message = format!("failed to create typed patch object ({}): {text}", describe(config));
    Err(Status::failure(500, "", message))
}

fn describe(object: &Value) -> String {
    let text = |path: &[&str]| str_at(object, path);
    let version = GroupVersion::parse(text(&["apiVersion"])).unwrap_or_default();
    format!(
        "{}/{}; {}/{}, Kind={}",
        text(&["metadata", "namespace"]),
        text(&["metadata", "name"]),
        version.group,
        version.version,
        text(&["kind"])
    )
}

/// A list that is empty, or holds one empty entry, asks for managed fields to be forgotten.
fn is_reset(sent: &Value) -> bool {
    match sent.as_array().map(Vec::as_slice) {
        Some([]) => true,
        Some([one]) => *one == json!({}),
        _ => false,
    }
}

/// Whether nothing but bookkeeping differs. `new` is without managed fields.
fn is_unchanged(live: &Value, new: &Value) -> bool {
    let (Value::Object(live), Value::Object(new)) = (live, new) else { return false };
    fn metadata(object: &Map) -> impl Iterator<Item = (&Text, &Value)> {
        let fields = object.get("metadata").and_then(Value::as_object).into_iter().flatten();
        fields.filter(|(key, _)| !matches!(key.as_str(), "managedFields" | "resourceVersion"))
    }
    live.len() == new.len()
        && live.iter().all(|(key, value)| key == "metadata" || new.get(key) == Some(value))
        && metadata(live).eq(metadata(new))
}

fn take_managed_fields(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields").filter(|fields| !fields.is_null())
}

fn put_managed_fields(object: &mut Value, fields: Value) {
    if !fields.is_null()
        && let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut)
    {
        metadata.insert("managedFields", fields);
    }
}

fn last_applied(object: &Value) -> &str {
    str_at(object, &["metadata", "annotations", LAST_APPLIED_ANNOTATION])
}

/// Keeps the annotation of client-side apply in step, so that one can go back to it.
fn put_last_applied(object: &mut Value, config: &Value) {
    let mut config = config.clone();
    if let Some(annotations) = config.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED_ANNOTATION);
    }
    let text = format!("{config}\n");
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if text.len() > TOTAL_ANNOTATION_SIZE_MAX {
        annotations.remove(LAST_APPLIED_ANNOTATION);
    } else {
        annotations.insert(LAST_APPLIED_ANNOTATION, text.into());
    }
}
