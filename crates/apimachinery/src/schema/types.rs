//! The vocabulary of a schema: types, fields and their merge semantics, named as Kubernetes' markers name them.

use std::borrow::Cow;

use super::slot::{Head, Heads};
use crate::Value;
use crate::gvk::GroupVersionKind;

/// A name or description: part of the binary for built-in kinds, owned for custom ones.
pub type Text = Cow<'static, str>;

/// A type's place in its `Schema`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TypeId(pub u32);

impl TypeId {
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

#[derive(Clone, Debug, Default)]
pub struct Type {
    /// The OpenAPI definition name, for example `io.k8s.api.core.v1.Pod`; empty for an anonymous type.
    pub name: Text,
    pub description: Text,
    pub kind: TypeKind,
    /// How OpenAPI v2 and v3 describe it, where they do not follow from the type: a custom kind's own words.
    pub published: Option<Box<[Value; 2]>>,
}

impl Type {
    pub fn object(&self) -> Option<&Object> {
        match &self.kind {
            TypeKind::Object(object) => Some(object),
            _ => None,
        }
    }

    /// The last part of the name: `Pod`.
    pub fn short_name(&self) -> &str {
        self.name.rsplit('.').next().unwrap_or_default()
    }
}

#[derive(Clone, Debug, Default)]
pub enum TypeKind {
    Object(Object),
    /// Arbitrary string keys, values of one type.
    Map(Map),
    List(List),
    Scalar(Scalar),
    /// A JSON object of one type, or else a value of another: `JSONSchemaPropsOrBool` and its like. Merges as a whole.
    Union(Union),
    /// Any JSON, taken as it comes: RawExtension, FieldsV1, JSON.
    #[default]
    Any,
}

#[derive(Clone, Debug, Default)]
pub struct Object {
    /// In the order of their names.
    pub fields: Vec<Field>,
    pub map_type: MapType,
    /// Fields the schema does not name are kept, not pruned.
    pub preserve_unknown: bool,
    /// The kinds this type is the body of; empty for all but top-level types.
    pub gvk: Vec<GroupVersionKind>,
    pub heads: Heads,
    /// The structs embedded in upstream's Go type; empty for most.
    pub embedded: Vec<Embedded>,
}

/// A struct whose fields stand inline in JSON, and which has neither a name there.
#[derive(Clone, Debug)]
pub struct Embedded {
    /// As its fields have it.
    pub wrap: [u8; 2],
    /// Its name in Go, after those of the structs around it: `RuleWithOperations.Rule`.
    pub name: Text,
}

impl Object {
    /// The name in Go of the struct that holds a field of this object; none where it is the object's own.
    pub fn embedded(&self, field: &Field) -> Option<&str> {
        let embedded = self.embedded.iter().find(|embedded| embedded.wrap == field.wrap)?;
        Some(&embedded.name)
    }

    pub fn field(&self, name: &str) -> Option<&Field> {
        self.position(name).map(|at| &self.fields[at])
    }

    /// The place of the field `name`.
    pub fn position(&self, name: &str) -> Option<usize> {
        let names = self.fields.iter().map(|field| field.name.as_bytes());
        let mut alike = self.heads.places(names, Head::of(name.as_bytes()));
        alike.find(|at| *self.fields[*at].name == *name)
    }
}

#[derive(Clone, Copy, Debug, Default)]
pub struct Map {
    pub value: TypeId,
    pub map_type: MapType,
}

#[derive(Clone, Debug, Default)]
pub struct List {
    pub item: TypeId,
    pub list_type: ListType,
    /// In protobuf the list is field 1 of a message of its own (authentication's `ExtraValue`).
    pub wrapped: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Union {
    /// The type when the JSON value is an object, and its protobuf tag.
    pub object: TypeId,
    pub object_tag: u32,
    /// The type otherwise, and its protobuf tag.
    pub other: TypeId,
    pub other_tag: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar {
    String,
    /// Base64 in JSON.
    Bytes,
    Bool,
    Int32,
    Int64,
    Double,
    Quantity,
    IntOrString,
    /// Whole seconds in UTC.
    Time,
    /// Microseconds in UTC.
    MicroTime,
    /// Go's textual duration, such as `1m30s`.
    Duration,
}

/// Who may own the parts of an object or map in server-side apply.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MapType {
    #[default]
    Granular,
    Atomic,
}

/// How a list's items are told apart in server-side apply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ListType {
    #[default]
    Atomic,
    Set,
    /// By the values of these fields of an item.
    Map(Vec<Text>),
}

/// When Go's encoder writes a field, which is what decides whether an empty value differs from none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// Not when it is the zero value (`omitempty` on a value).
    #[default]
    OmitEmpty,
    /// Whenever it is set, the zero value included (a pointer).
    Pointer,
    /// Always (no `omitempty`).
    Always,
}

#[derive(Clone, Debug, Default)]
pub struct Field {
    pub name: Text,
    pub description: Text,
    pub ty: TypeId,
    /// The protobuf field number; 0 when the field is not in the message (`kind` and `apiVersion`).
    pub tag: u32,
    /// Field numbers of the embedded messages that hold this field in protobuf while JSON has it inline; 0 for none.
    pub wrap: [u8; 2],
    pub required: bool,
    /// Of a feature that is off: it is known, and what is given for it is not kept (upstream: `dropDisabledFields`).
    pub off: bool,
    pub presence: Presence,
    pub default: Option<Literal>,
    /// Overrides the type's own.
    pub map_type: Option<MapType>,
    /// `patchStrategy=merge`.
    pub patch_merge: bool,
    /// `patchStrategy=retainKeys`.
    pub patch_retain_keys: bool,
    pub patch_merge_key: Option<Text>,
    /// The values allowed; empty for no restriction.
    pub enum_values: Vec<Text>,
}

/// A constant JSON value, held without allocation where the table is static.
#[derive(Clone, Debug, PartialEq)]
pub enum Literal {
    Bool(bool),
    Int(i64),
    String(Text),
    EmptyObject,
    Json(Box<Value>),
}

impl Literal {
    pub fn to_value(&self) -> Value {
        match self {
            Literal::Bool(b) => Value::Bool(*b),
            Literal::Int(n) => Value::from(*n),
            Literal::String(s) => Value::from(s.as_ref()),
            Literal::EmptyObject => Value::Object(crate::Map::new()),
            Literal::Json(value) => value.as_ref().clone(),
        }
    }
}
