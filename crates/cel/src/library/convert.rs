//! Conversions between types, and times. Follows cel-go's type conversions.

use base64::Engine as _;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, Zoned};

use crate::eval::{EvalError, Outcome};
use crate::signature::Row;
use crate::value::Val;

pub(super) const ROWS: &[Row] = &[
    ("int(dyn) int", int),
    ("uint(dyn) uint", uint),
    ("double(dyn) double", double),
    ("string(dyn) string", string),
    ("bytes(dyn) bytes", bytes),
    ("bool(dyn) bool", bool),
    ("dyn(dyn) dyn", |args| Ok(args[0].clone())),
    ("type(A) type(A)", |args| Ok(Val::Type(args[0].type_name().into()))),
    ("timestamp(dyn) timestamp", timestamp),
    ("duration(dyn) duration", to_duration),
    ("timestamp: getFullYear() int", |args| part(args, |time| time.year().into())),
    ("timestamp: getFullYear(string) int", |args| part(args, |time| time.year().into())),
    ("timestamp: getMonth() int", |args| part(args, |time| i64::from(time.month()) - 1)),
    ("timestamp: getMonth(string) int", |args| part(args, |time| i64::from(time.month()) - 1)),
    ("timestamp: getDate() int", |args| part(args, |time| time.day().into())),
    ("timestamp: getDate(string) int", |args| part(args, |time| time.day().into())),
    ("timestamp: getDayOfMonth() int", |args| part(args, |time| i64::from(time.day()) - 1)),
    ("timestamp: getDayOfMonth(string) int", |args| part(args, |time| i64::from(time.day()) - 1)),
    ("timestamp: getDayOfWeek() int", |args| {
        part(args, |time| time.weekday().to_sunday_zero_offset().into())
    }),
    ("timestamp: getDayOfWeek(string) int", |args| {
        part(args, |time| time.weekday().to_sunday_zero_offset().into())
    }),
    ("timestamp: getDayOfYear() int", |args| part(args, |time| i64::from(time.day_of_year()) - 1)),
    ("timestamp: getDayOfYear(string) int", |args| part(args, |time| i64::from(time.day_of_year()) - 1)),
    ("timestamp: getHours() int", |args| part(args, |time| time.hour().into())),
    ("timestamp: getHours(string) int", |args| part(args, |time| time.hour().into())),
    ("timestamp: getMinutes() int", |args| part(args, |time| time.minute().into())),
    ("timestamp: getMinutes(string) int", |args| part(args, |time| time.minute().into())),
    ("timestamp: getSeconds() int", |args| part(args, |time| time.second().into())),
    ("timestamp: getSeconds(string) int", |args| part(args, |time| time.second().into())),
    ("timestamp: getMilliseconds() int", |args| part(args, |time| time.millisecond().into())),
    ("timestamp: getMilliseconds(string) int", |args| part(args, |time| time.millisecond().into())),
    ("duration: getHours() int", |args| whole(args, |span| span.as_secs() / 3600)),
    ("duration: getMinutes() int", |args| whole(args, |span| span.as_secs() / 60)),
    ("duration: getSeconds() int", |args| whole(args, |span| span.as_secs())),
    ("duration: getMilliseconds() int", |args| whole(args, |span| i64::from(span.subsec_millis()))),
];

fn unconvertible(value: &Val<'_>, to: &str) -> EvalError {
    format!("type conversion error from '{}' to '{to}'", value.type_name()).into()
}

fn int<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let value = match &args[0] {
        Val::Int(value) => Some(*value),
        Val::Uint(value) => i64::try_from(*value).ok(),
        Val::Double(value) => (value.abs() < i64::MAX as f64).then_some(*value as i64),
        Val::Text(text) => Some(text.parse().map_err(|_| unconvertible(&args[0], "int"))?),
        Val::Timestamp(time) => Some(time.as_second()),
        Val::Duration(span) => i64::try_from(span.as_nanos()).ok(),
        other => return Err(unconvertible(other, "int")),
    };
    value.map(Val::Int).ok_or_else(|| "integer overflow".into())
}

fn uint<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let value = match &args[0] {
        Val::Uint(value) => Some(*value),
        Val::Int(value) => u64::try_from(*value).ok(),
        Val::Double(value) => (*value >= 0.0 && *value < u64::MAX as f64).then_some(*value as u64),
        Val::Text(text) => Some(text.parse().map_err(|_| unconvertible(&args[0], "uint"))?),
        other => return Err(unconvertible(other, "uint")),
    };
    value.map(Val::Uint).ok_or_else(|| "unsigned integer overflow".into())
}

fn double<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    Ok(Val::Double(match &args[0] {
        Val::Double(value) => *value,
        Val::Int(value) => *value as f64,
        Val::Uint(value) => *value as f64,
        Val::Text(text) => text.parse().map_err(|_| unconvertible(&args[0], "double"))?,
        other => return Err(unconvertible(other, "double")),
    }))
}

fn bool<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match &args[0] {
        Val::Bool(value) => Ok(Val::Bool(*value)),
        Val::Text(text) => match &**text {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(Val::Bool(true)),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(Val::Bool(false)),
            _ => Err(unconvertible(&args[0], "bool")),
        },
        other => Err(unconvertible(other, "bool")),
    }
}

fn string<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match &args[0] {
        text @ Val::Text(_) => Ok(text.clone()),
        Val::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Val::text(text)),
            Err(_) => Err("invalid UTF-8 in bytes, cannot convert to string".into()),
        },
        other => to_text(other).map(Val::text).ok_or_else(|| unconvertible(other, "string")),
    }
}

fn bytes<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match &args[0] {
        bytes @ Val::Bytes(_) => Ok(bytes.clone()),
        Val::Text(text) => Ok(Val::Bytes(text.as_bytes().into())),
        other => Err(unconvertible(other, "bytes")),
    }
}

fn timestamp<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    let time = match &args[0] {
        Val::Timestamp(time) => return Ok(Val::Timestamp(*time)),
        Val::Int(seconds) => Timestamp::from_second(*seconds).ok(),
        Val::Text(text) => text.parse().ok(),
        _ => None,
    };
    time.map(Val::Timestamp).ok_or_else(|| unconvertible(&args[0], "google.protobuf.Timestamp"))
}

fn to_duration<'v>(args: &[Val<'v>]) -> Outcome<'v> {
    match &args[0] {
        Val::Duration(span) => Ok(Val::Duration(*span)),
        Val::Int(nanoseconds) => Ok(Val::Duration(SignedDuration::from_nanos(*nanoseconds))),
        Val::Text(text) => Ok(Val::Duration(duration(text)?)),
        other => Err(unconvertible(other, "google.protobuf.Duration")),
    }
}

/// Reads a duration as Go writes it: signed decimals with units.
pub(crate) fn duration(text: &str) -> Result<SignedDuration, EvalError> {
    let invalid = || EvalError::from(format!("time: invalid duration {text:?}"));
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Ok(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, after) = rest.split_at(end);
        let end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(invalid()),
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let whole: i128 =
            if whole.is_empty() { 0 } else { whole.parse::<u64>().map_err(|_| invalid())?.into() };
        let fraction: f64 =
            if fraction.is_empty() { 0.0 } else { format!("0.{fraction}").parse().map_err(|_| invalid())? };
        total += whole * scale + (fraction * scale as f64).round() as i128;
        rest = after;
    }
    let nanoseconds = i64::try_from(if sign < 0.0 { -total } else { total }).map_err(|_| invalid())?;
    Ok(SignedDuration::from_nanos(nanoseconds))
}

/// A value as `string()` tells it.
pub(crate) fn to_text(value: &Val<'_>) -> Option<String> {
    Some(match value {
        Val::Bool(value) => value.to_string(),
        Val::Int(value) => value.to_string(),
        Val::Uint(value) => value.to_string(),
        Val::Double(value) if value.is_infinite() => if *value > 0.0 { "+Inf" } else { "-Inf" }.to_owned(),
        // As Go's shortest form: an exponent only where it is far from one.
        Val::Double(value) if *value != 0.0 && !(1e-4..1e21).contains(&value.abs()) => {
            let text = format!("{value:e}");
            let (digits, exponent) = text.split_once('e')?;
            let exponent: i32 = exponent.parse().ok()?;
            format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
        }
        Val::Double(value) => value.to_string(),
        Val::Text(text) => text.to_string(),
        Val::Bytes(bytes) => base64::engine::general_purpose::STANDARD.encode(bytes),
        Val::Timestamp(time) => time.to_string(),
        Val::Duration(span) => {
            let nanoseconds = span.as_nanos();
            let (whole, rest) = (nanoseconds.abs() / 1_000_000_000, nanoseconds.abs() % 1_000_000_000);
            let fraction = format!(".{rest:09}");
            let fraction = fraction.trim_end_matches('0').trim_end_matches('.');
            format!("{}{whole}{fraction}s", if nanoseconds < 0 { "-" } else { "" })
        }
        Val::Ip(address) => address.to_string(),
        Val::Cidr(address, bits) => format!("{address}/{bits}"),
        _ => return None,
    })
}

/// A value as errors tell it.
pub(crate) fn shown(value: &Val<'_>) -> String {
    to_text(value).unwrap_or_else(|| value.type_name().to_owned())
}

fn part<'v>(args: &[Val<'v>], read: fn(&Zoned) -> i64) -> Outcome<'v> {
    let Val::Timestamp(time) = &args[0] else { return Err(EvalError::NoSuchOverload) };
    let zone = match args.get(1) {
        Some(Val::Text(name)) => zone(name).ok_or_else(|| format!("unknown time zone {}", &**name))?,
        Some(_) => return Err(EvalError::NoSuchOverload),
        None => TimeZone::UTC,
    };
    Ok(Val::Int(read(&time.to_zoned(zone))))
}

/// A zone by name or by distance from UTC, as `+01:30`.
fn zone(name: &str) -> Option<TimeZone> {
    let Some((hours, minutes)) = name.split_once(':') else { return TimeZone::get(name).ok() };
    let sign = if hours.starts_with('-') { -1 } else { 1 };
    let hours: i32 = hours.trim_start_matches(['+', '-']).parse().ok()?;
    let minutes: i32 = minutes.parse().ok()?;
    let seconds = hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?;
    Some(jiff::tz::Offset::from_seconds(sign * seconds).ok()?.to_time_zone())
}

fn whole<'v>(args: &[Val<'v>], read: fn(&SignedDuration) -> i64) -> Outcome<'v> {
    match &args[0] {
        Val::Duration(span) => Ok(Val::Int(read(span))),
        _ => Err(EvalError::NoSuchOverload),
    }
}
