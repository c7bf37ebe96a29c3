//! What may differ between two servers by nature is made the same: times, uids, versions, ages, addresses.

use serde_json::Value;

/// A uid as upstream writes it: 8-4-4-4-12 hexadecimal digits.
const UID_LENGTH: usize = 36;

/// The shortest time in RFC 3339: `2026-01-01T00:00:00Z`.
const TIME_LENGTH: usize = 20;

/// Keys of metadata whose values are a server's own.
const VERSIONS: [&str; 2] = ["resourceVersion", "currentResourceVersion"];

/// Makes a JSON answer comparable. `known` are texts that only this server says, and what stands for them.
pub fn value(value: &mut Value, known: &[(String, String)]) {
    match value {
        Value::Object(map) => {
            *map = std::mem::take(map).into_iter().map(|(key, value)| (text(&key, known), value)).collect();
            for (key, value) in map.iter_mut() {
                if VERSIONS.contains(&key.as_str()) && value.as_str().is_some_and(is_version) {
                    *value = Value::from("<version>");
                } else if key == "continue" && value.as_str().is_some_and(|token| !token.is_empty()) {
                    *value = Value::from("<continue>");
                } else if key == "cells" {
                    cells(value);
                    self::value(value, known);
                } else {
                    self::value(value, known);
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| self::value(item, known)),
        Value::String(text) => *text = self::text(text, known),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// "0" and "" mean something of their own.
fn is_version(text: &str) -> bool {
    text != "0" && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Ages of seconds in a table's cells.
fn cells(row: &mut Value) {
    for cell in row.as_array_mut().into_iter().flatten() {
        let age = cell.as_str().and_then(|text| text.strip_suffix('s'));
        if age.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())) {
            *cell = Value::from("<age>");
        }
    }
}

/// Makes a text comparable: an error message, a header, a plain answer.
pub fn text(text: &str, known: &[(String, String)]) -> String {
    let mut text = text.to_owned();
    for (own, neutral) in known {
        text = text.replace(own, neutral);
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(next) = rest.chars().next() {
        if let Some(after) = after_uid(rest) {
            out.push_str("<uid>");
            rest = after;
        } else if let Some(after) = after_time(rest) {
            out.push_str("<time>");
            rest = after;
        } else {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        }
    }
    out
}

fn after_uid(text: &str) -> Option<&str> {
    let uid = text.get(..UID_LENGTH)?;
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    uid.bytes().enumerate().all(fits).then(|| &text[UID_LENGTH..])
}

fn after_time(text: &str) -> Option<&str> {
    const SHAPE: &[u8; 19] = b"0000-00-00T00:00:00";
    text.get(..TIME_LENGTH)?;
    let fits = |(byte, shape): (u8, &u8)| if *shape == b'0' { byte.is_ascii_digit() } else { byte == *shape };
    if !text.bytes().zip(SHAPE).all(fits) {
        return None;
    }
    let rest = text[SHAPE.len()..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    rest.strip_prefix('Z')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_a_server_knows_is_replaced() {
        let mut object = json!({
            "metadata": {"uid": "0b8c7b3e-7c1c-4b5e-9a53-1c3f6a4f5d10", "resourceVersion": "12", "name": "x-abcde",
                "creationTimestamp": "2026-01-01T00:00:00Z", "continue": "abc"},
            "message": "at 2026-01-01T00:00:00.123456Z on 127.0.0.1:1", "rows": [{"cells": ["x", "3s", 1]}],
        });
        let known =
            [("127.0.0.1:1".to_owned(), "<server>".to_owned()), ("abcde".to_owned(), "<name>".to_owned())];
        value(&mut object, &known);
        let expect = json!({
            "metadata": {"uid": "<uid>", "resourceVersion": "<version>", "name": "x-<name>",
                "creationTimestamp": "<time>", "continue": "<continue>"},
            "message": "at <time> on <server>", "rows": [{"cells": ["x", "<age>", 1]}],
        });
        assert_eq!(object, expect);
    }

    #[test]
    fn no_version_and_the_oldest_version_stay() {
        let mut list = json!([{"resourceVersion": "0"}, {"resourceVersion": ""}]);
        value(&mut list, &[]);
        assert_eq!(list, json!([{"resourceVersion": "0"}, {"resourceVersion": ""}]));
    }
}
