//! Field paths and validation errors, with upstream's wording (`k8s.io/apimachinery/pkg/util/validation/field`).

use std::cell::Cell;
use std::fmt::{self, Write as _};

use crate::quote::Quoted;
use crate::{Text, Value};

thread_local! {
    /// Whether paths that begin now say where they are.
    static PLACED: Cell<bool> = const { Cell::new(true) };
}

/// What a check finds. Most find nothing, and to say where nothing is wrong would take most of their time: paths are told
/// in a second run, which is made when there is something to tell.
pub fn found<T>(check: impl Fn() -> Vec<T>) -> Vec<T> {
    struct Placed(bool);

    impl Drop for Placed {
        fn drop(&mut self) {
            PLACED.set(self.0);
        }
    }

    let before = Placed(PLACED.replace(false));
    let finds_nothing = check().is_empty();
    drop(before);
    if finds_nothing { Vec::new() } else { check() }
}

/// Where in an object something is: `spec.containers[0].name`, `metadata.labels[app]`. Nothing where [`found`] only looks
/// whether there is something to tell; what follows from there is nowhere either.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Path(Option<Text>);

impl Path {
    pub fn new(root: &str) -> Self {
        Path(PLACED.get().then(|| root.into()))
    }

    #[must_use]
    pub fn child(&self, name: &str) -> Self {
        let dot = if self.as_str().is_empty() { "" } else { "." };
        self.extended(&[dot, name])
    }

    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        match self.0 {
            Some(_) => self.key(&index.to_string()),
            None => Path(None),
        }
    }

    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.extended(&["[", key, "]"])
    }

    fn extended(&self, by: &[&str]) -> Self {
        let Some(path) = &self.0 else { return Path(None) };
        let mut path = path.clone();
        path.extend(by.iter().copied());
        Path(Some(path))
    }

    pub fn as_str(&self) -> &str {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.as_str().is_empty() { "<nil>" } else { self.as_str() })
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
        let list: Vec<String> = supported.iter().map(|s| Quoted(s).to_string()).collect();
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
        Value::String(text) => write!(out, "{}", Quoted(text)),
        Value::Null => write!(out, "null"),
        other => other.to_string().chars().try_for_each(|c| match c {
            // Go's JSON can stand in HTML.
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => write!(out, "\\u{:04x}", u32::from(c)),
            c => out.write_char(c),
        }),
    };
    written.expect("writing to a String does not fail");
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[test]
    fn only_what_is_wrong_is_told_where() {
        let seen = RefCell::new(Vec::new());
        let check = |errors: usize| {
            let path = Path::new("spec").child("list").index(1).key("k");
            seen.borrow_mut().push(path.to_string());
            vec![Error::required(&path, ""); errors]
        };
        assert_eq!(found(|| check(0)), []);
        assert_eq!(seen.take(), ["<nil>"]);
        assert_eq!(found(|| found(|| check(1))), check(1), "whoever else asks");
        assert_eq!(seen.take().last().map(String::as_str), Some("spec.list[1][k]"));
        std::panic::catch_unwind(|| found(|| -> Vec<Error> { panic!("amid a check") })).expect_err("panics");
        assert_eq!(Path::new("spec").as_str(), "spec", "also after a panic");
    }

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
        let list: Value = serde_json::from_str(r#"["a<b", "\u0000"]"#).expect("is JSON");
        assert_eq!(Error::duplicate(&path, list).body(), r#"Duplicate value: ["a\u003cb","\u0000"]"#);
        assert_eq!(Error::duplicate(&path, "a<b\0").body(), r#"Duplicate value: "a<b\x00""#);
    }
}
