//! Between the version a request speaks and the one the store keeps. Kinds served in one version only pass unchanged.

use api::catalogue::Kind;
use apimachinery::Value;
use bytes::Bytes;
use store::Entry;

use crate::draft::to_json;

/// Whether this row's version is the one kept in the store.
pub fn is_stored_version(kind: &Kind) -> bool {
    kind.stored().resource == kind.resource
}

/// Decodes what this server itself encoded.
pub fn decode(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("the store keeps only JSON that this server wrote")
}

/// A stored object in the version of `kind`.
pub fn decode_entry(kind: &Kind, entry: &Entry) -> Value {
    from_stored(kind, decode(&entry.bytes))
}

/// Stored bytes in the version of `kind`; nothing is decoded where they are that already.
pub fn bytes_for(kind: &Kind, stored: &Bytes) -> Bytes {
    if is_stored_version(kind) { stored.clone() } else { to_json(&from_stored(kind, decode(stored))).into() }
}

pub fn from_stored(kind: &Kind, object: Value) -> Value {
    convert(object, kind.stored(), kind)
}

pub fn to_stored(kind: &Kind, object: Value) -> Value {
    convert(object, kind, kind.stored())
}

fn convert(object: Value, from: &Kind, to: &Kind) -> Value {
    if from.resource == to.resource {
        return object;
    }
    api::convert(object, &from.resource, &to.resource)
}
