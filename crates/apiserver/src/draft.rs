//! From a decoded object to what the store keeps: the JSON with a gap for the revision, and the facts selectors need.

use std::sync::Arc;

use api::catalogue::Kind;
use apimachinery::meta::str_at;
use apimachinery::value::{write_json, write_json_text};
use apimachinery::{Map, Value};
use store::{Draft, Meta};

const RESOURCE_VERSION: &str = "resourceVersion";

/// Room for most objects: an ordinary pod takes some 3 KB. The store keeps a copy that has no room to spare.
const ENCODED_BYTES: usize = 4 << 10;

/// Encodes an object for the store. Whatever resourceVersion it carries is replaced by the gap.
pub fn draft(kind: &Kind, object: &Value) -> Draft {
    let (json, revision_at) = encode_with_gap(object);
    Draft { json, revision_at, meta: meta(object, kind.strategy.selectable_fields(object)) }
}

/// Encodes an object of a kind that is not built in. What fields can be selected by, its definition says; whoever selects
/// asks the object.
pub fn custom(object: &Value) -> Draft {
    let (json, revision_at) = encode_with_gap(object);
    Draft { json, revision_at, meta: meta(object, Vec::new()) }
}

/// The bytes an object would have under this resourceVersion.
pub fn encode_as(object: &Value, revision: store::Revision) -> Vec<u8> {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert(RESOURCE_VERSION, revision.to_string().into());
    }
    to_json(&object)
}

pub fn to_json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("a value with text keys encodes")
}

/// `kind` and `apiVersion` come first, so that a list can leave them out of its items by slicing.
fn encode_with_gap(object: &Value) -> (Vec<u8>, usize) {
    let empty = Map::new();
    let fields = object.as_object().unwrap_or(&empty);
    let mut out = Vec::with_capacity(ENCODED_BYTES);
    out.extend_from_slice(type_prefix(str_at(object, &["apiVersion"]), str_at(object, &["kind"])).as_bytes());
    write_key(&mut out, "metadata");
    let gap = write_metadata(&mut out, fields.get("metadata").and_then(Value::as_object).unwrap_or(&empty));
    for (key, value) in
        fields.iter().filter(|(key, _)| !matches!(key.as_str(), "kind" | "apiVersion" | "metadata"))
    {
        out.push(b',');
        write_key(&mut out, key);
        write_json(&mut out, value);
    }
    out.push(b'}');
    (out, gap)
}

/// How every stored object begins.
pub fn type_prefix(api_version: &str, kind: &str) -> String {
    format!("{{\"kind\":{},\"apiVersion\":{},", Value::from(kind), Value::from(api_version))
}

/// Writes `metadata` with an empty resourceVersion and tells where its text would start.
fn write_metadata(out: &mut Vec<u8>, metadata: &Map) -> usize {
    out.extend_from_slice(b"{\"resourceVersion\":\"");
    let gap = out.len();
    out.extend_from_slice(b"\"");
    for (key, value) in metadata.iter().filter(|(key, _)| *key != RESOURCE_VERSION) {
        out.push(b',');
        write_key(out, key);
        write_json(out, value);
    }
    out.push(b'}');
    gap
}

fn write_key(out: &mut Vec<u8>, key: &str) {
    write_json_text(out, key);
    out.push(b':');
}

fn meta(object: &Value, fields: Vec<(&'static str, String)>) -> Meta {
    let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
    let labels =
        labels.into_iter().flatten().map(|(k, v)| (k.as_str().into(), v.as_str().unwrap_or_default().into()));
    let owners = object.pointer("/metadata/ownerReferences").and_then(Value::as_array);
    let owners = owners.into_iter().flatten().map(|owner| Arc::from(str_at(owner, &["uid"])));
    Meta {
        labels: labels.collect(),
        fields: fields.into_iter().map(|(k, v)| (k.into(), v.into())).collect(),
        uid: str_at(object, &["metadata", "uid"]).into(),
        owners: owners.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn kind_and_version_come_first() {
        let object = json!({"data": {}, "kind": "A", "apiVersion": "v1", "metadata": {}});
        let (json, _) = encode_with_gap(&object);
        assert!(json.starts_with(type_prefix("v1", "A").as_bytes()));
        let read: Value = serde_json::from_slice(&json).expect("is JSON");
        assert_eq!(read["data"], json!({}));
    }

    #[test]
    fn the_gap_is_where_the_revision_belongs() {
        let object = json!({"kind": "A", "metadata": {"name": "x", "resourceVersion": "old", "annotations": {"resourceVersion": "7"}}});
        let (mut json, gap) = encode_with_gap(&object);
        json.splice(gap..gap, *b"42");
        let read: Value = serde_json::from_slice(&json).expect("is JSON");
        assert_eq!(read["metadata"]["resourceVersion"], "42");
        assert_eq!(read["metadata"]["annotations"]["resourceVersion"], "7");
        assert_eq!(read["metadata"]["name"], "x");
    }
}
