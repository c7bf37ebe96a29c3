//! The schema-directed walk over any self-describing input (JSON, YAML, a value): follows encoding/json's rules for
//! what fits where, and its wording for what does not.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::key::{Key, KeySeed};
use super::misfit::{Found, Source, fitted, misfit_in_tree, without_indexes, wording};
use super::{DEPTH_MAX, Empties, ISSUES_MAX, Strictness, scalar};
use crate::schema::{Field, Object, Presence, Scalar, Schema, TypeId, TypeKind};
use crate::{Map, Text, Value};

/// The state of one decoding.
pub struct Walk<'a> {
    schema: &'a Schema,
    strictness: Strictness,
    empties: Empties,
    source: Source,
    /// Where the walk is: `spec.containers[0].name`.
    path: RefCell<String>,
    /// Where in the path keys of maps stand, which Go leaves out when a value does not fit.
    map_keys: RefCell<Vec<Range<usize>>>,
    depth: Cell<usize>,
    issues: RefCell<Vec<String>>,
    /// The first value that does not fit, in upstream's words; the error that ends the walk says nothing.
    failure: RefCell<Option<String>>,
}

impl<'a> Walk<'a> {
    pub fn new(schema: &'a Schema, strictness: Strictness, empties: Empties, source: Source) -> Self {
        Walk {
            schema,
            strictness,
            empties,
            source,
            path: RefCell::default(),
            map_keys: RefCell::default(),
            depth: Cell::default(),
            issues: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    /// The seed that decodes a whole object; none when the input is null.
    pub fn root(&self, ty: TypeId) -> Seed<'_> {
        Seed { walk: self, ty, owner: "" }
    }

    pub fn finish(self) -> (Strictness, Vec<String>, Option<String>) {
        (self.strictness, self.issues.into_inner(), self.failure.into_inner())
    }

    /// Notes an issue once, unless nobody wants to know.
    fn report(&self, issue: String) {
        let mut issues = self.issues.borrow_mut();
        if self.strictness != Strictness::Ignore && issues.len() < ISSUES_MAX && !issues.contains(&issue) {
            issues.push(issue);
        }
    }

    fn report_field(&self, what: &str, key: &str) {
        if self.strictness != Strictness::Ignore {
            let path = self.path.borrow();
            let dot = if path.is_empty() { "" } else { "." };
            self.report(format!("{what} field \"{path}{dot}{key}\""));
        }
    }

    /// Runs `inner` one level deeper, under `.key`.
    fn in_key<T, E: serde::de::Error>(
        &self,
        key: &str,
        inner: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.inside(inner, |path| {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(key);
        })
    }

    /// As `in_key`, under a key that is no field.
    fn in_map_key<T, E: serde::de::Error>(
        &self,
        key: &str,
        inner: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let start = self.path.borrow().len();
        self.map_keys.borrow_mut().push(start..start + usize::from(start > 0) + key.len());
        let result = self.in_key(key, inner)?;
        self.map_keys.borrow_mut().pop();
        Ok(result)
    }

    fn in_item<T, E: serde::de::Error>(
        &self,
        index: usize,
        inner: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.inside(inner, |path| {
            path.push_str(&format!("[{index}]"));
        })
    }

    fn inside<T, E: serde::de::Error>(
        &self,
        inner: impl FnOnce() -> Result<T, E>,
        extend: impl FnOnce(&mut String),
    ) -> Result<T, E> {
        if self.depth.get() >= DEPTH_MAX {
            return Err(self.fail("exceeded max depth".to_owned()));
        }
        let length = self.path.borrow().len();
        extend(&mut self.path.borrow_mut());
        self.depth.set(self.depth.get() + 1);
        let result = inner()?;
        self.depth.set(self.depth.get() - 1);
        self.path.borrow_mut().truncate(length);
        Ok(result)
    }

    fn fail<E: serde::de::Error>(&self, message: String) -> E {
        self.failure.borrow_mut().get_or_insert(message);
        E::custom("a value does not fit its field")
    }

    fn mismatch<E: serde::de::Error>(&self, found: &Found<'_>, ty: TypeId, owner: &str) -> E {
        self.fail(match self.source {
            Source::Tree => misfit_in_tree(self.schema, ty, found),
            Source::Text => wording(self.schema, ty, found, owner, &without_indexes(&self.path_of_fields())),
        })
    }

    /// The path without keys of maps.
    fn path_of_fields(&self) -> String {
        let mut path = self.path.borrow().clone();
        for key in self.map_keys.borrow().iter().rev() {
            path.replace_range(key.clone(), "");
        }
        path
    }

    /// What a null leaves of a value of this type, inside a list or map.
    fn nothing(&self, ty: TypeId) -> Value {
        match self.empties {
            Empties::Keep => Value::Null,
            Empties::Drop => scalar::zero(self.schema, ty),
        }
    }

    fn keeps(&self, field: &Field, value: &Value) -> bool {
        self.empties == Empties::Keep
            || field.presence != Presence::OmitEmpty
            || !scalar::is_empty(value, &self.schema[field.ty].kind)
    }
}

/// Decodes a value of one type; none for null.
#[derive(Clone, Copy)]
pub struct Seed<'w> {
    walk: &'w Walk<'w>,
    ty: TypeId,
    /// The short name of the object type that holds this value, for messages.
    owner: &'w str,
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Option<Value>, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'w> Seed<'w> {
    fn kind(&self) -> &'w TypeKind {
        &self.walk.schema[self.ty].kind
    }

    fn mismatch<E: serde::de::Error>(&self, found: &Found<'_>) -> E {
        self.walk.mismatch(found, self.ty, self.owner)
    }

    fn retyped(self, ty: TypeId) -> Self {
        Seed { ty, ..self }
    }

    fn number<E: serde::de::Error>(self, number: serde_json::Number) -> Result<Option<Value>, E> {
        let number = match self.walk.source {
            Source::Tree => fitted(self.kind(), number),
            Source::Text => number,
        };
        let integer = number.as_i64();
        match self.kind() {
            TypeKind::Scalar(Scalar::Int64) if integer.is_some() => {}
            TypeKind::Scalar(Scalar::Int32 | Scalar::IntOrString)
                if integer.is_some_and(|n| i32::try_from(n).is_ok()) => {}
            TypeKind::Scalar(Scalar::Double) | TypeKind::Any => {}
            TypeKind::Scalar(Scalar::Quantity) => return self.text(&number.to_string()),
            _ => return Err(self.mismatch(&Found::Number(&number))),
        }
        Ok(Some(Value::Number(number)))
    }

    fn text<E: serde::de::Error>(self, text: &str) -> Result<Option<Value>, E> {
        let scalar = match self.kind() {
            TypeKind::Scalar(scalar) => *scalar,
            TypeKind::Any => return Ok(Some(text.into())),
            _ => return Err(self.mismatch(&Found::String)),
        };
        match scalar::from_str(scalar, text) {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(message)) => Err(self.walk.fail(message)),
            None => Err(self.mismatch(&Found::String)),
        }
    }

    fn object<'de, A: MapAccess<'de>>(self, object: &'w Object, mut input: A) -> Result<Value, A::Error> {
        let owner = self.walk.schema[self.ty].short_name();
        let mut out = Map::new();
        let mut seen = Seen::default();
        while let Some(key) = input.next_key_seed(KeySeed(object))? {
            let (at, field) = match key {
                Key::Known(at) => (at, &object.fields[at]),
                Key::Unknown(key) if object.preserve_unknown => {
                    out.insert(key, input.next_value()?);
                    continue;
                }
                Key::Unknown(key) => {
                    self.walk.report_field("unknown", &key);
                    input.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            if !seen.insert(at) {
                self.walk.report_field("duplicate", &field.name);
            }
            let seed = Seed { walk: self.walk, ty: field.ty, owner };
            match self.walk.in_key(&field.name, || input.next_value_seed(seed))? {
                Some(value) if self.walk.keeps(field, &value) => out.insert(&*field.name, value),
                None if self.walk.empties == Empties::Keep => out.insert(&*field.name, Value::Null),
                _ => out.remove(field.name.as_ref()),
            };
        }
        Ok(Value::Object(out))
    }

    fn map<'de, A: MapAccess<'de>>(self, value: TypeId, mut input: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = input.next_key::<Text>()? {
            if out.contains_key(&key) {
                self.walk.report_field("duplicate", &key);
            }
            let seed = self.retyped(value);
            let item = self.walk.in_map_key(&key, || input.next_value_seed(seed))?;
            out.insert(key, item.unwrap_or_else(|| self.walk.nothing(value)));
        }
        Ok(Value::Object(out))
    }

    fn list<'de, A: SeqAccess<'de>>(self, item: TypeId, mut input: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        let seed = self.retyped(item);
        while let Some(value) = self.walk.in_item(out.len(), || input.next_element_seed(seed))? {
            out.push(value.unwrap_or_else(|| self.walk.nothing(item)));
        }
        Ok(Value::Array(out))
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value of the schema's type")
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<Option<Value>, E> {
        Ok(None)
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Option<Value>, D::Error> {
        input.deserialize_any(self)
    }

    fn visit_bool<E: serde::de::Error>(self, value: bool) -> Result<Option<Value>, E> {
        match self.kind() {
            TypeKind::Scalar(Scalar::Bool) | TypeKind::Any => Ok(Some(value.into())),
            TypeKind::Union(union) => self.retyped(union.other).visit_bool(value),
            _ => Err(self.mismatch(&Found::Bool)),
        }
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<Option<Value>, E> {
        self.number(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Option<Value>, E> {
        self.number(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Option<Value>, E> {
        let number = serde_json::Number::from_f64(value).ok_or_else(|| E::custom("numbers are finite"))?;
        self.number(number)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Option<Value>, E> {
        self.text(value)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, input: A) -> Result<Option<Value>, A::Error> {
        match self.kind() {
            TypeKind::List(list) => self.list(list.item, input).map(Some),
            TypeKind::Union(union) => self.retyped(union.other).visit_seq(input),
            TypeKind::Any => Value::deserialize(SeqAccessDeserializer::new(input)).map(Some),
            _ => Err(self.mismatch(&Found::Array)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, input: A) -> Result<Option<Value>, A::Error> {
        match self.kind() {
            TypeKind::Object(object) => self.object(object, input).map(Some),
            TypeKind::Map(map) => self.map(map.value, input).map(Some),
            TypeKind::Union(union) => self.retyped(union.object).visit_map(input),
            TypeKind::Any => Value::deserialize(MapAccessDeserializer::new(input)).map(Some),
            TypeKind::List(_) | TypeKind::Scalar(_) => Err(self.mismatch(&Found::Object)),
        }
    }
}

/// Which fields of an object were there, null or not.
#[derive(Default)]
struct Seen {
    first: u128,
    rest: BTreeSet<usize>,
}

impl Seen {
    /// False when `at` was there before.
    fn insert(&mut self, at: usize) -> bool {
        if at >= 128 {
            return self.rest.insert(at);
        }
        let bit = 1 << at;
        let new = self.first & bit == 0;
        self.first |= bit;
        new
    }
}
