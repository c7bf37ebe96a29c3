//! Removes what a schema does not name. Follows `pkg/apiserver/schema/pruning`.

use apimachinery::{Map, Value};

use crate::structural::{Additional, Structural};

/// Prunes a custom resource, whose `apiVersion`, `kind` and `metadata` always stay. Returns the paths of what went, sorted:
/// `spec.unknown`, `spec.items[0].x`.
pub fn prune(object: &mut Value, schema: &Structural) -> Vec<String> {
    let mut pruner = Pruner::default();
    if let Value::Object(fields) = object {
        pruner.fields(fields, schema, true);
    }
    pruner.removed.sort_unstable();
    pruner.removed
}

fn is_meta(key: &str) -> bool {
    matches!(key, "apiVersion" | "kind" | "metadata")
}

#[derive(Default)]
struct Pruner {
    path: String,
    removed: Vec<String>,
}

impl Pruner {
    /// Goes on below `.key` or `[index]`.
    fn below(&mut self, step: impl FnOnce(&mut String), walk: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        step(&mut self.path);
        walk(self);
        self.path.truncate(length);
    }

    fn in_key(&mut self, key: &str, walk: impl FnOnce(&mut Self)) {
        self.below(|path| push_key(path, key), walk);
    }

    /// `None` knows nothing: objects lose all they have.
    fn value(&mut self, value: &mut Value, schema: Option<&Structural>) {
        match value {
            Value::Object(fields) => match schema {
                Some(schema) => self.fields(fields, schema, schema.embedded),
                None => {
                    for key in std::mem::take(fields).keys() {
                        self.record(key);
                    }
                }
            },
            Value::Array(items) => {
                let keeps_all = schema.is_some_and(|schema| schema.preserve_unknown);
                let item = schema.and_then(|schema| schema.items.as_deref());
                if keeps_all && item.is_none() {
                    return;
                }
                for (index, value) in items.iter_mut().enumerate() {
                    self.below(
                        |path| path.push_str(&format!("[{index}]")),
                        |pruner| pruner.value(value, item),
                    );
                }
            }
            _ => {}
        }
    }

    fn fields(&mut self, fields: &mut Map, schema: &Structural, embedded: bool) {
        let mut unknown = Vec::new();
        for (key, value) in fields.iter_mut() {
            if embedded && is_meta(key) {
                continue;
            }
            match (schema.properties.get(key.as_str()), &schema.additional) {
                (Some(property), _) => self.in_key(key, |pruner| pruner.value(value, Some(property))),
                (None, Additional::Schema(schema)) => {
                    self.in_key(key, |pruner| pruner.value(value, Some(schema)))
                }
                (None, Additional::Anything) if !schema.preserve_unknown => {
                    self.in_key(key, |pruner| pruner.value(value, None));
                }
                (None, Additional::Unsaid) if !schema.preserve_unknown => unknown.push(key.clone()),
                (None, _) => {}
            }
        }
        for key in unknown {
            fields.remove(&key);
            self.record(&key);
        }
    }

    fn record(&mut self, key: &str) {
        let mut path = self.path.clone();
        push_key(&mut path, key);
        self.removed.push(path);
    }
}

fn push_key(path: &mut String, key: &str) {
    if !path.is_empty() {
        path.push('.');
    }
    path.push_str(key);
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use proptest::prelude::*;

    use super::*;

    fn check(schema: Value, mut object: Value, expect: Value, removed: &[&str]) {
        let found = prune(&mut object, &Structural::parse(&schema));
        assert_eq!(object, expect);
        assert_eq!(found, removed);
    }

    #[test]
    fn what_a_schema_does_not_name_goes() {
        check(
            json!({"properties": {"spec": {"properties": {"a": {}, "list": {"items": {"properties": {"x": {}}}},
                "map": {"additionalProperties": {"properties": {"y": {}}}}}}}}),
            json!({"apiVersion": "v", "kind": "k", "metadata": {"name": "n"}, "extra": 1,
                "spec": {"a": 1, "b": 2, "list": [{"x": 1, "z": 2}], "map": {"k": {"y": 1, "z": 2}}}}),
            json!({"apiVersion": "v", "kind": "k", "metadata": {"name": "n"},
                "spec": {"a": 1, "list": [{"x": 1}], "map": {"k": {"y": 1}}}}),
            &["extra", "spec.b", "spec.list[0].z", "spec.map.k.z"],
        );
    }

    #[test]
    fn a_preserving_node_keeps_what_it_does_not_name_and_prunes_what_it_does() {
        check(
            json!({"properties": {"spec": {"x-kubernetes-preserve-unknown-fields": true,
                "properties": {"known": {"properties": {"a": {}}}}}}}),
            json!({"spec": {"free": {"deep": [{"x": 1}]}, "known": {"a": 1, "b": 2}}}),
            json!({"spec": {"free": {"deep": [{"x": 1}]}, "known": {"a": 1}}}),
            &["spec.known.b"],
        );
    }

    #[test]
    fn an_embedded_resource_keeps_what_every_object_has() {
        check(
            json!({"properties": {"template": {"x-kubernetes-embedded-resource": true, "properties": {"spec": {}}}}}),
            json!({"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "x": 1}}),
            json!({"template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}}),
            &["template.x"],
        );
    }

    proptest! {
        #[test]
        fn pruning_twice_is_pruning_once(schema in crate::testing::schema(), mut object in crate::testing::object()) {
            let schema = Structural::parse(&schema);
            prune(&mut object, &schema);
            let once = object.clone();
            prop_assert!(prune(&mut object, &schema).is_empty());
            prop_assert_eq!(object, once);
        }
    }
}
