//! Values made of whatever can be serialized.

use std::fmt::Display;

use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_json::Error;

use super::{Map, Text, Value, format_compact};

/// A value of what can be serialized. Keys of maps become text, as far as they are scalars.
pub fn to_value(value: impl Serialize) -> Result<Value, Error> {
    value.serialize(ToValue)
}

struct ToValue;

/// A list in the making; within a variant of an enum, what that one holds.
struct Items {
    variant: Option<&'static str>,
    items: Vec<Value>,
}

/// As `Items`, a map.
struct Fields {
    variant: Option<&'static str>,
    map: Map,
    /// The last key, until its value comes.
    key: Text,
}

/// What an enum's variant holds, under its name.
fn held(variant: Option<&'static str>, value: Value) -> Value {
    match variant {
        Some(variant) => Map::from([(variant, value)]).into(),
        None => value,
    }
}

impl Items {
    fn new(variant: Option<&'static str>, length: usize) -> Items {
        Items { variant, items: Vec::with_capacity(length) }
    }

    fn push<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), Error> {
        self.items.push(to_value(item)?);
        Ok(())
    }

    fn into_value(self) -> Value {
        held(self.variant, self.items.into())
    }
}

impl Fields {
    fn new(variant: Option<&'static str>) -> Fields {
        Fields { variant, map: Map::new(), key: Text::default() }
    }

    fn insert<T: Serialize + ?Sized>(&mut self, key: impl Into<Text>, value: &T) -> Result<(), Error> {
        self.map.insert(key, to_value(value)?);
        Ok(())
    }

    fn into_value(self) -> Value {
        held(self.variant, self.map.into())
    }
}

macro_rules! scalars {
    ($($method:ident $type:ty,)*) => {$(
        fn $method(self, value: $type) -> Result<Value, Error> {
            Ok(value.into())
        }
    )*};
}

impl Serializer for ToValue {
    type Ok = Value;
    type Error = Error;
    type SerializeSeq = Items;
    type SerializeTuple = Items;
    type SerializeTupleStruct = Items;
    type SerializeTupleVariant = Items;
    type SerializeMap = Fields;
    type SerializeStruct = Fields;
    type SerializeStructVariant = Fields;

    scalars! {
        serialize_bool bool,
        serialize_i8 i8, serialize_i16 i16, serialize_i32 i32, serialize_i64 i64,
        serialize_u8 u8, serialize_u16 u16, serialize_u32 u32, serialize_u64 u64,
        serialize_f64 f64, serialize_str &str,
    }

    fn serialize_f32(self, value: f32) -> Result<Value, Error> {
        Ok(f64::from(value).into())
    }

    fn serialize_char(self, value: char) -> Result<Value, Error> {
        Ok((&*value.encode_utf8(&mut [0; 4])).into())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Value, Error> {
        Ok(value.into())
    }

    fn serialize_none(self) -> Result<Value, Error> {
        Ok(Value::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Value, Error> {
        to_value(value)
    }

    fn serialize_unit(self) -> Result<Value, Error> {
        Ok(Value::Null)
    }

    fn serialize_unit_struct(self, _name: &'static str) -> Result<Value, Error> {
        Ok(Value::Null)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Value, Error> {
        Ok(variant.into())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        value: &T,
    ) -> Result<Value, Error> {
        to_value(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Value, Error> {
        Ok(held(Some(variant), to_value(value)?))
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Items, Error> {
        Ok(Items::new(None, length.unwrap_or_default()))
    }

    fn serialize_tuple(self, length: usize) -> Result<Items, Error> {
        Ok(Items::new(None, length))
    }

    fn serialize_tuple_struct(self, _name: &'static str, length: usize) -> Result<Items, Error> {
        Ok(Items::new(None, length))
    }

    fn serialize_tuple_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Items, Error> {
        Ok(Items::new(Some(variant), length))
    }

    fn serialize_map(self, _length: Option<usize>) -> Result<Fields, Error> {
        Ok(Fields::new(None))
    }

    fn serialize_struct(self, _name: &'static str, _length: usize) -> Result<Fields, Error> {
        Ok(Fields::new(None))
    }

    fn serialize_struct_variant(
        self,
        _name: &'static str,
        _index: u32,
        variant: &'static str,
        _length: usize,
    ) -> Result<Fields, Error> {
        Ok(Fields::new(Some(variant)))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<Value, Error> {
        Ok(Value::String(format_compact!("{value}")))
    }
}

/// The ways to come by items and fields are one way here.
macro_rules! collects {
    ($collector:ident: $($trait:ident $method:ident ($($key:ident: $type:ty)?) $add:ident,)*) => {$(
        impl $trait for $collector {
            type Ok = Value;
            type Error = Error;

            fn $method<T: Serialize + ?Sized>(&mut self, $($key: $type,)? value: &T) -> Result<(), Error> {
                self.$add($($key,)? value)
            }

            fn end(self) -> Result<Value, Error> {
                Ok(self.into_value())
            }
        }
    )*};
}

collects! {
    Items:
    SerializeSeq serialize_element() push,
    SerializeTuple serialize_element() push,
    SerializeTupleStruct serialize_field() push,
    SerializeTupleVariant serialize_field() push,
}

collects! {
    Fields:
    SerializeStruct serialize_field(key: &'static str) insert,
    SerializeStructVariant serialize_field(key: &'static str) insert,
}

impl SerializeMap for Fields {
    type Ok = Value;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key = match to_value(key)? {
            Value::String(text) => text,
            scalar @ (Value::Bool(_) | Value::Number(_)) => format_compact!("{scalar}"),
            _ => return Err(Error::custom("key must be a string")),
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let key = std::mem::take(&mut self.key);
        self.insert(key, value)
    }

    fn end(self) -> Result<Value, Error> {
        Ok(self.into_value())
    }
}
