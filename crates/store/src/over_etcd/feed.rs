//! The one watch that brings every change into memory, those made here as those made by others.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use etcd::proto::Event as EtcdEvent;
use etcd::proto::event::EventType;
use etcd::{Error, Told, Version, keys};
use tokio::time::sleep;

use super::codec::Decoder;
use super::hub::{Hub, number, revision};
use super::load;
use crate::config::Clock;
use crate::entry::{Entry, Revision};
use crate::history::{Event, EventKind};
use crate::key::Key;
use crate::log::OpenError;
use crate::state::{Retention, State};

/// A member that ends the watch at once is not asked without pause.
const RETRY_DELAY: Duration = Duration::from_millis(100);

pub(crate) struct Feed {
    hub: Arc<Hub>,
    decoder: Decoder,
    retention: Retention,
    clock: Clock,
}

/// One change, before it is known what was there.
enum Change {
    Put(Entry),
    Delete(Key, Revision),
}

impl Change {
    fn key(&self) -> &Key {
        match self {
            Change::Put(entry) => &entry.key,
            Change::Delete(key, _) => key,
        }
    }
}

impl Feed {
    pub(crate) fn new(hub: Arc<Hub>, decoder: Decoder, retention: Retention, clock: Clock) -> Feed {
        Feed { hub, decoder, retention, clock }
    }

    /// Follows etcd for as long as the task lives, at whichever member is there.
    pub(crate) async fn run(mut self) {
        loop {
            let Err(error) = self.follow().await;
            self.hub.set_followed(false);
            if error.is_compacted() {
                tracing::warn!(shown = %self.hub.shown(), "etcd has compacted what is needed, everything is read again");
                if let Err(error) = self.reload().await {
                    tracing::error!(%error, "cannot read etcd again");
                }
            } else {
                tracing::warn!(%error, "the watch on etcd is made again");
                self.hub.client.turn_away();
            }
            sleep(RETRY_DELAY).await;
        }
    }

    async fn follow(&mut self) -> Result<Infallible, Error> {
        let from = number(self.hub.shown().next());
        let prefix = self.decoder.prefix().clone();
        let mut watch = self.hub.client.watch(from, |version| range(&prefix, version)).await?;
        self.hub.set_followed(true);
        loop {
            tokio::select! {
                told = watch.next() => self.show(told?),
                () = self.hub.progress_wanted.notified() => watch.request_progress(),
            }
        }
    }

    /// What came between is not known: whoever watches must list again.
    async fn reload(&mut self) -> Result<(), OpenError> {
        let state = load::load(&self.hub.client, &mut self.decoder, self.retention).await?;
        let shown = state.revision();
        *self.hub.shared.state.write() = state;
        self.hub.shared.watchers.wake_all();
        self.hub.set_shown(shown);
        Ok(())
    }

    fn show(&mut self, told: Told) {
        let changes: Vec<Change> = told.events.iter().filter_map(|event| self.change(event)).collect();
        let keys: Vec<Key> = changes.iter().map(|change| change.key().clone()).collect();
        let (up_to, now) = (revision(told.up_to), (self.clock)());
        {
            let mut state = self.hub.shared.state.write();
            for change in changes {
                if let Some(event) = event(&state, change) {
                    state.apply(event, now);
                }
            }
            state.advance(up_to);
        }
        self.hub.shared.watchers.wake(keys.iter());
        self.hub.set_shown(up_to);
    }

    fn change(&mut self, event: &EtcdEvent) -> Option<Change> {
        let kv = event.kv.as_ref()?;
        let (key, at) = (self.decoder.key(&kv.key)?, revision(kv.mod_revision));
        if event.r#type() == EventType::Delete {
            return Some(Change::Delete(key, at));
        }
        match self.decoder.entry(key.clone(), kv) {
            Ok(Some(entry)) => Some(Change::Put(entry)),
            // What stood there before is not true any more.
            Ok(None) => Some(Change::Delete(key, at)),
            Err(error) => {
                tracing::error!(%key, %error, "no key opens what another server has encrypted; it does not show");
                Some(Change::Delete(key, at))
            }
        }
    }
}

/// What is watched at a member. One that cannot tell how far a watch has come is made to tell of every change there is,
/// so that none of the revisions that a read waits for goes by unseen.
fn range(prefix: &Bytes, version: Version) -> (Bytes, Bytes) {
    if version.has_progress_requests() {
        (prefix.clone(), keys::end_of_prefix(prefix))
    } else {
        (keys::FIRST, keys::ALL)
    }
}

/// The change with what it changed; none when what did not show is deleted.
fn event(state: &State, change: Change) -> Option<Event> {
    let previous = state.get(change.key()).cloned();
    match change {
        Change::Put(entry) => {
            let kind = if previous.is_some() { EventKind::Modified } else { EventKind::Added };
            Some(Event { kind, entry: Arc::new(entry), previous })
        }
        Change::Delete(_, revision) => {
            let last = previous.as_ref()?;
            let entry = Arc::new(last.at_revision(revision));
            Some(Event { kind: EventKind::Deleted, entry, previous })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_cannot_tell_progress_are_watched_whole() {
        let prefix = Bytes::from_static(b"/registry/");
        assert_eq!(range(&prefix, Version(3, 6, 8)).1, Bytes::from_static(b"/registry0"));
        assert_eq!(range(&prefix, Version(3, 4, 23)), (keys::FIRST, keys::ALL));
    }
}
