//! Pod templates: when two are the same, what hash names one, and the ReplicaSet that is made from one.

use api::resource::{DEPLOYMENTS, REPLICA_SETS};
use api::view::apps::{Deployment, ReplicaSet};
use apimachinery::{Value, json};

use crate::ownership::controller_reference;

/// The label that tells apart the pods of a Deployment's ReplicaSets.
pub const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Upstream's `rand.SafeEncodeString`: no vowels, so no words.
const SAFE_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// The longest DNS subdomain, and so the longest ReplicaSet name.
const NAME_MAX: usize = 253;

/// Without the hash label, and without what is written but says nothing, nulls and empty lists: two templates ask for
/// the same pods when they are equal in this form (upstream: `EqualIgnoreHash`).
fn normal(template: &Value) -> Value {
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

/// The oldest ReplicaSet made from the Deployment's template (upstream: `FindNewReplicaSet`).
pub fn find_new(deployment: &Deployment, replica_sets: &[ReplicaSet]) -> Option<usize> {
    let wanted = normal(&deployment.spec.template);
    let same = replica_sets.iter().enumerate().filter(|(_, rs)| normal(&rs.spec.template) == wanted);
    let oldest = same.min_by_key(|(_, rs)| (rs.metadata.creation_timestamp, rs.metadata.name.clone()));
    oldest.map(|(index, _)| index)
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

/// The name that the Deployment's new ReplicaSet has; being determined by the template it cannot be made twice.
pub fn replica_set_name(deployment: &str, hash: &str) -> String {
    let longest = NAME_MAX - 1 - hash.len();
    let kept = deployment.get(..longest).unwrap_or(deployment);
    format!("{kept}-{hash}")
}

/// A ReplicaSet for the Deployment's template, of size 0.
pub fn replica_set(deployment: &Deployment) -> ReplicaSet {
    let hash = hash(&deployment.spec.template, deployment.status.collision_count);
    let owner = &deployment.metadata;
    let mut template = deployment.spec.template.clone();
    if !template["metadata"].is_object() {
        template["metadata"] = json!({});
    }
    template["metadata"]["labels"][POD_TEMPLATE_HASH] = hash.as_str().into();
    let mut replica_set = ReplicaSet::default();
    replica_set.metadata.name = replica_set_name(&owner.name, &hash);
    replica_set.metadata.namespace = owner.namespace.clone();
    replica_set.metadata.owner_references = vec![controller_reference(DEPLOYMENTS, owner)];
    replica_set.metadata.labels =
        serde_json::from_value(template["metadata"]["labels"].clone()).unwrap_or_default();
    replica_set.spec.replicas = Some(0);
    replica_set.spec.min_ready_seconds = deployment.spec.min_ready_seconds;
    replica_set.spec.selector = deployment.spec.selector.clone();
    replica_set.spec.selector.match_labels.insert(POD_TEMPLATE_HASH.to_owned(), hash);
    replica_set.spec.template = template;
    replica_set
}

/// The object to create, without a status.
pub fn to_object(replica_set: &ReplicaSet) -> Value {
    json!({
        "apiVersion": REPLICA_SETS.api_version(), "kind": REPLICA_SETS.kind,
        "metadata": replica_set.metadata, "spec": replica_set.spec,
    })
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
        assert_eq!(replica_set_name("web", "5d4f"), "web-5d4f");
        assert_eq!(replica_set_name(&"a".repeat(253), "5d4f").len(), NAME_MAX);
    }
}
