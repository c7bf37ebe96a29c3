//! A value seen through its schema: which parts are owned one by one, and how list items are told apart.

use std::sync::LazyLock;

use super::element::{Path, PathElement, Scalar};
use super::set::Set;
use crate::patch::shown::{go_literal, go_type, go_value};
use crate::schema::{self, Field, ListType, MapType, Object, Presence, Schema, TypeId, TypeKind};
use crate::{Map, Text, Value};

/// What is said of a field that the schema does not have.
const NOT_DECLARED: &str = "field not declared in schema";

/// A type as one place uses it.
#[derive(Clone, Copy, Debug)]
pub(super) enum TypeRef {
    /// A type of the schema; the place may say otherwise about being atomic.
    Known { id: TypeId, map_type: Option<MapType> },
    /// Not in the schema: objects are granular, everything else is atomic.
    Deduced,
}

/// How a value is taken apart.
#[derive(Clone, Copy, Debug)]
pub(super) enum Shape<'s> {
    /// As a whole.
    Leaf,
    /// By the fields of an object type.
    Struct(&'s Object),
    /// By keys, all values of one type.
    Map(TypeRef),
    /// By items that are told apart by these keys, or by their value when there are none.
    List { keys: &'s [schema::Text], item: TypeRef },
}

/// The object that an absent struct stands for.
pub(super) static EMPTY_OBJECT: LazyLock<Value> = LazyLock::new(|| Value::Object(Map::new()));

/// Walks values along a schema.
#[derive(Clone, Copy)]
pub(super) struct Typed<'s> {
    pub schema: &'s Schema,
}

impl<'s> Typed<'s> {
    /// The shape of a value of this type. A value that does not fit its type is a leaf.
    pub fn shape(&self, ty: TypeRef, value: &Value) -> Shape<'s> {
        let TypeRef::Known { id, map_type } = ty else {
            return if value.is_object() { Shape::Map(TypeRef::Deduced) } else { Shape::Leaf };
        };
        let is_map = value.is_object() || value.is_null();
        let is_granular = |own: MapType| map_type.unwrap_or(own) == MapType::Granular;
        match &self.schema.get(id).kind {
            TypeKind::Object(object) if is_map && is_granular(object.map_type) => Shape::Struct(object),
            TypeKind::Map(map) if is_map && is_granular(map.map_type) => {
                Shape::Map(TypeRef::Known { id: map.value, map_type: None })
            }
            TypeKind::List(list) if value.is_array() || value.is_null() => {
                let item = TypeRef::Known { id: list.item, map_type: None };
                match &list.list_type {
                    ListType::Atomic => Shape::Leaf,
                    ListType::Set => Shape::List { keys: &[], item },
                    ListType::Map(keys) => Shape::List { keys, item },
                }
            }
            _ => Shape::Leaf,
        }
    }

    /// The shape in which both values can be taken apart together.
    pub fn shared_shape(&self, ty: TypeRef, a: Option<&Value>, b: Option<&Value>) -> Shape<'s> {
        match (a, b) {
            (Some(a), Some(b)) => match (self.shape(ty, a), self.shape(ty, b)) {
                (_, Shape::Leaf) | (Shape::Leaf, _) => Shape::Leaf,
                (_, shape) => shape,
            },
            (one, other) => one.or(other).map_or(Shape::Leaf, |value| self.shape(ty, value)),
        }
    }

    /// What identifies an item of a granular list; none when it has nothing that could.
    pub fn item_element(&self, keys: &[schema::Text], item: TypeRef, value: &Value) -> Option<PathElement> {
        if keys.is_empty() {
            return Scalar::from_value(value)
                .filter(|scalar| *scalar != Scalar::Null)
                .map(PathElement::Value);
        }
        let object = value.as_object()?;
        let mut fields: Vec<(Text, Scalar)> = Vec::with_capacity(keys.len());
        for key in keys {
            let given = object.get(key.as_ref()).and_then(Scalar::from_value);
            if let Some(scalar) = given.or_else(|| self.key_default(item, key)) {
                fields.push((key.as_ref().into(), scalar));
            }
        }
        fields.sort_unstable();
        (!fields.is_empty()).then_some(PathElement::Key(fields))
    }

    /// What a key holds that is not given: its default, or the zero value where that is always written.
    fn key_default(&self, item: TypeRef, key: &str) -> Option<Scalar> {
        let TypeRef::Known { id, .. } = item else { return None };
        let field = self.schema.field(id, key)?;
        let zero = match &self.schema.get(field.ty).kind {
            TypeKind::Scalar(schema::Scalar::String) => Value::from(""),
            TypeKind::Scalar(schema::Scalar::Int32 | schema::Scalar::Int64) => Value::from(0),
            _ => Value::Null,
        };
        let implied = (field.presence == Presence::Always && !zero.is_null()).then_some(zero);
        Scalar::from_value(&field.default.as_ref().map(|default| default.to_value()).or(implied)?)
    }

    /// Whether absence of this field means the empty struct: Go's structs are always there, pointers to them are not.
    pub fn is_implied(&self, field: &Field) -> bool {
        field.presence != Presence::Pointer && self.schema.get(field.ty).object().is_some()
    }

    /// What Go has in a field that is absent: the empty struct, or nil in a list that is always written.
    pub fn implied(&self, field: &Field) -> Option<&'static Value> {
        let is_list = matches!(self.schema[field.ty].kind, TypeKind::List(_));
        match field.presence {
            Presence::Always if is_list => Some(&Value::Null),
            _ => self.is_implied(field).then_some(&*EMPTY_OBJECT),
        }
    }

    /// The fields of a value and, recursively, of its parts (upstream: TypedValue.ToFieldSet).
    pub fn field_set(&self, ty: TypeRef, value: &Value) -> Set {
        self.field_node(ty, value).1
    }

    /// Whether the value itself is a field to own, and the fields below it.
    fn field_node(&self, ty: TypeRef, value: &Value) -> (bool, Set) {
        let shape = self.shape(ty, value);
        let mut below = Set::default();
        match (shape, value) {
            (Shape::Leaf, _) => return (true, below),
            (Shape::Struct(_) | Shape::Map(_), Value::Object(fields)) => {
                for (key, value) in fields {
                    let (own, children) = self.field_node(shape.child(key), value);
                    let is_empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                    let own = own || is_empty || !shape.is_field(key);
                    below.push(PathElement::field(key), own, children);
                }
            }
            (Shape::List { keys, item }, Value::Array(items)) => {
                for value in items {
                    if let Some(element) = self.item_element(keys, item, value) {
                        below.push(element, true, self.field_node(item, value).1);
                    }
                }
            }
            _ => {}
        }
        (false, below)
    }

    /// What keeps an applied configuration from being merged, one message per place, in upstream's words.
    pub fn complaints(&self, ty: TypeRef, value: &Value) -> Vec<String> {
        let mut complaints = Vec::new();
        self.complain(ty, value, &mut Path::default(), &mut complaints);
        complaints
    }

    fn complain(&self, ty: TypeRef, value: &Value, path: &mut Path, complaints: &mut Vec<String>) {
        let shape = self.shape(ty, value);
        match (shape, value) {
            (Shape::Leaf, _) => {
                if let Some(complaint) = self.mismatch(ty, value) {
                    complaints.push(format!("{path}: {complaint}"));
                }
            }
            (Shape::Struct(_) | Shape::Map(_), Value::Object(fields)) => {
                for (key, value) in fields {
                    path.0.push(PathElement::field(key));
                    if matches!(shape, Shape::Struct(object) if !object.preserve_unknown && object.field(key).is_none())
                    {
                        complaints.push(format!("{path}: {NOT_DECLARED}"));
                    } else {
                        self.complain(shape.child(key), value, path, complaints);
                    }
                    path.0.pop();
                }
            }
            (Shape::List { keys, item }, Value::Array(items)) => {
                self.complain_of_items(keys, item, items, path, complaints);
            }
            _ => {}
        }
    }

    fn complain_of_items(
        &self,
        keys: &[schema::Text],
        item: TypeRef,
        items: &[Value],
        path: &mut Path,
        complaints: &mut Vec<String>,
    ) {
        let mut seen = Set::default();
        for (index, value) in items.iter().enumerate() {
            let Some(element) = self.item_element(keys, item, value) else {
                complaints.push(format!("{path}: element {index}: {}", unidentified(keys, value)));
                return;
            };
            if seen.get(&element).is_some() {
                complaints.push(format!("{path}: duplicate entries for key {element}"));
            }
            seen.push(element.clone(), true, Set::default());
            path.0.push(element);
            self.complain(item, value, path, complaints);
            path.0.pop();
        }
    }

    /// Why this value cannot be of its type.
    fn mismatch(&self, ty: TypeRef, value: &Value) -> Option<String> {
        use schema::Scalar as Type;
        let TypeRef::Known { id, .. } = ty else { return None };
        let is_scalar = !value.is_object() && !value.is_array();
        let (fits, expected) = match &self.schema.get(id).kind {
            TypeKind::Object(_) | TypeKind::Map(_) => (value.is_object(), "map"),
            TypeKind::List(_) => (value.is_array(), "list"),
            TypeKind::Scalar(Type::Bool) => (value.is_boolean(), "boolean"),
            TypeKind::Scalar(Type::Int32 | Type::Int64 | Type::Double) => (value.is_number(), NUMERIC),
            TypeKind::Scalar(Type::Quantity | Type::IntOrString) => (is_scalar, "any scalar"),
            TypeKind::Scalar(_) => (value.is_string(), STRING),
            TypeKind::Union(_) | TypeKind::Any => (true, ""),
        };
        if fits || value.is_null() {
            return None;
        }
        // Each shows what it found in its own way.
        let got = match expected {
            NUMERIC => go_type(value).to_owned(),
            STRING => format!("&value.valueUnstructured{{Value:{}}}", go_literal(value)),
            _ => format!("&{{{}}}", go_value(value)),
        };
        Some(format!("expected {expected}, got {got}"))
    }
}

const NUMERIC: &str = "numeric (int or float)";
const STRING: &str = "string";

fn unidentified(keys: &[schema::Text], value: &Value) -> String {
    match value {
        _ if !keys.is_empty() && value.is_null() => {
            "associative list with keys may not have a null element".to_owned()
        }
        _ if !keys.is_empty() && !value.is_object() => {
            "associative list with keys may not have non-map elements".to_owned()
        }
        Value::Object(_) if !keys.is_empty() => {
            let quoted: Vec<String> = keys.iter().map(|key| format!("{key:?}")).collect();
            format!(
                "associative list with keys has an element that omits all key fields [{}] (and doesn't have default values for any key fields)",
                quoted.join(" ")
            )
        }
        Value::Object(_) => "associative list without keys has an element that's a map type".to_owned(),
        Value::Array(_) => "not supported: associative list with lists as elements".to_owned(),
        _ => "associative list without keys has an element that's an explicit null".to_owned(),
    }
}

impl Shape<'_> {
    /// The type of what stands under a key of an object of this shape.
    pub fn child(&self, key: &str) -> TypeRef {
        match self {
            Shape::Struct(object) => object
                .field(key)
                .map_or(TypeRef::Deduced, |field| TypeRef::Known { id: field.ty, map_type: field.map_type }),
            Shape::Map(value) => *value,
            Shape::Leaf | Shape::List { .. } => TypeRef::Deduced,
        }
    }

    /// Whether the key names a field that the schema declares.
    fn is_field(&self, key: &str) -> bool {
        matches!(self, Shape::Struct(object) if object.field(key).is_some())
    }
}
