//! The scalars with a form of their own: read leniently as upstream reads them, kept in the form upstream writes.

use crate::quantity;
use crate::schema::{Scalar, Schema, TypeId, TypeKind};
use crate::time::{format_micro_time, format_time, parse_time};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::Value;

/// The canonical form of a string given for `scalar`; none when the scalar takes no strings at all.
pub fn from_str(scalar: Scalar, text: &str) -> Option<Result<Value, String>> {
    let checked = match scalar {
        Scalar::String | Scalar::IntOrString => return Some(Ok(text.into())),
        Scalar::Bytes => check_base64(text),
        Scalar::Quantity => quantity::canonical(text).map(|q| q.into_owned()).map_err(|e| e.to_string()),
        Scalar::Time => parse(text, "2006-01-02T15:04:05Z07:00").map(format_time),
        Scalar::MicroTime => parse(text, "2006-01-02T15:04:05.000000Z07:00").map(format_micro_time),
        Scalar::Duration => duration_to_nanos(text)
            .map(duration_from_nanos)
            .ok_or_else(|| format!("time: invalid duration {text:?}")),
        Scalar::Bool | Scalar::Int32 | Scalar::Int64 | Scalar::Double => return None,
    };
    Some(checked.map(Value::from))
}

fn parse(text: &str, layout: &str) -> Result<jiff::Timestamp, String> {
    parse_time(text)
        .ok_or_else(|| format!("parsing time {text:?} as {layout:?}: cannot parse {text:?} as \"2006\""))
}

/// Go ignores line breaks within base64 and wants the padding.
fn check_base64(text: &str) -> Result<String, String> {
    let clean: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    match STANDARD.decode(&clean) {
        Ok(_) => Ok(clean),
        Err(base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _)) => {
            Err(format!("illegal base64 data at input byte {at}"))
        }
        Err(_) => Err(format!("illegal base64 data at input byte {}", clean.len())),
    }
}

pub fn base64_from_bytes(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// The value a null stands for inside a list or map, where it cannot be left out.
pub fn zero(schema: &Schema, ty: TypeId) -> Value {
    match &schema[ty].kind {
        TypeKind::Scalar(Scalar::Bool) => Value::Bool(false),
        TypeKind::Scalar(Scalar::Int32 | Scalar::Int64 | Scalar::Double | Scalar::IntOrString) => {
            Value::from(0)
        }
        TypeKind::Scalar(Scalar::Quantity) => Value::from("0"),
        TypeKind::Scalar(Scalar::String | Scalar::Bytes) => Value::from(""),
        TypeKind::Scalar(Scalar::Duration) => Value::from("0s"),
        TypeKind::Object(_) | TypeKind::Map(_) => Value::Object(crate::Map::new()),
        TypeKind::List(_) => Value::Array(Vec::new()),
        TypeKind::Scalar(Scalar::Time | Scalar::MicroTime) | TypeKind::Union(_) | TypeKind::Any => {
            Value::Null
        }
    }
}

/// Whether Go's `omitempty` would leave this value out.
pub fn is_empty(value: &Value, kind: &TypeKind) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(b) => !b,
        Value::Number(n) => n.as_f64() == Some(0.0) && !matches!(kind, TypeKind::Scalar(Scalar::IntOrString)),
        Value::String(s) => s.is_empty() && !matches!(kind, TypeKind::Scalar(Scalar::IntOrString)),
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.is_empty() && matches!(kind, TypeKind::Map(_)),
    }
}

const NANOS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];

/// Parses Go's duration, such as `-1.5h` or `1m30s`.
pub fn duration_to_nanos(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0.0;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, nanos) = NANOS.iter().find(|(unit, _)| *unit == &rest[..end])?;
        total += number * nanos;
        rest = &rest[end..];
        parts += 1;
    }
    let nanos = (sign * total).round();
    (parts > 0 && nanos.abs() < i64::MAX as f64).then_some(nanos as i64)
}

/// Go's `Duration.String`.
pub fn duration_from_nanos(nanos: i64) -> String {
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let fraction = |unit: u64| {
        let text = format!("{}.{:0width$}", nanos / unit, nanos % unit, width = unit.ilog10() as usize);
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{sign}{nanos}ns"),
        1_000..1_000_000 => format!("{sign}{}µs", fraction(1_000)),
        1_000_000..1_000_000_000 => format!("{sign}{}ms", fraction(1_000_000)),
        _ => {
            let minutes = nanos / 60_000_000_000;
            let rest = nanos % 60_000_000_000;
            let seconds = format!("{}.{:09}", rest / 1_000_000_000, rest % 1_000_000_000);
            let seconds = seconds.trim_end_matches('0').trim_end_matches('.');
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}s"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}s"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_and_write_as_gos() {
        for (given, expect) in [
            ("90s", "1m30s"),
            ("1h", "1h0m0s"),
            ("1.5h", "1h30m0s"),
            ("-250ms", "-250ms"),
            ("1500us", "1.5ms"),
            ("2.5s", "2.5s"),
            ("0", "0s"),
        ] {
            assert_eq!(duration_to_nanos(given).map(duration_from_nanos).as_deref(), Some(expect), "{given}");
        }
        for bad in ["", "1", "h", "1d", "1h-2m"] {
            assert_eq!(duration_to_nanos(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_and_bytes_take_the_form_upstream_writes() {
        let canonical = |scalar, text| from_str(scalar, text).expect("takes strings");
        assert_eq!(canonical(Scalar::Time, "2026-01-02T03:04:05.6+01:00"), Ok("2026-01-02T02:04:05Z".into()));
        assert_eq!(canonical(Scalar::Quantity, "1000m"), Ok("1".into()));
        assert_eq!(canonical(Scalar::Bytes, "YQ=="), Ok("YQ==".into()));
        assert!(canonical(Scalar::Bytes, "Y!==").expect_err("is no base64").contains("input byte 1"));
        assert!(canonical(Scalar::Time, "yesterday").is_err());
        assert!(from_str(Scalar::Bool, "true").is_none());
    }
}
