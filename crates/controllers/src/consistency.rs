//! Keeps a controller from deciding on caches older than its own writes: a key waits until the informers have shown
//! the revision that its last plan reached (follows upstream's `ConsistencyStore` and `ControllerExpectations`).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use api::resource::Resource;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::controller::Key;

/// A write whose event never comes (its object vanished while a watch was being re-established) holds a key no longer.
pub const WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Default)]
struct State {
    /// Per watched resource, the newest revision an event showed.
    seen: HashMap<Resource, u64>,
    waiting: HashMap<Key, Waiting>,
}

struct Waiting {
    written: HashMap<Resource, u64>,
    until: Instant,
    /// The loop has arranged to look again at `until`.
    scheduled: bool,
}

/// Whether a key's caches hold its own writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    Ready,
    /// An event will bring the key back; for the first asker after a write also this delay must.
    Behind(Option<Duration>),
}

/// Cloning shares it.
#[derive(Clone, Default)]
pub struct Consistency {
    state: Arc<Mutex<State>>,
}

impl Consistency {
    /// Only writes to watched resources can be waited for.
    pub fn watches(&self, resource: Resource) {
        self.state.lock().seen.entry(resource).or_default();
    }

    pub fn seen(&self, resource: Resource, version: &str) {
        let Ok(revision) = version.parse::<u64>() else { return };
        let mut state = self.state.lock();
        let seen = state.seen.entry(resource).or_default();
        *seen = revision.max(*seen);
    }

    pub fn wrote(&self, key: &Key, resource: Resource, version: &str) {
        let Ok(revision) = version.parse::<u64>() else { return };
        let mut state = self.state.lock();
        if state.seen.get(&resource).is_none_or(|seen| *seen >= revision) {
            return;
        }
        let until = Instant::now() + WAIT_MAX;
        let waiting = state.waiting.entry(key.clone()).or_insert_with(|| Waiting {
            written: HashMap::new(),
            until,
            scheduled: false,
        });
        waiting.until = until;
        waiting.scheduled = false;
        let written = waiting.written.entry(resource).or_default();
        *written = revision.max(*written);
    }

    pub fn readiness(&self, key: &Key) -> Readiness {
        let State { seen, waiting } = &mut *self.state.lock();
        let Some(entry) = waiting.get_mut(key) else { return Readiness::Ready };
        let now = Instant::now();
        let caught_up = entry.written.iter().all(|(resource, written)| seen[resource] >= *written);
        if caught_up || now >= entry.until {
            waiting.remove(key);
            return Readiness::Ready;
        }
        let delay = (!entry.scheduled).then(|| entry.until - now);
        entry.scheduled = true;
        Readiness::Behind(delay)
    }
}

#[cfg(test)]
mod tests {
    use api::resource::{EVENTS, PODS};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_until_the_cache_shows_its_writes() {
        let consistency = Consistency::default();
        consistency.watches(PODS);
        let key = Key::new("a", "x");
        consistency.wrote(&key, PODS, "7");
        assert_eq!(consistency.readiness(&key), Readiness::Behind(Some(WAIT_MAX)));
        assert_eq!(consistency.readiness(&key), Readiness::Behind(None));
        assert_eq!(consistency.readiness(&Key::new("a", "y")), Readiness::Ready);
        consistency.seen(PODS, "6");
        assert_eq!(consistency.readiness(&key), Readiness::Behind(None));
        consistency.seen(PODS, "8");
        assert_eq!(consistency.readiness(&key), Readiness::Ready);
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_does_not_wait_for_ever_nor_for_what_is_not_watched() {
        let consistency = Consistency::default();
        consistency.watches(PODS);
        let key = Key::new("a", "x");
        consistency.wrote(&key, EVENTS, "7");
        assert_eq!(consistency.readiness(&key), Readiness::Ready);
        consistency.wrote(&key, PODS, "7");
        tokio::time::advance(WAIT_MAX).await;
        assert_eq!(consistency.readiness(&key), Readiness::Ready);
    }
}
