//! Schemas and objects of any shape, for properties.

use apimachinery::{Map, Value, json};
use proptest::prelude::*;

const NAMES: [&str; 4] = ["a", "b", "c", "spec"];

fn name() -> impl Strategy<Value = String> {
    proptest::sample::select(&NAMES[..]).prop_map(str::to_owned)
}

pub fn object() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<i32>().prop_map(Value::from),
        "[a-z]{0,3}".prop_map(Value::from)
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::btree_map(name(), inner.clone(), 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
            proptest::collection::vec(inner, 0..3).prop_map(Value::from),
        ]
    })
}

pub fn schema() -> impl Strategy<Value = Value> {
    let leaf = (any::<bool>(), any::<bool>(), proptest::option::of(any::<i32>())).prop_map(
        |(nullable, preserve, default)| {
            let mut schema = json!({"nullable": nullable});
            if preserve {
                schema["x-kubernetes-preserve-unknown-fields"] = true.into();
            }
            if let Some(default) = default {
                schema["default"] = default.into();
            }
            schema
        },
    );
    leaf.prop_recursive(3, 24, 4, |inner| {
        let properties = proptest::collection::btree_map(name(), inner.clone(), 0..4);
        prop_oneof![
            (properties, proptest::option::of(inner.clone()), any::<bool>()).prop_map(
                |(properties, additional, embedded)| {
                    let properties: Map = properties.into_iter().collect();
                    let mut schema = json!({"type": "object", "properties": properties});
                    if let Some(additional) = additional {
                        schema["additionalProperties"] = additional;
                    }
                    if embedded {
                        schema["x-kubernetes-embedded-resource"] = true.into();
                    }
                    schema
                }
            ),
            inner.prop_map(|items| json!({"type": "array", "items": items})),
        ]
    })
}
