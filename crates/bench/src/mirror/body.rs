//! The body of an answer as a value, whatever it is written in, so that what differs has a place.
//!
//! Of protobuf only the wire is known: fields become keys by their numbers, what could be a message is taken for one.

use serde_json::{Map, Value};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// How upstream's protobuf begins.
const MAGIC: &[u8] = b"k8s\0";

/// Deeper messages are taken for bytes: objects of Kubernetes are not as deep.
const DEPTH_MAX: usize = 40;

/// The seconds of times that a server can have written while it was asked: 2020 to 2050.
const TIMES: std::ops::Range<u64> = 1_577_836_800..2_524_608_000;

pub fn decoded(content_type: &str, body: &[u8]) -> Value {
    let text = || Value::from(String::from_utf8_lossy(body));
    if content_type.starts_with(PROTOBUF) {
        return body.strip_prefix(MAGIC).and_then(|wire| message(wire, 0)).unwrap_or_else(text);
    }
    if content_type.starts_with("application/yaml") {
        let yaml = std::str::from_utf8(body).ok().and_then(|yaml| serde_saphyr::from_str(yaml).ok());
        return yaml.unwrap_or_else(text);
    }
    serde_json::from_slice(body).unwrap_or_else(|_| text())
}

/// The fields of a message, those that repeat as a list; none where it is no message.
fn message(mut wire: &[u8], depth: usize) -> Option<Value> {
    let mut fields = Map::new();
    while !wire.is_empty() {
        let tag = varint(&mut wire)?;
        let value = match tag & 7 {
            0 => number(varint(&mut wire)?),
            1 => Value::from(u64::from_le_bytes(take(&mut wire, 8)?.try_into().ok()?)),
            2 => {
                let length = usize::try_from(varint(&mut wire)?).ok()?;
                content(take(&mut wire, length)?, depth)
            }
            5 => Value::from(u32::from_le_bytes(take(&mut wire, 4)?.try_into().ok()?)),
            _ => return None,
        };
        // Zero and nothing are the same in protobuf.
        if is_zero(&value) {
            continue;
        }
        let key = (tag >> 3).to_string();
        match fields.get_mut(&key) {
            None => drop(fields.insert(key, value)),
            Some(Value::Array(all)) => all.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
        }
    }
    Some(Value::Object(fields))
}

fn is_zero(value: &Value) -> bool {
    match value {
        Value::Number(number) => number.as_u64() == Some(0),
        Value::String(text) => text.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

/// Bytes of one length: a message if they can be one and are no text, JSON where it is some, as in managed fields.
fn content(bytes: &[u8], depth: usize) -> Value {
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(char::is_control));
    match text {
        // A version is a text of digits, which nothing else says here.
        Some(digits) if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            Value::from("<digits>")
        }
        Some(json) if json.starts_with('{') => serde_json::from_str(json).unwrap_or_else(|_| json.into()),
        Some(text) => Value::from(text),
        None if depth < DEPTH_MAX => message(bytes, depth + 1).unwrap_or_else(|| hexadecimal(bytes)),
        None => hexadecimal(bytes),
    }
}

fn hexadecimal(bytes: &[u8]) -> Value {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

fn number(number: u64) -> Value {
    if TIMES.contains(&number) { Value::from("<time>") } else { Value::from(number) }
}

fn take<'w>(wire: &mut &'w [u8], length: usize) -> Option<&'w [u8]> {
    let (taken, rest) = wire.split_at_checked(length)?;
    *wire = rest;
    Some(taken)
}

fn varint(wire: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = *take(wire, 1)?.first()?;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_format_becomes_a_value() {
        assert_eq!(decoded("application/json", b"{\"a\":1}"), json!({"a": 1}));
        assert_eq!(decoded("application/yaml", b"a: 1\nb: [x]\n"), json!({"a": 1, "b": ["x"]}));
        assert_eq!(decoded("text/plain", b"ok"), json!("ok"));
        assert_eq!(decoded("application/json", b"{"), json!("{"));
    }

    #[test]
    fn a_message_shows_its_fields_by_number() {
        // 1: {1: "v1"}, 2: "x", 2: "y", 3: 5, 7: 0, 8: "", 4: a time, 6: "2418"
        let mut wire = b"k8s\0\x0a\x04\x0a\x02v1\x12\x01x\x12\x01y\x18\x05\x38\0\x42\0\x20".to_vec();
        wire.extend([0x80, 0x8e, 0xd7, 0xd0, 0x06]);
        wire.extend(b"\x32\x042418");
        let value = decoded(PROTOBUF, &wire);
        assert_eq!(value, json!({"1": {"1": "v1"}, "2": ["x", "y"], "3": 5, "4": "<time>", "6": "<digits>"}));
        assert_eq!(decoded(PROTOBUF, b"k8s\0\x0a\x7f"), json!("k8s\u{0}\n\u{7f}"));
    }
}
