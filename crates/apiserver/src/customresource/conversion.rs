//! From the version the store keeps to that of a request and back. Follows `conversion.CRConverter`.

use std::borrow::Cow;
use std::sync::Arc;

use apiextensions::prune;
use apimachinery::{Status, Value};
use bytes::Bytes;
use store::{Beside, Draft, Entry, Revision};

use super::form;
use super::kind::CustomKind;
use super::registry::Shared;
use super::webhook;
use crate::conversion::decode;
use crate::core::Core;
use crate::draft::{draft, to_json};

/// Objects in another version of their kind.
async fn convert(core: &Core, shared: &Shared, objects: Vec<Value>, to: &str) -> Result<Vec<Value>, Status> {
    let is_there = |object: &Value| object["apiVersion"] == to;
    if objects.iter().all(is_there) {
        return Ok(objects);
    }
    match &shared.conversion.webhook {
        Some(webhook) if shared.conversion.strategy == "Webhook" => {
            webhook::convert(core, &shared.name, webhook, objects, to).await
        }
        _ => Ok(objects.into_iter().map(|object| renamed(object, to)).collect()),
    }
}

fn renamed(mut object: Value, to: &str) -> Value {
    object["apiVersion"] = to.into();
    object
}

/// Stored objects as this version shows them today.
async fn read(core: &Core, custom: &CustomKind, objects: Vec<Value>) -> Result<Vec<Value>, Status> {
    let to = custom.kind.resource.api_version();
    let objects = convert(core, &custom.shared, objects, &to).await?;
    let schema = custom.version.schema();
    let in_form = |mut object: Value| {
        prune::prune(&mut object, schema);
        form::defaulted(custom, object)
    };
    Ok(objects.into_iter().map(in_form).collect())
}

/// A stored object in this version.
pub async fn current(core: &Core, custom: &CustomKind, entry: &Entry) -> Result<Value, Status> {
    let object = decode(&entry.bytes);
    if custom.is_current(&entry.bytes, Some(entry.revision)) {
        return Ok(object);
    }
    Ok(read(core, custom, vec![object]).await?.remove(0))
}

/// Stored bytes in this version; nothing is decoded where they are that already. Without a revision they have just been
/// written.
pub async fn shown(
    core: &Core,
    custom: &CustomKind,
    bytes: &Bytes,
    revision: Option<Revision>,
) -> Result<Bytes, Status> {
    if custom.is_current(bytes, revision) {
        return Ok(bytes.clone());
    }
    let object = read(core, custom, vec![decode(bytes)]).await?.remove(0);
    Ok(encoded(&object))
}

/// As the store would encode it: what it is comes first.
fn encoded(object: &Value) -> Bytes {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let mut out = crate::draft::type_prefix(text("apiVersion"), text("kind")).into_bytes();
    let mut rest = object.clone();
    if let Some(fields) = rest.as_object_mut() {
        fields.remove("apiVersion");
        fields.remove("kind");
    }
    out.extend_from_slice(&to_json(&rest)[1..]);
    out.into()
}

/// The entries of a page in this version, converted in one go.
pub async fn shown_entries<'e>(
    core: &Core,
    custom: &CustomKind,
    entries: &'e [Arc<Entry>],
) -> Result<Cow<'e, [Arc<Entry>]>, Status> {
    let is_stale = |entry: &Arc<Entry>| !custom.is_current(&entry.bytes, Some(entry.revision));
    if !entries.iter().any(is_stale) {
        return Ok(Cow::Borrowed(entries));
    }
    let stale: Vec<Value> =
        entries.iter().filter(|entry| is_stale(entry)).map(|entry| decode(&entry.bytes)).collect();
    let mut converted = read(core, custom, stale).await?.into_iter();
    let entries = entries.iter().map(|entry| match is_stale(entry).then(|| converted.next()).flatten() {
        Some(object) => Arc::new(Entry {
            key: entry.key.clone(),
            revision: entry.revision,
            created: entry.created,
            bytes: encoded(&object),
            meta: entry.meta.clone(),
            beside: Beside::default(),
        }),
        None => entry.clone(),
    });
    Ok(Cow::Owned(entries.collect()))
}

/// An object of this version as the store keeps it.
pub async fn draft_of(core: &Core, custom: &CustomKind, object: &Value) -> Result<Draft, Status> {
    let resource = &custom.kind.resource;
    let to = match resource.version == custom.shared.storage_version {
        true => return Ok(draft(&custom.kind, object)),
        false => format!("{}/{}", resource.group, custom.shared.storage_version),
    };
    let object = convert(core, &custom.shared, vec![object.clone()], &to).await?.remove(0);
    Ok(draft(&custom.kind, &object))
}
