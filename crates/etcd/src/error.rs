//! What can go wrong between here and etcd.

use std::error::Error as _;
use std::time::Duration;

use tonic::{Code, Status};

#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    #[error("no member of etcd answered within {within:?}; the last said: {}", last.message())]
    Unreachable { within: Duration, last: Status },
    #[error("etcd: {}", .0.message())]
    Refused(Status),
    #[error("etcd has compacted the changes up to revision {0}")]
    Compacted(i64),
    #[error("etcd ended a watch: {0}")]
    Ended(String),
}

impl Error {
    /// Whether a revision asked for is no more.
    pub fn is_compacted(&self) -> bool {
        match self {
            Error::Compacted(_) => true,
            Error::Refused(status) => {
                status.code() == Code::OutOfRange && status.message().contains("compacted")
            }
            Error::Unreachable { .. } | Error::Ended(_) => false,
        }
    }

    /// Whether a lease has run out or never was.
    pub fn is_lease_not_found(&self) -> bool {
        matches!(self, Error::Refused(status)
            if status.code() == Code::NotFound && status.message().contains("lease"))
    }

    /// Whether a value exceeds what etcd takes.
    pub fn is_too_large(&self) -> bool {
        // One limit is etcd's for requests, the other one gRPC's for messages.
        matches!(self, Error::Refused(status) if match status.code() {
            Code::InvalidArgument => status.message().contains("too large"),
            Code::ResourceExhausted => status.message().contains("larger than max"),
            _ => false,
        })
    }
}

/// Whether another member may know better: this one is not there, has lost the leader, or the connection broke. What etcd
/// itself answers has no source, a broken connection has.
pub(crate) fn is_transient(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::DeadlineExceeded => true,
        Code::Unknown | Code::Internal | Code::Cancelled => status.source().is_some(),
        _ => false,
    }
}
