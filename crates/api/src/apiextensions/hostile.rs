//! Definitions whose schemas are made of anything: they are judged, and neither panic nor take for ever.

use apimachinery::codec::Strictness;
use apimachinery::{Value, json};
use proptest::prelude::*;
use proptest::sample::select;

const WORDS: [&str; 14] = [
    "object",
    "array",
    "string",
    "integer",
    "number",
    "boolean",
    "self == oldSelf",
    "self.all(a, self.all(b, self.all(c, a == b)))",
    "((((",
    "^(a+)+$",
    "[",
    "date-time",
    "map",
    "",
];

const KEYS: [&str; 28] = [
    "type",
    "properties",
    "items",
    "additionalProperties",
    "allOf",
    "anyOf",
    "oneOf",
    "not",
    "enum",
    "default",
    "pattern",
    "format",
    "minimum",
    "maximum",
    "maxLength",
    "maxItems",
    "required",
    "nullable",
    "$ref",
    "metadata",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-int-or-string",
    "x-kubernetes-embedded-resource",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-validations",
    "rule",
];

fn anything() -> impl Strategy<Value = Value> {
    let word = select(WORDS.to_vec()).prop_map(Value::from);
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        word
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            1 => proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            3 => proptest::collection::btree_map(select(KEYS.to_vec()), inner, 0..6)
                .prop_map(|map| map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_definition_is_judged(schema in anything(), more in anything()) {
        let kind = crate::catalogue::by_resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            .expect("is in the catalogue");
        let definition = json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "xs.example.com"},
            "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "xs", "kind": "X"},
                "versions": [
                    {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}},
                    {"name": "v2", "served": true, "storage": false, "schema": more, "selectableFields": schema},
                ]},
        });
        let ty = crate::schema::type_id(kind.type_name);
        let Ok(decoded) = crate::schema().decode_value(ty, definition, Strictness::Ignore) else { return Ok(()) };
        let mut object = decoded.value;
        kind.default(&mut object);
        kind.prepare_for_create(&mut object);
        // Only that it comes back is at stake.
        drop(kind.validate(&object));
    }
}
