//! Values: JSON is looked at where it lies, what an expression makes is shared.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Deref;
use std::sync::Arc;

use apimachinery::quantity::Quantity;
use apimachinery::{Map, Value};
use jiff::{SignedDuration, Timestamp};

use crate::library::authz::Question;
use crate::library::formats::Format;
use crate::library::semver::{self, Version};
use crate::library::url::Url;
use crate::shape::{Listed, PLAIN, Shape};

/// A value of an expression; `'v` is the life of the JSON it looks into.
#[derive(Clone, Debug)]
pub enum Val<'v> {
    Null,
    Bool(bool),
    Int(i64),
    Uint(u64),
    Double(f64),
    Text(Text<'v>),
    Bytes(Arc<[u8]>),
    Timestamp(Timestamp),
    Duration(SignedDuration),
    /// A list as JSON has it, and how it is seen.
    Json(&'v [Value], &'v Shape),
    List(Arc<Vec<Val<'v>>>),
    Object(&'v Map, &'v Shape),
    Map(Arc<BTreeMap<Key<'v>, Val<'v>>>),
    /// Maps by a name; under a name that is not there, an empty one is found.
    Maps(Arc<BTreeMap<Key<'v>, Val<'v>>>),
    Optional(Option<Arc<Val<'v>>>),
    /// A type, by its name.
    Type(Arc<str>),
    Quantity(Arc<Quantity>),
    Ip(IpAddr),
    /// Address and length of the prefix.
    Cidr(IpAddr, u8),
    Url(Arc<Url>),
    Semver(Arc<Version>),
    /// A named format.
    Format(&'static Format),
    /// An object that an expression makes.
    Struct(Arc<Struct<'v>>),
    /// A question to the authorizer.
    Question(Arc<Question<'v>>),
    /// The named expressions.
    Composed,
}

/// An object of a type that expressions make: `Object.spec{...}`, `JSONPatch{...}`.
#[derive(Clone, Debug)]
pub struct Struct<'v> {
    pub name: Arc<str>,
    pub fields: BTreeMap<Arc<str>, Val<'v>>,
}

#[derive(Clone, Debug)]
pub enum Text<'v> {
    Borrowed(&'v str),
    Shared(Arc<str>),
}

impl Deref for Text<'_> {
    type Target = str;
    fn deref(&self) -> &str {
        match self {
            Text::Borrowed(text) => text,
            Text::Shared(text) => text,
        }
    }
}

/// A key of a map. Numbers of different types are one key when they are one number.
#[derive(Clone, Debug)]
pub enum Key<'v> {
    Bool(bool),
    Int(i64),
    Uint(u64),
    Text(Text<'v>),
}

impl<'v> Key<'v> {
    pub fn value(&self) -> Val<'v> {
        match self {
            Key::Bool(value) => Val::Bool(*value),
            Key::Int(value) => Val::Int(*value),
            Key::Uint(value) => Val::Uint(*value),
            Key::Text(text) => Val::Text(text.clone()),
        }
    }

    fn rank(&self) -> (u8, i128, &str) {
        match self {
            Key::Bool(value) => (0, i128::from(*value), ""),
            Key::Int(value) => (1, i128::from(*value), ""),
            Key::Uint(value) => (1, i128::from(*value), ""),
            Key::Text(text) => (2, 0, text),
        }
    }
}

impl PartialEq for Key<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Key<'_> {}

impl PartialOrd for Key<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl<'v> From<&'v Value> for Val<'v> {
    fn from(value: &'v Value) -> Val<'v> {
        match value {
            Value::Null => Val::Null,
            Value::Bool(value) => Val::Bool(*value),
            Value::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(value), _) => Val::Int(value),
                (None, Some(value)) => Val::Uint(value),
                (None, None) => Val::Double(number.as_f64().unwrap_or(f64::NAN)),
            },
            Value::String(text) => Val::Text(Text::Borrowed(text)),
            Value::Array(items) => Val::Json(items, &PLAIN),
            Value::Object(fields) => Val::Object(fields, &PLAIN),
        }
    }
}

impl<'v> Val<'v> {
    /// JSON as its schema has it seen.
    pub fn shaped(value: &'v Value, shape: &'v Shape) -> Val<'v> {
        shape.read(value)
    }

    pub fn text(text: impl Into<Arc<str>>) -> Val<'v> {
        Val::Text(Text::Shared(text.into()))
    }

    pub fn list(items: Vec<Val<'v>>) -> Val<'v> {
        Val::List(Arc::new(items))
    }

    /// A semantic version; nothing for what is none.
    pub fn semver(text: &str) -> Option<Val<'v>> {
        semver::parse(text).map(|version| Val::Semver(Arc::new(version)))
    }

    pub fn some(value: Val<'v>) -> Val<'v> {
        Val::Optional(Some(Arc::new(value)))
    }

    /// The name of the value's type, as `type()` tells it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Val::Null => "null_type",
            Val::Bool(_) => "bool",
            Val::Int(_) => "int",
            Val::Uint(_) => "uint",
            Val::Double(_) => "double",
            Val::Text(_) => "string",
            Val::Bytes(_) => "bytes",
            Val::Timestamp(_) => "google.protobuf.Timestamp",
            Val::Duration(_) => "google.protobuf.Duration",
            Val::Json(..) | Val::List(_) => "list",
            Val::Object(..) | Val::Map(_) | Val::Maps(_) => "map",
            Val::Optional(_) => "optional_type",
            Val::Type(_) => "type",
            Val::Quantity(_) => "kubernetes.Quantity",
            Val::Ip(_) => "net.IP",
            Val::Cidr(..) => "net.CIDR",
            Val::Url(_) => "kubernetes.URL",
            Val::Semver(_) => "kubernetes.Semver",
            Val::Format(_) => "kubernetes.NamedFormat",
            Val::Struct(_) => "Object",
            Val::Question(question) => question.type_name(),
            Val::Composed => "kubernetes.variables",
        }
    }

    pub(crate) fn key(self) -> Option<Key<'v>> {
        match self {
            Val::Bool(value) => Some(Key::Bool(value)),
            Val::Int(value) => Some(Key::Int(value)),
            Val::Uint(value) => Some(Key::Uint(value)),
            Val::Text(text) => Some(Key::Text(text)),
            Val::Double(value) if value.fract() == 0.0 && value.abs() < 9e18 => Some(Key::Int(value as i64)),
            _ => None,
        }
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self, Val::Json(..) | Val::List(_))
    }

    /// How many elements a list or a map has.
    pub(crate) fn count(&self) -> Option<usize> {
        match self {
            Val::Json(items, _) => Some(items.len()),
            Val::List(items) => Some(items.len()),
            Val::Object(fields, _) => Some(fields.len()),
            Val::Map(entries) | Val::Maps(entries) => Some(entries.len()),
            _ => None,
        }
    }

    /// Element `index` of a list.
    pub(crate) fn item(&self, index: usize) -> Option<Val<'v>> {
        match self {
            Val::Json(items, shape) => items.get(index).map(|item| shape.item().read(item)),
            Val::List(items) => items.get(index).cloned(),
            _ => None,
        }
    }

    fn each(&self) -> impl Iterator<Item = Val<'v>> {
        (0..self.count().unwrap_or(0)).filter_map(|index| self.item(index))
    }

    /// All elements of a list.
    pub(crate) fn items(&self) -> Option<Vec<Val<'v>>> {
        self.is_list().then(|| self.each().collect())
    }

    pub(crate) fn listed(&self) -> &'v Listed {
        match self {
            Val::Json(_, shape) => shape.listed(),
            _ => &Listed::Atomic,
        }
    }

    /// The element of this list that an element at `place` of another one is to be compared with.
    fn counterpart(&self, place: usize, item: &Val<'_>) -> Option<Val<'v>> {
        match self.listed() {
            Listed::Atomic => self.item(place),
            listed => self.each().find(|own| listed.joins(own, item)),
        }
    }

    /// All keys of a map.
    pub(crate) fn keys(&self) -> Option<Vec<Val<'v>>> {
        match self {
            Val::Object(fields, _) => Some(fields.keys().map(|key| Val::Text(Text::Borrowed(key))).collect()),
            Val::Map(entries) | Val::Maps(entries) => Some(entries.keys().map(Key::value).collect()),
            _ => None,
        }
    }

    pub(crate) fn field(&self, name: &str) -> Option<Val<'v>> {
        match self {
            Val::Object(fields, shape) => {
                let found = fields.get(name);
                let found = found.filter(|value| !(value.is_null() && matches!(shape, Shape::Object(_))));
                found.map(|value| shape.field(name).read(value))
            }
            Val::Map(entries) => named(entries, name),
            Val::Maps(entries) => Some(named(entries, name).unwrap_or_else(|| Val::Map(Arc::default()))),
            Val::Struct(made) => made.fields.get(name).cloned(),
            _ => None,
        }
    }

    /// What a map has under `key`.
    pub(crate) fn entry(&self, key: &Val<'v>) -> Option<Val<'v>> {
        match (self, key) {
            (Val::Object(..), Val::Text(name)) => self.field(name),
            (Val::Map(entries), key) => entries.get(&key.clone().key()?).cloned(),
            (Val::Maps(_), Val::Text(name)) => self.field(name),
            _ => None,
        }
    }

    /// Whether a map has an entry of its own under `key`.
    pub(crate) fn holds(&self, key: &Val<'v>) -> bool {
        match (self, key) {
            (Val::Maps(entries), Val::Text(name)) => named(entries, name).is_some(),
            _ => self.entry(key).is_some(),
        }
    }

    /// The value as JSON, where it has a form there.
    pub fn to_json(&self) -> Option<Value> {
        Some(match self {
            Val::Null => Value::Null,
            Val::Bool(value) => Value::from(*value),
            Val::Int(value) => Value::from(*value),
            Val::Uint(value) => Value::from(*value),
            Val::Double(value) => Value::from(*value),
            Val::Text(text) => Value::from(&**text),
            Val::Json(items, _) => Value::Array(items.to_vec()),
            Val::Object(fields, _) => Value::Object((*fields).clone()),
            Val::List(items) => {
                items.iter().map(Val::to_json).collect::<Option<Vec<_>>>().map(Value::Array)?
            }
            Val::Map(entries) => {
                let mut fields = Map::new();
                for (key, value) in entries.iter() {
                    let Key::Text(name) = key else { return None };
                    fields.insert(name.to_string(), value.to_json()?);
                }
                Value::Object(fields)
            }
            Val::Struct(made) => {
                let mut fields = Map::new();
                for (name, value) in &made.fields {
                    fields.insert(name.to_string(), value.to_json()?);
                }
                Value::Object(fields)
            }
            Val::Timestamp(time) => Value::from(time.to_string()),
            Val::Duration(_) | Val::Bytes(_) => Value::from(crate::library::convert::to_text(self)?),
            Val::Optional(Some(value)) => value.to_json()?,
            Val::Quantity(quantity) => Value::from(quantity.to_string()),
            _ => return None,
        })
    }

    /// How costs count it: characters, bytes, elements, or 1.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Val::Text(text) if text.is_ascii() => text.len() as u64,
            Val::Text(text) => text.chars().count() as u64,
            Val::Bytes(bytes) => bytes.len() as u64,
            Val::Ip(address) if address.is_ipv4() => 4,
            Val::Ip(_) => 16,
            Val::Cidr(_, bits) => u64::from(*bits).div_ceil(8),
            Val::Optional(Some(value)) => value.size(),
            other => other.count().map_or(1, |count| count as u64),
        }
    }

    /// CEL's equality: numbers across types, otherwise never equal across types.
    pub fn equals(&self, other: &Val<'_>) -> bool {
        if let Some(order) = self.numeric_order(other) {
            return order == Some(Ordering::Equal);
        }
        match (self, other) {
            (Val::Null, Val::Null) => true,
            (Val::Bool(a), Val::Bool(b)) => a == b,
            (Val::Text(a), Val::Text(b)) => **a == **b,
            (Val::Bytes(a), Val::Bytes(b)) => a == b,
            (Val::Timestamp(a), Val::Timestamp(b)) => a == b,
            (Val::Duration(a), Val::Duration(b)) => a == b,
            (Val::Type(a), Val::Type(b)) => a == b,
            (Val::Quantity(a), Val::Quantity(b)) => a == b,
            (Val::Ip(a), Val::Ip(b)) => a == b,
            (Val::Cidr(a, p), Val::Cidr(b, q)) => a == b && p == q,
            (Val::Url(a), Val::Url(b)) => a == b,
            (Val::Semver(a), Val::Semver(b)) => a.cmp(b) == Ordering::Equal,
            (Val::Format(a), Val::Format(b)) => a.name == b.name,
            (Val::Struct(a), Val::Struct(b)) => {
                a.name == b.name
                    && a.fields.len() == b.fields.len()
                    && a.fields.iter().zip(&b.fields).all(|((n, a), (m, b))| n == m && a.equals(b))
            }
            (Val::Optional(a), Val::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equals(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (a, b) if a.is_list() && b.is_list() => {
                a.count() == b.count()
                    && b.each()
                        .enumerate()
                        .all(|(place, item)| a.counterpart(place, &item).is_some_and(|own| own.equals(&item)))
            }
            (a, b) => match (a.keys(), b.keys()) {
                (Some(keys), Some(others)) => {
                    keys.len() == others.len()
                        && keys.iter().all(|key| {
                            let found =
                                others.iter().find(|other| other.equals(key)).and_then(|key| b.entry_of(key));
                            matches!((a.entry(key), found), (Some(a), Some(b)) if a.equals(&b))
                        })
                }
                _ => false,
            },
        }
    }

    fn entry_of(&self, key: &Val<'_>) -> Option<Val<'v>> {
        match (self, key) {
            (_, Val::Text(name)) => self.field(name),
            (Val::Map(entries), Val::Int(value)) => entries.get(&Key::Int(*value)).cloned(),
            (Val::Map(entries), Val::Uint(value)) => entries.get(&Key::Uint(*value)).cloned(),
            (Val::Map(entries), Val::Bool(value)) => entries.get(&Key::Bool(*value)).cloned(),
            _ => None,
        }
    }

    /// How two numbers stand to each other; nothing for what is no pair of numbers, `Some(None)` with a NaN.
    fn numeric_order(&self, other: &Val<'_>) -> Option<Option<Ordering>> {
        let whole = |value: &Val<'_>| match value {
            Val::Int(value) => Some(i128::from(*value)),
            Val::Uint(value) => Some(i128::from(*value)),
            _ => None,
        };
        match (self, other) {
            (Val::Double(a), Val::Double(b)) => Some(a.partial_cmp(b)),
            (Val::Double(a), b) => whole(b).map(|b| against(*a, b)),
            (a, Val::Double(b)) => whole(a).map(|a| against(*b, a).map(Ordering::reverse)),
            (a, b) => Some(Some(whole(a)?.cmp(&whole(b)?))),
        }
    }

    /// The order of two values that have one.
    pub(crate) fn order(&self, other: &Val<'_>) -> Option<Option<Ordering>> {
        if let Some(order) = self.numeric_order(other) {
            return Some(order);
        }
        let order = match (self, other) {
            (Val::Bool(a), Val::Bool(b)) => a.cmp(b),
            (Val::Text(a), Val::Text(b)) => (**a).cmp(&**b),
            (Val::Bytes(a), Val::Bytes(b)) => a.cmp(b),
            (Val::Timestamp(a), Val::Timestamp(b)) => a.cmp(b),
            (Val::Duration(a), Val::Duration(b)) => a.cmp(b),
            _ => return None,
        };
        Some(Some(order))
    }
}

/// Keys live as long as the map's values, so that one of a shorter life is looked for from the first on.
fn named<'v>(entries: &BTreeMap<Key<'v>, Val<'v>>, name: &str) -> Option<Val<'v>> {
    let mut found = entries.iter().filter(|(key, _)| matches!(key, Key::Text(text) if **text == *name));
    found.next().map(|(_, value)| value.clone())
}

/// A double against a whole number, without rounding either.
fn against(double: f64, whole: i128) -> Option<Ordering> {
    // Past what 64 bits hold, the cast keeps the order; below, the fraction decides between equal whole parts.
    if double.is_nan() {
        return None;
    }
    let floor = double.floor();
    let order = (floor as i128).cmp(&whole);
    Some(if order == Ordering::Equal && double > floor { Ordering::Greater } else { order })
}
