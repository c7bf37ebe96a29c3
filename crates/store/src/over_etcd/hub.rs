//! What the parts of the engine share: the way to etcd, the memory, and how far it has come.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use etcd::Client;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::fresh::Behind;
use super::values::Values;
use crate::entry::Revision;
use crate::shared::Shared;

/// A change under the prefix comes by itself within this time, mostly. What is behind then may be so because of a change
/// elsewhere, of which only progress tells.
const PROGRESS_DELAY: Duration = Duration::from_millis(10);

/// A member answers a request for progress only while no event waits, so it is made again (upstream:
/// progressRequestPeriod).
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// Long enough for a watch to go on at another member.
const SHOWS_MAX: Duration = Duration::from_secs(10);

pub(crate) struct Hub {
    pub(crate) client: Arc<Client>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) values: Arc<Values>,
    /// Everything up to here shows.
    shown: watch::Sender<Revision>,
    /// Somebody waits for a revision of which no event has come.
    pub(crate) progress_wanted: Notify,
    /// Whether there is a watch at a member.
    followed: AtomicBool,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub")
            .field("client", &self.client)
            .field("values", &self.values)
            .finish_non_exhaustive()
    }
}

impl Hub {
    pub(crate) fn new(client: Arc<Client>, shared: Arc<Shared>, values: Arc<Values>) -> Hub {
        let shown = watch::Sender::new(shared.state.read().revision());
        Hub { client, shared, values, shown, progress_wanted: Notify::new(), followed: AtomicBool::new(true) }
    }

    pub(crate) fn is_followed(&self) -> bool {
        self.followed.load(Ordering::Relaxed)
    }

    pub(crate) fn set_followed(&self, followed: bool) {
        self.followed.store(followed, Ordering::Relaxed);
    }

    pub(crate) fn shown(&self) -> Revision {
        *self.shown.borrow()
    }

    /// Everything up to this revision shows now.
    pub(crate) fn set_shown(&self, revision: Revision) {
        self.shown.send_replace(revision);
    }

    /// Waits until everything up to this revision shows.
    pub(crate) async fn shows(&self, revision: Revision) -> Result<(), Behind> {
        let mut shown = self.shown.subscribe();
        let wait = async {
            let mut patience = PROGRESS_DELAY;
            loop {
                tokio::select! {
                    // The sender is in `self`, so it cannot be gone.
                    _ = shown.wait_for(|shown| *shown >= revision) => return,
                    () = sleep(patience) => self.progress_wanted.notify_one(),
                }
                patience = PROGRESS_INTERVAL;
            }
        };
        timeout(SHOWS_MAX, wait).await.map_err(|_| Behind::Late { shown: self.shown(), newest: revision })
    }
}

/// A revision as etcd says it; etcd has none below 0.
pub(crate) fn revision(number: i64) -> Revision {
    Revision(u64::try_from(number).unwrap_or_default())
}

/// A revision as etcd wants it. One that etcd cannot have is one that nothing is at.
pub(crate) fn number(revision: Revision) -> i64 {
    i64::try_from(revision.0).unwrap_or(i64::MAX)
}
