//! What becomes a value, and what a value may be compared with.

use std::borrow::Cow;
use std::str::FromStr;

use super::{Map, Number, Text, Value};

impl From<serde_json::Value> for Value {
    fn from(value: serde_json::Value) -> Value {
        match value {
            serde_json::Value::Null => Value::Null,
            serde_json::Value::Bool(value) => Value::Bool(value),
            serde_json::Value::Number(number) => Value::Number(number),
            serde_json::Value::String(text) => Value::from(text),
            serde_json::Value::Array(items) => items.into_iter().collect(),
            serde_json::Value::Object(map) => {
                Value::Object(map.into_iter().map(|(key, value)| (key, value.into())).collect())
            }
        }
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Value {
        Value::Bool(value)
    }
}

macro_rules! from_integers {
    ($($integer:ty)*) => {$(
        impl From<$integer> for Value {
            fn from(number: $integer) -> Value {
                Value::Number(number.into())
            }
        }
    )*};
}

from_integers!(i8 i16 i32 i64 isize u8 u16 u32 u64 usize);

/// Null when it is no number.
impl From<f64> for Value {
    fn from(number: f64) -> Value {
        Number::from_f64(number).map_or(Value::Null, Value::Number)
    }
}

impl From<Number> for Value {
    fn from(number: Number) -> Value {
        Value::Number(number)
    }
}

macro_rules! from_texts {
    ($($text:ty)*) => {$(
        impl From<$text> for Value {
            fn from(text: $text) -> Value {
                Value::String(text.into())
            }
        }

        impl PartialEq<$text> for Value {
            fn eq(&self, other: &$text) -> bool {
                self.as_str().is_some_and(|text| text == *other)
            }
        }

        impl PartialEq<Value> for $text {
            fn eq(&self, other: &Value) -> bool {
                other == self
            }
        }
    )*};
}

from_texts!(&str String Text Cow<'_, str>);

impl PartialEq<str> for Value {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == Some(other)
    }
}

/// A value is equal to what becomes an equal one.
macro_rules! equals {
    ($($scalar:ty)*) => {$(
        impl PartialEq<$scalar> for Value {
            fn eq(&self, other: &$scalar) -> bool {
                let other = Value::from(*other);
                *self == other
            }
        }

        impl PartialEq<$scalar> for &Value {
            fn eq(&self, other: &$scalar) -> bool {
                **self == *other
            }
        }
    )*};
}

equals!(bool i32 i64 u16 u32 u64 usize f64);

impl From<Map> for Value {
    fn from(map: Map) -> Value {
        Value::Object(map)
    }
}

impl<T: Into<Value>> From<Vec<T>> for Value {
    fn from(items: Vec<T>) -> Value {
        items.into_iter().collect()
    }
}

impl<T: Clone + Into<Value>> From<&[T]> for Value {
    fn from(items: &[T]) -> Value {
        items.iter().cloned().collect()
    }
}

impl<T: Into<Value>, const N: usize> From<[T; N]> for Value {
    fn from(items: [T; N]) -> Value {
        items.into_iter().collect()
    }
}

/// Null for none.
impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::Null, Into::into)
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Value {
        Value::Array(items.into_iter().map(Into::into).collect())
    }
}

impl<K: Into<Text>, V: Into<Value>> FromIterator<(K, V)> for Value {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(fields: I) -> Value {
        Value::Object(fields.into_iter().map(|(key, value)| (key, value.into())).collect())
    }
}

impl FromStr for Value {
    type Err = serde_json::Error;

    fn from_str(json: &str) -> Result<Value, serde_json::Error> {
        serde_json::from_str(json)
    }
}
