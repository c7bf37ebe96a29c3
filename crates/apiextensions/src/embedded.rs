//! Resources within resources (`x-kubernetes-embedded-resource`): what every object must have, at any depth.
//! Follows `pkg/apiserver/schema/objectmeta`. The rules of metadata themselves are handed in.

use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{GroupVersion, Map, Value, names};

use crate::structural::Structural;

/// Finds the mistakes in an embedded object's metadata, which stands at the path.
pub type MetadataRule<'a> = &'a dyn Fn(&Value, &Path) -> ErrorList;

/// Brings one embedded object's metadata into its form; complaints are texts without a place.
pub type MetadataForm<'a> = &'a dyn Fn(&mut Value, &str) -> Result<(), String>;

/// The mistakes in all embedded objects below `value`, which itself is none.
pub fn validate(value: &Value, schema: &Structural, metadata: MetadataRule<'_>) -> ErrorList {
    let mut errors = ErrorList::new();
    walk(&Path::new(""), value, schema, metadata, &mut errors);
    errors
}

fn walk(path: &Path, value: &Value, schema: &Structural, metadata: MetadataRule<'_>, errors: &mut ErrorList) {
    match value {
        Value::Object(fields) => {
            if schema.embedded {
                check(path, fields, metadata, errors);
            }
            for (name, value) in fields {
                if let Some(property) = schema.properties.get(name.as_str()) {
                    walk(&path.child(name), value, property, metadata, errors);
                } else if let Some(additional) = schema.additional.schema() {
                    walk(&path.key(name), value, additional, metadata, errors);
                }
            }
        }
        Value::Array(items) => {
            let Some(item) = &schema.items else { return };
            for (index, value) in items.iter().enumerate() {
                walk(&path.index(index), value, item, metadata, errors);
            }
        }
        _ => {}
    }
}

fn check(path: &Path, fields: &Map, metadata: MetadataRule<'_>, errors: &mut ErrorList) {
    for name in ["apiVersion", "kind"] {
        let place = path.child(name);
        match fields.get(name) {
            None => errors.push(Error::required(&place, "")),
            Some(Value::String(text)) if text.is_empty() => {
                errors.push(Error::invalid(&place, "", "must not be empty"));
            }
            Some(Value::String(text)) => errors.extend(check_type(&place, name, text)),
            Some(other) => errors.push(Error::invalid(&place, other.clone(), "must be a string")),
        }
    }
    if let Some(found) = fields.get("metadata") {
        errors.extend(metadata(found, &path.child("metadata")));
    }
}

fn check_type(place: &Path, name: &str, text: &str) -> Option<Error> {
    if name == "apiVersion" {
        let unreadable = GroupVersion::parse(text).is_none();
        return unreadable
            .then(|| Error::invalid(place, text, format!("unexpected GroupVersion string: {text}")));
    }
    let complaints = names::is_dns1035_label(&text.to_lowercase());
    (!complaints.is_empty()).then(|| {
        let why = format!("may have mixed case, but should otherwise match: {}", complaints.join(","));
        Error::invalid(place, text, why)
    })
}

/// Brings the metadata of all embedded objects into its form; the first that has none is told.
pub fn coerce(value: &mut Value, schema: &Structural, form: MetadataForm<'_>) -> Result<(), String> {
    if !mentions_embedded(schema) {
        return Ok(());
    }
    coerce_below("", value, schema, form)
}

fn mentions_embedded(schema: &Structural) -> bool {
    schema.embedded
        || schema.properties.values().any(mentions_embedded)
        || schema.additional.schema().is_some_and(mentions_embedded)
        || schema.items.as_deref().is_some_and(mentions_embedded)
}

fn coerce_below(
    path: &str,
    value: &mut Value,
    schema: &Structural,
    form: MetadataForm<'_>,
) -> Result<(), String> {
    match value {
        Value::Object(fields) => {
            if schema.embedded
                && let Some(metadata) = fields.get_mut("metadata")
            {
                form(metadata, path)?;
            }
            for (name, value) in fields {
                let Some(property) = schema.field(name) else { continue };
                let dot = if path.is_empty() { "" } else { "." };
                coerce_below(&format!("{path}{dot}{name}"), value, property, form)?;
            }
        }
        Value::Array(items) => {
            let Some(item) = &schema.items else { return Ok(()) };
            for (index, value) in items.iter_mut().enumerate() {
                coerce_below(&format!("{path}[{index}]"), value, item, form)?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn an_embedded_object_says_what_it_is() {
        let schema =
            Structural::parse(&json!({"properties": {"template": {"x-kubernetes-embedded-resource": true}}}));
        let errors = |template: Value| {
            let found = validate(&json!({"template": template}), &schema, &|_, path| {
                vec![Error::required(&path.child("x"), "")]
            });
            found.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(errors(json!({"apiVersion": "v1", "kind": "Pod"})), Vec::<String>::new());
        assert_eq!(
            errors(json!({"kind": "Pod Disaster", "apiVersion": 4, "metadata": {}}))[0],
            "template.apiVersion: Invalid value: 4: must be a string"
        );
        assert_eq!(
            errors(json!({"metadata": {}})),
            [
                "template.apiVersion: Required value",
                "template.kind: Required value",
                "template.metadata.x: Required value"
            ]
        );
    }
}
