//! The cluster's state: revisioned, ordered, in memory, over a durable log of its own or over an etcd shared with others.
//!
//! Reads never touch the disk. A write is acknowledged, and seen by readers and watchers, only once it is durable;
//! many writers share one flush. A bounded history serves watches and lists at older revisions.
//! What an object means is not known here: the store keeps encoded bytes, and the few facts selectors need.

mod beside;
mod commit;
mod config;
pub mod disk;
mod entry;
mod history;
mod intern;
mod key;
mod log;
mod over_etcd;
mod queue;
mod shared;
mod state;
mod store;
mod table;
mod transform;
mod turns;
mod watch;

#[cfg(test)]
mod tests;

pub use beside::Beside;
pub use config::{Clock, Config};
pub use entry::{Draft, Entry, Meta, Revision};
pub use history::{EventKind, Gone};
pub use key::Key;
pub use log::{OpenError, Report};
pub use over_etcd::{Also, Behind, Codec, CodecError, EtcdConfig, PREFIX as ETCD_PREFIX};
pub use queue::{CommitError, Expected, Op};
pub use store::{Page, Size, Statistics, Store};
pub use transform::{Freshness, Identity, TransformError, Transformer};
pub use watch::{Scope, Waking, Watch, WatchItem};
