//! The bytes of the log. All numbers are little-endian; lengths and revisions inside records are LEB128.
//!
//! ```text
//! segment = header frame*
//! header  = "COXSTORE" version:u32 0:u32 number:u64 base:u64 crc:u32 0:u32
//! frame   = magic:u32 length:u32 crc:u32 records:u32 record*          one batch, valid as a whole or not at all
//! record  = kind:u8 revision created resource namespace name (body | sealed)
//! body    = uid labels fields owners json
//! ```
//!
//! `sealed` is a body as the transformer has written it; the kind's highest bit says that it is one.
//!
//! A frame's checksum covers the segment's number and the frame's offset too, so that bytes that belong elsewhere never pass.
//! `base` is the revision of the last change before the segment.

use std::sync::Arc;

use bytes::Bytes;

use crate::beside::Beside;
use crate::entry::{Entry, Meta, Revision};
use crate::history::{Event, EventKind};
use crate::intern::Interner;
use crate::key::Key;
use crate::transform::{Freshness, TransformError, Transformer};

/// 2 has sealed records.
pub(super) const VERSION: u32 = 2;
pub(super) const HEADER_BYTES: u64 = 40;
pub(super) const FRAME_HEADER_BYTES: usize = 16;

const MAGIC: &[u8; 8] = b"COXSTORE";

/// Not UTF-8, so it cannot occur within an object.
const FRAME_MAGIC: [u8; 4] = [0xff, 0xc0, 0x58, 0xfe];

/// More than any batch with its copies; a length beyond it is damage, not a reason to allocate.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 28;

/// What a header says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) number: u64,
    pub(super) base: Revision,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderError {
    Damaged,
    Newer(u32),
}

pub(super) fn header(number: u64, base: Revision) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&number.to_le_bytes());
    bytes.extend_from_slice(&base.0.to_le_bytes());
    let crc = crc32fast::hash(&bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(&[0; 4]);
    assert_eq!(bytes.len() as u64, HEADER_BYTES);
    bytes
}

pub(super) fn parse_header(bytes: &[u8]) -> Result<Header, HeaderError> {
    let bytes = bytes.get(..HEADER_BYTES as usize).ok_or(HeaderError::Damaged)?;
    if &bytes[..8] != MAGIC {
        return Err(HeaderError::Damaged);
    }
    let version = u32_at(bytes, 8);
    if version > VERSION {
        return Err(HeaderError::Newer(version));
    }
    if crc32fast::hash(&bytes[..32]) != u32_at(bytes, 32) {
        return Err(HeaderError::Damaged);
    }
    Ok(Header { number: u64_at(bytes, 16), base: Revision(u64_at(bytes, 24)) })
}

/// A batch of records on its way to the log.
#[derive(Debug, Default)]
pub(super) struct Frame {
    records: Vec<u8>,
    count: u32,
}

impl Frame {
    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn len(&self) -> u64 {
        self.records.len() as u64
    }

    pub(super) fn push_event(
        &mut self,
        event: &Event,
        transformer: &dyn Transformer,
    ) -> Result<(), TransformError> {
        let kind = if event.kind == EventKind::Deleted { Kind::Delete } else { Kind::Put };
        self.push(kind, &event.entry, transformer)
    }

    /// Adds a copy of an entry that is already in the log.
    pub(super) fn push_copy(
        &mut self,
        entry: &Entry,
        transformer: &dyn Transformer,
    ) -> Result<(), TransformError> {
        self.push(Kind::Copy, entry, transformer)
    }

    fn push(
        &mut self,
        kind: Kind,
        entry: &Entry,
        transformer: &dyn Transformer,
    ) -> Result<(), TransformError> {
        let mut body = Vec::new();
        encode_body(&mut body, entry);
        let sealed = transformer.is_for(&entry.key.resource);
        if sealed {
            let sealed = transformer.seal(&entry.key.resource, &place(&entry.key), &body)?;
            body.clear();
            put_bytes(&mut body, &sealed);
        }
        encode_head(&mut self.records, kind as u8 | if sealed { SEALED } else { 0 }, entry);
        self.records.extend_from_slice(&body);
        self.count += 1;
        Ok(())
    }

    pub(super) fn followed_by(&self, other: &Frame) -> Frame {
        let records = [self.records.as_slice(), &other.records].concat();
        Frame { records, count: self.count + other.count }
    }

    /// The frame as it stands at `offset` of segment `number`.
    pub(super) fn seal(&self, number: u64, offset: u64) -> Vec<u8> {
        let length = u32::try_from(self.records.len()).expect("batches and copies are bounded");
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + self.records.len());
        bytes.extend_from_slice(&FRAME_MAGIC);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&checksum(number, offset, self.count, &self.records).to_le_bytes());
        bytes.extend_from_slice(&self.count.to_le_bytes());
        bytes.extend_from_slice(&self.records);
        bytes
    }
}

/// The length of the records behind a frame's header, if it is one.
pub(super) fn frame_length(header: &[u8]) -> Option<usize> {
    let header = header.get(..FRAME_HEADER_BYTES)?;
    let length = u32_at(header, 4) as usize;
    (header[..4] == FRAME_MAGIC && length <= FRAME_BYTES_MAX).then_some(length)
}

/// The records of the frame that begins `bytes`, which were found at `offset` of segment `number`.
pub(super) fn parse_frame(bytes: &[u8], number: u64, offset: u64) -> Option<&[u8]> {
    let length = frame_length(bytes)?;
    let records = bytes.get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length)?;
    (checksum(number, offset, u32_at(bytes, 12), records) == u32_at(bytes, 8)).then_some(records)
}

/// Whether a valid frame begins anywhere behind `from`: the sign that what is at `from` had been completed once.
pub(super) fn has_frame_behind(segment: &[u8], number: u64, from: usize) -> bool {
    let starts = from + 1..segment.len().saturating_sub(FRAME_HEADER_BYTES - 1);
    starts.into_iter().any(|at| {
        segment[at..].starts_with(&FRAME_MAGIC) && parse_frame(&segment[at..], number, at as u64).is_some()
    })
}

fn checksum(number: u64, offset: u64, count: u32, records: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&number.to_le_bytes());
    hasher.update(&offset.to_le_bytes());
    hasher.update(&count.to_le_bytes());
    hasher.update(records);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Put = 1,
    Delete = 2,
    /// The entry as it already stood further ahead: no change.
    Copy = 3,
}

/// Set in the kind of a record whose body is sealed.
const SEALED: u8 = 0x80;

/// What a record says of which object.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) key: Key,
    pub(super) revision: Revision,
    created: Revision,
    sealed: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) kind: Kind,
    /// Without its contents when they cannot be read.
    pub(super) entry: Entry,
    pub(super) readable: Result<Freshness, TransformError>,
}

/// Where an object's body lies, for the transformer.
fn place(key: &Key) -> Vec<u8> {
    [&key.resource, &key.namespace, &key.name].map(|part| &**part).join("/").into_bytes()
}

fn encode_head(out: &mut Vec<u8>, kind: u8, entry: &Entry) {
    out.push(kind);
    put_number(out, entry.revision.0);
    put_number(out, entry.created.0);
    for text in [&entry.key.resource, &entry.key.namespace, &entry.key.name] {
        put_bytes(out, text.as_bytes());
    }
}

fn encode_body(out: &mut Vec<u8>, entry: &Entry) {
    put_bytes(out, entry.meta.uid.as_bytes());
    for pairs in [&entry.meta.labels, &entry.meta.fields] {
        put_number(out, pairs.len() as u64);
        for (key, value) in pairs {
            put_bytes(out, key.as_bytes());
            put_bytes(out, value.as_bytes());
        }
    }
    put_number(out, entry.meta.owners.len() as u64);
    entry.meta.owners.iter().for_each(|owner| put_bytes(out, owner.as_bytes()));
    put_bytes(out, &entry.bytes);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Reads records one after the other. `None` is damage, which a valid checksum should have excluded.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(records: &'a [u8]) -> Reader<'a> {
        Reader { rest: records }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn record(
        &mut self,
        interner: &mut Interner,
        transformer: &dyn Transformer,
    ) -> Option<Record> {
        let Head { kind, key, revision, created, sealed } = self.head(interner)?;
        let opened = if sealed {
            let data = self.bytes()?;
            transformer.open(&key.resource, &place(&key), data)
        } else {
            let body = self.plain_body(interner)?;
            // Plain, where it would be sealed now: the transformer must agree.
            match transformer.is_for(&key.resource) {
                true => transformer.open(&key.resource, &place(&key), body),
                false => Ok((body.to_vec(), Freshness::Fresh)),
            }
        };
        let (meta, bytes, readable) = match opened {
            Ok((body, freshness)) => {
                let (meta, bytes) = Reader::new(&body).body(interner)?;
                (meta, bytes, Ok(freshness))
            }
            Err(error) => (Meta::default(), Bytes::new(), Err(error)),
        };
        let entry = Entry { key, revision, created, bytes, meta, beside: Beside::default() };
        Some(Record { kind, entry, readable })
    }

    /// Of the next record what says which object it is about.
    pub(super) fn head_alone(&mut self, interner: &mut Interner) -> Option<Head> {
        let head = self.head(interner)?;
        if head.sealed {
            self.bytes()?
        } else {
            self.plain_body(interner)?
        };
        Some(head)
    }

    fn head(&mut self, interner: &mut Interner) -> Option<Head> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        let kinds = [Kind::Put, Kind::Delete, Kind::Copy];
        let kind = kinds.into_iter().find(|known| *known as u8 == *byte & !SEALED)?;
        let (revision, created) = (Revision(self.number()?), Revision(self.number()?));
        let resource = interner.intern(&self.text()?);
        let namespace = interner.intern(&self.text()?);
        let key = Key { resource, namespace, name: self.text()? };
        Some(Head { kind, key, revision, created, sealed: byte & SEALED != 0 })
    }

    /// The bytes of a body that is not sealed.
    fn plain_body(&mut self, interner: &mut Interner) -> Option<&'a [u8]> {
        let from = self.rest;
        self.body(interner)?;
        Some(&from[..from.len() - self.rest.len()])
    }

    fn body(&mut self, interner: &mut Interner) -> Option<(Meta, Bytes)> {
        let uid = self.text()?;
        let (labels, fields) = (self.pairs(interner)?, self.pairs(interner)?);
        let owners =
            (0..self.count()?).map(|_| Some(interner.intern(&self.text()?))).collect::<Option<_>>()?;
        let bytes = Bytes::copy_from_slice(self.bytes()?);
        Some((Meta { labels, fields, uid, owners }, bytes))
    }

    fn pairs(&mut self, interner: &mut Interner) -> Option<Vec<(Arc<str>, Arc<str>)>> {
        let count = self.count()?;
        let pair = |_| Some((interner.intern(&self.text()?), interner.intern(&self.text()?)));
        (0..count).map(pair).collect()
    }

    fn text(&mut self) -> Option<Arc<str>> {
        std::str::from_utf8(self.bytes()?).ok().map(Arc::from)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.count()?;
        let (bytes, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(bytes)
    }

    /// A number of things of at least one byte each, so never more than there are bytes left.
    fn count(&mut self) -> Option<usize> {
        let count = usize::try_from(self.number()?).ok()?;
        (count <= self.rest.len()).then_some(count)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0;
        for shift in (0..u64::BITS).step_by(7) {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            number |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transform::Identity;
    use proptest::prelude::*;

    fn pairs() -> impl Strategy<Value = Vec<(Arc<str>, Arc<str>)>> {
        prop::collection::vec((any::<String>(), any::<String>()), 0..3)
            .prop_map(|pairs| pairs.into_iter().map(|(k, v)| (k.into(), v.into())).collect())
    }

    fn entries() -> impl Strategy<Value = Entry> {
        let key = ("[a-z.]{0,9}", any::<String>(), any::<String>()).prop_map(|(r, ns, n)| Key::new(r, ns, n));
        let owners = prop::collection::vec(any::<String>().prop_map(Arc::from), 0..3);
        let meta = (pairs(), pairs(), any::<String>(), owners)
            .prop_map(|(labels, fields, uid, owners)| Meta { labels, fields, uid: uid.into(), owners });
        let bytes = prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
        (key, any::<u64>(), any::<u64>(), bytes, meta).prop_map(|(key, revision, created, bytes, meta)| {
            let (revision, created, beside) = (Revision(revision), Revision(created), Beside::default());
            Entry { key, revision, created, bytes, meta, beside }
        })
    }

    fn read(records: &[u8]) -> Option<Vec<Record>> {
        let (mut reader, mut interner) = (Reader::new(records), Interner::default());
        std::iter::from_fn(|| (!reader.is_empty()).then(|| reader.record(&mut interner, &Identity))).collect()
    }

    proptest! {
        #[test]
        fn what_is_framed_is_read_back_there_and_nowhere_else(entries in prop::collection::vec(entries(), 1..4), number: u64, offset: u64) {
            let mut frame = Frame::default();
            entries.iter().for_each(|entry| frame.push_copy(entry, &Identity).unwrap());
            let sealed = frame.seal(number, offset);
            let records = parse_frame(&sealed, number, offset).unwrap();
            let back: Vec<Entry> = read(records).unwrap().into_iter().map(|record| record.entry).collect();
            prop_assert_eq!(back, entries);
            prop_assert_eq!(parse_frame(&sealed, number, offset ^ 1), None);
            prop_assert_eq!(parse_frame(&sealed, number ^ 1, offset), None);
        }

        #[test]
        fn garbage_is_refused_without_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0..200usize) {
            prop_assert_eq!(parse_header(&bytes).is_ok(), false);
            prop_assert_eq!(parse_frame(&bytes, 1, 40), None);
            prop_assert!(read(&bytes).is_none_or(|records| records.len() <= bytes.len()));
            let header = header(7, Revision(9));
            let expect = if cut < header.len() { Err(HeaderError::Damaged) } else { Ok(Header { number: 7, base: Revision(9) }) };
            prop_assert_eq!(parse_header(&header[..cut.min(header.len())]), expect);
        }

        #[test]
        fn an_entry_weighs_about_what_its_record_takes(entry in entries()) {
            let mut frame = Frame::default();
            frame.push_copy(&entry, &Identity).unwrap();
            let takes = frame.seal(1, 40).len();
            prop_assert!(takes <= entry.weight() + 32 && entry.weight() <= takes + 48, "{takes} {}", entry.weight());
        }
    }
}
