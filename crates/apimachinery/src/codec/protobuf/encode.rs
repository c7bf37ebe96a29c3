//! From objects to messages, in one pass over JSON text: stored JSON becomes protobuf without a tree in between. What
//! the input does not have is not written: for Go's decoder an absent field and one with the zero value are the same
//! unless it is a pointer, and then absence is what is meant.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::alike::{Alike, Place};
use super::text::{Malformed, Quoted, Text};
use super::wire::Writer;
use super::{Error, RAW, TypeMeta};
use crate::codec::scalar;
use crate::schema::{Field, Head, Object, Scalar, Schema, Slot, TypeId, TypeKind, Union};
use crate::time::parse_time;

/// What is known of an object beside its text, and what is to be known of it.
pub struct Context<'c> {
    /// Where the kind goes that the object says it is.
    pub type_meta: Option<&'c mut TypeMeta>,
    /// What the objects before it were made of.
    pub alike: Option<&'c mut Alike>,
}

/// Appends the message of an object of type `root`.
pub fn message(
    schema: &Schema,
    root: TypeId,
    json: &[u8],
    context: Context<'_>,
    out: &mut Writer,
) -> Result<(), Error> {
    let mut encoder = Encoder { schema, text: Text::new(json), out, context };
    let encoded = encoder.root(root);
    if encoder.text.is_wide() || encoded.is_err() {
        // Checked once as a whole, not string by string.
        std::str::from_utf8(json).map_err(|error| Error::Syntax(error.to_string()))?;
    }
    encoded.map_err(|fault| fault.explain(schema, json))
}

enum Fault {
    Malformed,
    Unfit(Box<Unfit>),
}

/// A value that is not one of its type.
struct Unfit {
    found: &'static str,
    ty: TypeId,
    at: usize,
}

impl From<Malformed> for Fault {
    fn from(Malformed: Malformed) -> Self {
        Fault::Malformed
    }
}

impl Fault {
    fn explain(self, schema: &Schema, text: &[u8]) -> Error {
        Error::Type(match self {
            Fault::Malformed => match serde_json::from_slice::<crate::Value>(text) {
                Err(error) => error.to_string(),
                Ok(_) => "proto: cannot encode what is not JSON".to_owned(),
            },
            Fault::Unfit(unfit) => unfit.explain(schema, text),
        })
    }
}

impl Unfit {
    fn explain(&self, schema: &Schema, text: &[u8]) -> String {
        let ty = &schema[self.ty];
        let wanted = match &ty.kind {
            _ if !ty.name.is_empty() => ty.name.clone().into_owned(),
            TypeKind::Scalar(scalar) => format!("{scalar:?}"),
            TypeKind::List(_) => "a list".to_owned(),
            _ => "a map".to_owned(),
        };
        let before = &text[..self.at];
        let line = 1 + before.iter().filter(|byte| **byte == b'\n').count();
        let column = before.iter().rev().take_while(|byte| **byte != b'\n').count();
        format!("proto: cannot encode {} as {wanted} at line {line} column {column}", self.found)
    }
}

struct Encoder<'a, 'w> {
    schema: &'a Schema,
    text: Text<'a>,
    out: &'w mut Writer,
    /// Its `type_meta` only until the outermost object has begun.
    context: Context<'w>,
}

impl<'a> Encoder<'a, '_> {
    fn root(&mut self, ty: TypeId) -> Result<(), Fault> {
        match self.text.peek()? {
            b'n' => Ok(self.text.literal("null")?),
            first => self.content(first, ty),
        }
    }

    /// Writes a value, or all items of a list, under a tag.
    fn value(&mut self, ty: TypeId, tag: u32) -> Result<(), Fault> {
        let first = self.text.peek()?;
        if first == b'n' {
            return Ok(self.text.literal("null")?);
        }
        match &self.schema[ty].kind {
            TypeKind::Scalar(scalar) if !is_message(*scalar) => self.plain(first, *scalar, ty, tag),
            TypeKind::List(list) if !list.wrapped => self.items(first, ty, list.item, tag),
            TypeKind::Map(map) => self.entries(first, ty, map.value, tag),
            TypeKind::Any => self.raw(tag),
            _ => {
                let start = self.out.open(tag);
                self.content(first, ty)?;
                self.out.close(start);
                Ok(())
            }
        }
    }

    /// Writes what is within the message that a value is, which begins with `first`.
    fn content(&mut self, first: u8, ty: TypeId) -> Result<(), Fault> {
        match &self.schema[ty].kind {
            TypeKind::Object(object) => self.object(first, ty, object),
            TypeKind::List(list) if list.wrapped => self.items(first, ty, list.item, RAW),
            TypeKind::Union(union) => self.either(first, union),
            TypeKind::Scalar(scalar) if is_message(*scalar) => self.scalar_message(first, *scalar, ty),
            _ => Err(self.unfit(ty)),
        }
    }

    fn object(&mut self, first: u8, ty: TypeId, object: &Object) -> Result<(), Fault> {
        self.check(first, b'{', ty)?;
        let mut type_meta = self.context.type_meta.take();
        // Names mostly come in the order of the fields.
        let mut next = 0;
        let mut more = self.text.open(b'}')?;
        while more {
            let (name, head) = self.text.field()?;
            match self.slot(ty, name, head, next)? {
                Some((at, slot)) => {
                    next = at + 1;
                    match slot.tag {
                        0 => self.note(&object.fields[at], &mut type_meta)?,
                        _ => self.field(Place { of: ty, at }, slot)?,
                    }
                }
                None => self.text.skip()?,
            }
            more = self.text.more(b'}')?;
        }
        Ok(())
    }

    #[inline(always)]
    fn slot(
        &self,
        ty: TypeId,
        name: Quoted<'_>,
        head: Head,
        next: usize,
    ) -> Result<Option<(usize, Slot)>, Fault> {
        Ok(match name.plain() {
            Some(name) => self.schema.slot(ty, name, head, next),
            None => self.schema.slot(ty, &name.decode()?, head, next),
        })
    }

    /// What an object says it is.
    fn note(&mut self, field: &Field, type_meta: &mut Option<&mut TypeMeta>) -> Result<(), Fault> {
        let first = self.text.peek()?;
        if first == b'n' {
            return Ok(self.text.literal("null")?);
        }
        let text = self.string(first, field.ty)?;
        if let Some(type_meta) = type_meta {
            let text = text.text()?.into_owned();
            match &*field.name {
                "kind" => type_meta.kind = text,
                _ => type_meta.api_version = text,
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn field(&mut self, place: Place, slot: Slot) -> Result<(), Fault> {
        match self.context.alike {
            Some(_) if matches!(self.text.peek()?, b'{' | b'[') => self.field_alike(place, slot),
            _ => self.wrapped(slot),
        }
    }

    /// A field that may be as the one of the object before.
    fn field_alike(&mut self, place: Place, slot: Slot) -> Result<(), Fault> {
        if let Some(alike) = &mut self.context.alike
            && alike.repeat(place, &mut self.text, self.out)
        {
            return Ok(());
        }
        let (from, start) = (self.text.at(), self.out.tail().len());
        self.wrapped(slot)?;
        // What is not all ASCII is not known to be text before all of it is read.
        if let Some(alike) = &mut self.context.alike
            && !self.text.is_wide()
        {
            alike.keep(place, self.text.depth(), self.text.since(from), &self.out.tail()[start..]);
        }
        Ok(())
    }

    /// A field within the embedded messages that hold it. An embedded message may come in several pieces.
    #[inline(always)]
    fn wrapped(&mut self, Slot { ty, tag, wrap, .. }: Slot) -> Result<(), Fault> {
        if wrap == [0; 2] {
            return self.value(ty, tag);
        }
        let wraps = wrap.map(|tag| (tag != 0).then(|| self.out.open(tag.into())));
        self.value(ty, tag)?;
        wraps.into_iter().rev().flatten().for_each(|start| self.out.close(start));
        Ok(())
    }

    fn items(&mut self, first: u8, ty: TypeId, item: TypeId, tag: u32) -> Result<(), Fault> {
        self.check(first, b'[', ty)?;
        let mut more = self.text.open(b']')?;
        while more {
            self.value(item, tag)?;
            more = self.text.more(b']')?;
        }
        Ok(())
    }

    fn entries(&mut self, first: u8, ty: TypeId, value: TypeId, tag: u32) -> Result<(), Fault> {
        self.check(first, b'{', ty)?;
        let mut more = self.text.open(b'}')?;
        while more {
            let start = self.out.open(tag);
            let key = self.text.key()?;
            self.string_field(1, key)?;
            self.value(value, 2)?;
            self.out.close(start);
            more = self.text.more(b'}')?;
        }
        Ok(())
    }

    fn either(&mut self, first: u8, union: &Union) -> Result<(), Fault> {
        match first {
            b'{' => self.value(union.object, union.object_tag),
            _ => self.value(union.other, union.other_tag),
        }
    }

    /// Free-form JSON, which travels as the text it is.
    fn raw(&mut self, tag: u32) -> Result<(), Fault> {
        let start = self.text.at();
        self.text.skip()?;
        let raw = self.text.since(start);
        self.out.length(tag, Writer::length_bytes(RAW, raw.len()) + raw.len());
        self.out.bytes(RAW, raw);
        Ok(())
    }

    /// A scalar that travels as itself under its tag.
    fn plain(&mut self, first: u8, scalar: Scalar, ty: TypeId, tag: u32) -> Result<(), Fault> {
        match scalar {
            Scalar::String => {
                let text = self.string(first, ty)?;
                self.string_field(tag, text)?;
            }
            Scalar::Bool => {
                let value = self.bool(first, ty)?;
                self.out.varint(tag, value.into());
            }
            Scalar::Double => {
                let number = self.number(first, ty)?.parse().unwrap_or(f64::INFINITY);
                if number.is_infinite() {
                    return Err(Fault::Malformed);
                }
                self.out.double(tag, number);
            }
            Scalar::Bytes => {
                let text = self.string(first, ty)?.decode()?;
                let start = self.out.open(tag);
                let decoded = STANDARD.decode_vec(&*text, self.out.tail());
                decoded.map_err(|_| self.fault("what is not base64", ty))?;
                self.out.close(start);
            }
            _ => {
                let number = self.integer(first, ty)?;
                self.out.varint(tag, number as u64);
            }
        }
        Ok(())
    }

    /// Field numbers: Quantity {string 1}, Time {seconds 1, nanos 2}, Duration {nanoseconds 1}.
    fn scalar_message(&mut self, first: u8, scalar: Scalar, ty: TypeId) -> Result<(), Fault> {
        if scalar == Scalar::IntOrString && first != b'"' {
            let number = self.integer(first, ty)?;
            int_or_string(self.out, 0, number, "");
            return Ok(());
        }
        let text = self.string(first, ty)?;
        if scalar == Scalar::Quantity {
            return self.string_field(1, text);
        }
        let text = text.text()?;
        match scalar {
            Scalar::Time | Scalar::MicroTime => {
                let time = parse_time(&text).ok_or_else(|| self.fault("a string", ty))?;
                // Nanoseconds count up from the second before, as Go's do.
                let before = time.subsec_nanosecond() < 0;
                self.out.varint(1, (time.as_second() - i64::from(before)) as u64);
                let nanos = i64::from(time.subsec_nanosecond()) + if before { 1_000_000_000 } else { 0 };
                self.out.varint(2, nanos as u64);
            }
            Scalar::Duration => {
                let nanos = scalar::duration_to_nanos(&text).ok_or_else(|| self.fault("a string", ty))?;
                self.out.varint(1, nanos as u64);
            }
            _ => int_or_string(self.out, 1, 0, &text),
        }
        Ok(())
    }

    #[inline(always)]
    fn string_field(&mut self, tag: u32, text: Quoted<'_>) -> Result<(), Fault> {
        match text.plain() {
            Some(plain) => self.out.bytes(tag, plain),
            None => {
                let start = self.out.open(tag);
                text.unescape(self.out.tail())?;
                self.out.close(start);
            }
        }
        Ok(())
    }

    #[inline(always)]
    fn string(&mut self, first: u8, ty: TypeId) -> Result<Quoted<'a>, Fault> {
        self.check(first, b'"', ty)?;
        Ok(self.text.string()?)
    }

    fn bool(&mut self, first: u8, ty: TypeId) -> Result<bool, Fault> {
        let value = match first {
            b't' => true,
            b'f' => false,
            _ => return Err(self.unfit(ty)),
        };
        self.text.literal(if value { "true" } else { "false" })?;
        Ok(value)
    }

    fn number(&mut self, first: u8, ty: TypeId) -> Result<&'a str, Fault> {
        match first {
            b'-' | b'0'..=b'9' => Ok(self.text.number()?),
            _ => Err(self.unfit(ty)),
        }
    }

    fn integer(&mut self, first: u8, ty: TypeId) -> Result<i64, Fault> {
        self.number(first, ty)?.parse().map_err(|_| self.fault("a number", ty))
    }

    /// That a value begins as one of its type does.
    fn check(&mut self, first: u8, wanted: u8, ty: TypeId) -> Result<(), Fault> {
        if first == wanted { Ok(()) } else { Err(self.unfit(ty)) }
    }

    /// Of the next value; of an object or list no more is read than how it begins.
    #[cold]
    fn unfit(&mut self, ty: TypeId) -> Fault {
        let (found, read) = match self.text.peek() {
            Ok(b'{') => ("an object", self.text.open(b'}').map(drop)),
            Ok(b'[') => ("a list", self.text.open(b']').map(drop)),
            Ok(b'"') => ("a string", self.text.skip()),
            Ok(b't' | b'f') => ("a bool", self.text.skip()),
            _ => ("a number", self.text.skip()),
        };
        match read {
            Ok(()) => self.fault(found, ty),
            Err(Malformed) => Fault::Malformed,
        }
    }

    fn fault(&self, found: &'static str, ty: TypeId) -> Fault {
        Fault::Unfit(Box::new(Unfit { found, ty, at: self.text.at() }))
    }
}

/// The scalars that travel as messages of their own.
pub fn is_message(scalar: Scalar) -> bool {
    matches!(
        scalar,
        Scalar::Quantity | Scalar::IntOrString | Scalar::Time | Scalar::MicroTime | Scalar::Duration
    )
}

/// IntOrString {type 1, intVal 2, strVal 3}, where type 1 is a string.
fn int_or_string(out: &mut Writer, ty: u64, number: i64, text: &str) {
    out.varint(1, ty);
    out.varint(2, number as u64);
    out.text(3, text);
}
