//! Container logs in the CRI format: `2026-01-02T03:04:05.000000006Z stdout F text`, one line of output per line,
//! `P` for a part of a line that has no end yet.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use super::complain;

/// A longer line is written in parts (containerd's `max_container_log_line_size`).
pub const LINE_BYTES_MAX: usize = 16 << 10;

const NANOS_PER_SECOND: i64 = 1_000_000_000;
const SECONDS_PER_DAY: i64 = 86_400;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    Stdout,
    Stderr,
}

/// The file a container logs to.
pub struct Log {
    path: Option<PathBuf>,
    file: Option<File>,
    /// Whether the last write failed: a full disk is complained of once, not per line.
    failed: bool,
}

impl Log {
    pub fn open(path: Option<PathBuf>) -> io::Result<Log> {
        let mut log = Log { path, file: None, failed: false };
        log.reopen()?;
        Ok(log)
    }

    /// Continues in a new file after the kubelet has renamed the old one.
    pub fn reopen(&mut self) -> io::Result<()> {
        let Some(path) = &self.path else { return Ok(()) };
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        self.file = Some(OpenOptions::new().append(true).create(true).open(path)?);
        Ok(())
    }

    /// Writes entries in one system call. A full disk loses output but must not stop the container.
    fn write(&mut self, entries: &[u8]) {
        let Some(file) = &mut self.file else { return };
        match file.write_all(entries) {
            Ok(()) => self.failed = false,
            Err(_) if self.failed => {}
            Err(error) => {
                self.failed = true;
                complain(format_args!("write log {:?}: {error}", self.path));
            }
        }
    }
}

/// Cuts one stream into lines.
pub struct Lines {
    kind: StreamKind,
    /// Output since the last line end; shorter than `LINE_BYTES_MAX`.
    rest: Vec<u8>,
}

impl Lines {
    pub fn new(kind: StreamKind) -> Lines {
        Lines { kind, rest: Vec::new() }
    }

    pub fn write(&mut self, log: &mut Log, output: &[u8], now: i64) {
        log.write(&self.entries(output, now));
    }

    /// Writes what has no line end.
    pub fn finish(&mut self, log: &mut Log, now: i64) {
        if !self.rest.is_empty() {
            let mut entries = Vec::new();
            entry(&mut entries, self.kind, now, 'P', &self.rest);
            self.rest = Vec::new();
            log.write(&entries);
        }
    }

    fn entries(&mut self, mut output: &[u8], now: i64) -> Vec<u8> {
        let mut entries = Vec::with_capacity(output.len() + 64);
        while !output.is_empty() {
            let room = LINE_BYTES_MAX - self.rest.len();
            let window = &output[..output.len().min(room)];
            match window.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    self.rest.extend_from_slice(&output[..end]);
                    entry(&mut entries, self.kind, now, 'F', &self.rest);
                    self.rest.clear();
                    output = &output[end + 1..];
                }
                None => {
                    self.rest.extend_from_slice(window);
                    output = &output[window.len()..];
                    if self.rest.len() == LINE_BYTES_MAX {
                        entry(&mut entries, self.kind, now, 'P', &self.rest);
                        self.rest.clear();
                    }
                }
            }
        }
        if self.rest.is_empty() {
            self.rest.shrink_to_fit();
        }
        entries
    }
}

fn entry(out: &mut Vec<u8>, kind: StreamKind, now: i64, tag: char, text: &[u8]) {
    let stream = match kind {
        StreamKind::Stdout => "stdout",
        StreamKind::Stderr => "stderr",
    };
    out.extend_from_slice(format!("{} {stream} {tag} ", timestamp(now)).as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// Nanoseconds since 1970.
pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// RFC 3339 in UTC with nanoseconds. The civil date follows Howard Hinnant's `civil_from_days`.
fn timestamp(nanos: i64) -> String {
    let seconds = nanos.div_euclid(NANOS_PER_SECOND);
    let fraction = nanos.rem_euclid(NANOS_PER_SECOND);
    let (day, second) = (seconds.div_euclid(SECONDS_PER_DAY), seconds.rem_euclid(SECONDS_PER_DAY));
    // Days are counted from 0000-03-01 in eras of 400 years.
    let shifted = day + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let date = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{date:02}T{hour:02}:{minute:02}:{second:02}.{fraction:09}Z")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(outputs: &[&str], expect: &[&str]) {
        let mut lines = Lines::new(StreamKind::Stdout);
        let mut text = Vec::new();
        for output in outputs {
            text.extend(lines.entries(output.as_bytes(), 0));
        }
        let text = String::from_utf8(text).unwrap();
        let entries: Vec<_> = text
            .lines()
            .map(|line| line.strip_prefix("1970-01-01T00:00:00.000000000Z stdout ").unwrap())
            .collect();
        assert_eq!(entries, expect);
    }

    #[test]
    fn a_line_is_written_once_it_ends() {
        check(&["a\nb\nc"], &["F a", "F b"]);
        check(&["a", "b", "\n"], &["F ab"]);
        check(&["\n\n"], &["F ", "F "]);
    }

    #[test]
    fn a_line_past_the_limit_is_written_in_parts() {
        let at = "x".repeat(LINE_BYTES_MAX);
        check(&[&format!("{at}y\n")], &[&format!("P {at}"), "F y"]);
    }

    #[test]
    fn timestamps_are_rfc3339_with_nanoseconds() {
        assert_eq!(timestamp(0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(timestamp(951_782_400 * NANOS_PER_SECOND + 7), "2000-02-29T00:00:00.000000007Z");
        assert_eq!(timestamp(1_767_323_045 * NANOS_PER_SECOND), "2026-01-02T03:04:05.000000000Z");
    }

    proptest! {
        #[test]
        fn whatever_the_chunks_the_log_holds_all_output(
            chunks in prop::collection::vec((0..2 * LINE_BYTES_MAX, any::<bool>()), 0..6),
        ) {
            let chunks: Vec<String> =
                chunks.iter().map(|(length, ends)| "x".repeat(*length) + if *ends { "\n" } else { "" }).collect();
            let mut lines = Lines::new(StreamKind::Stderr);
            let mut entries = Vec::new();
            for chunk in &chunks {
                entries.extend(lines.entries(chunk.as_bytes(), 0));
            }
            let mut text = String::new();
            for line in String::from_utf8(entries).unwrap().lines() {
                let parts: Vec<&str> = line.splitn(4, ' ').collect();
                prop_assert!(parts[3].len() <= LINE_BYTES_MAX);
                text.push_str(parts[3]);
                if parts[2] == "F" {
                    text.push('\n');
                }
            }
            text.push_str(std::str::from_utf8(&lines.rest).unwrap());
            prop_assert_eq!(text, chunks.concat());
        }
    }
}
