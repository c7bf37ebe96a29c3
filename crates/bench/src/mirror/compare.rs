//! Two answers, and in what they differ.

use std::collections::BTreeMap;

use serde_json::Value;

/// The headers that clients read. Those whose values differ by nature are compared by their presence alone.
pub const HEADERS: [&str; 10] = [
    "allow",
    "cache-control",
    "content-encoding",
    "content-type",
    "location",
    "retry-after",
    "vary",
    "warning",
    "www-authenticate",
    "x-content-type-options",
];
pub const HEADERS_BY_PRESENCE: [&str; 4] =
    ["audit-id", "etag", "x-kubernetes-pf-flowschema-uid", "x-kubernetes-pf-prioritylevel-uid"];

/// What identifies an element of a list, so that one missing element is one difference.
const IDENTITIES: [&str; 5] = ["name", "type", "kind", "group", "version"];

/// How much of a value a difference shows.
const SHOWN_CHARS_MAX: usize = 300;

/// An answer, made comparable.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    pub status: u16,
    /// All values of each header, joined.
    pub headers: BTreeMap<String, String>,
    pub body: Value,
}

/// One line for each difference; the first server stands left.
pub fn differences(left: &Answer, right: &Answer) -> Vec<String> {
    let mut found = Vec::new();
    if left.status != right.status {
        found.push(format!("status: {} != {}", left.status, right.status));
    }
    for name in HEADERS.iter().chain(&HEADERS_BY_PRESENCE) {
        let (left, right) = (left.headers.get(*name), right.headers.get(*name));
        if left != right {
            let shown = |value: Option<&String>| value.map_or("nothing".to_owned(), |text| shorten(text));
            found.push(format!("{name}: {} != {}", shown(left), shown(right)));
        }
    }
    values("", &left.body, &right.body, &mut found);
    found
}

fn values(path: &str, left: &Value, right: &Value, found: &mut Vec<String>) {
    match (left, right) {
        (Value::Object(l), Value::Object(r)) => {
            for key in l.keys().chain(r.keys().filter(|key| !l.contains_key(*key))) {
                let path = format!("{path}.{key}");
                match (l.get(key), r.get(key)) {
                    (Some(left), Some(right)) => values(&path, left, right, found),
                    (left, right) => found.push(one_sided(&path, left, right)),
                }
            }
        }
        (Value::Array(l), Value::Array(r)) => match (identified(l), identified(r)) {
            (Some(left), Some(right)) if left.keys().ne(right.keys()) => elements(path, &left, &right, found),
            _ => in_order(path, l, r, found),
        },
        _ if left != right => found.push(format!("{path}: {} != {}", show(left), show(right))),
        _ => {}
    }
}

fn in_order(path: &str, left: &[Value], right: &[Value], found: &mut Vec<String>) {
    for at in 0..left.len().max(right.len()) {
        let path = format!("{path}[{at}]");
        match (left.get(at), right.get(at)) {
            (Some(left), Some(right)) => values(&path, left, right, found),
            (left, right) => found.push(one_sided(&path, left, right)),
        }
    }
}

type Identified<'a> = BTreeMap<String, &'a Value>;

fn elements(path: &str, left: &Identified, right: &Identified, found: &mut Vec<String>) {
    for key in left.keys().chain(right.keys().filter(|key| !left.contains_key(*key))) {
        let path = format!("{path}[{key}]");
        match (left.get(key), right.get(key)) {
            (Some(left), Some(right)) => values(&path, left, right, found),
            (left, right) => found.push(one_sided(&path, left.copied(), right.copied())),
        }
    }
}

/// The elements by what identifies them, if that is unique.
fn identified(list: &[Value]) -> Option<Identified<'_>> {
    let mut elements = Identified::new();
    for element in list {
        let object = element.as_object()?;
        let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(object);
        let words = IDENTITIES.iter().filter_map(|key| metadata.get(*key)?.as_str());
        let key = words.collect::<Vec<_>>().join("/");
        if key.is_empty() || elements.insert(key, element).is_some() {
            return None;
        }
    }
    Some(elements)
}

fn one_sided(path: &str, left: Option<&Value>, right: Option<&Value>) -> String {
    let show = |value: Option<&Value>| value.map_or("nothing".to_owned(), show);
    format!("{path}: {} != {}", show(left), show(right))
}

fn show(value: &Value) -> String {
    shorten(&value.to_string())
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((at, _)) => format!("{}... ({} bytes)", &text[..at], text.len()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(left: Value, right: Value) -> Vec<String> {
        let answer = |body| Answer { status: 200, headers: BTreeMap::new(), body };
        differences(&answer(left), &answer(right))
    }

    #[test]
    fn a_difference_names_its_place_and_both_sides() {
        assert_eq!(check(json!({"a": [1, {"b": 2}]}), json!({"a": [1, {"b": 3}]})), [".a[1].b: 2 != 3"]);
        assert_eq!(check(json!({"a": 1}), json!({"b": 1})), [".a: 1 != nothing", ".b: nothing != 1"]);
        assert_eq!(check(json!("x"), json!("x")), Vec::<String>::new());
    }

    #[test]
    fn an_element_that_is_missing_is_one_difference() {
        let left = json!([{"name": "a"}, {"name": "b", "x": 1}, {"name": "c"}]);
        assert_eq!(
            check(left, json!([{"name": "b", "x": 1}, {"name": "c"}])),
            [r#"[a]: {"name":"a"} != nothing"#]
        );
    }

    #[test]
    fn status_and_headers_are_compared() {
        let answer = |status, warning: &str| Answer {
            status,
            headers: BTreeMap::from([("warning".to_owned(), warning.to_owned())]),
            body: Value::Null,
        };
        assert_eq!(
            differences(&answer(200, "a"), &answer(400, "b")),
            ["status: 200 != 400", "warning: a != b"]
        );
    }
}
