//! Defaults that a schema states must themselves be what the schema asks for (follows `defaulting.ValidateDefaults`).

use apiextensions::{Structural, prune, validate};
use apimachinery::field::{Error, ErrorList};

use crate::validation::At;

/// Judges the defaults of a schema and of all schemas below it. Those of an object's metadata are the server's own matter.
pub fn check(schema: &At, errors: &mut ErrorList) {
    below(schema, true, errors);
}

fn below(schema: &At, is_root: bool, errors: &mut ErrorList) {
    if let Some(default) = schema.field("default") {
        judge(schema, &default, errors);
    }
    if let Some(items) = schema.field("items") {
        below(&items, false, errors);
    }
    for (name, property) in schema.get("properties").entries() {
        if !is_root || name != "metadata" {
            below(&property, false, errors);
        }
    }
}

fn judge(schema: &At, default: &At, errors: &mut ErrorList) {
    let structural = Structural::parse(schema.value);
    let mut pruned = default.value.clone();
    if !prune::prune(&mut pruned, &structural).is_empty() {
        errors.push(Error::invalid(&default.path, default.value.clone(), "must not have unknown fields"));
    }
    errors.extend(validate::validate(&default.path, default.value, None, &structural));
}

#[cfg(test)]
mod tests {
    use apimachinery::field::Path;
    use apimachinery::{Value, json};

    use super::*;

    fn complaints(schema: Value) -> Vec<String> {
        let mut errors = ErrorList::new();
        check(&At::new(&schema, Path::new("s")), &mut errors);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_default_is_of_its_own_type_and_within_its_own_bounds() {
        let of = |field: Value| complaints(json!({"type": "object", "properties": {"a": field}}));
        assert!(of(json!({"type": "integer", "default": 3, "maximum": 5})).is_empty());
        let wrong = of(json!({"type": "integer", "default": "x"}));
        assert!(wrong[0].starts_with("s.properties[a].default: Invalid value: \"string\": "), "{wrong:?}");
        assert!(wrong[0].ends_with(" in body must be of type integer: \"string\""), "{wrong:?}");
        assert_eq!(of(json!({"type": "integer", "default": 9, "maximum": 5})).len(), 1);
        assert_eq!(of(json!({"type": "object", "default": {"b": 1}})).len(), 1);
        assert!(
            of(json!({"type": "object", "default": {"b": 1}, "properties": {"b": {"type": "integer"}}}))
                .is_empty()
        );
    }

    #[test]
    fn defaults_are_found_at_any_depth() {
        let wrong = json!({"type": "string", "default": 1});
        let list = json!({"type": "array", "items": {"type": "object", "properties": {"b": wrong}}});
        assert_eq!(complaints(json!({"type": "object", "properties": {"a": list}})).len(), 1);
    }
}
