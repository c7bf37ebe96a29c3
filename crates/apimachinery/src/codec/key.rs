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
        Ok(self.0.position(key).map_or_else(|| Key::Unknown(key.to_owned()), Key::Known))
    }
}
