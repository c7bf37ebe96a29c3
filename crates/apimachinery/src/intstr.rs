//! `intstr.IntOrString`: a number, or a string that names a port or gives a percentage.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Value;

/// A number or a string, whichever was written.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum IntOrString {
    Int(i32),
    String(String),
}

/// Which way a percentage that does not come out even is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    Up,
    Down,
}

/// A string that is no percentage, in upstream's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotPercentage,
    #[error("invalid value for IntOrString: invalid value {0:?}: invalid syntax")]
    NotNumber(String),
}

impl IntOrString {
    /// The number, or `total` times the percentage (follows upstream's `GetScaledValueFromIntOrPercent`).
    pub fn scaled(&self, total: i32, round: Round) -> Result<i32, ScaleError> {
        let text = match self {
            IntOrString::Int(number) => return Ok(*number),
            IntOrString::String(text) => text,
        };
        let digits = text.strip_suffix('%').ok_or(ScaleError::NotPercentage)?;
        let percent: i32 = digits.parse().map_err(|_| ScaleError::NotNumber(text.clone()))?;
        let product = i64::from(percent) * i64::from(total);
        let quotient = match round {
            Round::Down => product.div_euclid(100),
            Round::Up => -(-product).div_euclid(100),
        };
        Ok(quotient.clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32)
    }

    /// The number, also when it was written as a string.
    pub fn as_int(&self) -> Option<i32> {
        match self {
            IntOrString::Int(number) => Some(*number),
            IntOrString::String(text) => text.parse().ok(),
        }
    }
}

impl Default for IntOrString {
    fn default() -> Self {
        IntOrString::Int(0)
    }
}

impl std::fmt::Display for IntOrString {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            IntOrString::Int(number) => number.fmt(f),
            IntOrString::String(text) => text.fmt(f),
        }
    }
}

impl From<i32> for IntOrString {
    fn from(number: i32) -> Self {
        IntOrString::Int(number)
    }
}

impl From<&str> for IntOrString {
    fn from(text: &str) -> Self {
        IntOrString::String(text.to_owned())
    }
}

impl Serialize for IntOrString {
    fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
        match self {
            IntOrString::Int(number) => out.serialize_i32(*number),
            IntOrString::String(text) => out.serialize_str(text),
        }
    }
}

impl<'de> Deserialize<'de> for IntOrString {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        match Value::deserialize(input)? {
            Value::String(text) => Ok(IntOrString::String(text.into())),
            Value::Null => Ok(IntOrString::default()),
            other => other
                .as_i64()
                .and_then(|number| i32::try_from(number).ok())
                .map(IntOrString::Int)
                .ok_or_else(|| serde::de::Error::custom("expected a 32-bit integer or a string")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_scale_up_or_down() {
        let quarter = IntOrString::from("25%");
        assert_eq!(quarter.scaled(3, Round::Up), Ok(1));
        assert_eq!(quarter.scaled(3, Round::Down), Ok(0));
        assert_eq!(quarter.scaled(4, Round::Up), Ok(1));
        assert_eq!(IntOrString::from(7).scaled(100, Round::Up), Ok(7));
        assert_eq!(IntOrString::from("7").scaled(100, Round::Up), Err(ScaleError::NotPercentage));
        assert_eq!(IntOrString::from("x%").scaled(1, Round::Up), Err(ScaleError::NotNumber("x%".into())));
    }

    #[test]
    fn both_forms_read_back_as_written() {
        for text in ["80", "\"http\"", "\"25%\""] {
            let value: IntOrString = serde_json::from_str(text).expect("decodes");
            assert_eq!(serde_json::to_string(&value).expect("encodes"), text);
        }
        assert!(serde_json::from_str::<IntOrString>("4294967296").is_err());
    }
}
