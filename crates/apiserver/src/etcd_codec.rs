//! How objects are kept in etcd: under upstream's keys, in upstream's encodings, so that a cluster's data can move from
//! upstream's API server to this one and back. Follows `DefaultStorageFactory` and the storage codecs of the three servers
//! that upstream's is made of: protobuf for its own kinds, JSON for definitions, APIServices and custom resources.

mod definition;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use api::catalogue::{self, CATALOGUE, Kind};
use api::resource;
use apimachinery::codec::{Format, Strictness, protobuf};
use apimachinery::{GroupVersion, Value};
use bytes::Bytes;
use store::{Codec, CodecError, Draft, Key};

use crate::advertise::{LEASE_TTL, LEASES};
use crate::draft::{self, draft};
use crate::event_ttl;
use crate::kind::KindRef;
use crate::resource::defaulted;

/// Kinds whose objects are kept elsewhere than under their plural (`SpecialDefaultResourcePrefixes`, and the prefixes of
/// the servers that upstream's is made of).
const SPECIAL: [(api::Resource, &str); 7] = [
    (resource::REPLICATION_CONTROLLERS, "controllers"),
    (resource::ENDPOINTS, "services/endpoints"),
    (resource::NODES, "minions"),
    (resource::SERVICES, "services/specs"),
    (resource::INGRESSES, "ingress"),
    (resource::CUSTOM_RESOURCE_DEFINITIONS, "apiextensions.k8s.io/customresourcedefinitions"),
    (resource::API_SERVICES, "apiregistration.k8s.io/apiservices"),
];

/// What upstream keeps as JSON.
const AS_JSON: [api::Resource; 2] = [resource::CUSTOM_RESOURCE_DEFINITIONS, resource::API_SERVICES];

/// A stored kind and where its objects are.
struct Row {
    kind: &'static Kind,
    prefix: &'static str,
}

/// The stored kinds, by what the store calls them and by where etcd has them.
struct Rows {
    by_storage: HashMap<&'static str, Row>,
    by_prefix: HashMap<&'static str, Place>,
}

/// What is under a prefix.
#[derive(Clone, Copy)]
struct Place {
    storage: &'static str,
    namespaced: bool,
}

static ROWS: LazyLock<Rows> = LazyLock::new(|| {
    let stored =
        || CATALOGUE.iter().filter(|kind| kind.is_stored() && kind.stored().resource == kind.resource);
    let place = |kind: &Kind| Place { storage: kind.storage, namespaced: kind.resource.namespaced };
    let mut rows = Rows {
        by_storage: stored().map(|kind| (kind.storage, Row { kind, prefix: prefix_of(kind) })).collect(),
        by_prefix: stored().map(|kind| (prefix_of(kind), place(kind))).collect(),
    };
    // Servers' leases are no kind of their own.
    let kind = stored().find(|kind| kind.resource == resource::ENDPOINTS).expect("Endpoints are stored");
    rows.by_storage.insert(LEASES, Row { kind, prefix: LEASES });
    rows.by_prefix.insert(LEASES, Place { storage: LEASES, namespaced: false });
    rows
});

fn prefix_of(kind: &Kind) -> &'static str {
    let special = SPECIAL.iter().find(|(resource, _)| *resource == kind.resource);
    special.map_or(kind.resource.plural, |(_, prefix)| *prefix)
}

/// Upstream's keys and encodings.
#[derive(Clone, Copy, Debug)]
pub struct EtcdCodec;

impl Codec for EtcdCodec {
    fn path(&self, key: &Key) -> String {
        let prefix = match ROWS.by_storage.get(&*key.resource) {
            Some(row) => Cow::Borrowed(row.prefix),
            // Of a custom kind the store knows `<plural>.<group>`.
            None => match key.resource.split_once('.') {
                Some((plural, group)) => Cow::Owned(format!("{group}/{plural}")),
                None => Cow::Borrowed(&*key.resource),
            },
        };
        match &*key.namespace {
            "" => format!("{prefix}/{}", key.name),
            namespace => format!("{prefix}/{namespace}/{}", key.name),
        }
    }

    fn key(&self, path: &str) -> Option<Key> {
        let (first, rest) = path.split_once('/')?;
        if let Some(place) = ROWS.by_prefix.get(first) {
            return named(place.storage, rest, place.namespaced);
        }
        let (second, rest) = rest.split_once('/')?;
        match ROWS.by_prefix.get(&path[..first.len() + 1 + second.len()]) {
            Some(place) => named(place.storage, rest, place.namespaced),
            // A group that anybody may define has a dot; other prefixes are upstream's own affairs.
            None if first.contains('.') => named(&format!("{second}.{first}"), rest, rest.contains('/')),
            None => None,
        }
    }

    fn encode(&self, key: &Key, draft: &Draft) -> Result<Bytes, CodecError> {
        match ROWS.by_storage.get(&*key.resource).map(|row| row.kind) {
            Some(kind) if !AS_JSON.contains(&kind.resource) => {
                let root = api::schema::type_id(kind.type_name);
                protobuf::from_json(api::schema(), root, &draft.json).map_err(failed)
            }
            _ => as_json(&draft.json),
        }
    }

    fn decode(&self, key: &Key, value: &[u8]) -> Result<Draft, CodecError> {
        match ROWS.by_storage.get(&*key.resource).map(|row| row.kind) {
            Some(kind) => Ok(draft(kind, &built_in(kind, value)?)),
            None => {
                let object: Value = serde_json::from_slice(value).map_err(failed)?;
                Ok(draft::custom(&object))
            }
        }
    }

    fn ttl(&self, key: &Key) -> Option<Duration> {
        if &*key.resource == LEASES {
            return Some(LEASE_TTL);
        }
        let row = ROWS.by_storage.get(&*key.resource)?;
        (row.kind.resource == resource::EVENTS).then_some(event_ttl::TTL)
    }
}

fn failed(error: impl std::fmt::Display) -> CodecError {
    CodecError(error.to_string())
}

fn named(storage: &str, rest: &str, namespaced: bool) -> Option<Key> {
    let (namespace, name) = if namespaced { rest.split_once('/')? } else { ("", rest) };
    let is_name = !name.is_empty() && !name.contains('/') && namespaced != namespace.is_empty();
    is_name.then(|| Key::new(storage, namespace, name))
}

/// The object without the place for its revision, which etcd itself knows; a line, as upstream's encoder ends it.
fn as_json(json: &[u8]) -> Result<Bytes, CodecError> {
    let mut object: Value = serde_json::from_slice(json).map_err(failed)?;
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("resourceVersion");
    }
    let mut line = draft::to_json(&object);
    line.push(b'\n');
    Ok(line.into())
}

/// An object of a kind that is built in, in the version that the store keeps, with the defaults of today.
fn built_in(kind: &'static Kind, value: &[u8]) -> Result<Value, CodecError> {
    let found = decoded(value)?;
    let text = |field: &str| found[field].as_str().unwrap_or_default();
    let version = GroupVersion::parse(text("apiVersion")).unwrap_or_default();
    let row = catalogue::by_kind(&version.group, &version.version, text("kind"));
    let row = row.filter(|row| row.storage == kind.storage).ok_or_else(|| {
        let (api_version, found) = (text("apiVersion"), text("kind"));
        CodecError(format!(
            "there is a {found:?} of {api_version:?} where a {} should be",
            kind.resource.kind
        ))
    })?;
    Ok(defaulted(&KindRef::BuiltIn(row), found))
}

fn decoded(value: &[u8]) -> Result<Value, CodecError> {
    if value.starts_with(protobuf::MAGIC) {
        return protobuf::decode_any(api::schema(), value).map_err(failed);
    }
    let mut untyped: Value = serde_json::from_slice(value).map_err(failed)?;
    let mut value = Cow::Borrowed(value);
    if untyped["apiVersion"] == definition::V1BETA1 {
        untyped = definition::to_v1(untyped);
        value = Cow::Owned(draft::to_json(&untyped));
    }
    let text = |field: &str| untyped[field].as_str().unwrap_or_default();
    let version = GroupVersion::parse(text("apiVersion")).unwrap_or_default();
    let Some(row) = catalogue::by_kind(&version.group, &version.version, text("kind")) else {
        return Ok(untyped);
    };
    let (api_version, name) = (row.resource.api_version(), row.resource.kind);
    let root = api::schema::type_id(row.type_name);
    let decoded = api::schema().decode(root, Format::Json, &value, Strictness::Ignore).map_err(failed)?;
    let mut object = decoded.value;
    object["apiVersion"] = api_version.into();
    object["kind"] = name.into();
    Ok(object)
}
