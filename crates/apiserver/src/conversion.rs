//! Between the version a request speaks and the one the store keeps. Kinds served in one version only pass unchanged;
//! custom kinds may have to ask a webhook, whose futures are boxed: everybody else would carry room for them.

use std::borrow::Cow;
use std::sync::Arc;

use api::catalogue::Kind;
use apimachinery::{Status, Value};
use bytes::Bytes;
use store::{Draft, Entry, Revision};

use crate::core::Core;
use crate::customresource;
use crate::draft::{draft, to_json};
use crate::kind::KindRef;

/// Whether this row's version is the one kept in the store.
pub fn is_stored_version(kind: &Kind) -> bool {
    kind.stored().resource == kind.resource
}

/// Decodes what this server itself encoded.
pub fn decode(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("the store keeps only JSON that this server wrote")
}

/// A stored object in the version in which it is merged and judged.
pub async fn hub_object(core: &Core, kind: &KindRef, entry: &Entry) -> Result<Value, Status> {
    match kind.custom() {
        None => Ok(decode(&entry.bytes)),
        Some(custom) => Box::pin(customresource::current(core, custom, entry)).await,
    }
}

/// An object that was judged, as the store is to keep it.
pub async fn drafted(core: &Core, kind: &KindRef, object: &Value) -> Result<Draft, Status> {
    match kind.custom() {
        None => Ok(draft(kind.hub(), object)),
        Some(custom) => Box::pin(customresource::draft_of(core, custom, object)).await,
    }
}

/// Stored bytes as the request's version of a custom kind shows them; those of built-in kinds are left to the view.
/// Without a revision they have just been written.
pub async fn shown(
    core: &Core,
    kind: &KindRef,
    stored: &Bytes,
    revision: Option<Revision>,
) -> Result<Bytes, Status> {
    match kind.custom() {
        None => Ok(stored.clone()),
        Some(custom) => Box::pin(customresource::shown(core, custom, stored, revision)).await,
    }
}

/// As [`shown`], a page at once.
pub async fn shown_entries<'e>(
    core: &Core,
    kind: &KindRef,
    entries: &'e [Arc<Entry>],
) -> Result<Cow<'e, [Arc<Entry>]>, Status> {
    match kind.custom() {
        None => Ok(Cow::Borrowed(entries)),
        Some(custom) => Box::pin(customresource::shown_entries(core, custom, entries)).await,
    }
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
