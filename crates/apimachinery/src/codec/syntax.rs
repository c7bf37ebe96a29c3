//! What is wrong with a JSON text, in the words of Go's decoder, which clients of upstream see.

use serde::de::DeserializeOwned;
use serde_json::error::Category;

/// Decodes a text that must be a Go value of `go_type`.
pub fn from_json<T: DeserializeOwned>(bytes: &[u8], go_type: &str) -> Result<T, String> {
    serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        Category::Data => format!("json: cannot unmarshal {} into Go value of type {go_type}", kind(bytes)),
        _ => json_error(bytes, &error),
    })
}

/// The JSON kind of a text, by how it begins.
pub fn kind(bytes: &[u8]) -> &'static str {
    match bytes.trim_ascii_start().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        _ => "number",
    }
}

/// Go's words for a text that serde_json cannot read.
pub fn json_error(bytes: &[u8], error: &serde_json::Error) -> String {
    let text = error.to_string();
    let at = position(bytes, error);
    let Some((found, at)) =
        at.map(|at| (character(bytes[at]), at)).filter(|_| error.classify() == Category::Syntax)
    else {
        return if error.classify() == Category::Eof {
            "unexpected end of JSON input".to_owned()
        } else {
            text
        };
    };
    if text.starts_with("expected ident")
        && let Some((literal, expected)) = literal(bytes, at)
    {
        return format!("invalid character {found} in literal {literal} (expecting '{expected}')");
    }
    let place = [
        ("expected value", "looking for beginning of value"),
        ("expected ident", "in literal"),
        ("key must be a string", "looking for beginning of object key string"),
        ("expected `:`", "after object key"),
        ("expected `,` or `}`", "after object key:value pair"),
        ("expected `,` or `]`", "after array element"),
        ("trailing comma", "looking for beginning of object key string"),
        ("trailing characters", "after top-level value"),
        ("invalid escape", "in string escape code"),
        ("control character", "in string literal"),
        ("invalid number", "in numeric literal"),
    ];
    match place.iter().find(|(start, _)| text.starts_with(start)) {
        Some((_, place)) => format!("invalid character {found} {place}"),
        None => text,
    }
}

/// Where reading stopped.
fn position(bytes: &[u8], error: &serde_json::Error) -> Option<usize> {
    let before = error.line().checked_sub(1)?;
    let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
    let line = if before == 0 { 0 } else { ends.clone().nth(before - 1)? };
    let at = line + error.column().saturating_sub(1);
    (at < bytes.len() && !bytes[line..at].contains(&b'\n')).then_some(at)
}

/// Which literal was begun before this place, and which letter of it should stand here.
fn literal(bytes: &[u8], at: usize) -> Option<(&'static str, char)> {
    ["true", "false", "null"].into_iter().find_map(|literal| {
        let begun =
            (1..literal.len()).rev().find(|length| bytes[..at].ends_with(&literal.as_bytes()[..*length]))?;
        Some((literal, char::from(literal.as_bytes()[begun])))
    })
}

/// A byte, quoted as Go does: as the character of that number (`quoteChar` of encoding/json).
fn character(byte: u8) -> String {
    let quoted = match byte {
        b'\'' => r"\'".to_owned(),
        b'\\' => r"\\".to_owned(),
        0x07 => r"\a".to_owned(),
        0x08 => r"\b".to_owned(),
        b'\t' => r"\t".to_owned(),
        b'\n' => r"\n".to_owned(),
        0x0b => r"\v".to_owned(),
        0x0c => r"\f".to_owned(),
        b'\r' => r"\r".to_owned(),
        0..0x20 | 0x7f => format!("\\x{byte:02x}"),
        // Controls, and spaces and hyphens that are not seen.
        0x80..=0xa0 | 0xad => format!("\\u{byte:04x}"),
        _ => char::from(byte).to_string(),
    };
    format!("'{quoted}'")
}

#[cfg(test)]
mod tests {
    use crate::{Map, Value};

    use super::*;

    #[test]
    fn mistakes_are_told_in_gos_words() {
        let cases = [
            ("{\"a\": 1", "unexpected end of JSON input"),
            ("", "unexpected end of JSON input"),
            ("nonsense", "invalid character 'o' in literal null (expecting 'u')"),
            ("{\"a\": tru1}", "invalid character '1' in literal true (expecting 'e')"),
            ("x", "invalid character 'x' looking for beginning of value"),
            ("{a}", "invalid character 'a' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("[1]", "json: cannot unmarshal array into Go value of type map"),
            ("3", "json: cannot unmarshal number into Go value of type map"),
        ];
        for (text, expect) in cases {
            let error = from_json::<Map>(text.as_bytes(), "map").unwrap_err();
            assert!(error.starts_with(expect), "{text}: {error}");
        }
    }

    #[test]
    fn bytes_are_quoted_as_characters() {
        let cases = [
            (b'a', "'a'"),
            (b'\'', r"'\''"),
            (b'"', "'\"'"),
            (b'\\', r"'\\'"),
            (b'\n', r"'\n'"),
            (0, r"'\x00'"),
            (0x7f, r"'\x7f'"),
            (0x9e, r"'\u009e'"),
            (0xad, r"'\u00ad'"),
            (0xe9, "'\u{e9}'"),
        ];
        for (byte, expect) in cases {
            assert_eq!(character(byte), expect);
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_told_apart_from_json(bytes: Vec<u8>) {
            from_json::<Value>(&bytes, "map").ok();
        }
    }
}
