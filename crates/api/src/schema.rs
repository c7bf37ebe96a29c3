//! The schema of all built-in kinds, read once from the table that the build made of upstream's `.proto` texts and
//! the overlay. Names and descriptions stay in the binary; only the rows are on the heap.

pub mod openapi;

use std::sync::LazyLock;

use apimachinery::schema::{
    Embedded, Field, List, ListType, Literal, Map, MapType, Object, Presence, Scalar, Schema, Text, Type,
    TypeId, TypeKind, Union,
};
use apimachinery::{GroupVersion, Value};

static TABLE: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/schema.bin"));

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| read(TABLE));

/// The types of all built-in groups.
pub fn schema() -> &'static Schema {
    &SCHEMA
}

/// The type of a definition that is known to exist, such as `io.k8s.api.core.v1.Pod`.
pub fn type_id(name: &str) -> TypeId {
    schema().lookup(name).unwrap_or_else(|| panic!("the schema defines {name}"))
}

/// An object of a type, such as `io.k8s.api.core.v1.Pod`, as it is written while nothing of it is set.
pub fn empty(name: &str) -> Value {
    schema().empty(type_id(name))
}

/// In the order in which the table numbers them.
const SCALARS: [Scalar; 11] = [
    Scalar::String,
    Scalar::Bytes,
    Scalar::Bool,
    Scalar::Int32,
    Scalar::Int64,
    Scalar::Double,
    Scalar::Quantity,
    Scalar::IntOrString,
    Scalar::Time,
    Scalar::MicroTime,
    Scalar::Duration,
];

/// `build/blob.rs` describes the layout. The table is part of the binary, so a fault in it is a fault of the build.
fn read(table: &'static [u8]) -> Schema {
    let mut reader = Reader { bytes: table, pool: "" };
    let length = reader.number();
    let (pool, bytes) = reader.bytes.split_at(length);
    reader = Reader { bytes, pool: std::str::from_utf8(pool).expect("the text pool is UTF-8") };
    let types = reader.list(Reader::ty);
    assert!(reader.bytes.is_empty(), "the table ends with its last type");
    Schema::new(types)
}

struct Reader {
    bytes: &'static [u8],
    pool: &'static str,
}

impl Reader {
    fn number(&mut self) -> usize {
        let mut number = 0;
        for shift in (0..usize::BITS).step_by(7) {
            let (byte, rest) = self.bytes.split_first().expect("the table is complete");
            self.bytes = rest;
            number |= usize::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                break;
            }
        }
        number
    }

    fn small(&mut self) -> u8 {
        u8::try_from(self.number()).expect("the number is small")
    }

    fn id(&mut self) -> TypeId {
        TypeId(self.tag())
    }

    fn tag(&mut self) -> u32 {
        u32::try_from(self.number()).expect("the number has 32 bits")
    }

    fn flag(&mut self) -> bool {
        self.number() != 0
    }

    fn text(&mut self) -> &'static str {
        let place = self.number();
        let length = self.number();
        &self.pool[place..place + length]
    }

    fn list<T>(&mut self, item: impl Fn(&mut Self) -> T) -> Vec<T> {
        let count = self.number();
        (0..count).map(|_| item(self)).collect()
    }

    fn optional(&mut self) -> Option<&'static str> {
        self.flag().then(|| self.text())
    }

    fn map_type(&mut self) -> MapType {
        if self.flag() { MapType::Atomic } else { MapType::Granular }
    }

    fn ty(&mut self) -> Type {
        let (name, description) = (self.text(), self.text());
        let kind = match self.number() {
            0 => TypeKind::Object(self.object(name)),
            1 => TypeKind::Map(Map { value: self.id(), map_type: self.map_type() }),
            2 => TypeKind::List(List { item: self.id(), wrapped: self.flag(), list_type: self.list_type() }),
            3 => TypeKind::Scalar(SCALARS[self.number()]),
            4 => TypeKind::Union(Union {
                object: self.id(),
                object_tag: self.tag(),
                other: self.id(),
                other_tag: self.tag(),
            }),
            _ => TypeKind::Any,
        };
        Type { name: name.into(), description: description.into(), kind, published: None }
    }

    fn object(&mut self, name: &'static str) -> Object {
        let map_type = self.map_type();
        let kind = name.rsplit('.').next().unwrap_or_default();
        let gvk = self.list(|reader| {
            GroupVersion::parse(reader.text()).expect("the overlay's group versions parse").with_kind(kind)
        });
        let fields = self.list(Reader::field);
        let embedded = self
            .list(|reader| Embedded { wrap: [reader.small(), reader.small()], name: reader.text().into() });
        Object { fields, map_type, gvk, embedded, ..Object::default() }
    }

    fn list_type(&mut self) -> ListType {
        match self.number() {
            0 => ListType::Atomic,
            1 => ListType::Set,
            _ => ListType::Map(self.list(|reader| Text::Borrowed(reader.text()))),
        }
    }

    fn field(&mut self) -> Field {
        Field {
            name: self.text().into(),
            description: self.text().into(),
            ty: self.id(),
            tag: self.tag(),
            wrap: [self.small(), self.small()],
            presence: match self.number() {
                0 => Presence::OmitEmpty,
                1 => Presence::Pointer,
                _ => Presence::Always,
            },
            required: self.flag(),
            off: self.flag(),
            patch_merge: self.flag(),
            patch_retain_keys: self.flag(),
            map_type: match self.number() {
                0 => None,
                1 => Some(MapType::Granular),
                _ => Some(MapType::Atomic),
            },
            default: self.optional().map(literal),
            patch_merge_key: self.optional().map(Text::Borrowed),
            enum_values: self.list(|reader| Text::Borrowed(reader.text())),
        }
    }
}

fn literal(json: &'static str) -> Literal {
    if let Some(text) = json.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
        return Literal::String(text.into());
    }
    match json {
        "true" => Literal::Bool(true),
        "false" => Literal::Bool(false),
        "{}" => Literal::EmptyObject,
        other => Literal::Int(other.parse().expect("other defaults are whole numbers")),
    }
}

#[cfg(test)]
mod tests;
