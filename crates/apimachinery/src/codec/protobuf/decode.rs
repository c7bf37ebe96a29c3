//! From messages to values. A field that is not a pointer is always on the wire; where Go's JSON would then omit it,
//! so do we.

use jiff::Timestamp;

use super::wire::{Reader, Wire};
use super::{Error, MAGIC, RAW, decode_any, raw};
use crate::codec::protobuf::encode::is_message;
use crate::codec::{DEPTH_MAX, depth, scalar};
use crate::quantity;
use crate::schema::{Object, Presence, Scalar, Schema, TypeId, TypeKind};
use crate::time::{format_micro_time, format_time};
use crate::{Map, Value};

/// Reads the message of an object of type `ty`.
pub fn message(schema: &Schema, ty: TypeId, bytes: &[u8]) -> Result<Value, Error> {
    Decoder { schema, depth: 0 }.message(ty, Value::Null, bytes)
}

#[derive(Clone, Copy)]
struct Decoder<'a> {
    schema: &'a Schema,
    depth: usize,
}

impl Decoder<'_> {
    fn deeper(self) -> Result<Self, Error> {
        if self.depth >= DEPTH_MAX {
            return Err(Error::Type("exceeded max depth".into()));
        }
        Ok(Decoder { depth: self.depth + 1, ..self })
    }

    /// The value of a message; fields join those of `before`, as protobuf wants it for a message in several pieces.
    fn message(self, ty: TypeId, before: Value, bytes: &[u8]) -> Result<Value, Error> {
        match &self.schema[ty].kind {
            TypeKind::Object(object) => {
                let mut map = match before {
                    Value::Object(map) => map,
                    _ => Map::new(),
                };
                self.deeper()?.fields(object, [0, 0], bytes, &mut map)?;
                self.omit_empties(object, &mut map);
                Ok(Value::Object(map))
            }
            TypeKind::Union(union) => {
                let mut value = scalar::zero(self.schema, union.other);
                let mut reader = Reader::new(bytes);
                while let Some((tag, wire)) = reader.next()? {
                    if tag == union.object_tag {
                        return self.deeper()?.value(union.object, Value::Null, wire);
                    }
                    if tag == union.other_tag {
                        value = self.value(union.other, value, wire)?;
                    }
                }
                Ok(value)
            }
            TypeKind::List(list) => {
                let mut value = Value::Array(Vec::new());
                let mut reader = Reader::new(bytes);
                while let Some((tag, wire)) = reader.next()? {
                    if tag == RAW {
                        value = self.push(list.item, value, wire)?;
                    }
                }
                Ok(value)
            }
            TypeKind::Any => self.any(raw(bytes)?),
            TypeKind::Scalar(scalar) => scalar_message(*scalar, bytes),
            TypeKind::Map(_) => Err(Error::Type("proto: a map is no message".into())),
        }
    }

    fn fields(self, object: &Object, wrap: [u8; 2], bytes: &[u8], out: &mut Map) -> Result<(), Error> {
        let mut reader = Reader::new(bytes);
        while let Some((tag, wire)) = reader.next()? {
            if let Some(field) = object.fields.iter().find(|f| f.tag == tag && f.wrap == wrap) {
                if field.off {
                    continue;
                }
                let before = out.remove(field.name.as_ref()).unwrap_or(Value::Null);
                let value = self.value(field.ty, before, wire)?;
                out.insert(&*field.name, value);
            } else if let Some(inner) = embedded(object, wrap, tag) {
                self.fields(object, inner, wire.bytes()?, out)?;
            }
        }
        Ok(())
    }

    fn value(self, ty: TypeId, before: Value, wire: Wire<'_>) -> Result<Value, Error> {
        match &self.schema[ty].kind {
            TypeKind::List(list) if !list.wrapped => self.push(list.item, before, wire),
            TypeKind::Map(map) => self.entry(map.value, before, wire.bytes()?),
            TypeKind::Scalar(scalar) if !is_message(*scalar) => plain_scalar(*scalar, wire),
            _ => self.message(ty, before, wire.bytes()?),
        }
    }

    fn push(self, item: TypeId, before: Value, wire: Wire<'_>) -> Result<Value, Error> {
        let mut items = match before {
            Value::Array(items) => items,
            _ => Vec::new(),
        };
        match (&self.schema[item].kind, wire) {
            (
                TypeKind::Scalar(scalar @ (Scalar::Bool | Scalar::Int32 | Scalar::Int64)),
                Wire::Bytes(packed),
            ) => {
                let mut reader = Reader::new(packed);
                while !reader.is_empty() {
                    items.push(plain_scalar(*scalar, Wire::Varint(reader.varint()?))?);
                }
            }
            _ => items.push(self.value(item, Value::Null, wire)?),
        }
        Ok(Value::Array(items))
    }

    fn entry(self, value_type: TypeId, before: Value, bytes: &[u8]) -> Result<Value, Error> {
        let mut map = match before {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        let mut reader = Reader::new(bytes);
        let (mut key, mut value) = (String::new(), Value::Null);
        while let Some((tag, wire)) = reader.next()? {
            match tag {
                1 => key = wire.text()?.to_owned(),
                2 => value = self.value(value_type, value, wire)?,
                _ => {}
            }
        }
        if value.is_null() {
            value = scalar::zero(self.schema, value_type);
        }
        map.insert(key, value);
        Ok(Value::Object(map))
    }

    fn any(self, raw: &[u8]) -> Result<Value, Error> {
        if raw.is_empty() {
            return Ok(Value::Null);
        }
        if raw.starts_with(MAGIC) {
            return decode_any(self.schema, raw);
        }
        let value: Value = serde_json::from_slice(raw).map_err(|e| Error::Syntax(e.to_string()))?;
        // A level of messages is a list and an object at most.
        if 2 * self.depth + depth(&value) >= DEPTH_MAX {
            return Err(Error::Type("exceeded max depth".into()));
        }
        Ok(value)
    }

    fn omit_empties(self, object: &Object, map: &mut Map) {
        map.retain(|key, value| {
            let Some(field) = object.field(key) else { return true };
            let empty = match field.presence {
                Presence::OmitEmpty => scalar::is_empty(value, &self.schema[field.ty].kind),
                Presence::Pointer | Presence::Always => value.is_null(),
            };
            !empty
        });
    }
}

/// The embedding that `tag` opens within the one at `wrap`, when a field lies in it.
fn embedded(object: &Object, wrap: [u8; 2], tag: u32) -> Option<[u8; 2]> {
    let tag = u8::try_from(tag).ok()?;
    let (level, inner) = match wrap {
        [0, 0] => (0, [tag, 0]),
        [outer, 0] => (1, [outer, tag]),
        _ => return None,
    };
    object.fields.iter().any(|f| f.wrap[..=level] == inner[..=level]).then_some(inner)
}

fn plain_scalar(scalar: Scalar, wire: Wire<'_>) -> Result<Value, Error> {
    Ok(match scalar {
        Scalar::String => wire.text()?.into(),
        Scalar::Bytes => scalar::base64_from_bytes(wire.bytes()?).into(),
        Scalar::Bool => (wire.varint()? != 0).into(),
        Scalar::Double => wire.double()?.into(),
        Scalar::Int32 => (wire.varint()? as i32).into(),
        _ => (wire.varint()? as i64).into(),
    })
}

/// The inverse of what `encode` writes for these; null for a time that is not set.
fn scalar_message(scalar: Scalar, bytes: &[u8]) -> Result<Value, Error> {
    let mut numbers = [0_i64; 3];
    let mut text = "";
    let mut reader = Reader::new(bytes);
    while let Some((tag, wire)) = reader.next()? {
        match (tag, wire) {
            (1..=2, Wire::Varint(number)) => numbers[tag as usize] = number as i64,
            (_, Wire::Bytes(_)) => text = wire.text()?,
            _ => {}
        }
    }
    Ok(match scalar {
        Scalar::Time | Scalar::MicroTime if bytes.is_empty() => Value::Null,
        Scalar::Time | Scalar::MicroTime => {
            let nanos = i32::try_from(numbers[2]).map_err(|_| bad_time())?;
            let at = Timestamp::new(numbers[1], nanos).map_err(|_| bad_time())?;
            if scalar == Scalar::Time { format_time(at).into() } else { format_micro_time(at).into() }
        }
        Scalar::IntOrString if numbers[1] == 1 => text.into(),
        Scalar::IntOrString => (numbers[2] as i32).into(),
        Scalar::Duration => scalar::duration_from_nanos(numbers[1]).into(),
        _ if text.is_empty() => Value::Null,
        _ => quantity::canonical(text).map_err(|e| Error::Type(e.to_string()))?.into_owned().into(),
    })
}

fn bad_time() -> Error {
    Error::Type("proto: a time is out of range".into())
}
