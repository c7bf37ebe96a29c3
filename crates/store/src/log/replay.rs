//! Replay: from the log back to the state, and to as much history as the log still tells completely.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::format::{self, FRAME_HEADER_BYTES, HEADER_BYTES, HeaderError, Kind, Reader, Record};
use super::segment::{self, Segment};
use super::{OpenError, Report, Torn};
use crate::config::Config;
use crate::disk::Disk;
use crate::entry::Revision;
use crate::history::{Event, EventKind};
use crate::intern::Interner;
use crate::key::Key;
use crate::state::{Retention, State};
use crate::transform::{Freshness, TransformError, Transformer};

/// What the log tells.
#[derive(Debug)]
pub(crate) struct Replayed {
    pub(crate) state: State,
    pub(crate) interner: Interner,
    pub(crate) report: Report,
    /// Something lies in another form than it would be written now.
    pub(crate) stale: bool,
}

/// Reads all segments, cuts a torn tail, removes segments that were never finished.
pub(super) fn replay(disk: &dyn Disk, config: &Config) -> Result<(VecDeque<Segment>, Replayed), OpenError> {
    let numbers = numbers(disk)?;
    let retention = Retention { bytes_max: config.history_bytes_max, age_max: config.history_age_max };
    let mut replay = Replay {
        state: State::new(Revision::default(), retention),
        interner: Interner::default(),
        now: (config.clock)(),
        transformer: config.transformer.clone(),
        stale: false,
        unreadable: HashMap::new(),
    };
    let mut segments = VecDeque::new();
    let mut report = Report { segments: numbers.len(), ..Report::default() };
    for (position, &number) in numbers.iter().enumerate() {
        let last = position + 1 == numbers.len();
        let mut segment = Segment { number, bytes: 0 };
        let bytes = read(disk, &segment)?;
        if position == 0 {
            let header = parse_header(&segment, &bytes)?;
            replay.state = State::new(header.base, retention);
        }
        segment.bytes = replay.segment(&segment, &bytes, last)?;
        if segment.bytes < bytes.len() as u64 {
            report.torn = Some(cut(disk, &segment, bytes.len() as u64 - segment.bytes)?);
        }
        report.bytes += segment.bytes;
        segments.push_back(segment);
    }
    report.objects = replay.state.counts().map(|(_, count)| count).sum();
    // What nobody can read matters only if nothing newer has come in its place.
    if let Some((Key { resource, namespace, name }, source)) = replay.unreadable.into_iter().next() {
        return Err(OpenError::Unreadable { resource, namespace, name, source });
    }
    let Replay { state, interner, stale, .. } = replay;
    Ok((segments, Replayed { state, interner, report, stale }))
}

/// The numbers of the segments, which must follow one another.
fn numbers(disk: &dyn Disk) -> Result<Vec<u64>, OpenError> {
    let files = disk.list().map_err(|source| OpenError::Io { what: "list the log's segments", source })?;
    for file in files.iter().filter(|file| segment::is_unfinished(file)) {
        let what = "remove an unfinished segment";
        disk.remove(file).map_err(|source| OpenError::Io { what, source })?;
    }
    let mut numbers: Vec<u64> = files.iter().filter_map(|file| segment::number(file)).collect();
    numbers.sort_unstable();
    match numbers.windows(2).find(|pair| pair[1] != pair[0] + 1) {
        Some(pair) => Err(corrupt(&Segment { number: pair[0] + 1, bytes: 0 }, 0, "the segment is missing")),
        None => Ok(numbers),
    }
}

fn read(disk: &dyn Disk, segment: &Segment) -> Result<Vec<u8>, OpenError> {
    let read = || {
        let file = disk.open(&segment.file())?;
        let size = usize::try_from(file.size()?).map_err(std::io::Error::other)?;
        let mut bytes = vec![0; size];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(bytes)
    };
    read().map_err(|source| OpenError::Io { what: "read a segment of the log", source })
}

fn parse_header(segment: &Segment, bytes: &[u8]) -> Result<format::Header, OpenError> {
    match format::parse_header(bytes) {
        Ok(header) if header.number == segment.number => Ok(header),
        Ok(_) => Err(corrupt(segment, 0, "the header is another segment's")),
        Err(HeaderError::Damaged) => Err(corrupt(segment, 0, "the header is damaged")),
        Err(HeaderError::Newer(version)) => {
            Err(OpenError::Newer { file: segment.file(), version, newest: format::VERSION })
        }
    }
}

/// Cuts off what follows the segment's last complete frame.
fn cut(disk: &dyn Disk, segment: &Segment, bytes: u64) -> Result<Torn, OpenError> {
    let cut = || {
        let mut file = disk.open(&segment.file())?;
        file.truncate(segment.bytes)?;
        file.sync()
    };
    cut().map_err(|source| OpenError::Io { what: "cut off an unfinished write", source })?;
    let torn = Torn { file: segment.file(), offset: segment.bytes, bytes };
    tracing::warn!(file = torn.file, torn.offset, torn.bytes, "cut off a write that a crash left unfinished");
    Ok(torn)
}

fn corrupt(segment: &Segment, offset: usize, what: &'static str) -> OpenError {
    OpenError::Corrupt { file: segment.file(), offset: offset as u64, what }
}

/// The state while it is being rebuilt.
struct Replay {
    state: State,
    interner: Interner,
    now: Duration,
    transformer: Arc<dyn Transformer>,
    stale: bool,
    /// Objects whose latest state could not be read, and why.
    unreadable: HashMap<Key, TransformError>,
}

impl Replay {
    /// Replays one segment and returns how much of it is valid: all of it, unless it is the last and its tail is torn.
    fn segment(&mut self, segment: &Segment, bytes: &[u8], last: bool) -> Result<u64, OpenError> {
        let header = parse_header(segment, bytes)?;
        if header.base != self.state.revision() {
            return Err(corrupt(segment, 0, "the segment does not continue the one before"));
        }
        let mut offset = HEADER_BYTES as usize;
        while offset < bytes.len() {
            let Some(records) = format::parse_frame(&bytes[offset..], segment.number, offset as u64) else {
                return match last && !format::has_frame_behind(bytes, segment.number, offset) {
                    true => Ok(offset as u64),
                    false => Err(corrupt(segment, offset, "the checksum does not match")),
                };
            };
            self.records(records).map_err(|what| corrupt(segment, offset, what))?;
            offset += FRAME_HEADER_BYTES + records.len();
        }
        Ok(offset as u64)
    }

    fn records(&mut self, records: &[u8]) -> Result<(), &'static str> {
        let mut reader = Reader::new(records);
        while !reader.is_empty() {
            let record =
                reader.record(&mut self.interner, &*self.transformer).ok_or("a record cannot be read")?;
            self.record(record)?;
        }
        Ok(())
    }

    fn record(&mut self, Record { kind, entry, readable }: Record) -> Result<(), &'static str> {
        self.stale |= readable != Ok(Freshness::Fresh);
        let was_unreadable = self.unreadable.remove(&entry.key).is_some();
        let is_unreadable = readable.is_err();
        if let Err(error) = readable
            && kind != Kind::Delete
        {
            self.unreadable.insert(entry.key.clone(), error);
        }
        let entry = Arc::new(entry);
        if kind == Kind::Copy {
            self.state.restore(entry);
            return Ok(());
        }
        if entry.revision != self.state.revision().next() {
            return Err("a change is missing");
        }
        let previous = self.state.get(&entry.key).cloned();
        let untold = previous.is_none() && entry.created != entry.revision;
        let kind = match (kind, entry.created == entry.revision) {
            (Kind::Delete, _) => EventKind::Deleted,
            (_, true) => EventKind::Added,
            (_, false) => EventKind::Modified,
        };
        self.state.apply(Event { kind, entry, previous }, self.now);
        if untold || was_unreadable || is_unreadable {
            // What the object was before went with a cleaned segment, or cannot be told, so the history begins only here.
            self.state.forget();
        }
        Ok(())
    }
}
