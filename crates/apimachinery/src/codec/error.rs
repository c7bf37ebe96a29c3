//! Why bytes are not an object, and how upstream words it.

use crate::status::Status;

#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Error {
    /// Not well-formed in its format.
    #[error("{0}")]
    Syntax(String),
    /// Well-formed, but a value does not fit its field.
    #[error("{0}")]
    Type(String),
    /// Unknown or duplicate fields under strict validation.
    #[error("strict decoding error: {}", .0.join(", "))]
    Strict(Vec<String>),
}

impl Error {
    /// The 400 that upstream's `transformDecodeError` answers when the body said it is `kind` of `version` and the
    /// resource's kind is `expected`.
    pub fn to_status(&self, version: &str, kind: &str, expected: &str) -> Status {
        if kind.is_empty() {
            return Status::bad_request(format!(
                "the object provided is unrecognized (must be of type {expected}): {self}"
            ));
        }
        Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {expected}: {self}"
        ))
    }
}
