//! Lists whose items must differ: sets by value, maps by key. Follows `pkg/apiserver/schema/listtype`.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Map, Value};

use crate::structural::{ListType, Structural};

/// The items that stand twice, at any depth.
pub fn validate(value: &Value, schema: &Structural) -> ErrorList {
    let mut errors = ErrorList::new();
    walk(&Path::new(""), value, schema, &mut errors);
    errors
}

fn walk(path: &Path, value: &Value, schema: &Structural, errors: &mut ErrorList) {
    match value {
        Value::Array(items) => {
            match &schema.list {
                ListType::Atomic => {}
                ListType::Set => report_doubles(path, items.clone(), errors),
                ListType::Map(keys) => check_map(path, items, keys, errors),
            }
            let Some(item) = &schema.items else { return };
            items.iter().enumerate().for_each(|(index, value)| walk(&path.index(index), value, item, errors));
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(property) = schema.properties.get(name.as_str()) {
                    walk(&path.child(name), value, property, errors);
                } else if let Some(additional) = schema.additional.schema() {
                    walk(&path.key(name), value, additional, errors);
                }
            }
        }
        _ => {}
    }
}

/// What tells an item of a list of type map apart: those of its keys that it has.
pub fn key(item: &Value, keys: &[Box<str>]) -> Value {
    let pairs = keys.iter().filter_map(|key| Some((key.to_string(), item.get(&**key)?.clone())));
    Value::Object(pairs.collect::<Map>())
}

fn check_map(path: &Path, items: &[Value], keys: &[Box<str>], errors: &mut ErrorList) {
    if let Some((index, item)) =
        items.iter().enumerate().find(|(_, item)| !item.is_object() && !item.is_null())
    {
        let why = "must be an object for an array of list-type map";
        errors.push(Error::invalid(&path.index(index), item.clone(), why));
        return;
    }
    report_doubles(path, items.iter().map(|item| key(item, keys)).collect(), errors);
}

/// Complains of each value that stands before, once.
fn report_doubles(path: &Path, values: Vec<Value>, errors: &mut ErrorList) {
    let mut seen: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for (index, value) in values.into_iter().enumerate() {
        let times = seen.entry(value.to_string()).or_default();
        *times += 1;
        if *times == 2 {
            errors.push(Error::duplicate(&path.index(index), value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    fn check(schema: Value, value: Value, expect: &[&str]) {
        let found: Vec<String> =
            validate(&value, &Structural::parse(&schema)).iter().map(ToString::to_string).collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn doubles_are_told_once_each() {
        let set = json!({"properties": {"s": {"x-kubernetes-list-type": "set"}}});
        check(set.clone(), json!({"s": ["a", "b", "a", "a"]}), &["s[2]: Duplicate value: \"a\""]);
        check(set, json!({"s": [{"x": 1}, {"x": 2}]}), &[]);
        let map = json!({"properties": {"m": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"]}}});
        check(map.clone(), json!({"m": [{"k": 1}, {"k": 1, "v": 2}]}), &["m[1]: Duplicate value: {\"k\":1}"]);
        check(map.clone(), json!({"m": [{}, {}]}), &["m[1]: Duplicate value: {}"]);
        check(
            map,
            json!({"m": [1]}),
            &["m[0]: Invalid value: 1: must be an object for an array of list-type map"],
        );
    }
}
