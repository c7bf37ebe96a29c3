//! Types as OpenAPI schemas.

use std::collections::BTreeMap;

use crate::{Map, Value, json};

use crate::schema::{Field, ListType, MapType, Object, Presence, Scalar, Schema, Type, TypeId, TypeKind};

/// Which version of OpenAPI is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    V2,
    V3,
}

impl Dialect {
    /// The prefix of references to definitions.
    pub fn definitions(self) -> &'static str {
        match self {
            Dialect::V2 => "#/definitions/",
            Dialect::V3 => "#/components/schemas/",
        }
    }

    pub fn reference(self, name: &str) -> Value {
        json!({"$ref": format!("{}{name}", self.definitions())})
    }
}

/// The named types reachable from those added, by name.
#[derive(Default)]
pub struct Definitions<'a> {
    named: BTreeMap<&'a str, (&'a Schema, TypeId)>,
}

impl<'a> Definitions<'a> {
    /// Adds a type and all it refers to.
    pub fn add(&mut self, schema: &'a Schema, id: TypeId) {
        let ty = &schema[id];
        if !ty.name.is_empty() && self.named.insert(&ty.name, (schema, id)).is_some() {
            return;
        }
        match &ty.kind {
            TypeKind::Object(object) => object.fields.iter().for_each(|f| self.add(schema, f.ty)),
            TypeKind::Map(map) => self.add(schema, map.value),
            TypeKind::List(list) => self.add(schema, list.item),
            // Upstream describes neither side of these.
            TypeKind::Union(_) | TypeKind::Scalar(_) | TypeKind::Any => {}
        }
    }

    pub fn get(&self, name: &str, dialect: Dialect) -> Option<Value> {
        self.named.get(name).map(|(schema, id)| definition(schema, *id, dialect))
    }

    /// Each name with its schema.
    pub fn render(&self, dialect: Dialect) -> impl Iterator<Item = (&'a str, Value)> {
        self.named.iter().map(move |(name, (schema, id))| (*name, definition(schema, *id, dialect)))
    }
}

/// The whole schema of a named type.
pub fn definition(schema: &Schema, id: TypeId, dialect: Dialect) -> Value {
    let ty = &schema[id];
    if let Some([v2, v3]) = ty.published.as_deref() {
        return if dialect == Dialect::V2 { v2.clone() } else { v3.clone() };
    }
    let mut out = match &ty.kind {
        TypeKind::Object(object) => object_schema(schema, object, dialect),
        TypeKind::Scalar(scalar) => scalar_schema(*scalar, dialect),
        TypeKind::Union(_) => json!({}),
        TypeKind::Any if ty.short_name() == "JSON" => json!({}),
        TypeKind::Any => json!({"type": "object"}),
        TypeKind::Map(_) | TypeKind::List(_) => inline(schema, id, dialect),
    };
    if !ty.description.is_empty() {
        out["description"] = json!(ty.description);
    }
    out
}

fn object_schema(schema: &Schema, object: &Object, dialect: Dialect) -> Value {
    let mut out = json!({"type": "object"});
    if !object.fields.is_empty() {
        let properties: Map = object
            .fields
            .iter()
            .map(|f| (f.name.clone().into_owned(), field_schema(schema, f, dialect)))
            .collect();
        out["properties"] = Value::Object(properties);
    }
    let required: Vec<&str> = object.fields.iter().filter(|f| f.required).map(|f| f.name.as_ref()).collect();
    if !required.is_empty() {
        out["required"] = json!(required);
    }
    if object.map_type == MapType::Atomic {
        out["x-kubernetes-map-type"] = json!("atomic");
    }
    if object.preserve_unknown {
        out["x-kubernetes-preserve-unknown-fields"] = json!(true);
    }
    if !object.gvk.is_empty() {
        let kinds =
            object.gvk.iter().map(|k| json!({"group": k.group, "version": k.version, "kind": k.kind}));
        out["x-kubernetes-group-version-kind"] = kinds.collect();
    }
    out
}

fn field_schema(schema: &Schema, field: &Field, dialect: Dialect) -> Value {
    let mut out = inline(schema, field.ty, dialect);
    let default = default(schema, field).filter(|_| dialect == Dialect::V3);
    let has_siblings = default.is_some() || !field.description.is_empty() || field.map_type.is_some();
    if has_siblings && dialect == Dialect::V3 && out.get("$ref").is_some() {
        out = json!({"allOf": [out]});
    }
    if let Some(default) = default {
        out["default"] = default;
    }
    if !field.description.is_empty() {
        out["description"] = json!(field.description);
    }
    if !field.enum_values.is_empty() && dialect == Dialect::V3 {
        let place = if out.get("items").is_some() { &mut out["items"] } else { &mut out };
        place["enum"] = json!(field.enum_values);
    }
    extend_with_merge_rules(field, &mut out);
    out
}

fn extend_with_merge_rules(field: &Field, out: &mut Value) {
    let strategy: Vec<&str> = [("merge", field.patch_merge), ("retainKeys", field.patch_retain_keys)]
        .iter()
        .filter_map(|(name, set)| set.then_some(*name))
        .collect();
    if !strategy.is_empty() {
        out["x-kubernetes-patch-strategy"] = json!(strategy.join(","));
    }
    if let Some(key) = &field.patch_merge_key {
        out["x-kubernetes-patch-merge-key"] = json!(key);
    }
    match field.map_type {
        Some(MapType::Atomic) => out["x-kubernetes-map-type"] = json!("atomic"),
        Some(MapType::Granular) => out["x-kubernetes-map-type"] = json!("granular"),
        None => {}
    }
}

/// What stands for an absent field: its default, or Go's zero value where that is always written.
fn default(schema: &Schema, field: &Field) -> Option<Value> {
    if let Some(default) = &field.default {
        return Some(default.to_value());
    }
    if field.presence != Presence::Always {
        return None;
    }
    match &schema[field.ty].kind {
        TypeKind::Object(_) => Some(json!({})),
        TypeKind::Scalar(Scalar::String) => Some(json!("")),
        TypeKind::Scalar(Scalar::Bool) => Some(json!(false)),
        TypeKind::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double) => Some(json!(0)),
        _ => None,
    }
}

/// The schema of a type where it is used: a reference if it has a name.
pub fn inline(schema: &Schema, id: TypeId, dialect: Dialect) -> Value {
    let Type { name, kind, .. } = &schema[id];
    match kind {
        _ if !name.is_empty() => dialect.reference(name),
        TypeKind::Object(object) => object_schema(schema, object, dialect),
        TypeKind::Scalar(scalar) => scalar_schema(*scalar, dialect),
        TypeKind::Map(map) => {
            let mut out =
                json!({"type": "object", "additionalProperties": inline(schema, map.value, dialect)});
            if map.map_type == MapType::Atomic {
                out["x-kubernetes-map-type"] = json!("atomic");
            }
            out
        }
        TypeKind::List(list) => {
            let mut out = json!({"type": "array", "items": inline(schema, list.item, dialect)});
            match &list.list_type {
                ListType::Atomic => out["x-kubernetes-list-type"] = json!("atomic"),
                ListType::Set => out["x-kubernetes-list-type"] = json!("set"),
                ListType::Map(keys) => {
                    out["x-kubernetes-list-type"] = json!("map");
                    out["x-kubernetes-list-map-keys"] = json!(keys);
                }
            }
            out
        }
        TypeKind::Union(_) | TypeKind::Any => json!({}),
    }
}

fn scalar_schema(scalar: Scalar, dialect: Dialect) -> Value {
    match scalar {
        Scalar::String | Scalar::Duration => json!({"type": "string"}),
        Scalar::Bytes => json!({"type": "string", "format": "byte"}),
        Scalar::Bool => json!({"type": "boolean"}),
        Scalar::Int32 => json!({"type": "integer", "format": "int32"}),
        Scalar::Int64 => json!({"type": "integer", "format": "int64"}),
        Scalar::Double => json!({"type": "number", "format": "double"}),
        Scalar::Time | Scalar::MicroTime => json!({"type": "string", "format": "date-time"}),
        Scalar::Quantity if dialect == Dialect::V3 => {
            json!({"oneOf": [{"type": "string"}, {"type": "number"}]})
        }
        Scalar::Quantity => json!({"type": "string"}),
        Scalar::IntOrString if dialect == Dialect::V3 => {
            json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]})
        }
        Scalar::IntOrString => json!({"type": "string", "format": "int-or-string"}),
    }
}
