//! What is said of a value that does not fit its field: of one in a text what `encoding/json` says, of one in memory what
//! upstream's `FromUnstructured` says, which takes more numbers as well.

use serde_json::Number;

use crate::quantity;
use crate::schema::{Scalar, Schema, TypeId, TypeKind};

/// What upstream reads an object from, at the same place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Text,
    /// Values that are in memory, such as the result of a strategic merge patch.
    Tree,
}

/// What stands where something else should.
pub enum Found<'n> {
    Bool,
    Number(&'n Number),
    String,
    Array,
    Object,
}

impl Found<'_> {
    /// As `encoding/json` names it, which tells the number only where another was wanted.
    fn in_json(&self, wants_number: bool) -> String {
        match self {
            Found::Bool => "bool".to_owned(),
            Found::Number(number) if wants_number => format!("number {number}"),
            Found::Number(_) => "number".to_owned(),
            Found::String => "string".to_owned(),
            Found::Array => "array".to_owned(),
            Found::Object => "object".to_owned(),
        }
    }

    /// The kind of the Go value.
    fn in_go(&self) -> &'static str {
        match self {
            Found::Bool => "bool",
            Found::Number(number) if number.is_f64() => "float64",
            Found::Number(_) => "int64",
            Found::String => "string",
            Found::Array => "slice",
            Found::Object => "map",
        }
    }
}

impl Scalar {
    /// Whether upstream's type reads itself from JSON (`UnmarshalJSON`): what that refuses ends the reading.
    pub(super) fn has_own_decoder(self) -> bool {
        self == Scalar::Quantity || read_as(self).is_some()
    }
}

/// The type that Go's own decoder of a scalar reads, where the scalar brings one with it.
fn read_as(scalar: Scalar) -> Option<&'static str> {
    match scalar {
        Scalar::Time | Scalar::MicroTime | Scalar::Duration => Some("string"),
        Scalar::IntOrString => Some("int32"),
        _ => None,
    }
}

/// `json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container`.
pub fn wording(schema: &Schema, ty: TypeId, found: &Found<'_>, owner: &str, path: &str) -> String {
    let kind = &schema[ty].kind;
    if matches!(kind, TypeKind::Scalar(Scalar::Quantity)) {
        return quantity::ParseError::Format.to_string();
    }
    let wants_number = matches!(kind, TypeKind::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::IntOrString));
    let own = match kind {
        TypeKind::Scalar(scalar) => read_as(*scalar).map(str::to_owned),
        _ => None,
    };
    let go_type = own.unwrap_or_else(|| go_type(schema, ty));
    let place = if path.is_empty() { "value".to_owned() } else { format!("struct field {owner}.{path}") };
    format!("json: cannot unmarshal {} into Go {place} of type {go_type}", found.in_json(wants_number))
}

/// Why a value in memory does not become one of this type (upstream: `fromUnstructured`).
pub fn misfit_in_tree(schema: &Schema, ty: TypeId, found: &Found<'_>) -> String {
    let from = found.in_go();
    let scalar = match &schema[ty].kind {
        TypeKind::Object(_) => return format!("cannot restore struct from: {from}"),
        TypeKind::Map(_) => return format!("cannot restore map from {from}"),
        TypeKind::List(_) | TypeKind::Scalar(Scalar::Bytes) => {
            return format!("cannot restore slice from {from}");
        }
        TypeKind::Scalar(scalar) if scalar.has_own_decoder() => {
            return wording(schema, ty, found, "", "");
        }
        TypeKind::Scalar(_) | TypeKind::Union(_) | TypeKind::Any => go_type(schema, ty),
    };
    match (from, scalar.as_str()) {
        ("int64", "string") | ("float64", "int32" | "int64") => format!("cannot convert {from} to {scalar}"),
        _ => format!("unrecognized type: {scalar}"),
    }
}

/// A number as a field of this kind takes it from memory: cut to its width, and a whole float as an integer.
pub fn fitted(kind: &TypeKind, number: Number) -> Number {
    /// Whole floats below are exact integers.
    const EXACT_MAX: f64 = 9_007_199_254_740_992.0;
    let TypeKind::Scalar(scalar @ (Scalar::Int32 | Scalar::Int64)) = kind else { return number };
    let whole = |float: f64| (float.trunc() == float && float.abs() <= EXACT_MAX).then_some(float as i64);
    match (number.as_i64().or_else(|| whole(number.as_f64()?)), scalar) {
        (Some(integer), Scalar::Int32) => Number::from(integer as i32),
        (Some(integer), _) => Number::from(integer),
        (None, _) => number,
    }
}

/// Go leaves list positions out of a field's path.
pub fn without_indexes(path: &str) -> String {
    let mut out = String::with_capacity(path.len());
    let mut within = false;
    for c in path.chars() {
        match c {
            '[' => within = true,
            ']' => within = false,
            c if !within => out.push(c),
            _ => {}
        }
    }
    out
}

/// How Go names a type in messages: `[]v1.Container`, `map[string]string`.
fn go_type(schema: &Schema, ty: TypeId) -> String {
    let ty = &schema[ty];
    if !ty.name.is_empty() {
        let mut parts = ty.name.rsplit('.');
        let name = parts.next().unwrap_or_default();
        return format!("{}.{name}", parts.next().unwrap_or_default());
    }
    match &ty.kind {
        TypeKind::List(list) => format!("[]{}", go_type(schema, list.item)),
        TypeKind::Map(map) => format!("map[string]{}", go_type(schema, map.value)),
        TypeKind::Scalar(Scalar::Bytes) => "[]uint8".to_owned(),
        TypeKind::Scalar(Scalar::Bool) => "bool".to_owned(),
        TypeKind::Scalar(Scalar::Int32) => "int32".to_owned(),
        TypeKind::Scalar(Scalar::Int64) => "int64".to_owned(),
        TypeKind::Scalar(Scalar::Double) => "float64".to_owned(),
        TypeKind::Scalar(_) => "string".to_owned(),
        TypeKind::Object(_) | TypeKind::Union(_) | TypeKind::Any => "map[string]interface {}".to_owned(),
    }
}
