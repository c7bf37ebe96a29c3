//! A structural schema as the schema engine's types, for what works on those: managed fields, server-side apply, and the
//! paths of OpenAPI. Follows `managedfields.NewTypeConverter` over a definition's OpenAPI.

use std::collections::HashMap;

use apimachinery::Value;
use apimachinery::gvk::GroupVersionKind;
use apimachinery::schema::{
    Field, List, ListType, Literal, Map, MapType, Object, Presence, Scalar, Schema, Type, TypeId, TypeKind,
};

use crate::structural::{self, Structural};

/// What the subresource `scale` shows.
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";

/// The types of one version of a custom kind.
#[derive(Debug)]
pub struct Typed {
    pub schema: Schema,
    pub root: TypeId,
    pub list: TypeId,
}

/// What a version is called in documents: `com.example.v1.Foo`.
pub fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let reversed: Vec<&str> = group.split('.').rev().collect();
    format!("{}.{version}.{kind}", reversed.join("."))
}

impl Typed {
    /// `base` has the types of metadata, which are copied.
    pub fn new(
        name: &str,
        gvk: &GroupVersionKind,
        list_kind: &str,
        schema: &Structural,
        base: &Schema,
    ) -> Typed {
        let mut types = Types { base, types: Vec::new(), copied: HashMap::new() };
        let root = types.root(name, gvk, schema);
        let list = types.list(&format!("{name}List"), gvk, list_kind, root);
        Typed { schema: Schema::new(types.types), root, list }
    }

    /// Types for documents: `definitions` are what OpenAPI v2 and v3 show for the kind.
    pub fn published(
        name: &str,
        gvk: &GroupVersionKind,
        list_kind: &str,
        definitions: [Value; 2],
        base: &Schema,
    ) -> Typed {
        let mut types = Types { base, types: Vec::new(), copied: HashMap::new() };
        let root = types.root(name, gvk, &Structural::default());
        types.types[root.index()].published = Some(Box::new(definitions));
        if let Some(scale) = base.lookup(SCALE) {
            types.copy(scale);
        }
        let list = types.list(&format!("{name}List"), gvk, list_kind, root);
        Typed { schema: Schema::new(types.types), root, list }
    }
}

struct Types<'b> {
    base: &'b Schema,
    types: Vec<Type>,
    copied: HashMap<TypeId, TypeId>,
}

impl Types<'_> {
    fn push(&mut self, kind: TypeKind) -> TypeId {
        let id = TypeId(
            u32::try_from(self.types.len()).expect("a schema has fewer nodes than a request has bytes"),
        );
        self.types.push(Type { kind, ..Type::default() });
        id
    }

    fn root(&mut self, name: &str, gvk: &GroupVersionKind, schema: &Structural) -> TypeId {
        let mut fields = self.fields(schema);
        fields.retain(|field| !matches!(&*field.name, "apiVersion" | "kind" | "metadata"));
        fields.extend(self.type_meta());
        let metadata = self.meta("ObjectMeta");
        fields.push(Field { presence: Presence::OmitEmpty, ..field("metadata", metadata) });
        let object = Object {
            fields,
            map_type: MapType::Granular,
            preserve_unknown: schema.preserve_unknown,
            gvk: vec![gvk.clone()],
            ..Object::default()
        };
        let root = self.push(TypeKind::Object(object));
        self.types[root.index()].name = name.to_owned().into();
        root
    }

    fn list(&mut self, name: &str, gvk: &GroupVersionKind, list_kind: &str, item: TypeId) -> TypeId {
        let items = self.push(TypeKind::List(List { item, ..List::default() }));
        let metadata = self.meta("ListMeta");
        let mut fields = self.type_meta();
        fields.push(Field { required: true, ..field("items", items) });
        fields.push(field("metadata", metadata));
        let gvk = GroupVersionKind::new(&gvk.group, &gvk.version, list_kind);
        let list = self.push(TypeKind::Object(Object { fields, gvk: vec![gvk], ..Object::default() }));
        self.types[list.index()].name = name.to_owned().into();
        list
    }

    fn type_meta(&mut self) -> Vec<Field> {
        let text = self.push(TypeKind::Scalar(Scalar::String));
        vec![field("apiVersion", text), field("kind", text)]
    }

    fn meta(&mut self, name: &str) -> TypeId {
        let id =
            self.base.lookup(&format!("{META}.{name}")).expect("the base schema has the types of metadata");
        self.copy(id)
    }

    /// A type of the base with all it refers to.
    fn copy(&mut self, id: TypeId) -> TypeId {
        if let Some(known) = self.copied.get(&id) {
            return *known;
        }
        let place = self.push(TypeKind::Any);
        self.copied.insert(id, place);
        let mut ty = self.base[id].clone();
        match &mut ty.kind {
            TypeKind::Object(object) => {
                object.fields.iter_mut().for_each(|field| field.ty = self.copy(field.ty))
            }
            TypeKind::Map(map) => map.value = self.copy(map.value),
            TypeKind::List(list) => list.item = self.copy(list.item),
            TypeKind::Union(union) => {
                union.object = self.copy(union.object);
                union.other = self.copy(union.other);
            }
            TypeKind::Scalar(_) | TypeKind::Any => {}
        }
        self.types[place.index()] = ty;
        place
    }

    fn fields(&mut self, schema: &Structural) -> Vec<Field> {
        let known = schema.properties.iter();
        known
            .map(|(name, property)| Field {
                default: property.default.as_ref().map(|value| Literal::Json(value.clone())),
                ..field(name, self.node(property))
            })
            .collect()
    }

    fn node(&mut self, schema: &Structural) -> TypeId {
        let kind = match schema.ty {
            _ if schema.int_or_string => TypeKind::Scalar(Scalar::IntOrString),
            structural::Type::String => TypeKind::Scalar(Scalar::String),
            structural::Type::Integer => TypeKind::Scalar(Scalar::Int64),
            structural::Type::Number => TypeKind::Scalar(Scalar::Double),
            structural::Type::Boolean => TypeKind::Scalar(Scalar::Bool),
            structural::Type::Array => self.array(schema),
            structural::Type::Object => self.object(schema),
            structural::Type::Any => TypeKind::Any,
        };
        self.push(kind)
    }

    fn array(&mut self, schema: &Structural) -> TypeKind {
        let list_type = match &schema.list {
            structural::ListType::Atomic => ListType::Atomic,
            structural::ListType::Set => ListType::Set,
            structural::ListType::Map(keys) => {
                ListType::Map(keys.iter().map(|key| key.to_string().into()).collect())
            }
        };
        let item = match &schema.items {
            Some(item) => self.node(item),
            None => self.push(TypeKind::Any),
        };
        TypeKind::List(List { item, list_type, wrapped: false })
    }

    fn object(&mut self, schema: &Structural) -> TypeKind {
        let map_type = if schema.atomic_map { MapType::Atomic } else { MapType::Granular };
        if let (Some(additional), true) = (schema.additional.schema(), schema.properties.is_empty()) {
            return TypeKind::Map(Map { value: self.node(additional), map_type });
        }
        let mut fields = self.fields(schema);
        if schema.embedded {
            fields.retain(|field| !matches!(&*field.name, "apiVersion" | "kind" | "metadata"));
            fields.extend(self.type_meta());
            let metadata = self.meta("ObjectMeta");
            fields.push(field("metadata", metadata));
        }
        let preserve_unknown =
            schema.preserve_unknown || !matches!(schema.additional, structural::Additional::Unsaid);
        TypeKind::Object(Object { fields, map_type, preserve_unknown, ..Object::default() })
    }
}

/// A custom resource's field is there or not; nothing is implied.
fn field(name: &str, ty: TypeId) -> Field {
    Field { name: name.to_owned().into(), ty, presence: Presence::Pointer, ..Field::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn base() -> Schema {
        let meta = |name: &str| Type {
            name: format!("{META}.{name}").into(),
            kind: TypeKind::Object(Object::default()),
            ..Type::default()
        };
        Schema::new(vec![meta("ObjectMeta"), meta("ListMeta")])
    }

    #[test]
    fn lists_and_maps_keep_what_tells_their_parts_apart() {
        let schema = Structural::parse(
            &json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
                "items": {"type": "object", "properties": {"port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}}}},
            "labels": {"type": "object", "additionalProperties": {"type": "string"}}}}}}),
        );
        let gvk = GroupVersionKind::new("example.com", "v1", "Foo");
        let typed =
            Typed::new(&definition_name("example.com", "v1", "Foo"), &gvk, "FooList", &schema, &base());
        assert_eq!(typed.schema.lookup("com.example.v1.Foo"), Some(typed.root));
        let spec = typed.schema.child(typed.root, "spec").expect("is a field");
        let ports = typed.schema.child(spec, "ports").expect("is a field");
        let TypeKind::List(list) = &typed.schema[ports].kind else { panic!("is a list") };
        assert_eq!(list.list_type, ListType::Map(vec!["port".into()]));
        let protocol = typed.schema.field(list.item, "protocol").expect("is a field");
        assert_eq!(protocol.default.as_ref().map(Literal::to_value), Some(json!("TCP")));
        assert!(matches!(
            typed.schema[typed.schema.child(spec, "labels").expect("is a field")].kind,
            TypeKind::Map(_)
        ));
    }
}
