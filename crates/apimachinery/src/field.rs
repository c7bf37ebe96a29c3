//! Field paths and validation errors, with upstream's wording (`k8s.io/apimachinery/pkg/util/validation/field`).

use std::fmt::{self, Write as _};

use crate::Value;

/// Where in an object something is: `spec.containers[0].name`, `metadata.labels[app]`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(String);

impl Path {
    pub fn new(root: &str) -> Self {
        Path(root.to_owned())
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        if self.0.is_empty() { Path(name.to_owned()) } else { Path([&self.0, ".", name].concat()) }
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.key(&index.to_string())
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Path([&self.0, "[", key, "]"].concat())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "<nil>" } else { &self.0 })
    }
}

/// What kind of mistake a field holds; the discriminant text is the cause's `reason` on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    NotFound,
    Required,
    Duplicate,
    Invalid,
    NotSupported,
    Forbidden,
    TooLong,
    TooMany,
    Internal,
    TypeInvalid,
}

impl ErrorType {
    /// The `reason` of the cause in a Status.
    pub fn reason(self) -> &'static str {
        match self {
            ErrorType::NotFound => "FieldValueNotFound",
            ErrorType::Required => "FieldValueRequired",
            ErrorType::Duplicate => "FieldValueDuplicate",
            ErrorType::Invalid => "FieldValueInvalid",
            ErrorType::NotSupported => "FieldValueNotSupported",
            ErrorType::Forbidden => "FieldValueForbidden",
            ErrorType::TooLong => "FieldValueTooLong",
            ErrorType::TooMany => "FieldValueTooMany",
            ErrorType::Internal => "InternalError",
            ErrorType::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    fn text(self) -> &'static str {
        match self {
            ErrorType::NotFound => "Not found",
            ErrorType::Required => "Required value",
            ErrorType::Duplicate => "Duplicate value",
            ErrorType::Invalid | ErrorType::TypeInvalid => "Invalid value",
            ErrorType::NotSupported => "Unsupported value",
            ErrorType::Forbidden => "Forbidden",
            ErrorType::TooLong => "Too long",
            ErrorType::TooMany => "Too many",
            ErrorType::Internal => "Internal error",
        }
    }
}

/// One mistake in one field.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub kind: ErrorType,
    pub field: Path,
    /// The value found there, where the message shows it.
    pub bad_value: Option<Value>,
    pub detail: String,
}

/// All mistakes of one object, in the order in which its fields were checked.
pub type ErrorList = Vec<Error>;

impl Error {
    fn with(kind: ErrorType, field: &Path, bad_value: Option<Value>, detail: impl Into<String>) -> Self {
        Error { kind, field: field.clone(), bad_value, detail: detail.into() }
    }

    pub fn required(field: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Required, field, None, detail)
    }

    pub fn invalid(field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Invalid, field, Some(value.into()), detail)
    }

    /// For a value that the message does not repeat (upstream: `OmitValueType`).
    pub fn invalid_without_value(field: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Invalid, field, None, detail)
    }

    pub fn type_invalid(field: &Path, value: impl Into<Value>, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::TypeInvalid, field, Some(value.into()), detail)
    }

    pub fn not_found(field: &Path, value: impl Into<Value>) -> Self {
        Self::with(ErrorType::NotFound, field, Some(value.into()), "")
    }

    pub fn duplicate(field: &Path, value: impl Into<Value>) -> Self {
        Self::with(ErrorType::Duplicate, field, Some(value.into()), "")
    }

    pub fn forbidden(field: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Forbidden, field, None, detail)
    }

    pub fn internal(field: &Path, detail: impl Into<String>) -> Self {
        Self::with(ErrorType::Internal, field, None, detail)
    }

    /// `supported` is listed sorted and quoted, as upstream does where it has a set of them.
    pub fn not_supported(field: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let mut sorted = supported.to_vec();
        sorted.sort_unstable();
        Self::not_supported_of(field, value, &sorted)
    }

    /// As [`Error::not_supported`], where upstream has a list and keeps its order.
    pub fn not_supported_of(field: &Path, value: impl Into<Value>, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let detail =
            if list.is_empty() { String::new() } else { format!("supported values: {}", list.join(", ")) };
        Self::with(ErrorType::NotSupported, field, Some(value.into()), detail)
    }

    /// A value longer than `max` bytes; the value itself is not repeated in the message.
    pub fn too_long(field: &Path, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        Self::with(ErrorType::TooLong, field, None, format!("may not be more than {max} {unit}"))
    }

    /// A list of `actual` items where at most `max` may stand.
    pub fn too_many(field: &Path, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        Self::with(ErrorType::TooMany, field, Some(actual.into()), format!("must have at most {max} {unit}"))
    }

    /// The message without the field: the cause's `message` in a Status.
    pub fn body(&self) -> String {
        let mut text = self.kind.text().to_owned();
        if let Some(value) = &self.bad_value {
            text.push_str(": ");
            push_value(&mut text, value);
        }
        if !self.detail.is_empty() {
            text.push_str(": ");
            text.push_str(&self.detail);
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.body())
    }
}

/// Strings are quoted as Go's `%q`, everything else is shown as JSON.
fn push_value(out: &mut String, value: &Value) {
    let written = match value {
        Value::String(text) => write!(out, "{text:?}"),
        Value::Null => write!(out, "null"),
        other => write!(out, "{other}"),
    };
    written.expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_read_as_upstreams() {
        let path = Path::new("spec").child("containers").index(0).child("name");
        assert_eq!(Error::required(&path, "").to_string(), "spec.containers[0].name: Required value");
        assert_eq!(
            Error::invalid(&path, "A b", "a lowercase RFC 1123 label").to_string(),
            "spec.containers[0].name: Invalid value: \"A b\": a lowercase RFC 1123 label"
        );
        assert_eq!(
            Error::not_supported(&Path::new("spec").child("type"), "x", &["b", "a"]).to_string(),
            "spec.type: Unsupported value: \"x\": supported values: \"a\", \"b\""
        );
        assert_eq!(Error::duplicate(&Path::new("a").key("k"), 3).to_string(), "a[k]: Duplicate value: 3");
    }
}
