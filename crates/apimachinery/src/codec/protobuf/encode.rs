//! From values to messages. What the value does not have is not written: for Go's decoder an absent field and one
//! with the zero value are the same unless it is a pointer, and then absence is what is meant.

use serde_json::Value;

use super::wire::Writer;
use super::{Error, RAW};
use crate::codec::{DEPTH_MAX, scalar};
use crate::schema::{Field, Object, Scalar, Schema, TypeId, TypeKind};
use crate::time::parse_time;

/// Writes the fields of an object, or whatever else travels as a message.
pub fn message(schema: &Schema, ty: TypeId, value: &Value, out: &mut Writer) -> Result<(), Error> {
    Encoder { schema, depth: 0 }.message(ty, value, out)
}

#[derive(Clone, Copy)]
struct Encoder<'a> {
    schema: &'a Schema,
    depth: usize,
}

/// What stands under a tag once embedded messages are taken apart.
type Part<'v> = (&'v Field, &'v Value);

fn unfit(value: &Value, wanted: &str) -> Error {
    let found = match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Error::Type(format!("proto: cannot encode {found} as {wanted}"))
}

impl Encoder<'_> {
    fn deeper(self) -> Result<Self, Error> {
        if self.depth >= DEPTH_MAX {
            return Err(Error::Type("exceeded max depth".into()));
        }
        Ok(Encoder { depth: self.depth + 1, ..self })
    }

    fn message(self, ty: TypeId, value: &Value, out: &mut Writer) -> Result<(), Error> {
        match &self.schema[ty].kind {
            TypeKind::Object(object) => self.object(object, value, out),
            TypeKind::Union(union) => {
                let (ty, tag) = match value {
                    Value::Object(_) => (union.object, union.object_tag),
                    _ => (union.other, union.other_tag),
                };
                self.field(ty, tag, value, out)
            }
            TypeKind::List(list) => self.list(list.item, RAW, value, out),
            TypeKind::Any => {
                out.bytes(RAW, &serde_json::to_vec(value).map_err(|e| Error::Syntax(e.to_string()))?);
                Ok(())
            }
            TypeKind::Scalar(scalar) => scalar_message(*scalar, value, out),
            TypeKind::Map(_) => Err(unfit(value, "a message")),
        }
    }

    fn object(self, object: &Object, value: &Value, out: &mut Writer) -> Result<(), Error> {
        let map = value.as_object().ok_or_else(|| unfit(value, "a message"))?;
        let known = map.iter().filter_map(|(key, value)| Some((object.field(key)?, value)));
        let mut parts: Vec<Part<'_>> = known.filter(|(f, value)| f.tag != 0 && !value.is_null()).collect();
        parts.sort_by_key(|(field, _)| tags(field));
        self.deeper()?.parts(&parts, 0, out)
    }

    /// Writes parts whose tags agree up to `level`, those of one embedded message together.
    fn parts(self, parts: &[Part<'_>], level: usize, out: &mut Writer) -> Result<(), Error> {
        for group in parts.chunk_by(|a, b| tags(a.0)[level] == tags(b.0)[level] && is_embedded(a.0, level)) {
            let (field, value) = group[0];
            if is_embedded(field, level) {
                out.try_message(tags(field)[level], |inner| self.parts(group, level + 1, inner))?;
            } else {
                self.field(field.ty, field.tag, value, out)?;
            }
        }
        Ok(())
    }

    fn field(self, ty: TypeId, tag: u32, value: &Value, out: &mut Writer) -> Result<(), Error> {
        match &self.schema[ty].kind {
            TypeKind::List(list) if !list.wrapped => self.list(list.item, tag, value, out),
            TypeKind::Map(map) => self.map(map.value, tag, value, out),
            TypeKind::Scalar(scalar) if !is_message(*scalar) => plain_scalar(*scalar, tag, value, out),
            _ => out.try_message(tag, |inner| self.message(ty, value, inner)),
        }
    }

    fn list(self, item: TypeId, tag: u32, value: &Value, out: &mut Writer) -> Result<(), Error> {
        let items = value.as_array().ok_or_else(|| unfit(value, "a list"))?;
        items.iter().try_for_each(|value| self.field(item, tag, value, out))
    }

    fn map(self, value_type: TypeId, tag: u32, value: &Value, out: &mut Writer) -> Result<(), Error> {
        let map = value.as_object().ok_or_else(|| unfit(value, "a map"))?;
        map.iter().try_for_each(|(key, value)| {
            out.try_message(tag, |entry| {
                entry.text(1, key);
                self.field(value_type, 2, value, entry)
            })
        })
    }
}

/// The tags that lead to a field, outermost first; 0 fills up.
fn tags(field: &Field) -> [u32; 3] {
    match field.wrap {
        [0, 0] => [field.tag, 0, 0],
        [outer, 0] => [outer.into(), field.tag, 0],
        [outer, inner] => [outer.into(), inner.into(), field.tag],
    }
}

fn is_embedded(field: &Field, level: usize) -> bool {
    field.wrap.get(level).is_some_and(|tag| *tag != 0)
}

/// The scalars that travel as messages of their own.
pub fn is_message(scalar: Scalar) -> bool {
    matches!(
        scalar,
        Scalar::Quantity | Scalar::IntOrString | Scalar::Time | Scalar::MicroTime | Scalar::Duration
    )
}

fn plain_scalar(scalar: Scalar, tag: u32, value: &Value, out: &mut Writer) -> Result<(), Error> {
    let text = || value.as_str().ok_or_else(|| unfit(value, "a string"));
    match scalar {
        Scalar::String => out.text(tag, text()?),
        Scalar::Bytes => {
            let bytes = scalar::bytes_from_base64(text()?).ok_or_else(|| unfit(value, "base64"))?;
            out.bytes(tag, &bytes);
        }
        Scalar::Bool => out.varint(tag, u64::from(value.as_bool().ok_or_else(|| unfit(value, "a bool"))?)),
        Scalar::Double => out.double(tag, value.as_f64().ok_or_else(|| unfit(value, "a number"))?),
        _ => out.varint(tag, value.as_i64().ok_or_else(|| unfit(value, "an integer"))? as u64),
    }
    Ok(())
}

/// Field numbers: Quantity {string 1}, Time {seconds 1, nanos 2}, IntOrString {type 1, intVal 2, strVal 3},
/// Duration {nanoseconds 1}.
fn scalar_message(scalar: Scalar, value: &Value, out: &mut Writer) -> Result<(), Error> {
    let text = || value.as_str().ok_or_else(|| unfit(value, "a string"));
    match scalar {
        Scalar::Time | Scalar::MicroTime => {
            let at = parse_time(text()?).ok_or_else(|| unfit(value, "a time"))?;
            let nanos = at.as_nanosecond().rem_euclid(1_000_000_000);
            let seconds = at.as_nanosecond().div_euclid(1_000_000_000);
            out.varint(1, seconds as u64);
            out.varint(2, nanos as u64);
        }
        Scalar::IntOrString => match value {
            Value::String(text) => {
                out.varint(1, 1);
                out.varint(2, 0);
                out.text(3, text);
            }
            _ => {
                let number = value.as_i64().ok_or_else(|| unfit(value, "an integer or string"))?;
                out.varint(1, 0);
                out.varint(2, number as u64);
                out.text(3, "");
            }
        },
        Scalar::Duration => {
            let nanos = scalar::duration_to_nanos(text()?).ok_or_else(|| unfit(value, "a duration"))?;
            out.varint(1, nanos as u64);
        }
        _ => out.text(1, text()?),
    }
    Ok(())
}
