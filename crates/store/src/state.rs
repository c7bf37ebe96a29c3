//! Everything readers can see: the tables, the revision they stand at, and the bounded past.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::entry::{Entry, Revision};
use crate::history::{Event, Gone};
use crate::key::Key;
use crate::store::Size;
use crate::table::{Selected, Selection, Table};

/// How much past is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    pub(crate) bytes_max: usize,
    pub(crate) age_max: Duration,
}

/// Written by the engine alone; everything in it is durable.
#[derive(Debug)]
pub(crate) struct State {
    revision: Revision,
    tables: HashMap<Arc<str>, Table>,
    /// The retained changes of all tables, oldest first.
    past: VecDeque<Past>,
    past_bytes: usize,
    /// The least floor of any table: history before it was lost with an earlier process.
    floor: Revision,
    /// The newest change that was dropped for its age, of whatever table.
    expired: Revision,
    live_bytes: u64,
    retention: Retention,
}

/// The place of one retained change: in which table's history, how large, since when.
#[derive(Debug)]
struct Past {
    resource: Arc<str>,
    bytes: usize,
    since: Duration,
}

impl State {
    /// An empty state at `base`, before which nothing is known.
    pub(crate) fn new(base: Revision, retention: Retention) -> State {
        State {
            revision: base,
            tables: HashMap::new(),
            past: VecDeque::new(),
            past_bytes: 0,
            floor: base,
            expired: Revision::default(),
            live_bytes: 0,
            retention,
        }
    }

    pub(crate) fn revision(&self) -> Revision {
        self.revision
    }

    /// The weight of all entries that are there now.
    pub(crate) fn live_bytes(&self) -> u64 {
        self.live_bytes
    }

    pub(crate) fn past_bytes(&self) -> usize {
        self.past_bytes
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.tables.get(&key.resource)?.get(key)
    }

    pub(crate) fn count(&self, resource: &str) -> usize {
        self.tables.get(resource).map_or(0, Table::len)
    }

    pub(crate) fn size(&self, resource: &str) -> Size {
        self.tables.get(resource).map(Table::size).unwrap_or_default()
    }

    pub(crate) fn counts(&self) -> impl Iterator<Item = (&Arc<str>, usize)> {
        self.tables.iter().map(|(resource, table)| (resource, table.len()))
    }

    /// The selected entries as of `at`, or of now. A revision that has grown old is gone for every resource, as it is
    /// upstream once it is compacted: who reads a list page by page may count on that.
    pub(crate) fn range(
        &self,
        resource: &str,
        selection: &Selection<'_>,
        at: Option<Revision>,
    ) -> Result<Selected, Gone> {
        if let Some(asked) = at.filter(|at| *at < self.expired) {
            return Err(Gone { asked, oldest: self.expired });
        }
        match (self.tables.get(resource), at) {
            (Some(table), Some(at)) if at < self.revision => table.select_at(resource, selection, at),
            (Some(table), _) => Ok(table.select(resource, selection)),
            (None, at) => self.check_floor(at).map(|()| Selected::default()),
        }
    }

    /// The resource's changes after `from`, oldest first.
    pub(crate) fn changes(
        &self,
        resource: &str,
        from: Revision,
    ) -> Result<Option<impl DoubleEndedIterator<Item = &Event>>, Gone> {
        match self.tables.get(resource) {
            Some(table) => table.history.after(from).map(Some),
            None => self.check_floor(Some(from)).map(|()| None),
        }
    }

    fn check_floor(&self, asked: Option<Revision>) -> Result<(), Gone> {
        match asked {
            Some(asked) if asked < self.floor => Err(Gone { asked, oldest: self.floor }),
            _ => Ok(()),
        }
    }

    /// Carries out the next change. Several may have one revision, if no reader comes between them.
    pub(crate) fn apply(&mut self, event: Event, now: Duration) {
        assert!(event.revision() >= self.revision, "changes come in the order of their revisions");
        self.revision = event.revision();
        self.live_bytes -= event.previous.as_ref().map_or(0, |entry| entry.weight() as u64);
        if event.kind != crate::EventKind::Deleted {
            self.live_bytes += event.entry.weight() as u64;
        }
        let resource = event.entry.key.resource.clone();
        let bytes = event.entry.weight();
        self.past.push_back(Past { resource: resource.clone(), bytes, since: now });
        self.past_bytes += bytes;
        self.table(&resource).apply(event);
        self.trim(now);
    }

    /// There are no changes that would show here up to this revision.
    pub(crate) fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Puts in an entry that is there already, as replay finds it copied to a later place of the log: no change, merely
    /// its state.
    pub(crate) fn restore(&mut self, entry: Arc<Entry>) {
        let before = self.get(&entry.key).map_or(0, |entry| entry.weight() as u64);
        self.live_bytes = self.live_bytes - before + entry.weight() as u64;
        self.table(&entry.key.resource.clone()).put(entry);
    }

    /// Forgets every change up to now, because what came before the next one is not known.
    pub(crate) fn forget(&mut self) {
        while !self.past.is_empty() {
            self.drop_oldest();
        }
        self.floor = self.revision;
        for table in self.tables.values_mut() {
            table.history = crate::history::History::new(self.revision);
        }
    }

    /// Drops the oldest changes until the rest fits. The newest stays whatever its size, so that a watcher that is up to
    /// date always gets it.
    fn trim(&mut self, now: Duration) {
        while self.past.len() > 1 && self.oldest_is_aged(now) {
            self.expired = self.drop_oldest().unwrap_or(self.expired);
        }
        while self.past.len() > 1 && self.past_bytes > self.retention.bytes_max {
            self.drop_oldest();
        }
    }

    fn oldest_is_aged(&self, now: Duration) -> bool {
        self.past.front().is_some_and(|past| now.saturating_sub(past.since) > self.retention.age_max)
    }

    /// The revision of the change that is dropped.
    fn drop_oldest(&mut self) -> Option<Revision> {
        let past = self.past.pop_front()?;
        self.past_bytes -= past.bytes;
        self.table(&past.resource).history.pop()
    }

    fn table(&mut self, resource: &Arc<str>) -> &mut Table {
        let floor = self.floor;
        self.tables.entry(resource.clone()).or_insert_with(|| Table::new(floor))
    }
}
