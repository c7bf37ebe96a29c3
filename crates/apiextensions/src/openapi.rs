//! A version's schema as OpenAPI publishes it. Version 3 shows it as it is; version 2 lacks what its readers cannot take.
//! Follows `pkg/controller/openapi/builder` and `v2.ToStructuralOpenAPIV2`.

use apimachinery::gvk::GroupVersionKind;
use apimachinery::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
const API_VERSION: &str = "The version of the schema that this object is written in: group and version.";
const KIND: &str = "What this object is: the kind, in CamelCase. It cannot be changed.";
const METADATA: &str = "What every object has: its name, labels, owners and bookkeeping.";

/// The definitions of OpenAPI v2 and v3, in this order.
pub fn definitions(schema: &Value, gvk: &GroupVersionKind) -> [Value; 2] {
    let v3 = published(schema.clone(), gvk, "#/components/schemas/");
    let mut v2 = schema.clone();
    simplify(&mut v2);
    [published(v2, gvk, "#/definitions/"), v3]
}

/// With what every object has, and the kind it is the definition of.
fn published(mut schema: Value, gvk: &GroupVersionKind, prefix: &str) -> Value {
    if !schema.is_object() {
        schema = json!({"type": "object"});
    }
    let preserves = schema["x-kubernetes-preserve-unknown-fields"] == true;
    let has_properties = schema["properties"].is_object();
    // Readers of version 2 take an object of which nothing is known only if nothing is said of it.
    if has_properties || !(preserves && prefix == "#/definitions/") {
        if !has_properties {
            schema["properties"] = Value::Object(Map::new());
        }
        let properties = &mut schema["properties"];
        properties["apiVersion"] = json!({"description": API_VERSION, "type": "string"});
        properties["kind"] = json!({"description": KIND, "type": "string"});
        let reference = json!({"$ref": format!("{prefix}{META}")});
        properties["metadata"] = match prefix {
            "#/definitions/" => json!({"$ref": reference["$ref"], "description": METADATA}),
            _ => json!({"allOf": [reference], "description": METADATA}),
        };
    }
    embed(&mut schema, prefix);
    schema["x-kubernetes-group-version-kind"] =
        json!([{"group": gvk.group, "version": gvk.version, "kind": gvk.kind}]);
    schema
}

/// Embedded resources show the fields every object has.
fn embed(schema: &mut Value, prefix: &str) {
    for_each_child(schema, &mut |child| {
        if child["x-kubernetes-embedded-resource"] == true && child["properties"].is_object() {
            child["properties"]["apiVersion"] = json!({"description": API_VERSION, "type": "string"});
            child["properties"]["kind"] = json!({"description": KIND, "type": "string"});
            child["properties"]["metadata"] = json!({"$ref": format!("{prefix}{META}")});
        }
        embed(child, prefix);
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
    for_each_child(schema, &mut simplify);
    let Some(fields) = schema.as_object_mut() else { return };
    for key in ["allOf", "oneOf", "anyOf", "not", "x-kubernetes-validations"] {
        fields.remove(key);
    }
    let is_nullable = fields.remove("nullable").is_some_and(|nullable| nullable == true);
    let preserves =
        fields.get("x-kubernetes-preserve-unknown-fields").is_some_and(|preserve| preserve == true);
    if is_nullable || preserves {
        fields.remove("items");
        fields.remove("properties");
    }
    let ty = fields.get("type").and_then(Value::as_str).unwrap_or_default().to_owned();
    if is_nullable || (ty == "array" && !fields.contains_key("items")) || (preserves && ty == "object") {
        fields.remove("type");
    }
    fields.remove("default");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_2_says_less_than_version_3() {
        let schema = json!({"type": "object", "required": ["spec"], "properties": {"spec": {"type": "object",
            "oneOf": [{}], "properties": {"a": {"type": "string", "nullable": true, "default": "x"},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}});
        let [v2, v3] = definitions(&schema, &GroupVersionKind::new("example.com", "v1", "Foo"));
        assert_eq!(
            v2["properties"]["spec"],
            json!({"type": "object", "properties": {"a": {},
            "free": {"x-kubernetes-preserve-unknown-fields": true}}})
        );
        assert_eq!(v3["properties"]["spec"], schema["properties"]["spec"]);
        assert_eq!(v3["x-kubernetes-group-version-kind"][0]["kind"], "Foo");
        assert_eq!(
            v2["properties"]["metadata"]["$ref"],
            "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
    }
}
