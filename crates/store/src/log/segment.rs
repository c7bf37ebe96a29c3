//! The files of the log: how they are called and how a new one comes to be.

use std::io;

use super::format;
use crate::disk::{Disk, File};
use crate::entry::Revision;

const SUFFIX: &str = ".log";

/// A segment that is still being made; it holds nothing and may be removed.
const UNFINISHED_SUFFIX: &str = ".log.new";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    /// How much of the file is in use.
    pub(crate) bytes: u64,
}

impl Segment {
    pub(crate) fn file(&self) -> String {
        file(self.number)
    }
}

fn file(number: u64) -> String {
    format!("{number:020}{SUFFIX}")
}

/// The number of the segment that a file is, if it is one.
pub(super) fn number(file: &str) -> Option<u64> {
    file.strip_suffix(SUFFIX)?.parse().ok()
}

pub(super) fn is_unfinished(file: &str) -> bool {
    file.ends_with(UNFINISHED_SUFFIX)
}

/// Makes an empty segment. Its final name appears only once its header is on disk.
pub(super) fn create(disk: &dyn Disk, number: u64, base: Revision) -> io::Result<Box<dyn File>> {
    let unfinished = format!("{number:020}{UNFINISHED_SUFFIX}");
    let mut new = disk.create(&unfinished)?;
    new.write_all_at(&format::header(number, base), 0)?;
    new.sync()?;
    disk.rename(&unfinished, &file(number))?;
    disk.sync()?;
    Ok(new)
}
