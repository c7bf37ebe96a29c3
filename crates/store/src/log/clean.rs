//! Cleaning: reads the oldest segment in small steps and copies what is still current.

use std::io;

use super::format::{self, FRAME_HEADER_BYTES, Frame, HEADER_BYTES, Kind, Reader};
use super::segment::Segment;
use crate::disk::{Disk, File};
use crate::intern::Interner;
use crate::state::State;
use crate::transform::Transformer;

/// How far cleaning has come in the oldest segment.
#[derive(Debug)]
pub(super) struct Cleaner {
    file: Box<dyn File>,
    segment: Segment,
    offset: u64,
}

impl Cleaner {
    pub(super) fn new(disk: &dyn Disk, segment: &Segment) -> io::Result<Cleaner> {
        Ok(Cleaner { file: disk.open(&segment.file())?, segment: *segment, offset: HEADER_BYTES })
    }

    pub(super) fn is_done(&self) -> bool {
        self.offset == self.segment.bytes
    }

    /// Reads up to `budget` bytes, rounded up to whole frames, and copies the entries that `state` still has at that very revision.
    /// What is copied is written anew from what `state` has, in the form in which it would be written now.
    pub(super) fn step(
        &mut self,
        copies: &mut Frame,
        budget: u64,
        state: &State,
        transformer: &dyn Transformer,
    ) -> io::Result<()> {
        let end = self.segment.bytes.min(self.offset + budget);
        while self.offset < end {
            let frame = self.read_frame()?;
            let records =
                format::parse_frame(&frame, self.segment.number, self.offset).ok_or_else(damaged)?;
            let mut reader = Reader::new(records);
            let mut interner = Interner::default();
            while !reader.is_empty() {
                let head = reader.head_alone(&mut interner).ok_or_else(damaged)?;
                let current = state.get(&head.key).filter(|current| current.revision == head.revision);
                if let Some(current) = current.filter(|_| head.kind != Kind::Delete) {
                    copies.push_copy(current, transformer).map_err(io::Error::other)?;
                }
            }
            self.offset += frame.len() as u64;
        }
        Ok(())
    }

    fn read_frame(&self) -> io::Result<Vec<u8>> {
        let mut header = [0; FRAME_HEADER_BYTES];
        self.file.read_exact_at(&mut header, self.offset)?;
        let length = format::frame_length(&header).ok_or_else(damaged)?;
        let mut frame = vec![0; FRAME_HEADER_BYTES + length];
        self.file.read_exact_at(&mut frame, self.offset)?;
        Ok(frame)
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "a frame in the middle of the log is damaged")
}
