//! Where writers queue for the log: decides each write against what is there or about to be, and gives it its revision.
//!
//! A write is checked against the writes queued before it, so that a batch may hold several changes of one object.
//! Nothing here is visible to readers. When a batch cannot be written, everything queued behind it fails too, since it
//! was decided upon states that never came to be.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, RwLock};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::beside::Beside;
use crate::entry::{Draft, Entry, Revision};
use crate::history::{Event, EventKind};
use crate::intern::Interner;
use crate::key::Key;
use crate::over_etcd::{Behind, CodecError};
use crate::state::State;
use crate::transform::TransformError;

/// The largest object. Upstream's limit is etcd's request size, 1.5 MiB; the API server refuses bodies above 3 MiB.
pub(crate) const OBJECT_BYTES_MAX: usize = 8 << 20;

/// Writers wait for room once this much is queued, so that a slow disk does not fill the memory.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The queue's room is counted in units of this size: a semaphore's count must fit 32 bits.
const ROOM_UNIT_BYTES: usize = 1 << 10;

/// A batch is closed once it holds this much, which bounds how long its first writer waits.
const BATCH_BYTES_MAX: usize = 2 << 20;

/// What a writer believes about the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// There is no such object.
    Absent,
    /// The object is at this revision.
    At(Revision),
    /// Whatever is there.
    Any,
}

/// What to do with the object.
#[derive(Clone, Debug)]
pub enum Op {
    /// Create or replace it.
    Put(Draft),
    /// Remove it. The draft is its final state, which watchers see with the deletion's revision.
    Delete(Draft),
}

impl Op {
    pub(crate) fn draft(&self) -> &Draft {
        match self {
            Op::Put(draft) | Op::Delete(draft) => draft,
        }
    }
}

/// Why a write was not made. Only after `Broken` and `Etcd` is it unknown whether it was.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CommitError {
    #[error("the object is not in the expected state")]
    Conflict {
        /// What is there instead.
        current: Option<Arc<Entry>>,
    },
    #[error("what was to change together with the object is not as it was")]
    Overtaken,
    #[error("the object takes {bytes} bytes, the store takes {OBJECT_BYTES_MAX} at most")]
    TooLarge { bytes: usize },
    #[error("no space left on the store's disk, the change was not made")]
    Full(#[source] Arc<io::Error>),
    #[error("cannot write to the store's log, the change was not made")]
    Io(#[source] Arc<io::Error>),
    #[error("the store's log could neither be written nor cut back; every further write tries again")]
    Broken(#[source] Arc<io::Error>),
    #[error("the object cannot be encoded for etcd")]
    Encode(#[source] Arc<CodecError>),
    #[error("the object cannot be encrypted")]
    Seal(#[source] TransformError),
    #[error("etcd did not take the change; whether it was made is not known")]
    Etcd(#[source] Arc<etcd::Error>),
    #[error("what is there instead is not known yet")]
    Behind(#[from] Behind),
    #[error("the store is closed")]
    Closed,
}

pub(crate) type Verdict = Result<Arc<Entry>, CommitError>;

/// Something the log's thread must see to, in order.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) task: Task,
    reply: oneshot::Sender<Verdict>,
    /// Given back when the item is done with.
    _room: OwnedSemaphorePermit,
}

#[derive(Debug)]
pub(crate) enum Task {
    Write(Event),
    /// A conflict with a write that is not on disk yet: it may only be told once that write is.
    Conflict(Option<Arc<Entry>>),
}

impl Item {
    pub(crate) fn event(&self) -> Option<&Event> {
        match &self.task {
            Task::Write(event) => Some(event),
            Task::Conflict(_) => None,
        }
    }

    /// Tells the writer. A writer that no longer waits is none of the log's business.
    pub(crate) fn done(self) {
        let verdict = match self.task {
            Task::Write(event) => Ok(event.entry),
            Task::Conflict(current) => Err(CommitError::Conflict { current }),
        };
        self.reply.send(verdict).ok();
    }

    pub(crate) fn fail(self, error: &CommitError) {
        self.reply.send(Err(error.clone())).ok();
    }
}

#[derive(Debug)]
pub(crate) struct Queue {
    inner: Mutex<Inner>,
    /// Signalled when there is something to take.
    ready: Condvar,
    room: Arc<Semaphore>,
}

#[derive(Debug)]
struct Inner {
    items: VecDeque<Item>,
    /// The newest queued change of each object that has one.
    pending: HashMap<Key, Event>,
    /// The revision given last.
    last: Revision,
    interner: Interner,
    /// What is on disk is to be written anew.
    rewrite: bool,
    /// Set once, when the log can take no more writes.
    refusal: Option<CommitError>,
}

impl Queue {
    pub(crate) fn new(last: Revision, interner: Interner) -> Queue {
        let (items, pending) = (VecDeque::new(), HashMap::new());
        let inner = Inner { items, pending, last, interner, rewrite: false, refusal: None };
        let room = Arc::new(Semaphore::new(QUEUE_BYTES_MAX / ROOM_UNIT_BYTES));
        Queue { inner: Mutex::new(inner), ready: Condvar::new(), room }
    }

    /// Waits for room, decides, and queues.
    pub(crate) async fn submit(
        &self,
        state: &RwLock<State>,
        key: &Key,
        expected: Expected,
        op: Op,
    ) -> Result<oneshot::Receiver<Verdict>, CommitError> {
        let bytes = op.draft().json.len();
        if bytes > OBJECT_BYTES_MAX {
            return Err(CommitError::TooLarge { bytes });
        }
        let units = u32::try_from(bytes / ROOM_UNIT_BYTES + 1).expect("the largest object's units fit");
        let room = self.room.clone().acquire_many_owned(units).await.map_err(|_| CommitError::Closed)?;
        let (reply, verdict) = oneshot::channel();
        let mut inner = self.inner.lock();
        if let Some(refusal) = &inner.refusal {
            return Err(refusal.clone());
        }
        let task = inner.decide(state, key, expected, &op)?;
        inner.items.push_back(Item { task, reply, _room: room });
        self.ready.notify_one();
        Ok(verdict)
    }

    /// The next batch; empty when there is none and `wait` is false, `None` when the queue is closed and done.
    pub(crate) fn take(&self, wait: bool) -> Option<Vec<Item>> {
        let mut inner = self.inner.lock();
        while wait && inner.items.is_empty() && inner.refusal.is_none() && !inner.rewrite {
            self.ready.wait(&mut inner);
        }
        if inner.items.is_empty() && inner.refusal.is_some() {
            return None;
        }
        let mut bytes = 0;
        let mut fits = |item: &Item| {
            bytes += item.event().map_or(0, |event| event.entry.weight());
            bytes <= BATCH_BYTES_MAX
        };
        let count = inner.items.iter().take_while(|item| fits(item)).count().max(1).min(inner.items.len());
        Some(inner.items.drain(..count).collect())
    }

    /// How many wait to be taken.
    pub(crate) fn len(&self) -> usize {
        self.inner.lock().items.len()
    }

    /// Asks for everything on disk to be written anew.
    pub(crate) fn ask_rewrite(&self) {
        self.inner.lock().rewrite = true;
        self.ready.notify_one();
    }

    /// Whether that was asked for since this was called last.
    pub(crate) fn take_rewrite(&self) -> bool {
        std::mem::take(&mut self.inner.lock().rewrite)
    }

    /// These changes are visible now.
    pub(crate) fn settle<'a>(&self, events: impl Iterator<Item = &'a Event>) {
        let mut inner = self.inner.lock();
        for event in events {
            let key = &event.entry.key;
            if inner.pending.get(key).is_some_and(|newest| newest.revision() == event.revision()) {
                inner.pending.remove(key);
            }
        }
        if inner.pending.is_empty() {
            inner.pending.shrink_to(0);
        }
    }

    /// Fails everything queued; the revisions given since `visible` were never seen and are given again.
    pub(crate) fn abort(&self, error: &CommitError, visible: Revision) {
        let mut inner = self.inner.lock();
        inner.pending.clear();
        inner.last = visible;
        inner.items.drain(..).for_each(|item| item.fail(error));
    }

    /// Refuses further writes; what is queued is still written.
    pub(crate) fn close(&self) {
        self.refuse(CommitError::Closed);
    }

    /// Refuses further writes with this error, unless they are refused already.
    pub(crate) fn refuse(&self, error: CommitError) {
        self.room.close();
        self.inner.lock().refusal.get_or_insert(error);
        self.ready.notify_one();
    }
}

impl Inner {
    fn decide(
        &mut self,
        state: &RwLock<State>,
        key: &Key,
        expected: Expected,
        op: &Op,
    ) -> Result<Task, CommitError> {
        let pending = self.pending.get(key);
        let current = match pending {
            Some(event) if event.kind == EventKind::Deleted => None,
            Some(event) => Some(event.entry.clone()),
            None => state.read().get(key).cloned(),
        };
        if !permitted(current.as_deref(), expected, op) {
            return match pending {
                Some(_) => Ok(Task::Conflict(current)),
                None => Err(CommitError::Conflict { current }),
            };
        }
        let event = self.event(key, current, op);
        self.last = event.revision();
        self.pending.insert(event.entry.key.clone(), event.clone());
        Ok(Task::Write(event))
    }

    fn event(&mut self, key: &Key, previous: Option<Arc<Entry>>, op: &Op) -> Event {
        let revision = self.last.next();
        let kind = match (op, &previous) {
            (Op::Delete(_), _) => EventKind::Deleted,
            (Op::Put(_), None) => EventKind::Added,
            (Op::Put(_), Some(_)) => EventKind::Modified,
        };
        let key = match &previous {
            Some(previous) => previous.key.clone(),
            None => Key {
                resource: self.interner.intern(&key.resource),
                namespace: self.interner.intern(&key.namespace),
                name: key.name.clone(),
            },
        };
        let entry = Entry {
            key,
            revision,
            created: previous.as_ref().map_or(revision, |previous| previous.created),
            bytes: op.draft().finish(revision),
            meta: op.draft().meta.interned(&mut self.interner),
            beside: Beside::default(),
        };
        Event { kind, entry: Arc::new(entry), previous }
    }
}

fn permitted(current: Option<&Entry>, expected: Expected, op: &Op) -> bool {
    let as_expected = match expected {
        Expected::Absent => current.is_none(),
        Expected::At(revision) => current.is_some_and(|entry| entry.revision == revision),
        Expected::Any => true,
    };
    as_expected && (current.is_some() || matches!(op, Op::Put(_)))
}

#[cfg(test)]
mod tests {
    use std::task::{Context, Poll, Waker};
    use std::time::Duration;

    use super::*;
    use crate::entry::Meta;
    use crate::state::Retention;

    #[test]
    fn writers_wait_while_the_queue_is_full() {
        let retention = Retention { bytes_max: 0, age_max: Duration::MAX };
        let state = RwLock::new(State::new(Revision(0), retention));
        let queue = Queue::new(Revision(0), Interner::default());
        let key = Key::cluster("nodes", "n");
        let put =
            || Op::Put(Draft { json: vec![b' '; OBJECT_BYTES_MAX], revision_at: 0, meta: Meta::default() });
        let mut context = Context::from_waker(Waker::noop());
        let fit = QUEUE_BYTES_MAX / (OBJECT_BYTES_MAX + ROOM_UNIT_BYTES);
        for _ in 0..fit {
            let mut submit = Box::pin(queue.submit(&state, &key, Expected::Any, put()));
            assert!(matches!(submit.as_mut().poll(&mut context), Poll::Ready(Ok(_))));
        }
        let mut waiting = Box::pin(queue.submit(&state, &key, Expected::Any, put()));
        assert!(waiting.as_mut().poll(&mut context).is_pending());
        queue.take(false).unwrap().into_iter().for_each(Item::done);
        assert!(matches!(waiting.as_mut().poll(&mut context), Poll::Ready(Ok(_))));
    }
}
