//! Defaults as tables: a field, and what it holds when nobody set it.

use apimachinery::{Map, Value};

/// What an unset field becomes.
#[derive(Clone, Copy, Debug)]
pub enum Fill {
    Text(&'static str),
    Int(i64),
    /// For numbers where upstream cannot tell zero from unset.
    NonZero(i64),
    Bool(bool),
    /// `{}`, where upstream always writes the struct.
    Empty,
    /// `null`, where upstream always writes a list that may be missing.
    Null,
}

impl Fill {
    fn value(self) -> Value {
        match self {
            Fill::Text(text) => text.into(),
            Fill::Int(number) | Fill::NonZero(number) => number.into(),
            Fill::Bool(flag) => flag.into(),
            Fill::Empty => Value::Object(Map::new()),
            Fill::Null => Value::Null,
        }
    }

    fn is_unset(self, current: Option<&Value>) -> bool {
        match (self, current) {
            (_, None | Some(Value::Null)) => true,
            (Fill::Text(_), Some(value)) => value.as_str() == Some(""),
            (Fill::NonZero(_), Some(value)) => value.as_i64() == Some(0),
            _ => false,
        }
    }
}

/// Fills the unset fields of an object; what is not an object is left alone.
pub fn fill(obj: &mut Value, table: &[(&str, Fill)]) {
    let Some(map) = obj.as_object_mut() else { return };
    for (field, default) in table {
        if default.is_unset(map.get(field)) {
            map.insert(*field, default.value());
        }
    }
}

/// Makes empty lists null: what upstream stores cannot tell them from none at all.
pub fn store_as_none(obj: &mut Value, lists: &[&str]) {
    for list in lists {
        if let Some(list) = obj.get_mut(list).filter(|list| list.as_array().is_some_and(Vec::is_empty)) {
            *list = Value::Null;
        }
    }
}

/// The object at a field, if there is one.
pub fn object<'a>(obj: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    obj.get_mut(field).filter(|value| value.is_object())
}

/// The object at a field, made when absent.
pub fn object_or_new<'a>(obj: &'a mut Value, field: &str) -> Option<&'a mut Value> {
    fill(obj, &[(field, Fill::Empty)]);
    object(obj, field)
}

/// The items of a list field.
pub fn each<'a>(obj: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    obj.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn only_unset_fields_are_filled() {
        let mut obj = json!({"a": "", "b": "x", "c": 0, "d": 0, "e": null, "f": false});
        fill(
            &mut obj,
            &[
                ("a", Fill::Text("A")),
                ("b", Fill::Text("B")),
                ("c", Fill::NonZero(3)),
                ("d", Fill::Int(4)),
                ("e", Fill::Empty),
                ("f", Fill::Bool(true)),
            ],
        );
        assert_eq!(obj, json!({"a": "A", "b": "x", "c": 3, "d": 0, "e": {}, "f": false}));
    }

    #[test]
    fn a_list_of_nothing_is_stored_as_none() {
        let mut obj = json!({"a": [], "b": [1]});
        store_as_none(&mut obj, &["a", "b", "c"]);
        assert_eq!(obj, json!({"a": null, "b": [1]}));
    }
}
