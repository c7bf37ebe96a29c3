//! Kubernetes' textual times: `Time` has whole seconds, `MicroTime` six decimals, both in UTC.

use jiff::Timestamp;

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
    text.parse().ok()
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
    fn times_are_written_as_upstream_writes_them() {
        let at = parse_time("2026-01-02T04:04:05.678901234+01:00").expect("parses");
        assert_eq!(format_time(at), "2026-01-02T03:04:05Z");
        assert_eq!(format_micro_time(at), "2026-01-02T03:04:05.678901Z");
    }
}
