//! The durable log: numbered segments of checksummed frames, appended to by one thread.
//!
//! Each frame is one batch and becomes durable with one flush. When more than a third of the log is outdated, the oldest segment is
//! cleaned: its entries that are still current are copied to the end, then it is removed. Segments go strictly from the oldest
//! on, so a deletion's record may go with its segment: nothing older is left that it could bring back.

mod clean;
mod format;
mod replay;
mod segment;

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::config::Config;
use crate::disk::{Disk, File};
use crate::entry::Revision;
use crate::history::Event;
use crate::state::State;
use crate::transform::{TransformError, Transformer};
use clean::Cleaner;
use format::Frame;
pub(crate) use replay::Replayed;
use segment::Segment;

/// The least that one step of cleaning reads, so that cleaning between writes advances.
const CLEAN_STEP_BYTES: u64 = 256 << 10;

/// How much cleaning reads for each byte written. The log exceeds its live data by half when cleaning starts; should the
/// next stretch be all live, at four to one the log grows by another quarter before space is won.
const CLEAN_PER_WRITTEN: u64 = 4;

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store in {} is in use by {holder}", dir.display())]
    Locked { dir: PathBuf, holder: String },
    #[error("cannot {what}")]
    Io { what: &'static str, source: io::Error },
    #[error(
        "the store holds {resource} {namespace:?}/{name:?}, which none of the configured keys and providers reads"
    )]
    Unreadable { resource: Arc<str>, namespace: Arc<str>, name: Arc<str>, source: TransformError },
    #[error("the store's file {file} is damaged at byte {offset}: {what}; restore it from a backup")]
    Corrupt { file: String, offset: u64, what: &'static str },
    #[error(
        "the store's file {file} is of format {version}, which is newer than this program reads ({newest})"
    )]
    Newer { file: String, version: u32, newest: u32 },
    #[error("the settings for etcd cannot be used")]
    EtcdConfig(#[from] etcd::ConfigError),
    #[error("cannot read what is in etcd")]
    Etcd(#[from] etcd::Error),
}

/// What opening found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub segments: usize,
    pub bytes: u64,
    pub objects: usize,
    /// The unfinished write at the end that was cut off.
    pub torn: Option<Torn>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Torn {
    pub file: String,
    pub offset: u64,
    pub bytes: u64,
}

/// Why a batch is not in the log.
#[derive(Clone, Debug)]
pub(crate) enum WriteError {
    /// The disk has no room. Nothing of the batch is in the log.
    Full(Arc<io::Error>),
    /// Nothing of the batch is in the log.
    Io(Arc<io::Error>),
    /// A write failed and could not be cut off either: until the next write that succeeds, a restart may find it.
    Broken(Arc<io::Error>),
}

#[derive(Debug)]
pub(crate) struct Log {
    disk: Arc<dyn Disk>,
    segment_bytes: u64,
    slack_bytes: u64,
    /// Oldest first, numbered without gaps; the last one is written to and never empty of segments.
    segments: VecDeque<Segment>,
    /// The file of the last segment.
    head: Box<dyn File>,
    /// The progress in the oldest segment while it is being cleaned.
    cleaner: Option<Cleaner>,
    /// Cleaning between writes stops behind the segment that was the last one at the last write, so it ends.
    clean_through: u64,
    /// Everything up to this segment is written anew, however much of it is current.
    rewrite_through: u64,
    transformer: Arc<dyn Transformer>,
    /// Cleaning ran into a full disk; it tries again after the next successful write.
    cleaning_paused: bool,
    /// Set while the last segment may hold more than it should, because that could not be cut off.
    broken: bool,
}

impl Log {
    /// Replays what is there, or starts a new log.
    pub(crate) fn open(disk: Arc<dyn Disk>, config: &Config) -> Result<(Log, Replayed), OpenError> {
        let (mut segments, replayed) = replay::replay(&*disk, config)?;
        let head = match segments.back() {
            Some(last) => disk.open(&last.file()),
            None => {
                segments.push_back(Segment { number: 1, bytes: format::HEADER_BYTES });
                segment::create(&*disk, 1, Revision::default())
            }
        };
        let head = head.map_err(|source| OpenError::Io { what: "open the log's last segment", source })?;
        let clean_through = segments.back().expect("a log has a segment").number;
        let mut log = Log {
            disk,
            segment_bytes: config.segment_bytes,
            slack_bytes: config.slack_bytes,
            segments,
            head,
            cleaner: None,
            clean_through,
            rewrite_through: 0,
            transformer: config.transformer.clone(),
            cleaning_paused: false,
            broken: false,
        };
        if replayed.stale
            && let Err(error) = log.rewrite(replayed.state.revision())
        {
            tracing::warn!(?error, "what lies on disk in another form than it would be written now stays so");
        }
        Ok((log, replayed))
    }

    /// What all segments take on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Whether enough of the log is outdated that writing without new changes is worth it.
    pub(crate) fn wants_cleaning(&self, live_bytes: u64) -> bool {
        let total = self.bytes();
        let oldest = self.segments.front().expect("a log has a segment").number;
        let is_outdated =
            oldest <= self.clean_through && total > live_bytes + live_bytes / 2 + self.slack_bytes;
        self.segments.len() > 1
            && (is_outdated || oldest <= self.rewrite_through)
            && !self.cleaning_paused
            && !self.broken
    }

    /// Has everything that is on disk written anew, in the form in which it would be written now. The state is at
    /// `revision`.
    pub(crate) fn rewrite(&mut self, revision: Revision) -> Result<(), WriteError> {
        self.start_segment(revision)?;
        self.rewrite_through = self.last().number - 1;
        Ok(())
    }

    /// Appends a batch, with a step of cleaning before it when due, and flushes. `state` is what the log holds so far.
    pub(crate) fn write<'a>(
        &mut self,
        events: impl Iterator<Item = &'a Event>,
        state: &RwLock<State>,
    ) -> Result<(), WriteError> {
        if self.broken {
            self.cut()?;
        }
        let mut batch = Frame::default();
        for event in events {
            let pushed = batch.push_event(event, &*self.transformer);
            pushed.map_err(|error| WriteError::Io(Arc::new(io::Error::other(error))))?;
        }
        if !batch.is_empty() {
            self.clean_through = self.last().number;
        }
        let cleaned = self.clean(batch.len(), state);
        if cleaned.is_empty() && batch.is_empty() {
            return Ok(());
        }
        if cleaned.is_empty() {
            self.append(&batch, state)?;
            self.cleaning_paused = false;
            return Ok(());
        }
        self.write_cleaned(&cleaned, &batch, state)
    }

    /// Writes copies and batch in one frame; when there is no room for both, the batch alone.
    fn write_cleaned(
        &mut self,
        cleaned: &Frame,
        batch: &Frame,
        state: &RwLock<State>,
    ) -> Result<(), WriteError> {
        match self.append(&cleaned.followed_by(batch), state) {
            Err(WriteError::Broken(error)) => Err(WriteError::Broken(error)),
            Err(error) => {
                tracing::warn!(?error, "cannot clean the log");
                self.cleaner = None;
                self.cleaning_paused = true;
                if batch.is_empty() { Ok(()) } else { self.append(batch, state) }
            }
            Ok(()) => {
                self.drop_cleaned();
                Ok(())
            }
        }
    }

    /// Copies what is live in the next stretch of the oldest segment. Empty when cleaning is not due.
    fn clean(&mut self, written: u64, state: &RwLock<State>) -> Frame {
        let mut copies = Frame::default();
        let state = state.read();
        if !self.wants_cleaning(state.live_bytes()) {
            return copies;
        }
        let budget = CLEAN_STEP_BYTES.max(written * CLEAN_PER_WRITTEN);
        if let Err(error) = self.clean_step(&mut copies, budget, &state) {
            tracing::error!(%error, "cannot read the log's oldest segment, it is kept as it is");
            self.clean_through = 0;
            self.rewrite_through = 0;
            self.cleaner = None;
            return Frame::default();
        }
        drop(state);
        if copies.is_empty() {
            self.drop_cleaned();
        }
        copies
    }

    fn clean_step(&mut self, copies: &mut Frame, budget: u64, state: &State) -> io::Result<()> {
        if self.cleaner.is_none() {
            let oldest = self.segments.front().expect("a log has a segment");
            self.cleaner = Some(Cleaner::new(&*self.disk, oldest)?);
        }
        match &mut self.cleaner {
            Some(cleaner) => cleaner.step(copies, budget, state, &*self.transformer),
            None => Ok(()),
        }
    }

    /// Removes the oldest segment once everything live in it has been copied. Each removal is made durable before the next,
    /// so that what is left after a crash is always without gaps.
    fn drop_cleaned(&mut self) {
        if !self.cleaner.as_ref().is_some_and(Cleaner::is_done) {
            return;
        }
        self.cleaner = None;
        let oldest = self.segments.front().expect("a log has a segment").file();
        match self.disk.remove(&oldest).and_then(|()| self.disk.sync()) {
            Ok(()) => {
                self.segments.pop_front();
            }
            Err(error) => {
                tracing::error!(%error, file = oldest, "cannot remove a cleaned segment of the log");
                self.clean_through = 0;
                self.rewrite_through = 0;
            }
        }
    }

    /// Appends one frame and flushes it, or leaves the log as it was.
    fn append(&mut self, frame: &Frame, state: &RwLock<State>) -> Result<(), WriteError> {
        if self.last().bytes >= self.segment_bytes {
            self.start_segment(state.read().revision())?;
        }
        let Segment { number, bytes: end } = *self.last();
        let sealed = frame.seal(number, end);
        let written = self.head.write_all_at(&sealed, end).and_then(|()| self.head.sync());
        if let Err(error) = written {
            self.cut()?;
            return Err(classify(error));
        }
        self.segments.back_mut().expect("a log has a segment").bytes = end + sealed.len() as u64;
        Ok(())
    }

    /// Cuts off a write that did not succeed, durably, so that it cannot come back after its writers were told it failed.
    /// What is left was flushed before. The flush here speaks of the new size only, so it tells the truth, whereas one of
    /// the write itself would not: Linux tells of a page that was not written once, and then takes it for clean.
    fn cut(&mut self) -> Result<(), WriteError> {
        match self.head.truncate(self.last().bytes).and_then(|()| self.head.sync()) {
            Ok(()) => {
                self.broken = false;
                Ok(())
            }
            Err(error) => {
                self.broken = true;
                Err(WriteError::Broken(Arc::new(error)))
            }
        }
    }

    fn start_segment(&mut self, base: Revision) -> Result<(), WriteError> {
        let number = self.last().number + 1;
        self.head = segment::create(&*self.disk, number, base).map_err(classify)?;
        self.segments.push_back(Segment { number, bytes: format::HEADER_BYTES });
        Ok(())
    }

    fn last(&self) -> &Segment {
        self.segments.back().expect("a log has a segment")
    }
}

fn classify(error: io::Error) -> WriteError {
    let full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let error = Arc::new(error);
    if full { WriteError::Full(error) } else { WriteError::Io(error) }
}
