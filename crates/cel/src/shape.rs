//! What a schema says of JSON that an expression sees it as: texts that are times, numbers that are never whole, lists
//! that are sets. Follows upstream's `common.UnstructuredToVal`.

use std::collections::BTreeMap;

use apimachinery::Value;
use base64::Engine as _;
use jiff::{SignedDuration, Timestamp};

use crate::library::convert;
use crate::value::Val;

/// How one value and those within it are seen.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Shape {
    /// As JSON has it.
    #[default]
    Plain,
    Double,
    Timestamp,
    Duration,
    /// A text in base64.
    Bytes,
    List(Listed, Box<Shape>),
    /// By the names of JSON. A field that is null counts as absent.
    Object(BTreeMap<Box<str>, Shape>),
    Map(Box<Shape>),
}

/// What makes two elements of a list one.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Listed {
    /// Their place.
    #[default]
    Atomic,
    /// Their value.
    Set,
    /// These of their fields.
    Map(Vec<Box<str>>),
}

impl Listed {
    /// Whether two elements are one.
    pub(crate) fn joins(&self, a: &Val<'_>, b: &Val<'_>) -> bool {
        match self {
            Listed::Atomic => false,
            Listed::Set => a.equals(b),
            Listed::Map(keys) => keys.iter().all(|key| match (a.field(key), b.field(key)) {
                (Some(a), Some(b)) => a.equals(&b),
                (a, b) => a.is_none() && b.is_none(),
            }),
        }
    }

    /// One list after the other, where later elements take the place of those they are one with.
    pub(crate) fn united<'v>(&self, mut items: Vec<Val<'v>>, more: Vec<Val<'v>>) -> Vec<Val<'v>> {
        for item in more {
            match items.iter().position(|known| self.joins(known, &item)) {
                Some(place) => items[place] = item,
                None => items.push(item),
            }
        }
        items
    }
}

pub(crate) static PLAIN: Shape = Shape::Plain;

impl Shape {
    pub(crate) fn item(&self) -> &Shape {
        match self {
            Shape::List(_, item) => item,
            _ => &PLAIN,
        }
    }

    pub(crate) fn field(&self, name: &str) -> &Shape {
        match self {
            Shape::Object(fields) => fields.get(name).unwrap_or(&PLAIN),
            Shape::Map(value) => value,
            _ => &PLAIN,
        }
    }

    pub(crate) fn listed(&self) -> &Listed {
        match self {
            Shape::List(listed, _) => listed,
            _ => &Listed::Atomic,
        }
    }

    /// The value so seen. A text that is not what it should be stays one, which then no function takes.
    pub(crate) fn read<'v>(&'v self, value: &'v Value) -> Val<'v> {
        let shaped = match (self, value) {
            (Shape::Double, Value::Number(number)) => number.as_f64().map(Val::Double),
            (Shape::Timestamp, Value::String(text)) => moment(text).map(Val::Timestamp),
            (Shape::Duration, Value::String(text)) => span(text).map(Val::Duration),
            (Shape::Bytes, Value::String(text)) => {
                let decoded = base64::engine::general_purpose::STANDARD.decode(text);
                decoded.ok().map(|bytes| Val::Bytes(bytes.into()))
            }
            (_, Value::Array(items)) => Some(Val::Json(items, self)),
            (_, Value::Object(fields)) => Some(Val::Object(fields, self)),
            _ => None,
        };
        shaped.unwrap_or_else(|| Val::from(value))
    }
}

/// A moment, or the first of a day for the format `date`.
fn moment(text: &str) -> Option<Timestamp> {
    text.parse().or_else(|_| format!("{text}T00:00:00Z").parse()).ok()
}

/// Go's durations, or a number with the name of a unit: `1h30m`, `3 weeks` (`strfmt.ParseDuration`).
fn span(text: &str) -> Option<SignedDuration> {
    if let Ok(span) = convert::duration(text) {
        return Some(span);
    }
    let unit_at = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(unit_at);
    let nanoseconds: i64 = match unit.trim_start().to_lowercase().as_str() {
        "nano" | "nanos" | "nanosecond" | "nanoseconds" | "ns" => 1,
        "micro" | "micros" | "microsecond" | "microseconds" | "us" | "µs" => 1_000,
        "milli" | "millis" | "millisecond" | "milliseconds" | "ms" => 1_000_000,
        "sec" | "secs" | "second" | "seconds" | "s" => 1_000_000_000,
        "min" | "mins" | "minute" | "minutes" | "m" => 60_000_000_000,
        "hr" | "hrs" | "hour" | "hours" | "h" => 3_600_000_000_000,
        "day" | "days" | "d" => 86_400_000_000_000,
        "wk" | "wks" | "week" | "weeks" | "w" => 604_800_000_000_000,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(nanoseconds).map(SignedDuration::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bindings, Env, PER_CALL_LIMIT, Type};
    use apimachinery::json;

    fn came(expression: &str, shape: &Shape, value: &Value) -> String {
        let program = Env::new().with("self", Type::Dyn).compile(expression).expect("is an expression");
        let bindings = Bindings::new().set("self", Val::shaped(value, shape));
        let result = program.evaluate(&bindings, PER_CALL_LIMIT).result;
        result.map_or_else(|error| error.to_string(), |value| value.to_json().unwrap_or_default().to_string())
    }

    fn object(fields: impl IntoIterator<Item = (&'static str, Shape)>) -> Shape {
        Shape::Object(fields.into_iter().map(|(name, shape)| (name.into(), shape)).collect())
    }

    #[test]
    fn values_are_what_the_schema_says() {
        let shape = object([
            ("n", Shape::Double),
            ("at", Shape::Timestamp),
            ("day", Shape::Timestamp),
            ("for", Shape::Duration),
            ("raw", Shape::Bytes),
            ("times", Shape::List(Listed::Atomic, Box::new(Shape::Timestamp))),
        ]);
        let value = json!({"n": 3, "at": "2024-01-02T03:04:05Z", "day": "2024-01-02", "for": "2 days", "raw": "YWI=",
            "times": ["2024-01-02T03:04:05Z", "2024-01-02T02:04:05Z"], "gone": null});
        for (expression, expect) in [
            ("self.n / 2.0", "1.5"),
            ("self.at.getHours() + self.day.getDate()", "5"),
            ("self.for.getHours()", "48"),
            ("self.raw == b'ab'", "true"),
            ("self.times.min() < self.at", "true"),
            ("self.times.map(t, t.getHours())", "[3,2]"),
            ("has(self.gone)", "false"),
        ] {
            assert_eq!(came(expression, &shape, &value), expect, "{expression}");
        }
    }

    #[test]
    fn sets_and_maps_are_equal_in_any_order_and_are_united() {
        let keyed = Shape::List(Listed::Map(vec!["k".into()]), Box::default());
        let shape = object([("s", Shape::List(Listed::Set, Box::default())), ("m", keyed)]);
        let value = json!({"s": [1, 2], "m": [{"k": "a", "v": 1}, {"k": "b", "v": 2}]});
        for (expression, expect) in [
            ("self.s == [2, 1]", "true"),
            ("self.s == [2, 3]", "false"),
            ("self.s + [2, 3]", "[1,2,3]"),
            ("self.m == [{'k': dyn('b'), 'v': dyn(2)}, {'k': dyn('a'), 'v': dyn(1)}]", "true"),
            ("(self.m + [{'k': dyn('a'), 'v': dyn(9)}]).map(e, e.v)", "[9,2]"),
        ] {
            assert_eq!(came(expression, &shape, &value), expect, "{expression}");
        }
    }
}
