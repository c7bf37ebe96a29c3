//! How messages about a patch show what is in it.

use crate::{Map, Value};

/// A value as Go prints it: `map[a:1 b:[x y]]`.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.to_string(),
        Value::Array(items) => format!("[{}]", items.iter().map(go_value).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => go_map(map),
        other => other.to_string(),
    }
}

/// A value as Go prints it where a text was wanted: `%!s(int64=1)`.
pub(super) fn go_text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.to_string(),
        None | Some(Value::Null) => "%!s(<nil>)".to_owned(),
        Some(value @ (Value::Bool(_) | Value::Number(_))) => format!("%!s({}={value})", go_type(value)),
        Some(other) => go_value(other),
    }
}

/// The Go type of a list of any values.
pub(crate) const GO_LIST: &str = "[]interface {}";

/// The Go type of an object of any values.
pub(crate) const GO_MAP: &str = "map[string]interface {}";

/// The Go type of a value.
pub(crate) fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => GO_LIST,
        Value::Object(_) => GO_MAP,
    }
}

/// A value as it stands in Go's source: `map[string]interface {}{"a":1}`.
pub(crate) fn go_literal(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => format!("{text:?}"),
        Value::Array(items) => {
            format!("{GO_LIST}{{{}}}", items.iter().map(go_literal).collect::<Vec<_>>().join(", "))
        }
        Value::Object(map) => {
            let pairs: Vec<String> =
                map.iter().map(|(key, value)| format!("{key:?}:{}", go_literal(value))).collect();
            format!("{GO_MAP}{{{}}}", pairs.join(", "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

pub fn go_map(map: &Map) -> String {
    let pairs: Vec<String> = map.iter().map(|(key, value)| format!("{key}:{}", go_value(value))).collect();
    format!("map[{}]", pairs.join(" "))
}

#[cfg(test)]
mod tests {
    use crate::json;

    use super::*;

    #[test]
    fn a_value_reads_as_go_prints_it() {
        let value = json!({"a": {"b": [1, "x"]}, "n": null, "t": true});
        assert_eq!(go_value(&value), "map[a:map[b:[1 x]] n:<nil> t:true]");
    }
}
