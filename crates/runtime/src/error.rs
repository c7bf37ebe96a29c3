//! What can go wrong in the runtime, and the gRPC code each failure is reported under.

use std::path::{Path, PathBuf};

use crate::images;

/// A failed runtime operation.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{kind} {id:?} not found")]
    NotFound { kind: &'static str, id: String },
    #[error("{0}")]
    InvalidArgument(String),
    #[error("{0}")]
    FailedPrecondition(String),
    #[error("{operation} {path}")]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{0}")]
    Shim(String),
    #[error("failed to set up pod network: {0}")]
    Network(String),
    #[error("{0}")]
    DeadlineExceeded(String),
    #[error(transparent)]
    Image(#[from] images::Error),
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An operating system failure, with what was tried on which path.
    pub fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { operation, path: path.to_owned(), source }
    }
}

impl From<Error> for tonic::Status {
    fn from(error: Error) -> Self {
        let text = with_sources(&error);
        match error {
            Error::NotFound { .. } => tonic::Status::not_found(text),
            Error::InvalidArgument(_) => tonic::Status::invalid_argument(text),
            Error::FailedPrecondition(_) => tonic::Status::failed_precondition(text),
            Error::DeadlineExceeded(_) => tonic::Status::deadline_exceeded(text),
            Error::Image(image) => tonic::Status::new(image.code(), text),
            Error::Io { .. } | Error::Shim(_) | Error::Network(_) => tonic::Status::unknown(text),
        }
    }
}

/// The error's text followed by those of its causes.
pub fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
