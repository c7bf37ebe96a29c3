//! CBOR as values: whatever has a form in JSON. Numbers that are none, keys that stand twice, and what nests too deep
//! are refused; tags are passed over but for those that say how bytes and times are to be read.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde_json::Number;

use super::{BREAK, INDEFINITE, major, simple};
use crate::codec::{DEPTH_MAX, Error};
use crate::{Map, Value};

/// Tags that have a meaning here; any other is passed over.
mod tag {
    pub const TIME_TEXT: u64 = 0;
    pub const TIME_EPOCH: u64 = 1;
    pub const BIG_POSITIVE: u64 = 2;
    pub const BIG_NEGATIVE: u64 = 3;
    pub const LATER_BASE64_URL: u64 = 21;
    pub const LATER_BASE64: u64 = 22;
    pub const LATER_BASE16: u64 = 23;
}

/// The one object that the bytes are.
pub fn decode(bytes: &[u8]) -> Result<Value, Error> {
    let mut input = Input { rest: bytes, depth: 0 };
    let value = input.item(Later::Text)?;
    match input.rest.len() {
        0 => Ok(value),
        left => {
            Err(refused(format!("{left} bytes of extraneous data starting at index {}", bytes.len() - left)))
        }
    }
}

fn refused(why: impl std::fmt::Display) -> Error {
    Error::Syntax(format!("cbor: {why}"))
}

/// What becomes of byte strings.
#[derive(Clone, Copy)]
enum Later {
    Text,
    Base64,
    Base64Url,
    Base16,
}

struct Input<'a> {
    rest: &'a [u8],
    depth: usize,
}

impl<'a> Input<'a> {
    fn item(&mut self, later: Later) -> Result<Value, Error> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(refused("exceeded max nested level"));
        }
        let value = self.item_at_depth(later)?;
        self.depth -= 1;
        Ok(value)
    }

    fn item_at_depth(&mut self, later: Later) -> Result<Value, Error> {
        let (major, low) = self.kind()?;
        match major {
            major::UNSIGNED => integer(i128::from(self.number(low)?)),
            major::NEGATIVE => integer(-1 - i128::from(self.number(low)?)),
            major::BYTES => later.read(&self.string(major, low)?),
            major::TEXT => text(self.string(major, low)?),
            major::ARRAY => self.array(low, later),
            major::MAP => self.map(low, later),
            major::TAG => {
                let tag = self.number(low)?;
                self.tagged(tag, later)
            }
            _ => self.simple(low),
        }
    }

    fn kind(&mut self) -> Result<(u8, u8), Error> {
        let first = self.take(1)?[0];
        Ok((first >> 5, first & 0x1f))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Error> {
        let length = usize::try_from(length).ok().filter(|length| *length <= self.rest.len());
        let (taken, rest) = self.rest.split_at(length.ok_or_else(|| refused("unexpected EOF"))?);
        self.rest = rest;
        Ok(taken)
    }

    /// The number in an item's head.
    fn number(&mut self, low: u8) -> Result<u64, Error> {
        let bytes = match low {
            0..24 => return Ok(low.into()),
            24..28 => self.take(1 << (low - 24))?,
            _ => return Err(refused(format!("invalid additional information {low}"))),
        };
        Ok(bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// The number of parts that follow; none is told by their end.
    fn length(&mut self, low: u8) -> Result<Option<u64>, Error> {
        if low == INDEFINITE { Ok(None) } else { self.number(low).map(Some) }
    }

    /// Whether another part follows.
    fn has_more(&mut self, length: Option<u64>, seen: u64) -> bool {
        match length {
            Some(length) => seen < length,
            None if self.rest.first() == Some(&BREAK) => {
                self.rest = &self.rest[1..];
                false
            }
            None => true,
        }
    }

    fn string(&mut self, major: u8, low: u8) -> Result<Vec<u8>, Error> {
        let length = self.length(low)?;
        if let Some(length) = length {
            return Ok(self.take(length)?.to_vec());
        }
        let mut joined = Vec::new();
        while self.has_more(None, 0) {
            let (of, low) = self.kind()?;
            if of != major || low == INDEFINITE {
                return Err(refused("wrong element type for indefinite-length string"));
            }
            let length = self.number(low)?;
            joined.extend_from_slice(self.take(length)?);
        }
        Ok(joined)
    }

    fn array(&mut self, low: u8, later: Later) -> Result<Value, Error> {
        let length = self.length(low)?;
        let mut items = Vec::new();
        while self.has_more(length, items.len() as u64) {
            items.push(self.item(later)?);
        }
        Ok(items.into())
    }

    fn map(&mut self, low: u8, later: Later) -> Result<Value, Error> {
        let length = self.length(low)?;
        let mut fields = Map::new();
        while self.has_more(length, fields.len() as u64) {
            let (major, low) = self.kind()?;
            if !matches!(major, major::BYTES | major::TEXT) {
                return Err(refused("a map's key is no string"));
            }
            let key = utf8(self.string(major, low)?)?;
            let value = self.item(later)?;
            if fields.contains_key(&key) {
                return Err(refused(format!("found duplicate map key {key:?}")));
            }
            fields.insert(key, value);
        }
        Ok(fields.into())
    }

    fn tagged(&mut self, tag: u64, later: Later) -> Result<Value, Error> {
        match tag {
            tag::TIME_TEXT => match self.item(later)? {
                Value::String(text) => {
                    text.parse::<Timestamp>()
                        .map_err(|_| refused(format!("{text:?} is no RFC 3339 time")))?;
                    Ok(text.into())
                }
                _ => Err(refused("a time with tag number 0 must be a string")),
            },
            tag::TIME_EPOCH => epoch(&self.item(later)?),
            tag::BIG_POSITIVE | tag::BIG_NEGATIVE => Err(refused("big integers are not taken")),
            tag::LATER_BASE64_URL => self.item(Later::Base64Url),
            tag::LATER_BASE64 => self.item(Later::Base64),
            tag::LATER_BASE16 => self.item(Later::Base16),
            _ => self.item(later),
        }
    }

    fn simple(&mut self, low: u8) -> Result<Value, Error> {
        match low {
            simple::FALSE => Ok(false.into()),
            simple::TRUE => Ok(true.into()),
            simple::NULL => Ok(Value::Null),
            simple::HALF => {
                let bits = self.number(low)? as u16;
                float(half(bits))
            }
            simple::SINGLE => {
                let bits = self.number(low)? as u32;
                float(f32::from_bits(bits).into())
            }
            simple::DOUBLE => {
                let bits = self.number(low)?;
                float(f64::from_bits(bits))
            }
            _ => Err(refused(format!("simple value {low} is not recognized"))),
        }
    }
}

impl Later {
    fn read(self, bytes: &[u8]) -> Result<Value, Error> {
        Ok(match self {
            Later::Text => return text(bytes.to_vec()),
            Later::Base64 => STANDARD.encode(bytes).into(),
            Later::Base64Url => URL_SAFE_NO_PAD.encode(bytes).into(),
            Later::Base16 => bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into(),
        })
    }
}

fn text(bytes: Vec<u8>) -> Result<Value, Error> {
    utf8(bytes).map(Value::from)
}

fn utf8(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|_| refused("invalid UTF-8 string"))
}

fn integer(number: i128) -> Result<Value, Error> {
    let number = i64::try_from(number).map_err(|_| refused(format!("{number} overflows Go's int64")))?;
    Ok(number.into())
}

fn float(number: f64) -> Result<Value, Error> {
    Number::from_f64(number).map(Value::Number).ok_or_else(|| refused("floating-point NaN or infinity"))
}

/// Sign, five bits of exponent, ten of fraction.
fn half(bits: u16) -> f64 {
    let (exponent, fraction) = (i32::from(bits >> 10 & 0x1f), f64::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    if bits & 0x8000 == 0 { magnitude } else { -magnitude }
}

/// Seconds since 1970 as a time in text.
fn epoch(seconds: &Value) -> Result<Value, Error> {
    let time = match seconds {
        Value::Number(number) if number.is_f64() => {
            let span =
                number.as_f64().and_then(|seconds| jiff::SignedDuration::try_from_secs_f64(seconds).ok());
            span.and_then(|span| Timestamp::from_duration(span).ok())
        }
        Value::Number(number) => number.as_i64().and_then(|seconds| Timestamp::from_second(seconds).ok()),
        _ => None,
    };
    Ok(time
        .ok_or_else(|| refused("a time with tag number 1 must be a number within its range"))?
        .to_string()
        .into())
}
