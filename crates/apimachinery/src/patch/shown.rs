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
