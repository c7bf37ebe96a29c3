//! Watching: every watcher reads the shared history at its own pace and sleeps until something concerns it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::entry::{Entry, Revision};
use crate::history::{Event, EventKind, Gone};
use crate::key::Key;
use crate::shared::Shared;

/// How many events a watcher takes from the history at once, holding on to them should the history drop them.
const WATCH_BATCH_EVENTS: usize = 64;

/// What a watcher wants to hear about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    pub resource: Arc<str>,
    /// None is all namespaces, and the right choice for objects that live in none.
    pub namespace: Option<Arc<str>>,
    pub name: Option<Arc<str>>,
}

impl Scope {
    /// Every object of a resource.
    pub fn resource(resource: impl Into<Arc<str>>) -> Scope {
        Scope { resource: resource.into(), namespace: None, name: None }
    }

    fn matches(&self, key: &Key) -> bool {
        self.namespace.as_ref().is_none_or(|namespace| *namespace == key.namespace)
            && self.name.as_ref().is_none_or(|name| *name == key.name)
    }
}

#[derive(Clone, Debug)]
pub enum WatchItem {
    Event {
        kind: EventKind,
        /// The new state; for `Deleted` the final state, under the deletion's revision.
        entry: Arc<Entry>,
        /// The state before; none for `Added`.
        previous: Option<Arc<Entry>>,
    },
    /// Everything up to this revision has been delivered. Comes each time the watcher has caught up.
    Progress(Revision),
}

/// A place in the history of one resource. Being slow is allowed: only when the history has passed a watcher is it `Gone`.
#[derive(Debug)]
pub struct Watch {
    shared: Arc<Shared>,
    scope: Scope,
    id: u64,
    wake: Arc<Notify>,
    /// Taken from the history, not yet delivered.
    taken: VecDeque<Event>,
    /// Everything up to here was taken or did not concern this watcher.
    taken_to: Revision,
    /// Everything up to here was delivered.
    delivered_to: Revision,
    /// The caller was told of progress up to here.
    told: Revision,
}

impl Watch {
    /// Registers before it looks, so that no change can fall between.
    pub(crate) fn new(shared: Arc<Shared>, scope: Scope, from: Revision) -> Result<Watch, Gone> {
        let (id, wake) = shared.watchers.register(&scope);
        let taken = VecDeque::new();
        let mut watch =
            Watch { shared, scope, id, wake, taken, taken_to: from, delivered_to: from, told: from };
        watch.take()?;
        Ok(watch)
    }

    /// The next event, or that there are none for now. Dropping the future loses nothing.
    /// `Gone` also ends the watches of a store that has been closed.
    pub async fn next(&mut self) -> Result<WatchItem, Gone> {
        loop {
            if let Some(event) = self.pop() {
                return Ok(event);
            }
            self.take()?;
            if !self.taken.is_empty() {
                continue;
            }
            self.delivered_to = self.taken_to;
            if self.told < self.delivered_to {
                self.told = self.delivered_to;
                return Ok(WatchItem::Progress(self.told));
            }
            if self.shared.is_closed() {
                return Err(Gone { asked: self.taken_to, oldest: self.taken_to });
            }
            self.wake.notified().await;
        }
    }

    /// The revision up to which everything has been delivered, as a bookmark states it. Moves with the whole store,
    /// although only changes within the scope wake the watcher.
    pub fn progress(&mut self) -> Revision {
        if self.taken.is_empty() && self.take().is_ok() && self.taken.is_empty() {
            self.delivered_to = self.taken_to;
        }
        self.delivered_to
    }

    fn pop(&mut self) -> Option<WatchItem> {
        let Event { kind, entry, previous } = self.taken.pop_front()?;
        self.delivered_to = entry.revision;
        Some(WatchItem::Event { kind, entry, previous })
    }

    /// Takes the next events that concern this watcher.
    fn take(&mut self) -> Result<(), Gone> {
        let state = self.shared.state.read();
        if let Some(changes) = state.changes(&self.scope.resource, self.taken_to)? {
            for event in changes {
                // Changes of one revision are taken together, since a place in the history is a revision.
                if self.taken.len() >= WATCH_BATCH_EVENTS && event.revision() > self.taken_to {
                    return Ok(());
                }
                self.taken_to = event.revision();
                if self.scope.matches(&event.entry.key) {
                    self.taken.push_back(event.clone());
                }
            }
        }
        self.taken_to = self.taken_to.max(state.revision());
        Ok(())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.shared.watchers.remove(&self.scope, self.id);
    }
}

/// Who sleeps on what. A change looks up only the watchers of its resource, its namespace and its name.
#[derive(Debug, Default)]
pub(crate) struct Watchers {
    next_id: AtomicU64,
    resources: Mutex<HashMap<Arc<str>, ResourceWatchers>>,
}

type Sleepers = HashMap<u64, Arc<Notify>>;

/// Each watcher is in exactly one of these, the narrowest that contains its scope.
#[derive(Debug, Default)]
struct ResourceWatchers {
    all: Sleepers,
    by_namespace: HashMap<Arc<str>, Sleepers>,
    by_name: HashMap<Arc<str>, Sleepers>,
}

impl Watchers {
    fn register(&self, scope: &Scope) -> (u64, Arc<Notify>) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let wake = Arc::new(Notify::new());
        let mut resources = self.resources.lock();
        let watchers = resources.entry(scope.resource.clone()).or_default();
        let sleepers = match (&scope.namespace, &scope.name) {
            (_, Some(name)) => watchers.by_name.entry(name.clone()).or_default(),
            (Some(namespace), None) => watchers.by_namespace.entry(namespace.clone()).or_default(),
            (None, None) => &mut watchers.all,
        };
        sleepers.insert(id, wake.clone());
        (id, wake)
    }

    fn remove(&self, scope: &Scope, id: u64) {
        let mut resources = self.resources.lock();
        let Some(watchers) = resources.get_mut(&scope.resource) else { return };
        match (&scope.namespace, &scope.name) {
            (_, Some(name)) => remove_sleeper(&mut watchers.by_name, name, id),
            (Some(namespace), None) => remove_sleeper(&mut watchers.by_namespace, namespace, id),
            (None, None) => {
                watchers.all.remove(&id);
            }
        }
        if watchers.all.is_empty() && watchers.by_namespace.is_empty() && watchers.by_name.is_empty() {
            resources.remove(&scope.resource);
        }
    }

    /// Wakes those whom changes of these objects concern.
    pub(crate) fn wake<'a>(&self, changed: impl Iterator<Item = &'a Key>) {
        let resources = self.resources.lock();
        for key in changed {
            let Some(watchers) = resources.get(&key.resource) else { continue };
            let namespace = watchers.by_namespace.get(&key.namespace).into_iter().flat_map(HashMap::values);
            let name = watchers.by_name.get(&key.name).into_iter().flat_map(HashMap::values);
            watchers.all.values().chain(namespace).chain(name).for_each(|wake| wake.notify_one());
        }
    }

    pub(crate) fn wake_all(&self) {
        for watchers in self.resources.lock().values() {
            let scoped = watchers.by_namespace.values().chain(watchers.by_name.values());
            let sleepers = scoped.chain(Some(&watchers.all)).flat_map(HashMap::values);
            sleepers.for_each(|wake| wake.notify_one());
        }
    }

    pub(crate) fn len(&self) -> usize {
        let count =
            |sleepers: &HashMap<Arc<str>, Sleepers>| sleepers.values().map(HashMap::len).sum::<usize>();
        let resources = self.resources.lock();
        resources.values().map(|w| w.all.len() + count(&w.by_namespace) + count(&w.by_name)).sum()
    }
}

fn remove_sleeper(index: &mut HashMap<Arc<str>, Sleepers>, text: &Arc<str>, id: u64) {
    if let Some(sleepers) = index.get_mut(text) {
        sleepers.remove(&id);
        if sleepers.is_empty() {
            index.remove(text);
        }
    }
}
