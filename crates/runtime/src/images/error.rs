//! Why an image could not be imported, pulled or found.

use std::path::{Path, PathBuf};

/// A failed image operation; the texts reach the user in `ErrImagePull`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("invalid image name {0:?}: {1}")]
    InvalidName(String, &'static str),
    #[error("image {0:?} not found")]
    NotFound(String),
    #[error("failed to resolve image {image}: {image}: not found")]
    NotInRegistry { image: String },
    #[error("pull access denied for {image}: {reason}")]
    Denied { image: String, reason: String },
    #[error("registry {registry} cannot be reached: {reason}")]
    Unreachable { registry: String, reason: String },
    #[error("registry {registry} answered {status} to {what}: {body}")]
    Registry { registry: String, status: u16, what: &'static str, body: String },
    #[error("{what} has digest {found}, expected {expected}")]
    DigestMismatch { what: &'static str, expected: String, found: String },
    #[error("no image for {wanted} in the manifest list")]
    NoPlatform { wanted: &'static str },
    #[error("{what} is not valid: {reason}")]
    Malformed { what: &'static str, reason: String },
    #[error("{what} is larger than {max} bytes")]
    TooLarge { what: &'static str, max: u64 },
    #[error("{path} is not valid: {reason}")]
    Registries { path: PathBuf, reason: String },
    #[error("{operation} {path}")]
    Io { operation: &'static str, path: PathBuf, source: std::io::Error },
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn io(operation: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |source| Error::Io { operation, path: path.to_owned(), source }
    }

    pub fn malformed(what: &'static str, reason: impl ToString) -> Error {
        Error::Malformed { what, reason: reason.to_string() }
    }

    pub fn code(&self) -> tonic::Code {
        match self {
            Error::InvalidName(..) => tonic::Code::InvalidArgument,
            Error::NotFound(_) | Error::NotInRegistry { .. } | Error::NoPlatform { .. } => {
                tonic::Code::NotFound
            }
            Error::Denied { .. } => tonic::Code::PermissionDenied,
            Error::Unreachable { .. } => tonic::Code::Unavailable,
            Error::Registries { .. } => tonic::Code::FailedPrecondition,
            Error::DigestMismatch { .. } | Error::Malformed { .. } | Error::TooLarge { .. } => {
                tonic::Code::DataLoss
            }
            Error::Registry { .. } | Error::Io { .. } => tonic::Code::Unknown,
        }
    }
}
