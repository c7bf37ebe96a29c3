//! A length of time as `metav1.Duration` writes it.

use apimachinery::time::{format_duration, parse_duration};
use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// May be negative where a file says so, until it is validated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration(SignedDuration);

impl Duration {
    pub const fn from_secs(seconds: i64) -> Self {
        Duration(SignedDuration::from_secs(seconds))
    }

    pub const fn from_millis(millis: i64) -> Self {
        Duration(SignedDuration::from_millis(millis))
    }

    pub fn signed(self) -> SignedDuration {
        self.0
    }

    pub fn is_zero(self) -> bool {
        self.0.is_zero()
    }

    /// None is left of a negative one.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::try_from(self.0).unwrap_or_default()
    }
}

impl std::fmt::Display for Duration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&format_duration(self.0))
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        out.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        let text = String::deserialize(input)?;
        let parsed = parse_duration(&text);
        parsed.map(Duration).ok_or_else(|| de::Error::custom(format!("time: invalid duration {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn it_is_read_and_written_as_go_does() {
        let check = |text: &str, expect: &str| {
            let read: Duration = apimachinery::from_value(json!(text)).expect("a duration");
            assert_eq!(json!(read), expect);
        };
        check("90s", "1m30s");
        check("0s", "0s");
        check("100ms", "100ms");
        check("-1m", "-1m0s");
        for bad in ["", "5", "1 s", "1d"] {
            assert!(apimachinery::from_value::<Duration>(json!(bad)).is_err(), "{bad}");
        }
    }
}
