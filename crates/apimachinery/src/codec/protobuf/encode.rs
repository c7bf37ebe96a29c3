//! From objects to messages, in one pass over JSON, as text or as a tree: stored JSON becomes protobuf without a tree
//! in between. What the input does not have is not written: for Go's decoder an absent field and one with the zero
//! value are the same unless it is a pointer, and then absence is what is meant.

use std::fmt;

use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_json::value::RawValue;

use super::wire::Writer;
use super::{RAW, TypeMeta};
use crate::codec::key::{Key, KeySeed};
use crate::codec::{DEPTH_MAX, scalar};
use crate::schema::{Field, Object, Scalar, Schema, TypeId, TypeKind};
use crate::time::parse_time;

/// Writes the message of an object of type `root` and returns the kind it says it is.
pub fn message<'de, D: Deserializer<'de>>(
    schema: &Schema,
    root: TypeId,
    input: D,
    out: &mut Writer,
) -> Result<TypeMeta, D::Error> {
    let mut type_meta = TypeMeta::default();
    let spot = Spot { schema, ty: root, tag: None, depth: 0 };
    Encoder { spot, out, type_meta: Some(&mut type_meta) }.deserialize(input)?;
    Ok(type_meta)
}

/// What is expected, and under which tag it goes.
#[derive(Clone, Copy)]
struct Spot<'s> {
    schema: &'s Schema,
    ty: TypeId,
    /// None for the content of a message that its caller frames.
    tag: Option<u32>,
    depth: usize,
}

impl<'s> Spot<'s> {
    /// A place one level deeper.
    fn inner(self, ty: TypeId, tag: u32) -> Self {
        Spot { ty, tag: Some(tag), depth: self.depth + 1, ..self }
    }

    fn to(self, out: &mut Writer) -> Encoder<'s, '_> {
        Encoder { spot: self, out, type_meta: None }
    }
}

/// Writes one value, or all items of a list, at a spot.
struct Encoder<'s, 'w> {
    spot: Spot<'s>,
    out: &'w mut Writer,
    /// Where the outermost object's `kind` and `apiVersion` go.
    type_meta: Option<&'w mut TypeMeta>,
}

impl<'s> Encoder<'s, '_> {
    fn kind(&self) -> &'s TypeKind {
        &self.spot.schema[self.spot.ty].kind
    }

    fn unfit<E: Error>(&self, found: &str) -> E {
        let ty = &self.spot.schema[self.spot.ty];
        let wanted = match &ty.kind {
            _ if !ty.name.is_empty() => ty.name.clone().into_owned(),
            TypeKind::Scalar(scalar) => format!("{scalar:?}"),
            TypeKind::List(_) => "a list".to_owned(),
            _ => "a map".to_owned(),
        };
        E::custom(format!("proto: cannot encode {found} as {wanted}"))
    }

    /// Runs `content` on the message this value is.
    fn framed<E>(self, content: impl FnOnce(Encoder<'s, '_>) -> Result<(), E>) -> Result<(), E> {
        let Encoder { spot, out, type_meta } = self;
        let bare = Spot { tag: None, ..spot };
        match spot.tag {
            Some(tag) => out.try_message(tag, |out| content(Encoder { spot: bare, out, type_meta })),
            None => content(Encoder { spot: bare, out, type_meta }),
        }
    }

    /// Free-form JSON, which travels as the text it is.
    fn raw<E: Error>(self, value: &RawValue) -> Result<(), E> {
        if value.get() == "null" {
            return Ok(());
        }
        self.framed(|this| {
            this.out.bytes(RAW, value.get().as_bytes());
            Ok(())
        })
    }

    /// A scalar that travels as itself under its tag.
    fn plain<E: Error>(self, write: impl FnOnce(u32, &mut Writer)) -> Result<(), E> {
        let tag = self.spot.tag.ok_or_else(|| self.unfit("a scalar"))?;
        write(tag, self.out);
        Ok(())
    }

    fn integer<E: Error>(self, number: i64) -> Result<(), E> {
        match self.kind() {
            TypeKind::Scalar(Scalar::Int32 | Scalar::Int64) => {
                self.plain(|tag, out| out.varint(tag, number as u64))
            }
            TypeKind::Scalar(Scalar::Double) => self.plain(|tag, out| out.double(tag, number as f64)),
            TypeKind::Scalar(Scalar::IntOrString) => self.framed(|this| {
                int_or_string(this.out, 0, number, "");
                Ok(())
            }),
            _ => Err(self.unfit("a number")),
        }
    }

    fn object<'de, A: MapAccess<'de>>(mut self, object: &Object, mut input: A) -> Result<(), A::Error> {
        if self.spot.depth >= DEPTH_MAX {
            return Err(A::Error::custom("exceeded max depth"));
        }
        while let Some(key) = input.next_key_seed(KeySeed(object))? {
            match key {
                Key::Known(at) if object.fields[at].tag != 0 => self.field(&object.fields[at], &mut input)?,
                Key::Known(at) => self.note_type_meta(&object.fields[at].name, input.next_value()?),
                Key::Unknown(_) => drop(input.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }

    fn note_type_meta(&mut self, key: &str, value: Option<String>) {
        let (Some(type_meta), Some(value)) = (&mut self.type_meta, value) else { return };
        match key {
            "kind" => type_meta.kind = value,
            _ => type_meta.api_version = value,
        }
    }

    /// A field within the embedded messages that hold it. An embedded message may come in several pieces.
    fn field<'de, A: MapAccess<'de>>(&mut self, field: &Field, input: &mut A) -> Result<(), A::Error> {
        let spot = self.spot.inner(field.ty, field.tag);
        match field.wrap {
            [0, _] => input.next_value_seed(spot.to(self.out)),
            [outer, 0] => self.out.try_message(outer.into(), |out| input.next_value_seed(spot.to(out))),
            [outer, inner] => self.out.try_message(outer.into(), |out| {
                out.try_message(inner.into(), |out| input.next_value_seed(spot.to(out)))
            }),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Encoder<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        match self.kind() {
            TypeKind::Any => self.raw(&Box::<RawValue>::deserialize(input)?),
            _ => input.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Encoder<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the schema's type")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        match self.kind() {
            TypeKind::Scalar(Scalar::Bool) => self.plain(|tag, out| out.varint(tag, value.into())),
            TypeKind::Union(union) => self
                .framed(|this| this.spot.inner(union.other, union.other_tag).to(this.out).visit_bool(value)),
            _ => Err(self.unfit("a bool")),
        }
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        self.integer(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.integer(value),
            Err(_) => Err(self.unfit("a number")),
        }
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.kind() {
            TypeKind::Scalar(Scalar::Double) => self.plain(|tag, out| out.double(tag, value)),
            _ => Err(self.unfit("a number")),
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.kind() {
            TypeKind::Scalar(Scalar::String) => self.plain(|tag, out| out.text(tag, text)),
            TypeKind::Scalar(Scalar::Bytes) => match scalar::bytes_from_base64(text) {
                Some(bytes) => self.plain(|tag, out| out.bytes(tag, &bytes)),
                None => Err(self.unfit("what is not base64")),
            },
            TypeKind::Scalar(scalar) => self.framed(|this| match scalar_message(*scalar, text, this.out) {
                Some(()) => Ok(()),
                None => Err(this.unfit("a string")),
            }),
            _ => Err(self.unfit("a string")),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<(), A::Error> {
        match self.kind() {
            TypeKind::List(list) if list.wrapped => self.framed(|this| {
                while input.next_element_seed(this.spot.inner(list.item, RAW).to(this.out))?.is_some() {}
                Ok(())
            }),
            TypeKind::List(list) => {
                let tag = self.spot.tag.ok_or_else(|| self.unfit("a list"))?;
                let spot = Spot { ty: list.item, tag: Some(tag), ..self.spot };
                while input.next_element_seed(spot.to(self.out))?.is_some() {}
                Ok(())
            }
            TypeKind::Union(union) => self
                .framed(|this| this.spot.inner(union.other, union.other_tag).to(this.out).visit_seq(input)),
            _ => Err(self.unfit("a list")),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<(), A::Error> {
        match self.kind() {
            TypeKind::Object(object) => self.framed(|this| this.object(object, input)),
            TypeKind::Map(map) => {
                let tag = self.spot.tag.ok_or_else(|| self.unfit("a map"))?;
                let spot = self.spot.inner(map.value, 2);
                while let Some(key) = input.next_key::<String>()? {
                    self.out.try_message(tag, |entry| {
                        entry.text(1, &key);
                        input.next_value_seed(spot.to(entry))
                    })?;
                }
                Ok(())
            }
            TypeKind::Union(union) => self
                .framed(|this| this.spot.inner(union.object, union.object_tag).to(this.out).visit_map(input)),
            _ => Err(self.unfit("an object")),
        }
    }
}

/// The scalars that travel as messages of their own.
pub fn is_message(scalar: Scalar) -> bool {
    matches!(
        scalar,
        Scalar::Quantity | Scalar::IntOrString | Scalar::Time | Scalar::MicroTime | Scalar::Duration
    )
}

/// Field numbers: Quantity {string 1}, Time {seconds 1, nanos 2}, Duration {nanoseconds 1}; none when the text is
/// not one.
fn scalar_message(scalar: Scalar, text: &str, out: &mut Writer) -> Option<()> {
    match scalar {
        Scalar::Quantity => out.text(1, text),
        Scalar::IntOrString => int_or_string(out, 1, 0, text),
        Scalar::Time | Scalar::MicroTime => {
            let nanos = parse_time(text)?.as_nanosecond();
            out.varint(1, nanos.div_euclid(1_000_000_000) as u64);
            out.varint(2, nanos.rem_euclid(1_000_000_000) as u64);
        }
        Scalar::Duration => out.varint(1, scalar::duration_to_nanos(text)? as u64),
        _ => return None,
    }
    Some(())
}

/// IntOrString {type 1, intVal 2, strVal 3}, where type 1 is a string.
fn int_or_string(out: &mut Writer, ty: u64, number: i64, text: &str) {
    out.varint(1, ty);
    out.varint(2, number as u64);
    out.text(3, text);
}
