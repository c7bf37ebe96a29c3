//! One step into an object, and how it is written: `f:name`, `k:{"name":"web"}`, `v:"value"`, `i:0` in FieldsV1;
//! `.name`, `[name="web"]`, `[="value"]`, `[0]` in messages.

use std::cmp::Ordering;
use std::fmt;

use compact_str::format_compact;
use serde_json::Number;

use crate::{Map, Text, Value};

/// A value that tells list items apart. Ordered as upstream orders values: numbers, strings, booleans, null.
#[derive(Clone, Debug)]
pub enum Scalar {
    Number(Number),
    String(Text),
    Bool(bool),
    Null,
}

/// A step into an object. The order of the variants is upstream's order of path elements.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// A field of an object, or a key of a map.
    Field(Text),
    /// The list item whose fields have these values; sorted by field name.
    Key(Vec<(Text, Scalar)>),
    /// The list item that is this value.
    Value(Scalar),
    /// The list item in this place.
    Index(i64),
}

/// Steps from the root of an object.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(pub Vec<PathElement>);

impl Scalar {
    /// None for objects and lists, which identify nothing.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => Some(Scalar::Number(number.clone())),
            Value::String(text) => Some(Scalar::String(text.clone())),
            Value::Bool(flag) => Some(Scalar::Bool(*flag)),
            Value::Null => Some(Scalar::Null),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    fn to_value(&self) -> Value {
        match self {
            Scalar::Number(number) => Value::Number(number.clone()),
            Scalar::String(text) => Value::String(text.clone()),
            Scalar::Bool(flag) => Value::Bool(*flag),
            Scalar::Null => Value::Null,
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Scalar::Number(_) => 0,
            Scalar::String(_) => 1,
            Scalar::Bool(_) => 2,
            Scalar::Null => 3,
        }
    }
}

fn compare_numbers(a: &Number, b: &Number) -> Ordering {
    match (a.as_i64(), b.as_i64()) {
        (Some(a), Some(b)) => a.cmp(&b),
        _ => a.as_f64().unwrap_or(f64::MAX).total_cmp(&b.as_f64().unwrap_or(f64::MAX)),
    }
}

impl Ord for Scalar {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Scalar::Number(a), Scalar::Number(b)) => compare_numbers(a, b),
            (Scalar::String(a), Scalar::String(b)) => a.cmp(b),
            (Scalar::Bool(a), Scalar::Bool(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Scalar {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Scalar {}

impl fmt::Display for Scalar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scalar::Number(number) => write!(f, "{number}"),
            Scalar::String(text) => write!(f, "{text:?}"),
            Scalar::Bool(flag) => write!(f, "{flag}"),
            Scalar::Null => f.write_str("null"),
        }
    }
}

impl PathElement {
    pub fn field(name: &str) -> Self {
        PathElement::Field(name.into())
    }

    /// The key under which FieldsV1 holds this element.
    pub fn to_key(&self) -> Text {
        match self {
            PathElement::Field(name) => {
                let mut key = Text::const_new("f:");
                key.push_str(name);
                key
            }
            PathElement::Key(fields) => {
                let fields: Map =
                    fields.iter().map(|(name, value)| (name.clone(), value.to_value())).collect();
                format_compact!("k:{}", Value::Object(fields))
            }
            PathElement::Value(value) => format_compact!("v:{}", value.to_value()),
            PathElement::Index(index) => format_compact!("i:{index}"),
        }
    }

    /// Reads a FieldsV1 key. `Ok(None)` is an element of a kind that this version does not know.
    pub fn from_key(key: &str) -> Result<Option<Self>, String> {
        let malformed = || format!("parsing key as path element: {key:?}");
        let (kind, content) =
            key.split_once(':').filter(|(kind, _)| kind.len() == 1).ok_or_else(malformed)?;
        let json = || serde_json::from_str::<Value>(content).map_err(|_| malformed());
        let element = match kind {
            "f" => PathElement::field(content),
            "k" => {
                let Value::Object(fields) = json()? else { return Err(malformed()) };
                let field = |(name, value): (&Text, &Value)| Some((name.clone(), Scalar::from_value(value)?));
                let mut fields: Vec<_> =
                    fields.iter().map(field).collect::<Option<_>>().ok_or_else(malformed)?;
                fields.sort_unstable();
                PathElement::Key(fields)
            }
            "v" => PathElement::Value(Scalar::from_value(&json()?).ok_or_else(malformed)?),
            "i" => PathElement::Index(content.parse().map_err(|_| malformed())?),
            _ => return Ok(None),
        };
        Ok(Some(element))
    }
}

impl fmt::Display for PathElement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            PathElement::Field(name) => write!(f, ".{name}"),
            PathElement::Key(fields) => {
                f.write_str("[")?;
                for (index, (name, value)) in fields.iter().enumerate() {
                    let comma = if index > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            PathElement::Value(value) => write!(f, "[={value}]"),
            PathElement::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Path {
    /// A path of field names only.
    pub fn fields(names: &[&str]) -> Self {
        Path(names.iter().map(|name| PathElement::field(name)).collect())
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| element.fmt(f))
    }
}
