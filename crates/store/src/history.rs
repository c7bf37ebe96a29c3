//! Past changes, kept as long as they fit: what watches are served from and older lists reconstructed with.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::entry::{Entry, Revision};
use crate::key::Key;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    Added,
    Modified,
    Deleted,
}

/// One change. `entry` of a deletion is the object's final state under the deletion's own revision.
#[derive(Clone, Debug)]
pub(crate) struct Event {
    pub(crate) kind: EventKind,
    pub(crate) entry: Arc<Entry>,
    /// The state this change replaced; none for `Added`.
    pub(crate) previous: Option<Arc<Entry>>,
}

impl Event {
    pub(crate) fn revision(&self) -> Revision {
        self.entry.revision
    }
}

/// A change after the asked revision has left the history: the client must list again (HTTP 410 Gone).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too old resource version: {asked} ({oldest})")]
pub struct Gone {
    /// What was asked for.
    pub asked: Revision,
    /// The oldest revision that could still be served.
    pub oldest: Revision,
}

impl Gone {
    /// Whether nothing is missing, but the store has been closed: no newer change will ever come.
    pub fn is_end(&self) -> bool {
        self.asked == self.oldest
    }
}

/// The retained changes of one resource, in order.
#[derive(Debug)]
pub(crate) struct History {
    events: VecDeque<Event>,
    /// All changes after this revision are in `events`.
    floor: Revision,
}

impl History {
    pub(crate) fn new(floor: Revision) -> History {
        History { events: VecDeque::new(), floor }
    }

    pub(crate) fn push(&mut self, event: Event) {
        self.events.push_back(event);
    }

    /// Drops the oldest change, and tells its revision.
    pub(crate) fn pop(&mut self) -> Option<Revision> {
        let dropped = self.events.pop_front().map(|event| event.revision());
        self.floor = dropped.unwrap_or(self.floor);
        if self.events.is_empty() {
            self.events.shrink_to_fit();
        }
        dropped
    }

    /// The changes after `revision`, oldest first.
    pub(crate) fn after(&self, revision: Revision) -> Result<impl DoubleEndedIterator<Item = &Event>, Gone> {
        if revision < self.floor {
            return Err(Gone { asked: revision, oldest: self.floor });
        }
        let first = self.events.partition_point(|event| event.revision() <= revision);
        Ok(self.events.range(first..))
    }

    /// What was kept under `key` at `revision`, given what is kept now. Keys without changes since are `None`.
    pub(crate) fn before_first_change_after<'a>(
        changes: impl Iterator<Item = &'a Event>,
    ) -> std::collections::BTreeMap<&'a Key, Option<&'a Arc<Entry>>> {
        let mut then = std::collections::BTreeMap::new();
        for event in changes {
            then.entry(&event.entry.key).or_insert(event.previous.as_ref());
        }
        then
    }
}
