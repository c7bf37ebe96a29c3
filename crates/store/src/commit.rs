//! The engine with a log of its own: a thread takes batches from the queue, makes them durable, and only then lets anyone
//! see them.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::config::{Clock, Config};
use crate::disk::Disk;
use crate::entry::{Entry, Revision};
use crate::key::Key;
use crate::log::{Log, OpenError, Report, WriteError};
use crate::queue::{CommitError, Expected, Item, Op, Queue};
use crate::shared::Shared;

/// How far apart two batches begin, at most, while many write at a time. To make a batch durable costs the processor as
/// much as to serve one write (170 us on a virtual disk), however much is in it, and a fast disk would take them one by
/// one.
const GATHER_TIME_MAX: Duration = Duration::from_millis(2);

/// How much longer to gather for each who writes: few are soon together.
const GATHER_TIME_PER_WRITER: Duration = Duration::from_micros(250);

/// How long to wait for others to join, when so many wrote since the last batch was begun. Nobody who writes alone waits.
fn gather(writers: usize, since_begin: Duration) -> Duration {
    let writers = u32::try_from(writers).unwrap_or(u32::MAX);
    if writers < 2 {
        return Duration::ZERO;
    }
    GATHER_TIME_PER_WRITER.saturating_mul(writers).min(GATHER_TIME_MAX).saturating_sub(since_begin)
}

/// Closes, after writing what is queued, when dropped.
#[derive(Debug)]
pub(crate) struct LogEngine {
    queue: Arc<Queue>,
    /// Taken when closing.
    thread: Mutex<Option<JoinHandle<()>>>,
    /// Held, and with it the directory's lock, until the thread has ended.
    _disk: Arc<dyn Disk>,
}

impl LogEngine {
    /// Blocks while it replays.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        config: &Config,
    ) -> Result<(LogEngine, Arc<Shared>, Report), OpenError> {
        let (log, replayed) = Log::open(disk.clone(), config)?;
        let queue = Arc::new(Queue::new(replayed.state.revision(), replayed.interner));
        let shared = Arc::new(Shared::new(replayed.state));
        let (clock, own) = (config.clock.clone(), shared.clone());
        let committer = Committer { shared: own, queue: queue.clone(), log, clock };
        let thread = std::thread::Builder::new()
            .name("store-log".to_owned())
            .spawn(move || committer.run())
            .map_err(|source| OpenError::Io { what: "start the log's thread", source })?;
        let engine = LogEngine { queue, thread: Mutex::new(Some(thread)), _disk: disk };
        Ok((engine, shared, replayed.report))
    }

    /// Has the log written anew.
    pub(crate) fn ask_rewrite(&self) {
        self.queue.ask_rewrite();
    }

    pub(crate) async fn commit(
        &self,
        shared: &Shared,
        key: &Key,
        expected: Expected,
        op: Op,
    ) -> Result<Arc<Entry>, CommitError> {
        let verdict = self.queue.submit(&shared.state, key, expected, op).await?;
        verdict.await.unwrap_or(Err(CommitError::Closed))
    }
}

impl Drop for LogEngine {
    fn drop(&mut self) {
        self.queue.close();
        if let Some(thread) = self.thread.lock().take()
            && thread.join().is_err()
        {
            tracing::error!("the store's log thread panicked");
        }
    }
}

struct Committer {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    log: Log,
    clock: Clock,
}

impl Committer {
    /// Runs until the queue is closed and empty. Between batches it cleans the log, as long as that is worth it, or lets
    /// writers gather.
    fn run(mut self) {
        let (mut begin, mut writers) = (Instant::now(), 0);
        loop {
            self.shared.disk_bytes.store(self.log.bytes(), Ordering::Relaxed);
            let idle = !self.log.wants_cleaning(self.shared.state.read().live_bytes());
            if idle {
                std::thread::sleep(gather(writers, begin.elapsed()));
            }
            let Some(batch) = self.queue.take(idle) else { break };
            (begin, writers) = (Instant::now(), batch.len());
            self.commit(batch);
            writers += self.queue.len();
            if self.queue.take_rewrite() {
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
            for event in events() {
                assert_eq!(
                    event.revision(),
                    state.revision().next(),
                    "changes come in the order of their revisions"
                );
                state.apply(event.clone(), now);
            }
        }
        self.queue.settle(events());
        let changed: Vec<Arc<Entry>> = events().map(|event| event.entry.clone()).collect();
        // Whoever made a change hears first: there is one of them, and there may be a thousand who watch.
        batch.into_iter().for_each(Item::done);
        self.shared.watchers.wake(changed.iter().map(|entry| &entry.key));
    }

    fn fail(&self, batch: Vec<Item>, error: WriteError) {
        let error = CommitError::from(error);
        tracing::error!(writes = batch.len(), error = &error as &dyn std::error::Error, "log write failed");
        self.queue.abort(&error, self.shared.state.read().revision());
        batch.into_iter().for_each(|item| item.fail(&error));
    }
}

/// However the thread ends, nobody is left waiting for it.
impl Drop for Committer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let error = CommitError::Broken(Arc::new(io::Error::other("the log's thread panicked")));
            self.queue.abort(&error, Revision::default());
            self.queue.refuse(error);
        }
        self.shared.close();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_those_who_write_beside_others_wait_for_them() {
        let us = Duration::from_micros;
        assert_eq!(gather(0, us(0)), us(0), "cleaning");
        assert_eq!(gather(1, us(0)), us(0));
        assert_eq!(gather(2, us(300)), GATHER_TIME_PER_WRITER * 2 - us(300));
        assert_eq!(gather(usize::MAX, us(0)), GATHER_TIME_MAX);
        assert_eq!(gather(2, GATHER_TIME_MAX), us(0), "a slow disk has gathered them already");
    }
}
