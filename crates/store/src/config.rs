//! What the operator decides about the store, with the defaults' reasons.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::transform::{Identity, Transformer};

/// Enough for several thousand changes of pods: a watcher that was away for a burst resumes instead of listing again.
const HISTORY_BYTES_MAX: usize = 16 << 20;

/// Upstream compacts every 5 minutes what is older than 5 minutes, so its clients count on no more than that, and on
/// tokens of lists being expired after 10.
const HISTORY_AGE_MAX: Duration = Duration::from_secs(300);

/// A segment is the unit in which disk space is given back.
const SEGMENT_BYTES: u64 = 4 << 20;

/// How far the log may exceed one and a half times the live data before it is cleaned.
/// Together with one segment being filled and one being cleaned this is the constant in "twice the live data plus a constant".
const SLACK_BYTES: u64 = 8 << 20;

/// Time since some fixed instant; never goes backwards. Replaced in simulations.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// How a store is opened.
#[derive(Clone)]
pub struct Config {
    /// The directory that holds the log; made when missing, readable by its owner alone.
    pub dir: PathBuf,
    /// The most bytes of past changes kept for watches and for lists at older revisions.
    pub history_bytes_max: usize,
    /// Past changes older than this are dropped with the next write.
    pub history_age_max: Duration,
    /// A segment of the log that has grown past this is closed.
    pub segment_bytes: u64,
    /// The log is cleaned once it exceeds one and a half times the live data plus this.
    pub slack_bytes: u64,
    pub clock: Clock,
    /// How objects are encrypted on disk.
    pub transformer: Arc<dyn Transformer>,
}

impl Config {
    pub fn new(dir: impl Into<PathBuf>) -> Config {
        let start = Instant::now();
        Config {
            dir: dir.into(),
            history_bytes_max: HISTORY_BYTES_MAX,
            history_age_max: HISTORY_AGE_MAX,
            segment_bytes: SEGMENT_BYTES,
            slack_bytes: SLACK_BYTES,
            clock: Arc::new(move || start.elapsed()),
            transformer: Arc::new(Identity),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("dir", &self.dir).finish_non_exhaustive()
    }
}
