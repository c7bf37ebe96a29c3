//! Fills in what a schema says of absent fields, and drops nulls that may not be. Follows `pkg/apiserver/schema/defaulting`.

use apimachinery::{Map, Value};

use crate::structural::Structural;

/// Sets every absent field that has a default, also where a null stands that the schema does not allow.
pub fn default(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(fields) => default_fields(fields, schema),
        Value::Array(items) => {
            let Some(item) = &schema.items else { return };
            for value in items {
                replace_null(value, item);
                default(value, item);
            }
        }
        _ => {}
    }
}

fn default_fields(fields: &mut Map, schema: &Structural) {
    for (name, property) in schema.properties.iter() {
        let Some(default) = &property.default else { continue };
        if fields.get(name).is_none_or(|value| value.is_null() && !property.nullable) {
            fields.insert(name, (**default).clone());
        }
    }
    for (name, value) in fields {
        let Some(property) = schema.field(name) else { continue };
        if !schema.properties.contains_key(name.as_str()) {
            replace_null(value, property);
        }
        default(value, property);
    }
}

fn replace_null(value: &mut Value, schema: &Structural) {
    if let (true, false, Some(default)) = (value.is_null(), schema.nullable, &schema.default) {
        *value = (**default).clone();
    }
}

/// Removes nulls from fields that neither allow them nor have a default (follows `PruneNonNullableNullsWithoutDefaults`).
pub fn prune_nulls(value: &mut Value, schema: &Structural) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, value| {
                let property = schema.field(name);
                !(value.is_null() && property.is_some_and(|p| !p.nullable && p.default.is_none()))
            });
            for (name, value) in fields {
                if let Some(property) = schema.field(name) {
                    prune_nulls(value, property);
                }
            }
        }
        Value::Array(items) => {
            if let Some(item) = &schema.items {
                items.iter_mut().for_each(|value| prune_nulls(value, item));
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;
    use proptest::prelude::*;

    use super::*;

    fn check(schema: Value, mut object: Value, expect: Value) {
        let schema = Structural::parse(&schema);
        prune_nulls(&mut object, &schema);
        default(&mut object, &schema);
        assert_eq!(object, expect);
    }

    #[test]
    fn absent_fields_get_their_defaults_where_their_parents_are_there() {
        let schema = json!({"properties": {
            "a": {"default": {"x": 1}, "properties": {"y": {"default": 2}}},
            "b": {"properties": {"z": {"default": 3}}},
            "list": {"items": {"properties": {"p": {"default": "TCP"}}}},
            "map": {"additionalProperties": {"properties": {"q": {"default": true}}}}}});
        check(schema.clone(), json!({}), json!({"a": {"x": 1, "y": 2}}));
        check(
            schema,
            json!({"b": {}, "list": [{}, {"p": "UDP"}], "map": {"k": {}}}),
            json!({"a": {"x": 1, "y": 2}, "b": {"z": 3}, "list": [{"p": "TCP"}, {"p": "UDP"}], "map": {"k": {"q": true}}}),
        );
    }

    #[test]
    fn nulls_give_way_unless_they_are_allowed() {
        let schema = json!({"properties": {"a": {"default": 1}, "b": {"nullable": true, "default": 1}, "c": {"type": "string"},
            "d": {"nullable": true}}});
        check(
            schema,
            json!({"a": null, "b": null, "c": null, "d": null, "unknown": null}),
            json!({"a": 1, "b": null, "d": null, "unknown": null}),
        );
    }

    proptest! {
        #[test]
        fn defaulting_twice_is_defaulting_once(schema in crate::testing::schema(), mut object in crate::testing::object()) {
            let schema = Structural::parse(&schema);
            default(&mut object, &schema);
            let once = object.clone();
            default(&mut object, &schema);
            prop_assert_eq!(object, once);
        }
    }
}
