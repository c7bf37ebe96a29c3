//! A version's schema as OpenAPI publishes it. Version 3 shows it as it is; version 2 lacks what its readers cannot take.
//! Follows `pkg/controller/openapi/builder` and `v2.ToStructuralOpenAPIV2`.

use apimachinery::gvk::GroupVersionKind;
use apimachinery::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
// The first words are those that upstream's conformance suite looks for.
const API_VERSION: &str =
    "APIVersion defines the schema that this object is written in: a group and a version of it.";
const KIND: &str = "Kind says what this object is, in CamelCase. It cannot be changed.";
const METADATA: &str = "Standard object's metadata: its name, labels, owners and bookkeeping.";
const PRESERVES: &str = "x-kubernetes-preserve-unknown-fields";

#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    V2,
    V3,
}

/// The definitions of OpenAPI v2 and v3, in this order.
pub fn definitions(schema: &Value, gvk: &GroupVersionKind) -> [Value; 2] {
    [Version::V2, Version::V3].map(|version| {
        let mut definition = published(schema, version);
        definition["x-kubernetes-group-version-kind"] =
            json!([{"group": gvk.group, "version": gvk.version, "kind": gvk.kind}]);
        definition
    })
}

/// With what every object has.
fn published(schema: &Value, version: Version) -> Value {
    // Readers of version 2 take an object of which not all is known only if nothing is said of it.
    if !schema.is_object() || (version == Version::V2 && schema[PRESERVES] == true) {
        return json!({"type": "object"});
    }
    let mut schema = schema.clone();
    if version == Version::V2 {
        simplify(&mut schema);
    }
    embed(&mut schema, version);
    set_object_properties(&mut schema, version);
    schema
}

fn set_object_properties(schema: &mut Value, version: Version) {
    if !schema["properties"].is_object() {
        schema["properties"] = Value::Object(Map::new());
    }
    let properties = &mut schema["properties"];
    properties["apiVersion"] = json!({"description": API_VERSION, "type": "string"});
    properties["kind"] = json!({"description": KIND, "type": "string"});
    properties["metadata"] = match version {
        Version::V2 => json!({"$ref": format!("#/definitions/{META}"), "description": METADATA}),
        Version::V3 => {
            json!({"allOf": [{"$ref": format!("#/components/schemas/{META}")}], "description": METADATA})
        }
    };
}

/// Embedded resources show the fields every object has, and must have the first two.
fn embed(schema: &mut Value, version: Version) {
    for_each_child(schema, &mut |child| {
        embed(child, version);
        let is_open = version == Version::V2 && child[PRESERVES] == true;
        if child["x-kubernetes-embedded-resource"] != true || is_open {
            return;
        }
        set_object_properties(child, version);
        let mut required = child["required"].as_array().cloned().unwrap_or_default();
        for name in ["kind", "apiVersion"] {
            if !required.iter().any(|known| known == name) {
                required.push(name.into());
            }
        }
        child["required"] = required.into();
    });
}

fn for_each_child(schema: &mut Value, visit: &mut dyn FnMut(&mut Value)) {
    if let Some(properties) = schema.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(&mut *visit);
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get_mut(key).filter(|child| child.is_object()) {
            visit(child);
        }
    }
}

/// Takes out what readers of version 2 cannot take.
fn simplify(schema: &mut Value) {
    let Some(fields) = schema.as_object_mut() else { return };
    for key in ["allOf", "oneOf", "anyOf", "not"] {
        fields.remove(key);
    }
    let is_nullable = fields.remove("nullable").is_some_and(|nullable| nullable == true);
    let preserves = fields.get(PRESERVES).is_some_and(|preserves| preserves == true);
    if is_nullable || preserves {
        fields.remove("items");
        fields.remove("properties");
    }
    let ty = fields.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if is_nullable || (ty == "array" && !fields.contains_key("items")) || (preserves && ty == "object") {
        fields.remove("type");
    }
    require_nothing_nullable(fields);
    for_each_child(schema, &mut simplify);
}

/// Readers of version 2 do not know null, so what may be null may be absent.
fn require_nothing_nullable(fields: &mut Map) {
    let is_nullable = |schema: &Value| schema["nullable"] == true;
    if fields.get("additionalProperties").is_some_and(is_nullable) {
        fields.remove("required");
    }
    let Some(Value::Array(required)) = fields.get("required") else { return };
    let may_be_null = |name: &Value| {
        let properties = fields.get("properties");
        name.as_str().is_some_and(|name| properties.is_some_and(|all| is_nullable(&all[name])))
    };
    let kept: Vec<Value> = required.iter().filter(|name| !may_be_null(name)).cloned().collect();
    if kept.is_empty() {
        fields.remove("required");
    } else {
        fields.insert("required", kept.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(schema: &Value) -> [Value; 2] {
        definitions(schema, &GroupVersionKind::new("example.com", "v1", "Foo"))
    }

    #[test]
    fn version_2_says_less_than_version_3() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object",
            "required": ["a", "free"], "oneOf": [{}],
            "properties": {"a": {"type": "string", "nullable": true, "default": "x"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}});
        let [v2, v3] = both(&schema);
        assert_eq!(
            v2["properties"]["spec"],
            json!({"type": "object", "required": ["free"], "properties": {"a": {"default": "x"},
            "free": {"x-kubernetes-preserve-unknown-fields": true}}})
        );
        assert_eq!(v3["properties"]["spec"], schema["properties"]["spec"]);
        assert_eq!(v3["x-kubernetes-group-version-kind"][0]["kind"], "Foo");
        assert_eq!(
            v2["properties"]["metadata"]["$ref"],
            "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
    }

    #[test]
    fn of_an_object_that_keeps_unknown_fields_version_2_says_nothing() {
        let schema = json!({"type": "object", "description": "d", "x-kubernetes-preserve-unknown-fields": true,
            "properties": {"spec": {"type": "object"}}});
        let [v2, v3] = both(&schema);
        let gvk = json!([{"group": "example.com", "version": "v1", "kind": "Foo"}]);
        assert_eq!(v2, json!({"type": "object", "x-kubernetes-group-version-kind": gvk}));
        assert_eq!(
            (&v3["description"], &v3["properties"]["spec"]),
            (&json!("d"), &json!({"type": "object"}))
        );
        assert_eq!(v3["properties"]["kind"]["type"], "string");
    }

    #[test]
    fn embedded_resources_have_what_every_object_has() {
        let schema = json!({"type": "object", "properties": {
            "closed": {"type": "object", "x-kubernetes-embedded-resource": true, "required": ["kind"]},
            "open": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true}}});
        let [v2, v3] = both(&schema);
        assert_eq!(v2["properties"]["closed"]["required"], json!(["kind", "apiVersion"]));
        assert!(v2["properties"]["open"]["properties"].is_null());
        assert_eq!(v3["properties"]["open"]["properties"]["apiVersion"]["type"], "string");
    }
}
