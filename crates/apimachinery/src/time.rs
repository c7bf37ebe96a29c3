//! Kubernetes' textual times: `Time` has whole seconds, `MicroTime` six decimals, both in UTC.

use jiff::civil::DateTime;
use jiff::tz::Offset;
use jiff::{SignedDuration, Timestamp};

pub mod layout;

/// `2026-01-02T03:04:05Z`, the form of `metav1.Time`.
pub fn format_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2026-01-02T03:04:05.678901Z`, the form of `metav1.MicroTime`.
pub fn format_micro_time(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Parses RFC 3339 with or without a fraction, in any offset.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    parse_whole_seconds(text.as_bytes()).or_else(|| text.parse().ok())
}

/// Parses the form that [`format_time`] gives, which nearly all times have: it takes a fraction of what others take.
fn parse_whole_seconds(text: &[u8]) -> Option<Timestamp> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2, b'T', h1, h2, b':', n1, n2, b':', s1, s2, b'Z'] = text
    else {
        return None;
    };
    let digit = |byte: u8| byte.is_ascii_digit().then(|| (byte - b'0').cast_signed());
    let two = |tens: u8, ones: u8| Some(digit(tens)? * 10 + digit(ones)?);
    let year = i16::from(two(y1, y2)?) * 100 + i16::from(two(y3, y4)?);
    let (month, day, hour) = (two(m1, m2)?, two(d1, d2)?, two(h1, h2)?);
    let at = DateTime::new(year, month, day, hour, two(n1, n2)?, two(s1, s2)?, 0).ok()?;
    Offset::UTC.to_timestamp(at).ok()
}

/// A duration as Go writes it: `1h30m`, `1.5s`, `-300ms`; `None` if it is none or out of range.
pub fn parse_duration(text: &str) -> Option<SignedDuration> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(SignedDuration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        let (_, unit) = UNITS.iter().find(|(name, _)| *name == &rest[..letters])?;
        seconds += number * unit;
        rest = &rest[letters..];
    }
    SignedDuration::try_from_secs_f64(if negative { -seconds } else { seconds }).ok()
}

/// A duration as Go writes it: `1h30m0s`. One of more than 292 years is cut to that.
pub fn format_duration(duration: SignedDuration) -> String {
    let nanos = duration.as_nanos().clamp(i64::MIN.into(), i64::MAX.into());
    crate::codec::scalar::duration_from_nanos(i64::try_from(nanos).expect("it was clamped"))
}

/// A `metav1.Time` field of a typed view.
pub mod rfc3339 {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, out: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => out.serialize_str(&super::format_time(*at)),
            None => out.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Timestamp>, D::Error> {
        Option::<Timestamp>::deserialize(input)
    }
}

/// A `metav1.MicroTime` field of a typed view.
pub mod micro_time {
    use jiff::Timestamp;
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(at: &Option<Timestamp>, out: S) -> Result<S::Ok, S::Error> {
        match at {
            Some(at) => out.serialize_str(&super::format_micro_time(*at)),
            None => out.serialize_none(),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Timestamp>, D::Error> {
        Option::<Timestamp>::deserialize(input)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let seconds = |text: &str| parse_duration(text).map(|duration| duration.as_secs_f64());
        for (text, expect) in
            [("1h30m", 5400.0), ("1.5s", 1.5), ("-300ms", -0.3), ("0", 0.0), ("+2m0.5s", 120.5)]
        {
            assert_eq!(seconds(text), Some(expect), "{text}");
        }
        for bad in ["", "-", "1", "1d", "s", "1.2.3s", "1h 2m", "9999999999999999h"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_of_whole_seconds_are_read_as_all_others_are() {
        let check = |text: &str| assert_eq!(parse_time(text), text.parse().ok(), "{text}");
        for text in
            ["2026-02-28T23:59:59Z", "0000-01-01T00:00:00Z", "9999-12-30T00:00:00Z", "1969-12-31T23:59:59Z"]
        {
            assert!(parse_whole_seconds(text.as_bytes()).is_some() && parse_time(text).is_some());
            check(text);
        }
        for text in [
            "9999-12-31T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:60Z",
            "2026-01-01t00:00:00z",
            "2026-01-01 00:00:00Z",
            "2026-01-0\u{e9}T00:00:0Z",
            "2026-01-01T00:00:00.5Z",
            "",
        ] {
            check(text);
        }
    }

    #[test]
    fn times_are_written_as_upstream_writes_them() {
        let at = parse_time("2026-01-02T04:04:05.678901234+01:00").expect("parses");
        assert_eq!(format_time(at), "2026-01-02T03:04:05Z");
        assert_eq!(format_micro_time(at), "2026-01-02T03:04:05.678901Z");
    }
}
