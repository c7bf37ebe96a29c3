//! Whether a value is what its schema asks for, in the words of kube-openapi's validator, whose order of checks and whose
//! choice among alternatives this follows (`SchemaValidator.Validate`, `RatchetingSchemaValidator`).

mod complaint;
mod number;

use apimachinery::field::{ErrorList, Path};
use apimachinery::{Map, Value};

use crate::listtype;
use crate::structural::{Checks, ListType, Structural, Type};
use complaint::{Complaint, Outcome};

/// The mistakes in `value`, which stands at `base`. What an update leaves as it is in `old` is not complained about.
pub fn validate(base: &Path, value: &Value, old: Option<&Value>, schema: &Structural) -> ErrorList {
    node(value, old, schema, "").into_errors(base)
}

/// A node that is judged on its own: what has not changed may stay as it is.
fn node(value: &Value, old: Option<&Value>, schema: &Structural, path: &str) -> Outcome {
    let mut outcome = judge(value, old, schema, path);
    if !outcome.is_valid() && old == Some(value) {
        outcome.forgive();
    }
    outcome
}

/// All checks of one node. Each that applies counts, for the choice of the nearest among alternatives.
fn judge(value: &Value, old: Option<&Value>, schema: &Structural, path: &str) -> Outcome {
    let none = Checks::default();
    let checks = schema.checks.as_deref().unwrap_or(&none);
    let mut outcome = Outcome::default();
    if value.is_null() {
        outcome.merge(type_of(value, schema, checks, path));
        outcome.merge(enumeration(value, checks, path));
        return outcome;
    }
    if schema.ty != Type::Any || schema.int_or_string || !checks.format.is_empty() {
        outcome.merge(type_of(value, schema, checks, path));
        outcome.count();
    }
    outcome.merge(alternatives(value, old, checks, path));
    outcome.count();
    match value {
        Value::String(text) => {
            outcome.merge(string(text, checks, path));
            outcome.count();
            if !checks.format.is_empty() {
                outcome.merge(format(text, checks, path));
                outcome.count();
            }
        }
        Value::Number(number) => {
            outcome.merge(number::check(number, schema.ty, checks, path));
            outcome.count();
        }
        Value::Array(items) => {
            outcome.merge(array(items, old, schema, checks, path));
            outcome.count();
        }
        _ => {}
    }
    outcome.merge(enumeration(value, checks, path));
    outcome.count();
    if let Value::Object(fields) = value {
        outcome.merge(object(fields, old, schema, checks, path));
        outcome.count();
    }
    outcome.count();
    outcome
}

/// What JSON calls the value, and the format that goes with it in messages.
fn found_type(value: &Value) -> (&'static str, &'static str) {
    match value {
        Value::Null => ("null", ""),
        Value::Bool(_) => ("boolean", ""),
        Value::String(_) => ("string", ""),
        Value::Number(number) if number.is_f64() => ("number", "float64"),
        Value::Number(_) => ("integer", "int64"),
        Value::Array(_) => ("array", ""),
        Value::Object(_) => ("object", ""),
    }
}

fn type_of(value: &Value, schema: &Structural, checks: &Checks, path: &str) -> Outcome {
    let expected: &[&str] = match schema.ty {
        _ if schema.int_or_string => &["integer", "string"],
        Type::Any => &[],
        ty => &[ty.name()],
    };
    let (found, found_format) = found_type(value);
    if value.is_null() {
        return match !expected.is_empty() && !schema.nullable {
            true => Complaint::wrong_type(path, &expected.join(","), found).into(),
            false => Outcome::counted(),
        };
    }
    let is_numeric = expected.iter().any(|ty| matches!(*ty, "number" | "integer"));
    let fits = expected.contains(&found)
        || (found == "number" && expected.contains(&"integer") && number::is_whole(value))
        || (found == "integer" && expected.contains(&"number"));
    let format = &*checks.format;
    let is_text = value.is_string() || value.is_array();
    if !is_text && !format.is_empty() && !fits && format != found_format {
        return Complaint::wrong_type(path, format, found_format).into();
    }
    // The check of the format has the say about texts that have one.
    let left_to_format = is_text && !format.is_empty() && !is_numeric;
    if !fits && !left_to_format {
        return Complaint::wrong_type(path, &expected.join(","), found).into();
    }
    Outcome::counted()
}

fn enumeration(value: &Value, checks: &Checks, path: &str) -> Outcome {
    let listed = |allowed: &Value| allowed == value || number::equal(allowed, value);
    if checks.enumeration.is_empty() || checks.enumeration.iter().any(listed) {
        return Outcome::default();
    }
    Complaint::not_listed(path, value, &checks.enumeration).into()
}

fn string(text: &str, checks: &Checks, path: &str) -> Outcome {
    let length = || i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
    if let Some(max) = checks.max_length.filter(|max| length() > *max) {
        return Complaint::too_long(path, max).into();
    }
    if let Some(min) = checks.min_length.filter(|min| length() < *min) {
        return Complaint::invalid(path, text, format!("should be at least {min} chars long")).into();
    }
    match checks.pattern.as_ref().map(|pattern| (pattern, &pattern.regex)) {
        Some((pattern, Ok(regex))) if !regex.is_match(text) => {
            Complaint::invalid(path, text, format!("should match '{}'", pattern.text)).into()
        }
        Some((pattern, Err(why))) => {
            let why = format!("should match '{}, but pattern is invalid: {why}'", pattern.text);
            Complaint::invalid(path, text, why).into()
        }
        _ => Outcome::default(),
    }
}

fn format(text: &str, checks: &Checks, path: &str) -> Outcome {
    if cel::strfmt::holds(&checks.format, text) {
        return Outcome::default();
    }
    Complaint::wrong_type(path, &checks.format, text).into()
}

fn array(items: &[Value], old: Option<&Value>, schema: &Structural, checks: &Checks, path: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let before = old.and_then(Value::as_array);
    if let Some(item) = &schema.items {
        for (index, value) in items.iter().enumerate() {
            let old = before.and_then(|before| correlated(value, before, &schema.list));
            outcome.merge(node(value, old, item, &format!("{path}[{index}]")));
        }
    }
    let size = items.len();
    let at_odds = |limit: Option<i64>, broken: fn(usize, usize) -> bool| {
        limit.and_then(|limit| usize::try_from(limit).ok()).filter(|limit| broken(size, *limit))
    };
    if let Some(min) = at_odds(checks.min_items, |size, min| size < min) {
        outcome.add(Complaint::invalid(path, size, format!("should have at least {min} items")));
    }
    if let Some(max) = at_odds(checks.max_items, |size, max| size > max) {
        outcome.add(Complaint::too_many(path, size, max, format!("should have at most {max} items")));
    }
    if checks.unique_items && items.iter().enumerate().any(|(at, item)| items[..at].contains(item)) {
        outcome.add(Complaint::invalid(path, "", "shouldn't contain duplicates"));
    }
    outcome.count();
    outcome
}

/// The item that stood for this one before: only lists of type map tell.
fn correlated<'o>(value: &Value, before: &'o [Value], list: &ListType) -> Option<&'o Value> {
    let ListType::Map(keys) = list else { return None };
    let key = listtype::key(value, keys);
    before.iter().find(|old| listtype::key(old, keys) == key)
}

fn object(fields: &Map, old: Option<&Value>, schema: &Structural, checks: &Checks, path: &str) -> Outcome {
    let mut outcome = Outcome::default();
    let size = fields.len();
    let limit = |limit: Option<i64>| limit.and_then(|limit| usize::try_from(limit).ok());
    if let Some(min) = limit(checks.min_properties).filter(|min| size < *min) {
        outcome.add(Complaint::invalid(path, size, format!("should have at least {min} properties")));
    }
    if let Some(max) = limit(checks.max_properties).filter(|max| size > *max) {
        outcome.add(Complaint::too_many(path, size, max, format!("should have at most {max} properties")));
    }
    let before = |name: &str| old.and_then(|old| old.get(name));
    if let Some(additional) = schema.additional.schema() {
        for (name, value) in fields.iter().filter(|(name, _)| !schema.properties.contains_key(name.as_str()))
        {
            outcome.merge(node(value, before(name), additional, &format!("{path}.{name}")));
        }
    }
    for (name, property) in schema.properties.iter() {
        let Some(value) = fields.get(name) else { continue };
        if path.is_empty() {
            let old = before(name).filter(|_| !matches!(name, "apiVersion" | "kind"));
            outcome.merge(node(value, old, property, name));
        } else {
            outcome.merge(node(value, before(name), property, &format!("{path}.{name}")));
        }
    }
    for name in checks.required.iter().filter(|name| !fields.contains_key(name)) {
        outcome.add(Complaint::required(&format!("{path}.{name}")));
    }
    outcome
}

/// `anyOf`, `oneOf`, `allOf` and `not`.
fn alternatives(value: &Value, old: Option<&Value>, checks: &Checks, path: &str) -> Outcome {
    let mut outcome = Outcome::default();
    if !checks.any_of.is_empty() {
        any_of(value, old, &checks.any_of, path, &mut outcome);
    }
    if !checks.one_of.is_empty() {
        one_of(value, old, &checks.one_of, path, &mut outcome);
    }
    if !checks.all_of.is_empty() {
        all_of(value, old, &checks.all_of, path, &mut outcome);
    }
    if let Some(not) = &checks.not
        && judge(value, old, not, path).is_valid()
    {
        outcome.add(Complaint::general(format!("{path:?} must not validate the schema (not)")));
    }
    outcome.count();
    outcome
}

/// The failure that got furthest; the first of equals.
fn nearest(best: Option<Outcome>, next: Outcome) -> Option<Outcome> {
    match best {
        Some(best) if best.matches() >= next.matches() => Some(best),
        _ => Some(next),
    }
}

fn any_of(value: &Value, old: Option<&Value>, schemas: &[Structural], path: &str, outcome: &mut Outcome) {
    let mut best = None;
    for schema in schemas {
        let result = judge(value, old, schema, path);
        if result.is_valid() {
            return outcome.merge(result);
        }
        best = nearest(best, result);
    }
    outcome.add(Complaint::general(format!("{path:?} must validate at least one schema (anyOf)")));
    outcome.merge(best.unwrap_or_default());
}

fn one_of(value: &Value, old: Option<&Value>, schemas: &[Structural], path: &str, outcome: &mut Outcome) {
    let (mut best, mut first, mut valid) = (None, None, 0);
    for schema in schemas {
        let result = judge(value, old, schema, path);
        if result.is_valid() {
            valid += 1;
            best = None;
            first.get_or_insert(result);
        } else if valid == 0 {
            best = nearest(best, result);
        }
    }
    if valid == 1 {
        return outcome.merge(first.unwrap_or_default());
    }
    let found = match valid {
        0 => "Found none valid".to_owned(),
        many => format!("Found {many} valid alternatives"),
    };
    let text = format!("{path:?} must validate one and only one schema (oneOf). {found}");
    outcome.add(Complaint::general(text));
    outcome.merge(best.unwrap_or_default());
}

fn all_of(value: &Value, old: Option<&Value>, schemas: &[Structural], path: &str, outcome: &mut Outcome) {
    let mut valid = 0;
    for schema in schemas {
        let result = judge(value, old, schema, path);
        valid += usize::from(result.is_valid());
        outcome.merge(result);
    }
    if valid != schemas.len() {
        let none = if valid == 0 { ". None validated" } else { "" };
        outcome.add(Complaint::general(format!("{path:?} must validate all the schemas (allOf){none}")));
    }
}

#[cfg(test)]
mod tests;
