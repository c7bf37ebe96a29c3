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
    /// The 400 for a body that does not even say what it is (upstream: transformDecodeError, summarizeData).
    pub fn to_unrecognized(&self, expected: &str, body: &[u8]) -> Status {
        const SHOWN_BYTES_MAX: usize = 30;
        let shown = &body[..body.len().min(SHOWN_BYTES_MAX)];
        let text = match body.first() {
            None => "<empty>".to_owned(),
            Some(b'{') => String::from_utf8_lossy(shown).into_owned(),
            Some(_) => shown.iter().map(|byte| format!("{byte:02x}")).collect(),
        };
        let more = if body.len() > SHOWN_BYTES_MAX { " ..." } else { "" };
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {expected}): {self} ({text}{more})"
        ))
    }

    /// The 400 that upstream's `transformDecodeError` answers when the body said it is `kind` of `version` and the
    /// resource's kind is `expected`.
    pub fn to_status(&self, version: &str, kind: &str, expected: &str) -> Status {
        Status::bad_request(format!(
            "{kind} in version {version:?} cannot be handled as a {expected}: {self}"
        ))
    }
}
