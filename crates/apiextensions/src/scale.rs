//! Where a custom resource keeps what its Scale shows, and whether that is right.
//! Follows `customResourceValidator.ValidateScaleSpec`, `ValidateScaleStatus` and `scaleFromCustomResource`.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, Path};
use apimachinery::{Map, json};

use crate::definition::Scale;

/// The names along a path such as `.spec.replicas`.
pub fn names(path: &str) -> Vec<&str> {
    path.strip_prefix('.').unwrap_or(path).split('.').collect()
}

pub fn at<'v>(object: &'v Value, path: &str) -> Option<&'v Value> {
    names(path).into_iter().try_fold(object, |value, name| value.get(name))
}

/// Puts a value at a path, with the objects that lead there.
pub fn put(object: &mut Value, path: &str, value: Value) {
    let mut place = object;
    for name in names(path) {
        if !place.is_object() {
            *place = Value::Object(Map::new());
        }
        place = &mut place[name];
    }
    *place = value;
}

fn go_type(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "string",
        Value::Bool(_) => "bool",
        Value::Number(n) if n.is_f64() => "float64",
        Value::Number(_) => "int64",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
        Value::Null => "<nil>",
    }
}

fn wrong_type(path: &str, value: &Value, expected: &str) -> String {
    let shown = crate::columns::text(value);
    format!(
        ".{} accessor error: {shown} is of the type {}, expected {expected}",
        names(path).join("."),
        go_type(value)
    )
}

/// What stands at a path, unless something on the way there is no object (follows `unstructured.NestedFieldNoCopy`).
fn nested<'v>(object: &'v Value, path: &str) -> Result<Option<&'v Value>, String> {
    let names = names(path);
    let mut value = object;
    for (at, name) in names.iter().enumerate() {
        if !value.is_object() && !value.is_null() {
            return Err(wrong_type(&names[..=at].join("."), value, "map[string]interface{}"));
        }
        let Some(inner) = value.get(name) else { return Ok(None) };
        value = inner;
    }
    Ok(Some(value))
}

fn check_replicas(object: &Value, path: &str, errors: &mut ErrorList) {
    let place = Path::new(path);
    let value = match nested(object, path) {
        Ok(Some(value)) => value,
        Ok(None) => return,
        Err(why) => return errors.push(Error::invalid(&place, 0, why)),
    };
    match value.as_i64() {
        None => errors.push(Error::invalid(&place, 0, wrong_type(path, value, "int64"))),
        Some(count) if count < 0 => {
            errors.push(Error::invalid(&place, count, "should be a non-negative integer"));
        }
        Some(count) if count > i64::from(i32::MAX) => {
            errors.push(Error::invalid(
                &place,
                count,
                format!("should be less than or equal to {}", i32::MAX),
            ));
        }
        Some(_) => {}
    }
}

pub fn validate_spec(object: &Value, scale: &Scale) -> ErrorList {
    let mut errors = ErrorList::new();
    check_replicas(object, &scale.spec_replicas_path, &mut errors);
    errors
}

pub fn validate_status(object: &Value, scale: &Scale) -> ErrorList {
    let mut errors = ErrorList::new();
    check_replicas(object, &scale.status_replicas_path, &mut errors);
    if let Some(path) = &scale.label_selector_path {
        let complaint = match nested(object, path) {
            Ok(value) => {
                let value = value.filter(|value| !value.is_string());
                value.map(|value| wrong_type(path, value, "string"))
            }
            Err(why) => Some(why),
        };
        errors.extend(complaint.map(|why| Error::invalid(&Path::new(path), "", why)));
    }
    errors
}

/// Whether an object says how many replicas it wants.
pub fn says_replicas(object: &Value, scale: &Scale) -> bool {
    at(object, &scale.spec_replicas_path).is_some()
}

/// The `spec` and `status` of the Scale of an object.
pub fn show(object: &Value, scale: &Scale) -> (Value, Value) {
    let count = |path: &str| at(object, path).and_then(Value::as_i64).unwrap_or_default();
    let wanted = count(&scale.spec_replicas_path);
    let spec = if wanted == 0 { json!({}) } else { json!({"replicas": wanted}) };
    let mut status = json!({"replicas": count(&scale.status_replicas_path)});
    let selector =
        scale.label_selector_path.as_ref().and_then(|path| at(object, path)).and_then(Value::as_str);
    if let Some(selector) = selector.filter(|text| !text.is_empty()) {
        status["selector"] = selector.into();
    }
    (spec, status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scale() -> Scale {
        Scale {
            spec_replicas_path: ".spec.replicas".to_owned(),
            status_replicas_path: ".status.replicas".to_owned(),
            label_selector_path: Some(".status.selector".to_owned()),
        }
    }

    #[test]
    fn numbers_of_replicas_are_checked_where_they_stand() {
        let errors = |object: Value| {
            let mut all = validate_spec(&object, &scale());
            all.extend(validate_status(&object, &scale()));
            all.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(errors(json!({"spec": {"replicas": 2}})), Vec::<String>::new());
        assert_eq!(
            errors(json!({"spec": {"replicas": -1}, "status": {"selector": 4}})),
            [
                ".spec.replicas: Invalid value: -1: should be a non-negative integer",
                ".status.selector: Invalid value: \"\": .status.selector accessor error: 4 is of the type int64, expected string",
            ]
        );
    }

    #[test]
    fn a_scale_shows_what_its_paths_name() {
        let mut object = json!({"status": {"replicas": 1, "selector": "a=b"}});
        assert!(!says_replicas(&object, &scale()));
        put(&mut object, ".spec.replicas", 3.into());
        assert_eq!(
            show(&object, &scale()),
            (json!({"replicas": 3}), json!({"replicas": 1, "selector": "a=b"}))
        );
    }
}
