//! Writes the table. `src/schema.rs` reads it back; the two change together.
//!
//! Layout: a count and the text pool, then a count and the types. Numbers are LEB128; a text is its place and length
//! in the pool; a list is its count and its items; an optional text is a list of none or one.

use std::collections::HashMap;

use crate::table::{Embedded, Field, Kind, ListType, Type};

pub fn write(types: &[Type]) -> Vec<u8> {
    let mut writer = Writer::default();
    writer.number(types.len());
    for ty in types {
        writer.ty(ty);
    }
    let mut out = Writer::default();
    out.number(writer.pool.len());
    out.bytes.extend_from_slice(writer.pool.as_bytes());
    out.bytes.extend(writer.bytes);
    out.bytes
}

#[derive(Default)]
struct Writer {
    bytes: Vec<u8>,
    pool: String,
    places: HashMap<String, usize>,
}

impl Writer {
    fn number(&mut self, number: impl TryInto<u64>) {
        let mut rest = number.try_into().unwrap_or_else(|_| panic!("numbers in the table are not negative"));
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }

    fn text(&mut self, text: &str) {
        let place = self.places.get(text).copied().unwrap_or_else(|| {
            let place = self.pool.len();
            self.pool.push_str(text);
            self.places.insert(text.to_owned(), place);
            place
        });
        self.number(place);
        self.number(text.len());
    }

    fn texts(&mut self, texts: &[String]) {
        self.number(texts.len());
        for text in texts {
            self.text(text);
        }
    }

    fn optional(&mut self, text: Option<&String>) {
        self.number(text.is_some());
        if let Some(text) = text {
            self.text(text);
        }
    }

    fn ty(&mut self, ty: &Type) {
        self.text(&ty.name);
        self.text(&ty.description);
        match &ty.kind {
            Kind::Object { atomic, group_versions, fields, embedded } => {
                self.number(0u8);
                self.number(*atomic);
                self.texts(group_versions);
                self.number(fields.len());
                for field in fields {
                    self.field(field);
                }
                self.number(embedded.len());
                for Embedded { wrap, name } in embedded {
                    wrap.iter().for_each(|tag| self.number(*tag));
                    self.text(name);
                }
            }
            Kind::Map { value, atomic } => {
                self.number(1u8);
                self.number(*value);
                self.number(*atomic);
            }
            Kind::List { item, list_type, wrapped } => {
                self.number(2u8);
                self.number(*item);
                self.number(*wrapped);
                match list_type {
                    ListType::Atomic => self.number(0u8),
                    ListType::Set => self.number(1u8),
                    ListType::Map(keys) => {
                        self.number(2u8);
                        self.texts(keys);
                    }
                }
            }
            Kind::Scalar(scalar) => {
                self.number(3u8);
                self.number(*scalar as u8);
            }
            Kind::Union { object, object_tag, other, other_tag } => {
                self.number(4u8);
                for number in [object, object_tag, other, other_tag] {
                    self.number(*number);
                }
            }
            Kind::Any => self.number(5u8),
        }
    }

    fn field(&mut self, field: &Field) {
        self.text(&field.name);
        self.text(&field.description);
        for number in [field.ty, field.tag, field.wrap[0].into(), field.wrap[1].into()] {
            self.number(number);
        }
        self.number(field.presence);
        for flag in [field.required, field.off, field.patch_merge, field.patch_retain_keys] {
            self.number(flag);
        }
        self.number(match field.atomic {
            None => 0u8,
            Some(false) => 1,
            Some(true) => 2,
        });
        self.optional(field.default.as_ref());
        self.optional(field.patch_merge_key.as_ref());
        self.texts(&field.enum_values);
    }
}
