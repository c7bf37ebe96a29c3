//! Why a request gave no object.

use apimachinery::Status;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server answered, and refused.
    #[error("{0}")]
    Status(Box<Status>),
    /// No answer came, or it broke off.
    #[error("request to the API server failed: {0}")]
    Transport(String),
    /// The answer was not what the protocol says.
    #[error("answer of the API server is malformed: {0}")]
    Malformed(String),
}

impl Error {
    pub fn status(&self) -> Option<&Status> {
        match self {
            Error::Status(status) => Some(status),
            _ => None,
        }
    }

    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(Status::is_not_found)
    }

    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(Status::is_conflict)
    }

    pub fn is_already_exists(&self) -> bool {
        self.status().is_some_and(Status::is_already_exists)
    }

    pub fn is_expired(&self) -> bool {
        self.status().is_some_and(Status::is_expired)
    }

    /// A namespace that is going away takes nothing new; retrying is pointless.
    pub fn is_namespace_terminating(&self) -> bool {
        self.status().is_some_and(|s| s.causes().iter().any(|c| c.reason == "NamespaceTerminating"))
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        Error::Status(Box::new(status))
    }
}

pub type Result<T> = std::result::Result<T, Error>;
