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
use super::{DEPTH_MAX, Empties, Error, ISSUES_MAX, Strictness, scalar};
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
    /// What Go writes otherwise in the path of a value that does not fit, in the path's order.
    in_go: RefCell<Vec<Otherwise<'a>>>,
    depth: Cell<usize>,
    issues: RefCell<Vec<String>>,
    /// The first value that does not fit, in upstream's words. Go reads on behind it.
    misfit: RefCell<Option<String>>,
    /// What ended the walk, in upstream's words; the error itself says nothing.
    failure: RefCell<Option<String>>,
}

/// A part of the path, and what stands for it in Go's: keys of maps are left out, embedded structs named.
struct Otherwise<'a> {
    part: Range<usize>,
    name: &'a str,
}

impl<'a> Walk<'a> {
    pub fn new(schema: &'a Schema, strictness: Strictness, empties: Empties, source: Source) -> Self {
        Walk {
            schema,
            strictness,
            empties,
            source,
            path: RefCell::default(),
            in_go: RefCell::default(),
            depth: Cell::default(),
            issues: RefCell::default(),
            misfit: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    /// The seed that decodes a whole object; none when the input is null.
    pub fn root(&self, ty: TypeId) -> Seed<'_, 'a> {
        Seed { walk: self, ty, owner: "" }
    }

    /// What the walk came to: its result, or in upstream's words why there is none, and the issues beside it.
    pub fn finish<T, E: fmt::Display>(self, result: Result<T, E>) -> (Result<T, Error>, Vec<String>) {
        let outcome = match (result, self.failure.into_inner(), self.misfit.into_inner()) {
            (_, Some(failure), _) => Err(Error::Type(failure)),
            (Err(error), ..) => Err(Error::Syntax(error.to_string())),
            (Ok(_), _, Some(misfit)) => Err(Error::Type(misfit)),
            (Ok(_), ..) if self.strictness == Strictness::Strict && !self.issues.borrow().is_empty() => {
                Err(Error::Strict(self.issues.take()))
            }
            (Ok(value), ..) => Ok(value),
        };
        (outcome, self.issues.into_inner())
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
        let part = start..start + usize::from(start > 0) + key.len();
        self.otherwise(Otherwise { part, name: "" }, || self.in_key(key, inner))
    }

    /// As `in_key`, under a field of `object`.
    fn in_field<T, E: serde::de::Error>(
        &self,
        object: &'a Object,
        field: &Field,
        inner: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let Some(name) = object.embedded(field) else { return self.in_key(&field.name, inner) };
        let end = self.path.borrow().len();
        self.otherwise(Otherwise { part: end..end, name }, || self.in_key(&field.name, inner))
    }

    fn otherwise<T, E>(
        &self,
        otherwise: Otherwise<'a>,
        inner: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.in_go.borrow_mut().push(otherwise);
        let result = inner()?;
        self.in_go.borrow_mut().pop();
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

    /// Nothing is kept of a value that does not fit. Go goes on behind it, unless a decoder of the type's own said so.
    fn mismatch<E: serde::de::Error>(
        &self,
        found: &Found<'_>,
        ty: TypeId,
        owner: &str,
    ) -> Result<Option<Value>, E> {
        match self.source {
            Source::Tree => Err(self.fail(misfit_in_tree(self.schema, ty, found))),
            Source::Text => {
                let message = || wording(self.schema, ty, found, owner, &without_indexes(&self.path_in_go()));
                match &self.schema[ty].kind {
                    TypeKind::Scalar(scalar) if scalar.has_own_decoder() => Err(self.fail(message())),
                    TypeKind::Union(union) => match &self.schema[union.other].kind {
                        TypeKind::Scalar(_) => Err(self.fail("boolean or JSON schema expected".to_owned())),
                        // Upstream's decoders of these look for an object or a list, and for nothing else.
                        _ => Ok(None),
                    },
                    _ => Ok(self.note(message)),
                }
            }
        }
    }

    /// Keeps in mind that something does not fit, unless something before it did not.
    fn note(&self, message: impl FnOnce() -> String) -> Option<Value> {
        self.misfit.borrow_mut().get_or_insert_with(message);
        None
    }

    fn path_in_go(&self) -> String {
        let mut path = self.path.borrow().clone();
        for Otherwise { part, name } in self.in_go.borrow().iter().rev() {
            let text = match (*name, part.start) {
                ("", _) => String::new(),
                (name, 0) => format!("{name}."),
                (name, _) => format!(".{name}"),
            };
            path.replace_range(part.clone(), &text);
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
pub struct Seed<'w, 's> {
    walk: &'w Walk<'s>,
    ty: TypeId,
    /// The short name of the object type that holds this value, for messages.
    owner: &'s str,
}

impl<'de> DeserializeSeed<'de> for Seed<'_, '_> {
    type Value = Option<Value>;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Option<Value>, D::Error> {
        input.deserialize_any(self)
    }
}

impl<'s> Seed<'_, 's> {
    fn kind(&self) -> &'s TypeKind {
        &self.walk.schema[self.ty].kind
    }

    fn mismatch<E: serde::de::Error>(&self, found: &Found<'_>) -> Result<Option<Value>, E> {
        self.walk.mismatch(found, self.ty, self.owner)
    }

    fn is_bool(&self, ty: TypeId) -> bool {
        matches!(self.walk.schema[ty].kind, TypeKind::Scalar(Scalar::Bool))
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
            _ => return self.mismatch(&Found::Number(&number)),
        }
        Ok(Some(Value::Number(number)))
    }

    fn text<E: serde::de::Error>(self, text: &str) -> Result<Option<Value>, E> {
        let scalar = match self.kind() {
            TypeKind::Scalar(scalar) => *scalar,
            TypeKind::Any => return Ok(Some(text.into())),
            _ => return self.mismatch(&Found::String),
        };
        match scalar::from_str(scalar, text) {
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(message)) if scalar.has_own_decoder() => Err(self.walk.fail(message)),
            Some(Err(message)) => Ok(self.walk.note(|| message)),
            None => self.mismatch(&Found::String),
        }
    }

    /// None where there was nothing but fields of features that are off.
    fn object<'de, A: MapAccess<'de>>(
        self,
        object: &'s Object,
        mut input: A,
    ) -> Result<Option<Value>, A::Error> {
        let owner = self.walk.schema[self.ty].short_name();
        let mut out = Map::new();
        let (mut seen, mut was_off) = (Seen::default(), false);
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
            let value = self.walk.in_field(object, field, || input.next_value_seed(seed))?;
            if field.off {
                was_off = true;
                continue;
            }
            match value {
                Some(value) if self.walk.keeps(field, &value) => out.insert(&*field.name, value),
                None if self.walk.empties == Empties::Keep => out.insert(&*field.name, Value::Null),
                _ => out.remove(field.name.as_ref()),
            };
        }
        Ok(Some(Value::Object(out)).filter(|value| !was_off || *value != Value::Object(Map::new())))
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

impl<'de> Visitor<'de> for Seed<'_, '_> {
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
            TypeKind::Union(union) if self.is_bool(union.other) => {
                self.retyped(union.other).visit_bool(value)
            }
            _ => self.mismatch(&Found::Bool),
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

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Option<Value>, A::Error> {
        match self.kind() {
            TypeKind::List(list) => self.list(list.item, input).map(Some),
            TypeKind::Union(union) if !self.is_bool(union.other) => {
                self.retyped(union.other).visit_seq(input)
            }
            TypeKind::Any => Value::deserialize(SeqAccessDeserializer::new(input)).map(Some),
            _ => {
                let nothing = self.mismatch(&Found::Array)?;
                while input.next_element::<IgnoredAny>()?.is_some() {}
                Ok(nothing)
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Option<Value>, A::Error> {
        match self.kind() {
            TypeKind::Object(object) => self.object(object, input),
            TypeKind::Map(map) => self.map(map.value, input).map(Some),
            TypeKind::Union(union) => self.retyped(union.object).visit_map(input),
            TypeKind::Any => Value::deserialize(MapAccessDeserializer::new(input)).map(Some),
            TypeKind::List(_) | TypeKind::Scalar(_) => {
                let nothing = self.mismatch(&Found::Object)?;
                while input.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(nothing)
            }
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
