//! What readers and watchers have in common with whatever makes changes durable.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::RwLock;

use crate::state::State;
use crate::watch::Watchers;

#[derive(Debug)]
pub(crate) struct Shared {
    /// Written by one thread or task of the engine alone.
    pub(crate) state: RwLock<State>,
    pub(crate) watchers: Watchers,
    /// What the log takes on disk, as its thread says; 0 where the log is another's.
    pub(crate) disk_bytes: AtomicU64,
    closed: AtomicBool,
}

impl Shared {
    pub(crate) fn new(state: State) -> Shared {
        Shared {
            state: RwLock::new(state),
            watchers: Watchers::default(),
            disk_bytes: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }
    }

    /// Whether nothing will ever change again.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Nothing will ever change again: watches end.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.watchers.wake_all();
    }
}
