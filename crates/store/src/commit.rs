//! The log's thread: takes batches from the queue, makes them durable, and only then lets anyone see them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::RwLock;

use crate::config::Clock;
use crate::entry::Revision;
use crate::log::{Log, WriteError};
use crate::queue::{CommitError, Item, Queue};
use crate::state::State;
use crate::watch::Watchers;

/// What readers, writers, watchers and the log's thread have in common.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Written by the log's thread alone.
    pub(crate) state: RwLock<State>,
    pub(crate) queue: Queue,
    pub(crate) watchers: Watchers,
    closed: AtomicBool,
}

impl Shared {
    pub(crate) fn new(state: State, queue: Queue) -> Shared {
        let (state, watchers) = (RwLock::new(state), Watchers::default());
        Shared { state, queue, watchers, closed: AtomicBool::new(false) }
    }

    /// Whether nothing will ever change again.
    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }
}

pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) log: Log,
    pub(crate) clock: Clock,
}

impl Committer {
    /// Runs until the queue is closed and empty. Between batches it cleans the log, as long as that is worth it.
    pub(crate) fn run(mut self) {
        loop {
            let idle = !self.log.wants_cleaning(self.shared.state.read().live_bytes());
            let Some(batch) = self.shared.queue.take(idle) else { break };
            self.commit(batch);
            if self.shared.queue.take_rewrite() {
                self.rewrite();
            }
        }
    }

    fn rewrite(&mut self) {
        let revision = self.shared.state.read().revision();
        if let Err(error) = self.log.rewrite(revision) {
            let error = CommitError::from(error);
            tracing::error!(error = &error as &dyn std::error::Error, "cannot write the log anew");
        }
    }

    fn commit(&mut self, batch: Vec<Item>) {
        match self.log.write(batch.iter().filter_map(Item::event), &self.shared.state) {
            Ok(()) => self.publish(batch),
            Err(error) => self.fail(batch, error),
        }
    }

    fn publish(&self, batch: Vec<Item>) {
        let events = || batch.iter().filter_map(Item::event);
        let now = (self.clock)();
        {
            let mut state = self.shared.state.write();
            events().for_each(|event| state.apply(event.clone(), now));
        }
        self.shared.queue.settle(events());
        self.shared.watchers.wake(events().map(|event| &event.entry.key));
        batch.into_iter().for_each(Item::done);
    }

    fn fail(&self, batch: Vec<Item>, error: WriteError) {
        let error = CommitError::from(error);
        tracing::error!(writes = batch.len(), error = &error as &dyn std::error::Error, "log write failed");
        self.shared.queue.abort(&error, self.shared.state.read().revision());
        batch.into_iter().for_each(|item| item.fail(&error));
    }
}

/// However the thread ends, nobody is left waiting for it.
impl Drop for Committer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = CommitError::Broken(Arc::new(io::Error::other("the log's thread panicked")));
            self.shared.queue.abort(&error, Revision::default());
        }
        self.shared.closed.store(true, Ordering::Release);
        self.shared.watchers.wake_all();
    }
}

impl From<WriteError> for CommitError {
    fn from(error: WriteError) -> CommitError {
        match error {
            WriteError::Full(source) => CommitError::Full(source),
            WriteError::Io(source) => CommitError::Io(source),
            WriteError::Broken(source) => CommitError::Broken(source),
        }
    }
}
