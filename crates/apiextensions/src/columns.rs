//! The columns that a definition has its instances printed in. Follows `registry/customresource/tableconvertor`.

use apimachinery::{Text, Value, json};

use crate::definition;
use crate::jsonpath::JsonPath;

/// A column with its path, ready to be filled.
#[derive(Clone, Debug)]
pub struct Column {
    pub definition: definition::Column,
    /// Absent where the definition gives none that can be read.
    path: Option<JsonPath>,
}

/// How a cell shows how long ago a time was.
pub type HumanAge<'a> = &'a dyn Fn(&Value) -> Text;

impl Column {
    /// The columns of a version; without any it has the age alone.
    pub fn all(version: &definition::Version) -> Vec<Column> {
        let age = definition::Column {
            name: "Age".to_owned(),
            column_type: "date".to_owned(),
            description: "CreationTimestamp is a timestamp representing the server time when this object was created. It is \
                          not guaranteed to be set in happens-before order across separate operations. Clients may not set \
                          this value. It is represented in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. \
                          Null for lists. More info: \
                          https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
                .to_owned(),
            json_path: ".metadata.creationTimestamp".to_owned(),
            ..definition::Column::default()
        };
        let given = &version.additional_printer_columns;
        let columns = if given.is_empty() { vec![age] } else { given.clone() };
        columns
            .into_iter()
            .map(|c| Column { path: JsonPath::parse(&c.json_path).ok(), definition: c })
            .collect()
    }

    /// The path that leads to all that the cell is made of.
    pub fn shows(&self) -> Option<impl Iterator<Item = &str>> {
        self.path.as_ref().map(JsonPath::fields)
    }

    /// As `columnDefinitions` of a Table have it.
    pub fn describe(&self) -> Value {
        let column = &self.definition;
        let description = match &*column.description {
            "" => format!("Custom resource definition column (in JSONPath format): {}", column.json_path),
            text => text.to_owned(),
        };
        json!({"name": column.name, "type": column.column_type, "format": column.format,
               "description": description, "priority": column.priority})
    }

    /// The cell of one object; null where it has nothing to show.
    pub fn cell(&self, object: &Value, age: HumanAge<'_>) -> Value {
        let found = self.path.as_ref().and_then(|path| path.find(object).first().copied());
        let Some(value) = found else { return Value::Null };
        match &*self.definition.column_type {
            "string" => text(value).into(),
            "integer" => match (value.as_i64(), value.as_f64()) {
                (Some(number), _) => number.into(),
                (None, Some(number)) => (number as i64).into(),
                _ => Value::Null,
            },
            "number" if value.is_number() => value.clone(),
            "boolean" if value.is_boolean() => value.clone(),
            "date" if value.is_string() => age(value).into(),
            _ => Value::Null,
        }
    }
}

/// A value as client-go's JSONPath prints it.
pub fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.to_string(),
        Value::Null => "<nil>".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_follow_their_columns_types() {
        let object = json!({"spec": {"n": 3, "s": "x", "b": true, "o": {"a": 1}, "f": 2.5}, "at": "2026-01-01T00:00:00Z"});
        for (column_type, path, expect) in [
            ("integer", ".spec.n", json!(3)),
            ("integer", ".spec.f", json!(2)),
            ("integer", ".spec.s", json!(null)),
            ("number", ".spec.f", json!(2.5)),
            ("string", ".spec.n", json!("3")),
            ("string", ".spec.o", json!("{\"a\":1}")),
            ("string", ".spec.missing", json!(null)),
            ("boolean", ".spec.b", json!(true)),
            ("date", ".at", json!("5d")),
        ] {
            let definition = definition::Column {
                column_type: column_type.to_owned(),
                json_path: path.to_owned(),
                ..definition::Column::default()
            };
            let column = Column { path: JsonPath::parse(path).ok(), definition };
            assert_eq!(column.cell(&object, &|_| "5d".into()), expect, "{path}");
        }
    }
}
