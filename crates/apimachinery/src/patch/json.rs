//! JSON patch (RFC 6902) as upstream's library evanphx/json-patch carries it out: negative indices count from the
//! end, `replace` may create a key, `test` of null passes for an absent key.

use serde::Deserialize;

use crate::Value;
use crate::codec::{self, depth};
use crate::status::{Status, StatusDetails};

/// More operations than this are refused (upstream: maxJSONPatchOperations).
pub const OPERATIONS_MAX: usize = 10_000;
/// Bytes that all copies of one patch may add (upstream: MaxJSONPatchCopyBytes).
const COPIED_BYTES_MAX: usize = 3 * 1024 * 1024;

/// How deep a patched document may nest. What is stored must be readable again, and the JSON reader stops at 128.
const DEPTH_MAX: usize = 120;

#[derive(Deserialize)]
struct Operation {
    op: String,
    path: String,
    #[serde(default)]
    from: Option<String>,
    /// Absent counts as null.
    #[serde(default)]
    value: Value,
}

/// Why operations do not apply, in the words of upstream's library.
#[derive(Debug, thiserror::Error)]
pub enum JsonPatchError {
    #[error("{op} operation does not apply: doc is missing path: {path:?}: missing value")]
    MissingPath { op: String, path: String },
    #[error("error in {op} for path: '{path}': {why}")]
    At { op: String, path: String, why: String },
    #[error("testing value {0} failed: test failed")]
    Test(String),
    #[error("{0} operation, missing from field: missing value")]
    MissingFrom(String),
    #[error("Unexpected kind: {0}")]
    Kind(String),
    #[error(
        "Unable to complete the copy, the accumulated size increase of copy is {0}, exceeding the limit {COPIED_BYTES_MAX}"
    )]
    CopySize(usize),
    #[error("the patched document would nest deeper than {DEPTH_MAX} levels")]
    Depth,
    #[error("{0}")]
    Malformed(#[from] serde_json::Error),
}

/// Applies all operations or none. A malformed patch is a 400, one that does not fit the document a 422.
pub fn json_patch(document: Value, patch: &[u8]) -> Result<Value, Status> {
    let operations: Vec<Operation> =
        codec::from_json(patch, "[]handlers.jsonPatchOp").map_err(|why| undecodable(&why))?;
    if operations.len() > OPERATIONS_MAX {
        let message = format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS_MAX}, got {}",
            operations.len()
        );
        return Err(Status::failure(413, "RequestEntityTooLarge", message));
    }
    carry_out(document, operations).map_err(|_| rejected())
}

/// Applies operations that were made here, all or none, and tells why where they do not apply.
pub fn json_patch_operations(document: Value, operations: Value) -> Result<Value, JsonPatchError> {
    carry_out(document, Vec::deserialize(&operations)?)
}

fn carry_out(document: Value, operations: Vec<Operation>) -> Result<Value, JsonPatchError> {
    let depth = depth(&document);
    let mut patching = Patching { document, copied_bytes: 0, depth };
    operations.into_iter().try_for_each(|operation| patching.apply(operation))?;
    Ok(patching.document)
}

/// A patch that is none.
pub fn undecodable(why: &str) -> Status {
    Status::bad_request(format!("error decoding patch: {why}"))
}

/// Says no more than that it does not apply, as upstream does.
fn rejected() -> Status {
    Status::failure(422, "Invalid", "the server rejected our request due to an error in our request")
        .with_details(StatusDetails::default())
}

struct Patching {
    document: Value,
    copied_bytes: usize,
    /// The document nests no deeper than this.
    depth: usize,
}

impl Patching {
    fn apply(&mut self, operation: Operation) -> Result<(), JsonPatchError> {
        let Operation { op, path, from, value } = operation;
        let from = || from.clone().ok_or_else(|| JsonPatchError::MissingFrom(op.clone()));
        match op.as_str() {
            "add" => {
                let added_depth = depth(&value);
                self.at(&op, &path, |parent, key| add(parent, key, value))?;
                self.check_depth(&path, added_depth)
            }
            "remove" => self.at(&op, &path, |parent, key| remove(parent, key).map(drop)),
            "replace" if path.is_empty() && (value.is_object() || value.is_array()) => {
                self.document = value;
                Ok(())
            }
            "replace" => {
                let added_depth = depth(&value);
                self.at(&op, &path, |parent, key| replace(parent, key, value))?;
                self.check_depth(&path, added_depth)
            }
            "move" => {
                let moved = self.at(&op, &from()?, remove)?;
                self.at(&op, &path, |parent, key| add(parent, key, moved))?;
                self.check_depth(&path, self.depth)
            }
            "copy" => {
                let copied = self.at(&op, &from()?, |parent, key| get(parent, key).map(|v| v.cloned()))?;
                let copied = copied.unwrap_or_default();
                self.copied_bytes += copied.to_string().len();
                if self.copied_bytes > COPIED_BYTES_MAX {
                    return Err(JsonPatchError::CopySize(self.copied_bytes));
                }
                self.at(&op, &path, |parent, key| add(parent, key, copied))?;
                self.check_depth(&path, self.depth)
            }
            "test" => self.test(&op, &path, &value),
            _ => Err(JsonPatchError::Kind(op)),
        }
    }

    /// After something at most so deep was put at the path. Measures only when the estimate grows too large.
    fn check_depth(&mut self, path: &str, added: usize) -> Result<(), JsonPatchError> {
        self.depth = self.depth.max(path.matches('/').count() + added);
        if self.depth > DEPTH_MAX {
            self.depth = depth(&self.document);
        }
        if self.depth > DEPTH_MAX { Err(JsonPatchError::Depth) } else { Ok(()) }
    }

    fn test(&mut self, op: &str, path: &str, value: &Value) -> Result<(), JsonPatchError> {
        let equal = if path.is_empty() {
            self.document == *value
        } else {
            self.at(op, path, |parent, key| get(parent, key).map(|v| v.unwrap_or(&Value::Null) == value))?
        };
        if equal { Ok(()) } else { Err(JsonPatchError::Test(path.to_owned())) }
    }

    /// Calls `with` on what holds the last step of the path, and that step.
    fn at<T>(
        &mut self,
        op: &str,
        path: &str,
        with: impl FnOnce(&mut Value, &str) -> Result<T, String>,
    ) -> Result<T, JsonPatchError> {
        let missing = || JsonPatchError::MissingPath { op: op.to_owned(), path: path.to_owned() };
        let (parents, key) = path.rsplit_once('/').ok_or_else(missing)?;
        let mut parent = &mut self.document;
        for step in parents.split('/').skip(1) {
            parent = get_mut(parent, &unescape(step)).ok_or_else(missing)?;
        }
        if !parent.is_object() && !parent.is_array() {
            return Err(missing());
        }
        let failed = |why| JsonPatchError::At { op: op.to_owned(), path: path.to_owned(), why };
        with(parent, &unescape(key)).map_err(failed)
    }
}

fn unescape(step: &str) -> String {
    step.replace("~1", "/").replace("~0", "~")
}

/// The place of an index in a list of this length; negative ones count from the end.
fn position(key: &str, length: usize) -> Result<usize, String> {
    let index: i64 = key.parse().map_err(|_| format!("value was not a proper array index: '{key}'"))?;
    let length = length as i64;
    let position = if index < 0 { index + length } else { index };
    if (0..length).contains(&position) {
        Ok(position as usize)
    } else {
        Err(format!("Unable to access invalid index: {index}: invalid index referenced"))
    }
}

fn get<'v>(parent: &'v Value, key: &str) -> Result<Option<&'v Value>, String> {
    match parent {
        Value::Array(items) => position(key, items.len()).map(|at| items.get(at)),
        other => Ok(other.get(key)),
    }
}

fn get_mut<'v>(parent: &'v mut Value, key: &str) -> Option<&'v mut Value> {
    match parent {
        Value::Array(items) => {
            let at = position(key, items.len()).ok()?;
            items.get_mut(at)
        }
        other => other.get_mut(key),
    }
}

fn add(parent: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match parent {
        Value::Array(items) if key == "-" => items.push(value),
        Value::Array(items) => items.insert(position(key, items.len() + 1)?, value),
        Value::Object(fields) => drop(fields.insert(key, value)),
        _ => unreachable!("only objects and lists are looked into"),
    }
    Ok(())
}

fn remove(parent: &mut Value, key: &str) -> Result<Value, String> {
    match parent {
        Value::Array(items) => Ok(items.remove(position(key, items.len())?)),
        Value::Object(fields) => fields
            .remove(key)
            .ok_or_else(|| format!("Unable to remove nonexistent key: {key}: missing value")),
        _ => unreachable!("only objects and lists are looked into"),
    }
}

fn replace(parent: &mut Value, key: &str, value: Value) -> Result<(), String> {
    match parent {
        Value::Array(items) => {
            let at = position(key, items.len())?;
            items[at] = value;
        }
        Value::Object(fields) => drop(fields.insert(key, value)),
        _ => unreachable!("only objects and lists are looked into"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::json;

    fn check(document: Value, patch: Value, expect: Result<Value, &str>) {
        let operations: Vec<Operation> = crate::from_value(patch.clone()).expect("is a list of operations");
        let found = carry_out(document, operations).map_err(|error| error.to_string());
        assert_eq!(found, expect.map_err(str::to_owned), "{patch}");
    }

    #[test]
    fn operations_do_what_rfc_6902_says() {
        let document = json!({"a": {"b/c": 1}, "list": [1, 2]});
        let cases = [
            (
                json!({"op": "add", "path": "/a/x", "value": 2}),
                json!({"a": {"b/c": 1, "x": 2}, "list": [1, 2]}),
            ),
            (
                json!({"op": "add", "path": "/list/1", "value": 9}),
                json!({"a": {"b/c": 1}, "list": [1, 9, 2]}),
            ),
            (
                json!({"op": "add", "path": "/list/-", "value": 9}),
                json!({"a": {"b/c": 1}, "list": [1, 2, 9]}),
            ),
            (
                json!({"op": "add", "path": "/list/-1", "value": 9}),
                json!({"a": {"b/c": 1}, "list": [1, 2, 9]}),
            ),
            (json!({"op": "remove", "path": "/a/b~1c"}), json!({"a": {}, "list": [1, 2]})),
            (json!({"op": "remove", "path": "/list/-1"}), json!({"a": {"b/c": 1}, "list": [1]})),
            (
                json!({"op": "replace", "path": "/new", "value": 1}),
                json!({"a": {"b/c": 1}, "list": [1, 2], "new": 1}),
            ),
            (
                json!({"op": "move", "from": "/list/0", "path": "/first"}),
                json!({"a": {"b/c": 1}, "list": [2], "first": 1}),
            ),
            (
                json!({"op": "copy", "from": "/list/0", "path": "/first"}),
                json!({"a": {"b/c": 1}, "list": [1, 2], "first": 1}),
            ),
            (json!({"op": "test", "path": "/list/0", "value": 1}), document.clone()),
            (json!({"op": "test", "path": "/absent", "value": null}), document.clone()),
        ];
        for (operation, expect) in cases {
            check(document.clone(), json!([operation]), Ok(expect));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused_whole() {
        let document = json!({"a": 1, "list": []});
        for (operation, expect) in [
            (json!({"op": "test", "path": "/a", "value": 2}), "testing value /a failed: test failed"),
            (
                json!({"op": "remove", "path": "/b"}),
                "error in remove for path: '/b': Unable to remove nonexistent key: b: missing value",
            ),
            (
                json!({"op": "add", "path": "/b/c", "value": 1}),
                "add operation does not apply: doc is missing path: \"/b/c\": missing value",
            ),
            (
                json!({"op": "add", "path": "/list/1", "value": 1}),
                "error in add for path: '/list/1': Unable to access invalid index: 1: invalid index referenced",
            ),
            (
                json!({"op": "add", "path": "", "value": {}}),
                "add operation does not apply: doc is missing path: \"\": missing value",
            ),
            (json!({"op": "copy", "path": "/b"}), "copy operation, missing from field: missing value"),
            (json!({"op": "bogus", "path": "/b"}), "Unexpected kind: bogus"),
        ] {
            check(document.clone(), json!([operation]), Err(expect));
        }
        let status = json_patch(document, b"{}").expect_err("not a list");
        assert_eq!(status.code, 400);
    }

    #[test]
    fn limits_hold_at_and_past_them() {
        let operation = json!({"op": "test", "path": "/a", "value": null});
        let patch = |count: usize| Value::from(vec![operation.clone(); count]).to_string();
        assert!(json_patch(json!({}), patch(OPERATIONS_MAX).as_bytes()).is_ok());
        let status = json_patch(json!({}), patch(OPERATIONS_MAX + 1).as_bytes()).expect_err("too many");
        assert_eq!(status.code, 413);
        let copies = |path: &str, count: usize| {
            Value::from(vec![json!({"op": "copy", "from": "/a", "path": path}); count]).to_string()
        };
        let apply = |document: Value, patch: String| json_patch(document, patch.as_bytes()).map(|_| ());
        let large = json!({"a": ["x".repeat(1024)]});
        assert_eq!(apply(large, copies("/a/-", 20)).map_err(|s| s.code), Err(422));
        assert_eq!(apply(json!({"a": {}}), copies("/a/x", DEPTH_MAX - 2)).map_err(|s| s.code), Ok(()));
        assert_eq!(apply(json!({"a": {}}), copies("/a/x", DEPTH_MAX)).map_err(|s| s.code), Err(422));
    }

    proptest! {
        #[test]
        fn any_path_is_applied_or_refused(path in "(/[a-c0-9~-]{0,2}){0,4}", op in "add|remove|replace|copy|move|test") {
            let patch = json!([{"op": op, "path": path, "from": path, "value": {}}]).to_string();
            let _applied = json_patch(json!({"a": [{"b": 1}], "c": {"a": []}}), patch.as_bytes()).is_ok();
        }
    }
}
