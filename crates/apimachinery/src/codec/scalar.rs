//! The scalars with a form of their own: read leniently as upstream reads them, kept in the form upstream writes.

use crate::quantity;
use crate::schema::{Scalar, Schema, TypeId, TypeKind};
use crate::time::{format_micro_time, format_time, layout};
use base64::Engine;
use base64::alphabet;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};

use crate::Value;

/// The canonical form of a string given for `scalar`; none when the scalar takes no strings at all.
pub fn from_str(scalar: Scalar, text: &str) -> Option<Result<Value, String>> {
    let checked = match scalar {
        Scalar::String | Scalar::IntOrString => return Some(Ok(text.into())),
        Scalar::Bytes => check_base64(text),
        Scalar::Quantity => quantity::canonical(text).map(|q| q.into_owned()).map_err(|e| e.to_string()),
        Scalar::Time => layout::RFC3339.parse(text).map(format_time),
        Scalar::MicroTime => layout::RFC3339_MICRO.parse(text).map(format_micro_time),
        Scalar::Duration => duration_to_nanos(text)
            .map(duration_from_nanos)
            .ok_or_else(|| format!("time: invalid duration {text:?}")),
        Scalar::Bool | Scalar::Int32 | Scalar::Int64 | Scalar::Double => return None,
    };
    Some(checked.map(Value::from))
}

/// Go wants the padding, but no zeros in the bits that the last character has to spare.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Go ignores line breaks within base64.
fn check_base64(text: &str) -> Result<String, String> {
    let clean: String = text.chars().filter(|&c| !is_line_break(c)).collect();
    match LENIENT.decode(&clean) {
        Ok(bytes) if clean.ends_with('=') => Ok(STANDARD.encode(bytes)),
        Ok(_) => Ok(clean),
        Err(_) => Err(format!("illegal base64 data at input byte {}", illegal_at(text.as_bytes()))),
    }
}

fn is_line_break(c: char) -> bool {
    matches!(c, '\r' | '\n')
}

/// Where Go finds fault with what is not base64: at the first character that may not stand where it does, or, at an early
/// end, as many bytes before it as the last quantum has characters (`decodeQuantum`).
fn illegal_at(text: &[u8]) -> usize {
    let mut in_quantum = 0;
    let mut rest = text.iter().enumerate().filter(|(_, byte)| !is_line_break(char::from(**byte)));
    while let Some((at, &byte)) = rest.next() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'+' | b'/' => in_quantum = (in_quantum + 1) % 4,
            b'=' if in_quantum == 2 => {
                return match rest.next() {
                    None => text.len(),
                    Some((at, b'=')) => rest.next().map_or(at, |(at, _)| at),
                    Some((at, _)) => at - 1,
                };
            }
            b'=' if in_quantum == 3 => return rest.next().map_or(at, |(at, _)| at),
            _ => return at,
        }
    }
    text.len() - in_quantum
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
        assert_eq!(canonical(Scalar::Bytes, "YR\n==\n"), Ok("YQ==".into()));
        assert!(canonical(Scalar::Time, "yesterday").is_err());
        assert!(from_str(Scalar::Bool, "true").is_none());
    }

    #[test]
    fn what_is_no_base64_is_told_where() {
        for (text, at) in [
            ("-----", 0),
            ("Y!==", 1),
            ("YQ=", 3),
            ("YQ", 0),
            ("YWFhYQ", 4),
            ("YWFhY", 4),
            ("Y\nWF\n!", 5),
            ("YQ=a", 2),
            ("YQ==YQ==", 4),
            ("YWE=YQ==", 4),
            ("=", 0),
            ("Y=", 1),
        ] {
            let expect = format!("illegal base64 data at input byte {at}");
            assert_eq!(from_str(Scalar::Bytes, text), Some(Err(expect)), "{text:?}");
        }
    }
}
