//! The shape a schema must have so that objects can be pruned and defaulted by it (follows `ValidateStructural` and
//! the standard checks of `ValidateCustomResourceDefinitionOpenAPISchema`).

use apimachinery::field::{Error, ErrorList};
use apimachinery::{Text, Value, json};

use super::rules;
use crate::validation::At;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
/// Fields that JSON schema has and these schemas do not.
const UNSUPPORTED: [&str; 5] = ["definitions", "dependencies", "id", "patternProperties", "additionalItems"];
const REFERENCE: &str = "$ref";

/// Where a schema stands, for the words of a complaint.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// A version's whole schema.
pub fn validate(schema: &At, has_status: bool, errors: &mut ErrorList) {
    if has_status && schema.get("type").is_set() && schema.get("type").text() != "object" {
        let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
        errors.push(schema.get("type").invalid(detail));
    }
    if schema.get("nullable").is_true() {
        errors.push(schema.get("nullable").forbidden("nullable cannot be true at the root"));
    }
    let mut found = ErrorList::new();
    shape(schema, Level::Root, &mut found);
    found.sort_by_key(ToString::to_string);
    errors.append(&mut found);
    standard(schema, errors);
    if errors.is_empty() {
        rules::compiled(schema, errors);
    }
}

/// A schema that says what objects look like.
fn shape(schema: &At, level: Level, errors: &mut ErrorList) {
    let (of_type, list_items) = (schema.get("type"), schema.get("items"));
    if of_type.text() == "array" && !list_items.is_set() {
        errors.push(list_items.required("must be specified"));
    }
    if list_items.is_set() {
        shape(&list_items, Level::Item, errors);
    }
    for (_, property) in schema.get("properties").entries() {
        shape(&property, Level::Field, errors);
    }
    if let Some(additional) = schema.field("additionalProperties") {
        if level == Level::Root {
            errors.push(additional.forbidden("must not be used at the root"));
        }
        if additional.map().is_some() {
            shape(&additional, Level::Field, errors);
        }
    }
    extensions(schema, errors);
    combinations(schema, errors);
    type_at(schema, level, errors);
    identity(schema, level, errors);
}

fn flag(schema: &At, extension: &str) -> bool {
    schema.get(extension).is_true()
}

fn extensions(schema: &At, errors: &mut ErrorList) {
    if !flag(schema, "x-kubernetes-int-or-string") {
        return;
    }
    for extension in ["x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"] {
        if flag(schema, extension) {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(schema.get(extension).invalid(detail));
        }
    }
}

fn type_at(schema: &At, level: Level, errors: &mut ErrorList) {
    let of_type = schema.get("type");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let free =
        flag(schema, "x-kubernetes-int-or-string") || flag(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && of_type.text() != "object" {
        const DETAIL: &str = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if of_type.is_empty() { of_type.required(DETAIL) } else { of_type.invalid(DETAIL) });
    } else if of_type.is_empty() && !free {
        errors.push(of_type.required(match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        }));
    }
    if embedded && schema.get("additionalProperties").is_set() {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(schema.get("additionalProperties").forbidden(detail));
    }
    if level == Level::Root && !of_type.is_empty() && of_type.text() != "object" {
        errors.push(of_type.invalid("must be object at the root"));
    }
}

/// What every object has: kind, version and metadata.
fn identity(schema: &At, level: Level, errors: &mut ErrorList) {
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let properties = schema.get("properties");
    if level == Level::Root || embedded {
        for (name, wanted) in [("apiVersion", "string"), ("kind", "string"), ("metadata", "object")] {
            let property = At { value: properties.get(name).value, path: properties.path.key(name) };
            if property.is_set() && property.get("type").text() != wanted {
                let of_type = property.get("type");
                errors.push(Error::invalid(&of_type.path, of_type.text(), format!("must be {wanted}")));
            }
        }
    }
    let metadata = At { value: properties.get("metadata").value, path: properties.path.key("metadata") };
    if level == Level::Root && metadata.is_set() && says_more_than_names(metadata.value) {
        errors.push(metadata.forbidden(
            "must not specify anything other than name and generateName, but metadata is implicitly specified",
        ));
    }
    let preserves = flag(schema, "x-kubernetes-preserve-unknown-fields");
    if embedded && !preserves && properties.is_empty() {
        errors.push(properties.required("must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"));
    }
}

fn says_more_than_names(metadata: &Value) -> bool {
    let Some(map) = metadata.as_object() else { return false };
    let known = |name: &Text| name == "name" || name == "generateName";
    map.iter().any(|(field, value)| match field.as_str() {
        "type" | "default" => false,
        "properties" => !value.as_object().is_some_and(|p| p.keys().all(known)),
        _ => true,
    })
}

/// `allOf` and the like only restrict; what they say of the shape must be said outside.
fn combinations(schema: &At, errors: &mut ErrorList) {
    let pattern = json!([{"type": "integer"}, {"type": "string"}]);
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    for list in ["anyOf", "allOf", "oneOf"] {
        let is_pattern = |at: &At| int_or_string && at.value == &pattern;
        if list == "anyOf" && is_pattern(&schema.get(list)) {
            continue;
        }
        for (index, nested) in schema.get(list).items().enumerate() {
            let first_of_all = list == "allOf" && index == 0 && is_pattern(&nested.get("anyOf"));
            restriction(&nested, first_of_all, errors);
        }
    }
    if let Some(nested) = schema.field("not") {
        restriction(&nested, false, errors);
    }
}

/// A schema that only restricts.
fn restriction(schema: &At, skip_any_of: bool, errors: &mut ErrorList) {
    const EMPTY: &str = "must be empty to be structural";
    const FALSE: &str = "must be false to be structural";
    const UNDEFINED: &str = "must be undefined to be structural";
    const FORBIDDEN: [(&str, &str); 13] = [
        ("type", EMPTY),
        ("additionalProperties", UNDEFINED),
        ("default", UNDEFINED),
        ("title", EMPTY),
        ("description", EMPTY),
        ("nullable", FALSE),
        ("x-kubernetes-preserve-unknown-fields", FALSE),
        ("x-kubernetes-embedded-resource", FALSE),
        ("x-kubernetes-int-or-string", FALSE),
        ("x-kubernetes-list-map-keys", EMPTY),
        ("x-kubernetes-list-type", UNDEFINED),
        ("x-kubernetes-map-type", UNDEFINED),
        ("x-kubernetes-validations", EMPTY),
    ];
    if !skip_any_of {
        combinations(schema, errors);
    }
    if let Some(nested) = schema.field("items") {
        restriction(&nested, false, errors);
    }
    for (_, nested) in schema.get("properties").entries() {
        restriction(&nested, false, errors);
    }
    for (field, detail) in FORBIDDEN {
        let at = schema.get(field);
        let is_empty = matches!(at.value, Value::Bool(false)) || at.value == &json!([]) || at.value == "";
        if at.is_set() && !is_empty {
            errors.push(at.forbidden(detail));
        }
    }
    if schema.get("properties").get("metadata").is_set() {
        let path = schema.path.child("properties").key("metadata");
        errors.push(Error::forbidden(&path, "must not be specified in a nested context"));
    }
}

/// Checks that any schema of a definition passes, structural or not.
fn standard(schema: &At, errors: &mut ErrorList) {
    let of_type = schema.get("type");
    if !of_type.is_empty() && !TYPES.contains(&of_type.text()) {
        errors.push(of_type.not_supported(&TYPES));
    }
    for field in UNSUPPORTED.iter().filter(|field| schema.get(field).is_set()) {
        errors.push(schema.get(field).forbidden(format!("{field} is not supported")));
    }
    if schema.get(REFERENCE).is_set() {
        errors.push(schema.get(REFERENCE).forbidden("$ref is not supported"));
    }
    if schema.get("uniqueItems").is_true() {
        let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
        errors.push(schema.get("uniqueItems").forbidden(detail));
    }
    let additional = schema.get("additionalProperties");
    if additional.is_set() && !additional.is_true() && !schema.get("properties").is_empty() {
        errors.push(additional.forbidden("additionalProperties and properties are mutual exclusive"));
    }
    list_type(schema, errors);
    rules::written(schema, errors);
    for (_, nested) in schema.get("properties").entries() {
        standard(&nested, errors);
    }
    for nested in ["items", "additionalProperties", "not"].into_iter().filter_map(|field| schema.field(field))
    {
        if nested.map().is_some() {
            standard(&nested, errors);
        }
    }
    for list in ["allOf", "anyOf", "oneOf"] {
        for nested in schema.get(list).items() {
            standard(&nested, errors);
        }
    }
}

fn list_type(schema: &At, errors: &mut ErrorList) {
    const LIST_TYPES: [&str; 3] = ["atomic", "map", "set"];
    const MAP_TYPES: [&str; 2] = ["atomic", "granular"];
    let (list_type, keys) = (schema.get("x-kubernetes-list-type"), schema.get("x-kubernetes-list-map-keys"));
    let of_type = schema.get("type").text();
    if let Some(list_type) = list_type.clone().set() {
        if of_type != "array" {
            let path = &schema.get("type").path;
            errors.push(Error::invalid(
                path,
                of_type,
                "must be array if x-kubernetes-list-type is specified",
            ));
        }
        list_type.check_optional_enum(&LIST_TYPES, errors);
    }
    let is_map = list_type.text() == "map";
    if is_map && keys.is_empty() {
        errors.push(keys.required("must not be empty if x-kubernetes-list-type is map"));
    }
    if !is_map && !keys.is_empty() {
        let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
        errors.push(if list_type.is_set() { list_type.invalid(detail) } else { list_type.required(detail) });
    }
    let properties = schema.at(&["items", "properties"]);
    for _ in keys.texts().iter().filter(|key| is_map && !properties.get(key).is_set()) {
        errors.push(keys.invalid("entries must all be names of item properties"));
    }
    let map_type = schema.get("x-kubernetes-map-type");
    if map_type.is_set() {
        if of_type != "object" {
            let path = &schema.get("type").path;
            errors.push(Error::invalid(
                path,
                of_type,
                "must be object if x-kubernetes-map-type is specified",
            ));
        }
        map_type.check_optional_enum(&MAP_TYPES, errors);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::expect_errors;
    use apimachinery::field::Path;

    #[test]
    fn schemas_say_what_objects_look_like() {
        let check = |schema: Value, expect: &[&str]| {
            let mut errors = ErrorList::new();
            validate(&At::new(&schema, Path::new("s")), false, &mut errors);
            expect_errors(&errors, expect);
        };
        let with = |field: Value| json!({"type": "object", "properties": {"f": field}});
        check(with(json!({"type": "string"})), &[]);
        check(json!({}), &["s.type: Required value: must not be empty at the root"]);
        check(json!({"type": "string"}), &["s.type: Invalid value: \"string\": must be object at the root"]);
        check(
            with(json!({})),
            &["s.properties[f].type: Required value: must not be empty for specified object fields"],
        );
        check(with(json!({"x-kubernetes-preserve-unknown-fields": true})), &[]);
        check(with(json!({"type": "array"})), &["s.properties[f].items: Required value: must be specified"]);
        check(
            with(json!({"type": "array", "items": {}})),
            &["s.properties[f].items.type: Required value: must not be empty for specified array items"],
        );
        check(
            with(json!({"type": "object", "properties": {}, "additionalProperties": {"type": "text"}})),
            &["s.properties[f].additionalProperties.type: Unsupported value: \"text\""],
        );
        check(
            with(json!({"type": "string", "anyOf": [{"type": "string"}, {"pattern": "x"}]})),
            &["s.properties[f].anyOf[0].type: Forbidden: must be empty to be structural"],
        );
        let int_or_string =
            json!({"x-kubernetes-int-or-string": true, "anyOf": [{"type": "integer"}, {"type": "string"}]});
        check(with(int_or_string), &[]);
        check(
            json!({"type": "object", "properties": {"metadata": {"type": "object", "properties": {"labels": {"type": "object"}}}}}),
            &[
                "s.properties[metadata]: Forbidden: must not specify anything other than name and generateName",
            ],
        );
        check(
            with(
                json!({"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}},
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["b"]}),
            ),
            &[
                "s.properties[f].x-kubernetes-list-map-keys: Invalid value: [\"b\"]: entries must all be names of item",
            ],
        );
    }
}
