//! Values as CBOR: definite lengths, the shortest heads and floats, strings as byte strings.

use bytes::Bytes;
use serde_json::Number;

use super::{SELF_DESCRIBED, major, simple};
use crate::Value;

/// One object, with the tag that says what it is.
pub fn encode(value: &Value) -> Bytes {
    let mut out = SELF_DESCRIBED.to_vec();
    item(&mut out, value);
    out.into()
}

fn item(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::Null => out.push(major::SIMPLE << 5 | simple::NULL),
        Value::Bool(value) => {
            out.push(major::SIMPLE << 5 | if *value { simple::TRUE } else { simple::FALSE })
        }
        Value::Number(value) => number(out, value),
        Value::String(value) => bytes(out, value),
        Value::Array(items) => {
            head(out, major::ARRAY, items.len() as u64);
            items.iter().for_each(|value| item(out, value));
        }
        Value::Object(fields) => {
            head(out, major::MAP, fields.len() as u64);
            for (key, value) in fields {
                bytes(out, key);
                item(out, value);
            }
        }
    }
}

fn number(out: &mut Vec<u8>, number: &Number) {
    if let Some(value) = number.as_u64() {
        head(out, major::UNSIGNED, value);
    } else if let Some(value) = number.as_i64() {
        // -1 is 0, -2 is 1: all bits are turned.
        head(out, major::NEGATIVE, !(value as u64));
    } else if let Some(value) = number.as_f64() {
        float(out, value);
    }
}

/// In the fewest bytes that lose nothing.
fn float(out: &mut Vec<u8>, value: f64) {
    let single = value as f32;
    if f64::from(single) != value {
        out.push(major::SIMPLE << 5 | simple::DOUBLE);
        return out.extend_from_slice(&value.to_be_bytes());
    }
    match half(single) {
        Some(half) => {
            out.push(major::SIMPLE << 5 | simple::HALF);
            out.extend_from_slice(&half.to_be_bytes());
        }
        None => {
            out.push(major::SIMPLE << 5 | simple::SINGLE);
            out.extend_from_slice(&single.to_be_bytes());
        }
    }
}

/// The bits of a half-precision float that is the same number. Those smaller than its normal ones go as single ones.
fn half(single: f32) -> Option<u16> {
    const SINGLE_BIAS: i32 = 127;
    const HALF_BIAS: i32 = 15;
    let bits = single.to_bits();
    let sign = (bits >> 16 & 0x8000) as u16;
    let (exponent, fraction) = ((bits >> 23 & 0xff) as i32, bits & 0x007f_ffff);
    if exponent == 0 && fraction == 0 {
        return Some(sign);
    }
    let exponent = exponent - SINGLE_BIAS + HALF_BIAS;
    let fits = (1..31).contains(&exponent) && fraction & 0x1fff == 0;
    fits.then_some(sign | (exponent as u16) << 10 | (fraction >> 13) as u16)
}

fn bytes(out: &mut Vec<u8>, text: &str) {
    head(out, major::BYTES, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

/// The kind of an item and a number, in the fewest bytes.
fn head(out: &mut Vec<u8>, major: u8, number: u64) {
    let first = major << 5;
    if number < 24 {
        out.push(first | number as u8);
    } else if let Ok(number) = u8::try_from(number) {
        out.extend_from_slice(&[first | 24, number]);
    } else if let Ok(number) = u16::try_from(number) {
        out.push(first | 25);
        out.extend_from_slice(&number.to_be_bytes());
    } else if let Ok(number) = u32::try_from(number) {
        out.push(first | 26);
        out.extend_from_slice(&number.to_be_bytes());
    } else {
        out.push(first | 27);
        out.extend_from_slice(&number.to_be_bytes());
    }
}
