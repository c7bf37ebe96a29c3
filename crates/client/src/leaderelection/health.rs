//! Whether a leader does what it must: renew its lead, or stop working. Follows `LeaderElector.Check`.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// How long beyond the end of its Lease a leader may still be at its work (upstream's components all say 20 s).
const TOLERANCE: Duration = Duration::from_secs(20);

/// How a candidate stands.
#[derive(Debug)]
pub struct Health {
    lease_duration: Duration,
    /// While it leads; the elector writes it.
    renewed: Mutex<Option<Instant>>,
}

impl Health {
    pub(super) fn new(lease_duration: Duration) -> Health {
        Health { lease_duration, renewed: Mutex::default() }
    }

    pub(super) fn renewed(&self, at: Instant) {
        *self.renewed.lock() = Some(at);
    }

    /// It leads no more.
    pub(super) fn led(&self) {
        *self.renewed.lock() = None;
    }

    /// Whoever waits is well.
    pub fn is_well(&self) -> bool {
        let renewed = *self.renewed.lock();
        renewed.is_none_or(|renewed| renewed.elapsed() <= self.lease_duration + TOLERANCE)
    }
}
