//! Reads an object's keys without keeping those its type knows.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Visitor};

use crate::schema::Object;

pub enum Key {
    /// The position among the object's fields.
    Known(usize),
    Unknown(String),
}

pub struct KeySeed<'s>(pub &'s Object);

impl<'de> DeserializeSeed<'de> for KeySeed<'_> {
    type Value = Key;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Key, D::Error> {
        input.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed<'_> {
    type Value = Key;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<Key, E> {
        match self.0.fields.binary_search_by(|f| f.name.as_ref().cmp(key)) {
            Ok(at) => Ok(Key::Known(at)),
            Err(_) => Ok(Key::Unknown(key.to_owned())),
        }
    }
}
