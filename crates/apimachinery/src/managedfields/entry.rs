//! `metadata.managedFields`: who manages what, since when.

use serde::{Deserialize, Serialize};

use super::set::Set;
use crate::Value;

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

/// An entry on the wire.
#[derive(Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    api_version: String,
    fields_type: String,
    #[serde(rename = "fieldsV1", skip_serializing_if = "Value::is_null")]
    fields_v1: Value,
    manager: String,
    operation: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    subresource: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
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
            bucket.fields = bucket.fields.union(&merged.fields);
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
    let wire = Wire::deserialize(item).map_err(|_| DecodeError::NotEntries)?;
    let operation = match wire.operation.as_str() {
        "Apply" => Operation::Apply,
        "Update" => Operation::Update,
        _ => return Err(DecodeError::Operation),
    };
    if wire.api_version.is_empty() {
        return Err(DecodeError::ApiVersion);
    }
    match wire.fields_type.as_str() {
        FIELDS_TYPE => {}
        "" => return Err(DecodeError::MissingFieldsType(index)),
        other => return Err(DecodeError::FieldsType(other.to_owned(), index)),
    }
    let fields = match &wire.fields_v1 {
        Value::Null => Set::default(),
        fields => Set::from_fields_v1(fields).map_err(DecodeError::Fields)?,
    };
    Ok(Entry {
        manager: wire.manager,
        operation,
        api_version: wire.api_version,
        subresource: wire.subresource,
        time: wire.time.unwrap_or_default(),
        fields,
    })
}

fn encode_entry(entry: &Entry) -> Value {
    let wire = Wire {
        api_version: entry.api_version.clone(),
        fields_type: FIELDS_TYPE.to_owned(),
        fields_v1: entry.fields.to_fields_v1(),
        manager: entry.manager.clone(),
        operation: format!("{:?}", entry.operation),
        subresource: entry.subresource.clone(),
        time: (!entry.time.is_empty()).then(|| entry.time.clone()),
    };
    serde_json::to_value(wire).expect("an entry has only string keys")
}
