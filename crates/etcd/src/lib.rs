//! A client of etcd's v3 API, as far as a store of Kubernetes objects needs it: ranges, transactions, watches, leases and
//! compaction, at whichever member of a cluster answers.
//!
//! What keys and values mean is not known here. Requests are repeated at another member when one does not answer; the
//! caller is told so where it matters. Follows `go.etcd.io/etcd/client/v3`.

mod client;
mod config;
mod error;
pub mod keys;
pub mod proto;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod version;
mod watch;

#[cfg(test)]
mod tests;

pub use client::{Answer, Client};
pub use config::{Config, ConfigError, Tls};
pub use error::Error;
pub use version::Version;
pub use watch::{Told, Watch};
