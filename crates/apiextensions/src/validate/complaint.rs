//! What is wrong with a value, and how it is said.

use apimachinery::Value;
use apimachinery::field::{Error, ErrorList, ErrorType, Path};

/// One mistake.
#[derive(Clone, Debug)]
pub struct Complaint {
    kind: ErrorType,
    /// Where below the value that was asked about; empty for itself, `None` for complaints that name their place in words.
    path: Option<String>,
    value: Option<Value>,
    detail: String,
    /// By which two mistakes count as one.
    message: String,
}

impl Complaint {
    fn new(kind: ErrorType, path: &str, value: Option<Value>, what: &str) -> Complaint {
        let message = format!("{path} in body {what}");
        Complaint { kind, path: Some(path.to_owned()), value, detail: message.clone(), message }
    }

    pub fn invalid(path: &str, value: impl Into<Value>, what: impl AsRef<str>) -> Complaint {
        Self::new(ErrorType::Invalid, path, Some(value.into()), what.as_ref())
    }

    /// `found` is a type's name, or a text that is not of the format.
    pub fn wrong_type(path: &str, expected: &str, found: &str) -> Complaint {
        let what = format!("must be of type {expected}: {found:?}");
        Self::new(ErrorType::TypeInvalid, path, Some(found.into()), &what)
    }

    pub fn required(path: &str) -> Complaint {
        Complaint { detail: String::new(), ..Self::new(ErrorType::Required, path, None, "is required") }
    }

    pub fn too_long(path: &str, max: i64) -> Complaint {
        let unit = if max == 1 { "byte" } else { "bytes" };
        let detail = format!("may not be more than {max} {unit}");
        let what = format!("should be at most {max} chars long");
        Complaint { detail, ..Self::new(ErrorType::TooLong, path, None, &what) }
    }

    pub fn too_many(path: &str, size: usize, max: usize, what: impl AsRef<str>) -> Complaint {
        let unit = if max == 1 { "item" } else { "items" };
        let detail = format!("must have at most {max} {unit}");
        Complaint { detail, ..Self::new(ErrorType::TooMany, path, Some(size.into()), what.as_ref()) }
    }

    pub fn not_listed(path: &str, value: &Value, allowed: &[Value]) -> Complaint {
        let shown = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let quoted: Vec<String> = allowed.iter().map(|value| format!("{:?}", shown(value))).collect();
        let detail = format!("supported values: {}", quoted.join(", "));
        let what = format!("should be one of {}", quoted.join(" "));
        Complaint { detail, ..Self::new(ErrorType::NotSupported, path, Some(value.clone()), &what) }
    }

    /// A complaint about the whole, in its own words.
    pub fn general(message: String) -> Complaint {
        Complaint {
            kind: ErrorType::Invalid,
            path: None,
            value: Some("".into()),
            detail: message.clone(),
            message,
        }
    }

    fn into_error(self, base: &Path) -> Error {
        let path = self.path.as_deref().unwrap_or_default();
        let path = path.strip_prefix('.').unwrap_or(path);
        let field = if path.is_empty() { base.clone() } else { base.child(path) };
        Error { kind: self.kind, field, bad_value: self.value, detail: self.detail }
    }
}

/// The mistakes found, and how many checks came so far as to look.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    complaints: Vec<Complaint>,
    matches: usize,
}

impl From<Complaint> for Outcome {
    fn from(complaint: Complaint) -> Outcome {
        Outcome { complaints: vec![complaint], matches: 0 }
    }
}

impl Outcome {
    pub fn counted() -> Outcome {
        Outcome { complaints: Vec::new(), matches: 1 }
    }

    pub fn is_valid(&self) -> bool {
        self.complaints.is_empty()
    }

    pub fn matches(&self) -> usize {
        self.matches
    }

    pub fn count(&mut self) {
        self.matches += 1;
    }

    pub fn forgive(&mut self) {
        self.complaints.clear();
    }

    pub fn add(&mut self, complaint: Complaint) {
        if !self.complaints.iter().any(|known| known.message == complaint.message) {
            self.complaints.push(complaint);
        }
    }

    pub fn merge(&mut self, other: Outcome) {
        self.matches += other.matches;
        for complaint in other.complaints {
            self.add(complaint);
        }
    }

    pub fn into_errors(self, base: &Path) -> ErrorList {
        self.complaints.into_iter().map(|complaint| complaint.into_error(base)).collect()
    }
}
