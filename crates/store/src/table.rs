//! The objects of one resource: what is there now, what was there before, pages of either.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::sync::Arc;

use crate::entry::{ByKey, Entry, Revision};
use crate::history::{Event, EventKind, Gone, History};
use crate::key::Key;
use crate::store::Size;

#[derive(Debug)]
pub(crate) struct Table {
    entries: BTreeSet<ByKey>,
    /// The weight of all entries.
    bytes: u64,
    pub(crate) history: History,
}

/// Which entries a list wants.
pub(crate) struct Selection<'a> {
    pub(crate) namespace: Option<&'a str>,
    pub(crate) after: Option<&'a Key>,
    /// 0 is no limit.
    pub(crate) limit: usize,
    pub(crate) filter: &'a dyn Fn(&Entry) -> bool,
}

/// The selected entries, whether a further one matches, and how many follow whether they match or not.
#[derive(Debug, Default)]
pub(crate) struct Selected {
    pub(crate) entries: Vec<Arc<Entry>>,
    pub(crate) more: bool,
    pub(crate) remaining: usize,
}

impl Table {
    pub(crate) fn new(floor: Revision) -> Table {
        Table { entries: BTreeSet::new(), bytes: 0, history: History::new(floor) }
    }

    pub(crate) fn get(&self, key: &Key) -> Option<&Arc<Entry>> {
        self.entries.get(key).map(|found| &found.0)
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn size(&self) -> Size {
        Size { objects: self.entries.len() as u64, bytes: self.bytes }
    }

    /// Carries out a change and remembers it.
    pub(crate) fn apply(&mut self, event: Event) {
        match event.kind {
            EventKind::Added | EventKind::Modified => self.put(event.entry.clone()),
            EventKind::Deleted => {
                let gone = self.entries.take(&event.entry.key);
                self.bytes -= gone.map_or(0, |gone| gone.0.weight() as u64);
            }
        }
        self.history.push(event);
    }

    /// Puts an entry without remembering it as a change.
    pub(crate) fn put(&mut self, entry: Arc<Entry>) {
        self.bytes += entry.weight() as u64;
        let before = self.entries.replace(ByKey(entry));
        self.bytes -= before.map_or(0, |before| before.0.weight() as u64);
    }

    /// What is there now.
    pub(crate) fn select(&self, resource: &str, selection: &Selection<'_>) -> Selected {
        select(self.from(resource, selection), selection)
    }

    /// What was there at `revision`: the present with the changes since taken back.
    pub(crate) fn select_at(
        &self,
        resource: &str,
        selection: &Selection<'_>,
        revision: Revision,
    ) -> Result<Selected, Gone> {
        let then = History::before_first_change_after(self.history.after(revision)?);
        let unchanged = self.from(resource, selection).filter(|entry| !then.contains_key(&entry.key));
        let start = start(resource, selection);
        let restored =
            then.range::<Key, _>((start.as_ref(), Bound::Unbounded)).filter_map(|(_, entry)| *entry);
        let restored = restored.take_while(|entry| in_namespace(entry, selection));
        Ok(select(merge(unchanged, restored), selection))
    }

    /// The entries of the selection's namespace behind its start, unfiltered.
    fn from<'a>(
        &'a self,
        resource: &str,
        selection: &'a Selection<'_>,
    ) -> impl Iterator<Item = &'a Arc<Entry>> {
        let range = (start(resource, selection), Bound::Unbounded);
        let entries = self.entries.range::<Key, _>(range).map(|found| &found.0);
        entries.take_while(|entry| in_namespace(entry, selection))
    }
}

fn start(resource: &str, selection: &Selection<'_>) -> Bound<Key> {
    match selection.after {
        Some(key) => Bound::Excluded(key.clone()),
        None => Bound::Included(Key::new(resource, selection.namespace.unwrap_or_default(), "")),
    }
}

fn in_namespace(entry: &Entry, selection: &Selection<'_>) -> bool {
    selection.namespace.is_none_or(|namespace| *entry.key.namespace == *namespace)
}

/// Two ordered sequences without common keys as one.
fn merge<'a>(
    left: impl Iterator<Item = &'a Arc<Entry>>,
    right: impl Iterator<Item = &'a Arc<Entry>>,
) -> impl Iterator<Item = &'a Arc<Entry>> {
    let (mut left, mut right) = (left.peekable(), right.peekable());
    std::iter::from_fn(move || match (left.peek(), right.peek()) {
        (Some(l), Some(r)) if l.key < r.key => left.next(),
        (_, Some(_)) => right.next(),
        (_, None) => left.next(),
    })
}

fn select<'a>(entries: impl Iterator<Item = &'a Arc<Entry>>, selection: &Selection<'_>) -> Selected {
    let mut selected = Selected::default();
    for entry in entries {
        let full = selection.limit > 0 && selected.entries.len() == selection.limit;
        selected.remaining += usize::from(full);
        if selected.more || !(selection.filter)(entry) {
            continue;
        }
        match full {
            true => selected.more = true,
            false => selected.entries.push(entry.clone()),
        }
    }
    selected
}
