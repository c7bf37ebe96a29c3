//! How large the values of a schema can get in one request, and how small they can be. Follows the estimates of
//! `common.SchemaDeclType`.

use std::collections::BTreeMap;

use apimachinery::Value;
use cel::Extent;

use crate::structural::{Structural, Type};

/// Upstream: `MaxRequestSizeBytes`.
const REQUEST_BYTES_MAX: u64 = 3 << 20;
/// Between quotes or brackets.
const ENCLOSED_MAX: u64 = REQUEST_BYTES_MAX - 2;
/// A key of two bytes in its quotes, a colon and a comma.
const ENTRY_BYTES_MIN: u64 = 6;
/// Of two brackets, quotes or braces.
const PAIR: u64 = 2;
const BOOLEAN_BYTES_MIN: u64 = 4;
const NUMBER_BYTES_MIN: u64 = 1;
/// A character has at most so many bytes.
const CHARACTER_BYTES_MAX: u64 = 4;
/// Least and greatest length of texts with these formats (upstream: `cel.MinDurationSizeJSON` and its like).
const DURATION: (u64, u64) = (3, 32);
const DATE: (u64, u64) = (12, 12);
const DATE_TIME: (u64, u64) = (21, 32);

/// The bounds of a schema's values.
#[derive(Clone, Debug)]
pub struct Bounds {
    pub extent: Extent,
    /// The fewest bytes that one takes as JSON.
    pub bytes_min: u64,
}

impl Bounds {
    fn new(extent: Extent, bytes_min: u64) -> Option<Bounds> {
        Some(Bounds { extent, bytes_min })
    }

    /// How often such values can occur in one request.
    pub fn count_max(&self) -> u64 {
        REQUEST_BYTES_MAX / (self.bytes_min + 1)
    }
}

/// None of what expressions cannot name. `is_root` adds what every object has.
pub fn bounds(schema: &Structural, is_root: bool) -> Option<Bounds> {
    let checks = schema.checks.as_deref();
    let limit = |said: Option<i64>| said.map(|said| u64::try_from(said).unwrap_or_default());
    let length = limit(checks.and_then(|checks| checks.max_length));
    let in_bytes = length.map(|length| length.saturating_mul(CHARACTER_BYTES_MAX));
    if schema.int_or_string {
        return Bounds::new(Extent::of(in_bytes.unwrap_or(ENCLOSED_MAX)), 1);
    }
    match schema.ty {
        Type::Array => {
            let item = schema.items.as_deref()?;
            let item = bounds(item, item.embedded)?;
            let fits = ENCLOSED_MAX / (item.bytes_min + 1);
            let max = limit(checks.and_then(|checks| checks.max_items)).unwrap_or(fits);
            Bounds::new(Extent::list(max, item.extent), PAIR)
        }
        Type::Object => match schema.additional.schema().filter(|_| !is_root) {
            Some(value) => {
                let value = bounds(value, value.embedded)?;
                let fits = ENCLOSED_MAX / (value.bytes_min + ENTRY_BYTES_MIN);
                let max = limit(checks.and_then(|checks| checks.max_properties)).unwrap_or(fits);
                Bounds::new(Extent::map(max, value.extent), PAIR)
            }
            None => object(schema, is_root),
        },
        Type::String => text(schema, length, in_bytes),
        Type::Boolean => Bounds::new(Extent::of(0), BOOLEAN_BYTES_MIN),
        Type::Number | Type::Integer => Bounds::new(Extent::of(0), NUMBER_BYTES_MIN),
        Type::Any => None,
    }
}

fn object(schema: &Structural, is_root: bool) -> Option<Bounds> {
    let checks = schema.checks.as_deref();
    let is_required = |name: &str| checks.is_some_and(|c| c.required.iter().any(|known| **known == *name));
    let mut fields = BTreeMap::new();
    let mut bytes_min = PAIR;
    for (name, schema) in schema.properties.iter() {
        let Some(field) = bounds(schema, schema.embedded) else { continue };
        if is_required(name) && schema.default.is_none() {
            bytes_min += name.len() as u64 + field.bytes_min + 4;
        }
        fields.insert(name.into(), field.extent);
    }
    if is_root {
        let text = || Extent::of(ENCLOSED_MAX);
        let names = ["name", "generateName"].map(|name| (name.into(), text()));
        fields.insert("apiVersion".into(), text());
        fields.insert("kind".into(), text());
        fields.insert("metadata".into(), Extent::object(names.into()));
    }
    Bounds::new(Extent::object(fields), bytes_min)
}

fn text(schema: &Structural, length: Option<u64>, in_bytes: Option<u64>) -> Option<Bounds> {
    let checks = schema.checks.as_deref();
    let ranged = |(min, max)| Bounds::new(Extent::of(max), min);
    match checks.map_or("", |checks| &*checks.format) {
        "byte" => Bounds::new(Extent::of(length.unwrap_or(ENCLOSED_MAX)), PAIR),
        "duration" => ranged(DURATION),
        "date" => ranged(DATE),
        "date-time" => ranged(DATE_TIME),
        _ => {
            let listed = checks.map_or(&[][..], |checks| &checks.enumeration);
            let longest = listed.iter().filter_map(Value::as_str).map(|text| text.len() as u64).max();
            Bounds::new(Extent::of(in_bytes.or(longest).unwrap_or(ENCLOSED_MAX)), PAIR)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn of(schema: Value) -> Bounds {
        bounds(&Structural::parse(&schema), false).expect("can be named")
    }

    #[test]
    fn what_has_no_limit_fits_into_a_request() {
        let text = json!({"type": "string"});
        assert_eq!(of(text.clone()).extent, Extent::of(ENCLOSED_MAX));
        assert_eq!(of(json!({"type": "string", "maxLength": 10})).extent.max, 40);
        assert_eq!(of(json!({"type": "string", "enum": ["a", "abc"]})).extent.max, 3);
        assert_eq!(of(json!({"type": "array", "items": text})).extent.max, ENCLOSED_MAX / 3);
        assert_eq!(of(json!({"type": "array", "maxItems": 7, "items": text})).extent.max, 7);
        assert_eq!(of(json!({"type": "object", "additionalProperties": text})).extent.max, ENCLOSED_MAX / 8);
        let required =
            json!({"type": "object", "required": ["ab"], "properties": {"ab": {"type": "boolean"}}});
        assert_eq!(of(required).bytes_min, 2 + 2 + 4 + 4);
    }
}
