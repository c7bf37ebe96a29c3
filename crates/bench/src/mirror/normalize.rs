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
            without_causes(map);
            *map = std::mem::take(map).into_iter().map(|(key, value)| (text(&key, known), value)).collect();
            for (key, value) in map.iter_mut() {
                if key == "managedFields" {
                    in_order_of_managers(value);
                }
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

/// Managers stand in the order of their times, so that it is chance whether one of the same second stands before another.
fn in_order_of_managers(entries: &mut Value) {
    let key = |entry: &Value| ["manager", "operation", "subresource"].map(|field| entry[field].to_string());
    if let Some(entries) = entries.as_array_mut() {
        entries.sort_by_key(key);
    }
}

/// "0" and "" mean something of their own.
fn is_version(text: &str) -> bool {
    text != "0" && !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Ages in a table's cells: `3s`, `2m20s`.
fn cells(row: &mut Value) {
    for cell in row.as_array_mut().into_iter().flatten() {
        if cell.as_str().is_some_and(is_age) {
            *cell = Value::from("<age>");
        }
    }
}

fn is_age(text: &str) -> bool {
    let mut parts = text.split_inclusive(['s', 'm', 'h', 'd', 'y']);
    !text.is_empty()
        && parts.all(|part| {
            let digits = part.trim_end_matches(|unit: char| unit.is_ascii_alphabetic());
            digits.len() + 1 == part.len()
                && !digits.is_empty()
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        })
}

/// The message of a Status repeats its causes: what differs among them differs once.
fn without_causes(status: &mut serde_json::Map<String, Value>) {
    let causes = status.get("details").and_then(|details| details["causes"].as_array());
    let (Some(causes), Some(Value::String(message))) = (causes, status.get("message")) else { return };
    let text = |cause: &Value, field: &str| cause[field].as_str().unwrap_or_default().to_owned();
    let message = causes.iter().fold(message.clone(), |message, cause| {
        message.replacen(&format!("{}: {}", text(cause, "field"), text(cause, "message")), "<cause>", 1)
    });
    status.insert("message".to_owned(), message.replace(", <cause>", "").into());
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
    fn managers_of_one_second_may_stand_in_any_order() {
        let managers =
            |names: [&str; 2]| json!({"managedFields": names.map(|name| json!({"manager": name}))});
        let [mut one, mut other] = [managers(["a", "b"]), managers(["b", "a"])];
        value(&mut one, &[]);
        value(&mut other, &[]);
        assert_eq!(one, other);
    }

    #[test]
    fn ages_are_told_from_other_cells() {
        let ages = ["3s", "2m20s", "5d3h"].map(is_age);
        let others = ["", "s", "12", "3sx", "1.5s", "items"].map(is_age);
        assert_eq!((ages, others), ([true; 3], [false; 6]));
    }

    #[test]
    fn a_message_does_not_repeat_its_causes() {
        let mut status = json!({"message": "x is invalid: [a: no, b: never]", "details": {"causes": [
            {"field": "a", "message": "no"}, {"field": "b", "message": "never"}]}});
        value(&mut status, &[]);
        assert_eq!(status["message"], "x is invalid: [<cause>]");
    }

    #[test]
    fn no_version_and_the_oldest_version_stay() {
        let mut list = json!([{"resourceVersion": "0"}, {"resourceVersion": ""}]);
        value(&mut list, &[]);
        assert_eq!(list, json!([{"resourceVersion": "0"}, {"resourceVersion": ""}]));
    }
}
