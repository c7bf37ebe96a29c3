//! `metadata.managedFields`: who manages what, since when.

use serde::{Deserialize, Serialize};

use super::set::Set;
use crate::{Map, Value};

/// Entries of updates beyond this number are merged, the oldest first (upstream: DefaultMaxUpdateManagers).
pub const UPDATE_MANAGERS_MAX: usize = 10;
/// Who owns what merged entries owned.
const ANCIENT_CHANGES: &str = "ancient-changes";
const FIELDS_TYPE: &str = "FieldsV1";

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Operation {
    Apply,
    #[default]
    Update,
}

/// One manager's fields.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    pub manager: String,
    pub operation: Operation,
    pub api_version: String,
    pub subresource: String,
    /// RFC 3339 in UTC; empty when unknown.
    pub time: String,
    pub fields: Set,
}

impl Entry {
    /// Whether both are the same manager's: an applier is the same in every version.
    pub fn is_same_manager(&self, other: &Entry) -> bool {
        self.manager == other.manager
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// The order in which entries are stored.
    fn order(&self) -> (Operation, &str, &str, &str, &str) {
        (self.operation, &self.time, &self.manager, &self.api_version, &self.subresource)
    }
}

/// All managers of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ManagedFields {
    pub entries: Vec<Entry>,
}

/// Why `metadata.managedFields` cannot be read, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("metadata.managedFields must be a list of entries")]
    NotEntries,
    #[error("operation must be `Apply` or `Update`")]
    Operation,
    #[error("apiVersion must not be empty")]
    ApiVersion,
    #[error("missing fieldsType in managed fields entry {0}")]
    MissingFieldsType(usize),
    #[error("invalid fieldsType {0:?} in managed fields entry {1}")]
    FieldsType(String, usize),
    #[error("error decoding set: {0}")]
    Fields(String),
}

impl ManagedFields {
    /// Reads `metadata.managedFields`; absent or null is nobody.
    pub fn decode(value: Option<&Value>) -> Result<Self, DecodeError> {
        let items = match value {
            None | Some(Value::Null) => return Ok(ManagedFields::default()),
            Some(Value::Array(items)) => items,
            Some(_) => return Err(DecodeError::NotEntries),
        };
        let entries = items.iter().enumerate().map(|(index, item)| decode_entry(index, item));
        Ok(ManagedFields { entries: entries.collect::<Result<_, _>>()? })
    }

    /// The value of `metadata.managedFields`; null when nobody manages anything.
    pub fn encode(&self) -> Value {
        if self.entries.is_empty() {
            return Value::Null;
        }
        let mut entries: Vec<&Entry> = self.entries.iter().collect();
        entries.sort_by(|a, b| a.order().cmp(&b.order()));
        entries.into_iter().map(encode_entry).collect()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The entry of the same manager as this one.
    pub(super) fn find(&self, like: &Entry) -> Option<usize> {
        self.entries.iter().position(|entry| entry.is_same_manager(like))
    }

    pub(super) fn drop_empty(&mut self) {
        self.entries.retain(|entry| !entry.fields.is_empty());
    }

    /// Merges the oldest updates of each version into one entry until there are few enough.
    pub(super) fn cap_updates(&mut self) {
        let updates = |entries: &[Entry]| entries.iter().filter(|e| e.operation == Operation::Update).count();
        if updates(&self.entries) <= UPDATE_MANAGERS_MAX {
            return;
        }
        self.entries.sort_by(|a, b| a.order().cmp(&b.order()));
        while updates(&self.entries) > UPDATE_MANAGERS_MAX {
            let Some((first, second)) = self.oldest_pair() else { return };
            let merged = self.entries.remove(second);
            let bucket = &mut self.entries[first];
            bucket.fields = std::mem::take(&mut bucket.fields).union(merged.fields);
            bucket.time = merged.time;
            ANCIENT_CHANGES.clone_into(&mut bucket.manager);
            bucket.subresource.clear();
        }
    }

    /// The first two updates, in the order of time, that are of one version.
    fn oldest_pair(&self) -> Option<(usize, usize)> {
        let updates = || self.entries.iter().enumerate().filter(|(_, e)| e.operation == Operation::Update);
        updates().find_map(|(second, later)| {
            let earlier =
                |(first, e): &(usize, &Entry)| *first < second && e.api_version == later.api_version;
            updates().find(earlier).map(|(first, _)| (first, second))
        })
    }
}

fn decode_entry(index: usize, item: &Value) -> Result<Entry, DecodeError> {
    let wire = item.as_object().ok_or(DecodeError::NotEntries)?;
    let text = |field: &str| match wire.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(_) => Err(DecodeError::NotEntries),
    };
    let operation = match text("operation")? {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(DecodeError::Operation),
    };
    let api_version = text("apiVersion")?;
    if api_version.is_empty() {
        return Err(DecodeError::ApiVersion);
    }
    match text("fieldsType")? {
        FIELDS_TYPE => {}
        "" => return Err(DecodeError::MissingFieldsType(index)),
        other => return Err(DecodeError::FieldsType(other.to_owned(), index)),
    }
    let fields = match wire.get("fieldsV1") {
        None | Some(Value::Null) => Set::default(),
        Some(fields) => Set::from_fields_v1(fields).map_err(DecodeError::Fields)?,
    };
    Ok(Entry {
        manager: text("manager")?.to_owned(),
        operation,
        api_version: api_version.to_owned(),
        subresource: text("subresource")?.to_owned(),
        time: text("time")?.to_owned(),
        fields,
    })
}

fn encode_entry(entry: &Entry) -> Value {
    let mut wire = Map::new();
    let mut put = |field: &str, value: Value| wire.insert(field, value);
    put("apiVersion", entry.api_version.as_str().into());
    put("fieldsType", FIELDS_TYPE.into());
    put("fieldsV1", entry.fields.to_fields_v1());
    put("manager", entry.manager.as_str().into());
    put("operation", format!("{:?}", entry.operation).into());
    for (field, text) in [("subresource", &entry.subresource), ("time", &entry.time)] {
        if !text.is_empty() {
            put(field, text.as_str().into());
        }
    }
    Value::Object(wire)
}
