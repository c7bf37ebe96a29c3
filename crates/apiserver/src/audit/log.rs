//! The file that audit events are written to, line by line, and its older parts (upstream: the `log` back end on
//! lumberjack). A file that gets too large is renamed after the time and a new one is begun.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

const MEGABYTE: u64 = 1 << 20;
/// Of a file whose size nobody has limited, when older parts are limited (lumberjack's default).
const SIZE_DEFAULT: u64 = 100;
/// The date in the name of an older part.
const NAME_FORMAT: &str = "%Y-%m-%dT%H-%M-%S";

/// Where the events go and how much of them is kept; zero limits nothing.
#[derive(Clone, Debug, Default)]
pub struct LogConfig {
    /// `-` is standard output.
    pub path: PathBuf,
    pub max_age_days: u32,
    pub max_backups: usize,
    pub max_size_megabytes: u64,
}

pub struct LogFile {
    config: LogConfig,
    /// None for standard output.
    file: Option<(File, u64)>,
}

impl LogFile {
    pub fn open(config: LogConfig) -> std::io::Result<LogFile> {
        let file = if config.path == Path::new("-") { None } else { Some(open(&config.path)?) };
        Ok(LogFile { config, file })
    }

    pub fn write(&mut self, lines: &[u8], now: Timestamp) -> std::io::Result<()> {
        let Some((_, size)) = &self.file else { return std::io::stdout().write_all(lines) };
        let limit = match self.config.max_size_megabytes {
            0 => SIZE_DEFAULT,
            limit => limit,
        };
        if *size > 0 && size + lines.len() as u64 > limit * MEGABYTE {
            self.rotate(now)?;
        }
        if let Some((file, size)) = &mut self.file {
            file.write_all(lines)?;
            *size += lines.len() as u64;
        }
        Ok(())
    }

    fn rotate(&mut self, now: Timestamp) -> std::io::Result<()> {
        let path = &self.config.path;
        std::fs::rename(path, older_name(path, now))?;
        self.file = Some(open(path)?);
        self.clear_away(now)
    }

    /// Removes older parts beyond the number or age that is kept.
    fn clear_away(&self, now: Timestamp) -> std::io::Result<()> {
        let parts = older_parts(&self.config.path)?;
        let beyond = match self.config.max_backups {
            0 => parts.len(),
            kept => kept,
        };
        let days = i64::from(self.config.max_age_days);
        let oldest = (days > 0).then(|| now - SignedDuration::from_hours(days * 24));
        for (index, (at, part)) in parts.iter().enumerate() {
            if index >= beyond || oldest.is_some_and(|oldest| *at < oldest) {
                std::fs::remove_file(part)?;
            }
        }
        Ok(())
    }
}

fn open(path: &Path) -> std::io::Result<(File, u64)> {
    use std::os::unix::fs::OpenOptionsExt as _;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Name without extension, and the extension with its point.
fn split(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|e| format!(".{}", e.to_string_lossy())).unwrap_or_default();
    (text(path.file_stem()), extension)
}

fn older_name(path: &Path, now: Timestamp) -> PathBuf {
    let (stem, extension) = split(path);
    let time = now.to_zoned(TimeZone::UTC).strftime(NAME_FORMAT).to_string();
    let milliseconds = now.subsec_millisecond();
    path.with_file_name(format!("{stem}-{time}.{milliseconds:03}{extension}"))
}

/// The newest first.
fn older_parts(path: &Path) -> std::io::Result<Vec<(Timestamp, PathBuf)>> {
    let (stem, extension) = split(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut parts = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let time = name.strip_prefix(&format!("{stem}-")).and_then(|rest| rest.strip_suffix(&extension));
        if let Some(at) = time.and_then(read_time) {
            parts.push((at, entry.path()));
        }
    }
    parts.sort_unstable();
    parts.reverse();
    Ok(parts)
}

fn read_time(text: &str) -> Option<Timestamp> {
    let (seconds, milliseconds) = text.split_once('.')?;
    let at = jiff::civil::DateTime::strptime(NAME_FORMAT, seconds).ok()?;
    let at = at.to_zoned(TimeZone::UTC).ok()?.timestamp();
    Some(at + SignedDuration::from_millis(milliseconds.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_is_renamed_and_only_so_many_are_kept() {
        let folder = std::env::temp_dir().join(format!("audit-log-{}", std::process::id()));
        let path = folder.join("audit.log");
        let config =
            LogConfig { path: path.clone(), max_backups: 2, max_size_megabytes: 1, ..LogConfig::default() };
        let mut log = LogFile::open(config).expect("opens");
        let line = vec![b'x'; 700 << 10];
        let at = |second| Timestamp::from_second(second).expect("a time");
        for second in 0..4 {
            log.write(&line, at(second)).expect("writes");
        }
        let parts = older_parts(&path).expect("reads");
        assert_eq!(parts.iter().map(|(at, _)| at.as_second()).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(parts[0].1, folder.join("audit-1970-01-01T00-00-03.000.log"));
        assert_eq!(std::fs::metadata(&path).expect("is there").len(), line.len() as u64);
        std::fs::remove_dir_all(folder).expect("removes");
    }
}
