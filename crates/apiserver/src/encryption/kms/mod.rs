//! Keys that a KMS plugin guards, over gRPC on a Unix socket (KMS v2): the plugin wraps a seed, and every object is
//! encrypted with a key of its own that is derived from the seed. Follows `envelope/kmsv2`.

mod client;
mod envelope;
pub mod metrics;
mod plugin;
mod probe;
mod proto;
#[cfg(test)]
pub mod testing;

use std::path::PathBuf;
use std::time::Duration;

pub use plugin::Plugin;

/// What the configuration says of a plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    pub name: String,
    pub socket: PathBuf,
    /// How long one call may take.
    pub timeout: Duration,
}
