//! Watching: every watcher reads the shared history at its own pace and sleeps until something concerns it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::entry::{Entry, Revision};
use crate::history::{Event, EventKind, Gone};
use crate::key::Key;
use crate::shared::Shared;
use crate::turns::{Sleeper, Turns};

/// How many events a watcher takes from the history at once, holding on to them should the history drop them.
pub(crate) const WATCH_BATCH_EVENTS: usize = 64;

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

/// How soon a watcher hears of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waking {
    /// At once.
    Prompt,
    /// When it is his turn among all who are woken so: for watchers of whom there may be many, and who are dear to tell.
    InTurn,
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
    sleeper: Arc<Sleeper>,
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
    pub(crate) fn new(
        shared: Arc<Shared>,
        scope: Scope,
        from: Revision,
        waking: Waking,
    ) -> Result<Watch, Gone> {
        let (id, sleeper) = shared.watchers.register(&scope, waking);
        let taken = VecDeque::new();
        let mut watch =
            Watch { shared, scope, id, sleeper, taken, taken_to: from, delivered_to: from, told: from };
        watch.take()?;
        Ok(watch)
    }

    /// The next event, or that there are none for now. Dropping the future loses nothing.
    /// `Gone` also ends the watches of a store that has been closed.
    pub async fn next(&mut self) -> Result<WatchItem, Gone> {
        loop {
            if let Some(item) = self.ready()? {
                return Ok(item);
            }
            if self.shared.is_closed() {
                return Err(Gone { asked: self.taken_to, oldest: self.taken_to });
            }
            self.sleeper.sleep().await;
        }
    }

    /// As [`Watch::next`], if that would not wait.
    pub fn ready(&mut self) -> Result<Option<WatchItem>, Gone> {
        if self.taken.is_empty() {
            self.take()?;
        }
        if let Some(event) = self.pop() {
            return Ok(Some(event));
        }
        self.delivered_to = self.taken_to;
        let news = self.told < self.delivered_to;
        self.told = self.delivered_to;
        Ok(news.then_some(WatchItem::Progress(self.told)))
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

/// In the order in which they came: those of one connection are next to each other, and told in one write.
type Sleepers = BTreeMap<u64, Arc<Sleeper>>;

/// Each watcher is in exactly one of these, the narrowest that contains its scope.
#[derive(Debug, Default)]
struct ResourceWatchers {
    all: Sleepers,
    by_namespace: HashMap<Arc<str>, Sleepers>,
    by_name: HashMap<Arc<str>, Sleepers>,
    /// All of them together.
    count: usize,
    /// Once there are watchers that hear of changes in turn.
    turns: Option<Turns>,
}

impl ResourceWatchers {
    /// Those whom a change of this object concerns.
    fn concerned(&self, key: &Key) -> impl Iterator<Item = &Arc<Sleeper>> {
        let namespace = self.by_namespace.get(&key.namespace).into_iter();
        let name = self.by_name.get(&key.name).into_iter();
        namespace.chain(name).chain(Some(&self.all)).flat_map(BTreeMap::values)
    }
}

impl Watchers {
    fn register(&self, scope: &Scope, waking: Waking) -> (u64, Arc<Sleeper>) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut resources = self.resources.lock();
        let watchers = resources.entry(scope.resource.clone()).or_default();
        watchers.count += 1;
        let sleeper = Arc::new(Sleeper::new(match waking {
            Waking::Prompt => None,
            Waking::InTurn => Some(watchers.turns.get_or_insert_with(Turns::begin)),
        }));
        let sleepers = match (&scope.namespace, &scope.name) {
            (_, Some(name)) => watchers.by_name.entry(name.clone()).or_default(),
            (Some(namespace), None) => watchers.by_namespace.entry(namespace.clone()).or_default(),
            (None, None) => &mut watchers.all,
        };
        sleepers.insert(id, sleeper.clone());
        (id, sleeper)
    }

    fn remove(&self, scope: &Scope, id: u64) {
        let mut resources = self.resources.lock();
        let Some(watchers) = resources.get_mut(&scope.resource) else { return };
        watchers.count -= 1;
        match (&scope.namespace, &scope.name) {
            (_, Some(name)) => remove_sleeper(&mut watchers.by_name, name, id),
            (Some(namespace), None) => remove_sleeper(&mut watchers.by_namespace, namespace, id),
            (None, None) => {
                watchers.all.remove(&id);
            }
        }
        if watchers.count == 0 {
            resources.remove(&scope.resource);
        }
    }

    /// Wakes those whom changes of these objects concern.
    pub(crate) fn wake<'a>(&self, changed: impl Iterator<Item = &'a Key> + Clone) {
        let resources = self.resources.lock();
        for key in changed.clone() {
            let watchers = resources.get(&key.resource).into_iter();
            watchers.flat_map(|watchers| watchers.concerned(key)).for_each(Sleeper::call);
        }
        for key in changed {
            let turns = resources.get(&key.resource).and_then(|watchers| watchers.turns.as_ref());
            turns.into_iter().for_each(Turns::give);
        }
    }

    pub(crate) fn wake_all(&self) {
        for watchers in self.resources.lock().values() {
            let scoped = watchers.by_namespace.values().chain(watchers.by_name.values());
            let sleepers = scoped.chain(Some(&watchers.all)).flat_map(BTreeMap::values);
            sleepers.for_each(|sleeper| sleeper.wake());
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.resources.lock().values().map(|watchers| watchers.count).sum()
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
