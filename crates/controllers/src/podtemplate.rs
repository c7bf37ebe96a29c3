//! Pod templates: when two are the same, what hash names one, and the pod that is made from one.

use api::resource::Resource;
use apimachinery::meta::{ObjectMeta, value_at};
use apimachinery::names::is_dns1123_subdomain;
use apimachinery::{Value, json};

use crate::ownership::controller_reference;

/// The label that tells apart the pods of a Deployment's ReplicaSets.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Upstream's `rand.SafeEncodeString`: no vowels, so no words.
const SAFE_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// The longest DNS subdomain, and so the longest name.
const NAME_MAX: usize = 253;

/// Without the hash label, and without what is written but says nothing, nulls and empty lists: two templates ask for
/// the same pods when they are equal in this form (upstream: `EqualIgnoreHash`).
pub fn normal(template: &Value) -> Value {
    let mut template = strip(template);
    if let Some(labels) = template.pointer_mut("/metadata/labels").and_then(Value::as_object_mut) {
        labels.remove(POD_TEMPLATE_HASH);
    }
    for field in ["labels", "annotations"] {
        let is_empty = |v: &Value| v.as_object().is_some_and(|map| map.is_empty());
        if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut)
            && metadata.get(field).is_some_and(is_empty)
        {
            metadata.remove(field);
        }
    }
    if template.get("metadata").and_then(Value::as_object).is_some_and(|m| m.is_empty()) {
        template.as_object_mut().expect("it holds metadata").remove("metadata");
    }
    template
}

fn strip(value: &Value) -> Value {
    let says_nothing = |v: &Value| v.is_null() || v.as_array().is_some_and(Vec::is_empty);
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, v)| !says_nothing(v));
            Value::Object(kept.map(|(k, v)| (k.clone(), strip(v))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(strip).collect()),
        other => other.clone(),
    }
}

/// FNV-1a over the template's canonical text and the count of collisions so far, in upstream's alphabet.
pub fn hash(template: &Value, collision_count: Option<i32>) -> String {
    let mut text = normal(template).to_string();
    if let Some(count) = collision_count {
        text.push_str(&count.to_string());
    }
    let sum =
        text.bytes().fold(0x811c_9dc5u32, |sum, byte| (sum ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let encode = |digit: u8| char::from(SAFE_ALPHABET[usize::from(digit) % SAFE_ALPHABET.len()]);
    sum.to_string().bytes().map(encode).collect()
}

/// The name of what is made from a template; being determined by the template it cannot be made twice.
pub fn name_with_hash(owner: &str, hash: &str) -> String {
    let longest = NAME_MAX - 1 - hash.len();
    let kept = owner.get(..longest).unwrap_or(owner);
    format!("{kept}-{hash}")
}

/// A pod of the owner's, without a name yet (upstream: `GetPodFromTemplate`).
pub fn from_template(resource: Resource, owner: &ObjectMeta, template: &Value) -> Value {
    let mut metadata = json!({
        "generateName": generate_name(&owner.name),
        "namespace": owner.namespace,
        "ownerReferences": [controller_reference(resource, owner)],
    });
    for field in ["labels", "annotations", "finalizers"] {
        if let Some(value) = value_at(template, &["metadata", field]) {
            metadata[field] = value.clone();
        }
    }
    let spec = template.get("spec").cloned().unwrap_or_else(|| json!({}));
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
}

/// `name-`, unless that makes no valid pod name (upstream: `getPodsPrefix`).
fn generate_name(owner: &str) -> String {
    let prefix = format!("{owner}-");
    let sample = format!("{prefix}a");
    if is_dns1123_subdomain(&sample).is_empty() { prefix } else { owner.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_label_and_empty_fields_make_no_difference() {
        let bare = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c"}]}});
        let full = json!({"metadata": {"creationTimestamp": null, "labels": {"a": "b", POD_TEMPLATE_HASH: "x"}},
            "spec": {"containers": [{"name": "c", "args": []}]}});
        assert_eq!(normal(&bare), normal(&full));
        assert_eq!(hash(&bare, None), hash(&full, None));
        let other = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "d"}]}});
        assert_ne!(normal(&bare), normal(&other));
        let volume = |source: Value| json!({"spec": {"volumes": [source]}});
        assert_ne!(normal(&volume(json!({"emptyDir": {}}))), normal(&volume(json!({}))));
    }

    #[test]
    fn a_hash_depends_on_template_and_collisions_and_spells_no_words() {
        let template = json!({"spec": {}});
        assert_ne!(hash(&template, None), hash(&template, Some(1)));
        assert!(hash(&template, None).bytes().all(|b| SAFE_ALPHABET.contains(&b)));
    }

    #[test]
    fn a_long_name_leaves_room_for_the_hash() {
        assert_eq!(name_with_hash("web", "5d4f"), "web-5d4f");
        assert_eq!(name_with_hash(&"a".repeat(253), "5d4f").len(), NAME_MAX);
    }
}
