//! Objects of which no type is known: any JSON, YAML or CBOR, with a note of fields that stand twice (upstream:
//! `unstructured.UnstructuredJSONScheme` under strict decoding).

use std::cell::{Cell, RefCell};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Number;

use super::{DEPTH_MAX, Error, Format, ISSUES_MAX, cbor, yaml};
use crate::{Map, Value};

/// The value, and `duplicate field "spec.foo"` for each field that stands twice; the later one counts.
pub fn decode_untyped(format: Format, bytes: &[u8]) -> Result<(Value, Vec<String>), Error> {
    let walk = Walk::default();
    let value = match format {
        Format::Json => {
            let mut input = serde_json::Deserializer::from_slice(bytes);
            let value = Seed(&walk).deserialize(&mut input);
            value.and_then(|value| input.end().map(|()| value)).map_err(|e| Error::Syntax(e.to_string()))?
        }
        Format::Yaml => yaml::decode_with(bytes, Seed(&walk)).map_err(|e| Error::Syntax(e.to_string()))?,
        // One with a field that stands twice is refused.
        Format::Cbor => {
            Seed(&walk).deserialize(&cbor::decode(bytes)?).map_err(|e| Error::Syntax(e.to_string()))?
        }
        Format::Protobuf => return Err(Error::Syntax("the kind has no protobuf form".to_owned())),
    };
    Ok((value, walk.issues.into_inner()))
}

#[derive(Default)]
struct Walk {
    path: RefCell<String>,
    depth: Cell<usize>,
    issues: RefCell<Vec<String>>,
}

impl Walk {
    fn inside<T, E: serde::de::Error>(
        &self,
        step: impl FnOnce(&mut String),
        inner: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        if self.depth.get() >= DEPTH_MAX {
            return Err(E::custom("exceeded max depth"));
        }
        let length = self.path.borrow().len();
        step(&mut self.path.borrow_mut());
        self.depth.set(self.depth.get() + 1);
        let result = inner()?;
        self.depth.set(self.depth.get() - 1);
        self.path.borrow_mut().truncate(length);
        Ok(result)
    }

    fn report_double(&self, key: &str) {
        let path = self.path.borrow();
        let dot = if path.is_empty() { "" } else { "." };
        let issue = format!("duplicate field \"{path}{dot}{key}\"");
        let mut issues = self.issues.borrow_mut();
        if issues.len() < ISSUES_MAX && !issues.contains(&issue) {
            issues.push(issue);
        }
    }
}

#[derive(Clone, Copy)]
struct Seed<'w>(&'w Walk);

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }
}

/// Floats that are whole are written without a fraction, as Go writes them.
fn float(number: f64) -> Option<Number> {
    const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;
    if number.fract() == 0.0 && number.abs() <= WHOLE_MAX {
        return Some(Number::from(number as i64));
    }
    Number::from_f64(number)
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<Value, D::Error> {
        input.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Value, E> {
        match i64::try_from(value) {
            Ok(value) => Ok(value.into()),
            Err(_) => self.visit_f64(value as f64),
        }
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        float(value).map(Value::Number).ok_or_else(|| E::custom("numbers are finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        loop {
            let step = |path: &mut String| path.push_str(&format!("[{}]", out.len()));
            match self.0.inside(step, || input.next_element_seed(self))? {
                Some(value) => out.push(value),
                None => return Ok(out.into()),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut input: A) -> Result<Value, A::Error> {
        let mut out = Map::new();
        while let Some(key) = input.next_key::<String>()? {
            let step = |path: &mut String| {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&key);
            };
            let value = self.0.inside(step, || input.next_value_seed(self))?;
            if out.contains_key(&key) {
                self.0.report_double(&key);
            }
            out.insert(key, value);
        }
        Ok(out.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json;

    #[test]
    fn anything_is_taken_and_doubles_are_told() {
        let text = br#"{"a": {"b": [1.0, {"c": 1, "c": 2}]}, "n": null, "big": 18446744073709551615}"#;
        let (value, issues) = decode_untyped(Format::Json, text).expect("is JSON");
        assert_eq!(value["a"], json!({"b": [1, {"c": 2}]}));
        assert!(value["n"].is_null() && value["big"].is_f64());
        assert_eq!(issues, ["duplicate field \"a.b[1].c\""]);
        let (value, issues) = decode_untyped(Format::Yaml, b"a: {x: 1}\nl: [z]\n").expect("is YAML");
        assert_eq!((value, issues.len()), (json!({"a": {"x": 1}, "l": ["z"]}), 0));
        assert!(decode_untyped(Format::Json, b"{} x").is_err());
        let deep = "[".repeat(DEPTH_MAX + 1);
        assert!(decode_untyped(Format::Json, deep.as_bytes()).is_err());
    }
}
