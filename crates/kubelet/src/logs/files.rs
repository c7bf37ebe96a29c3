//! The files of one container's log: `LOG` is written to, `LOG.TIME` was written before it, `LOG.TIME.gz` still earlier.
//! `.tmp` ends the name of one whose compression was broken off.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

const COMPRESSED: &str = ".gz";
const UNFINISHED: &str = ".tmp";
/// Upstream's `timestampFormat`.
const TIME_FORMAT: &str = "%Y%m%d-%H%M%S";

/// Removes and compresses older files so that one more can join them: afterwards at most `files_max` less the one that
/// is written to and the one that is about to be moved.
pub fn make_room(log: &Path, files_max: usize) -> io::Result<()> {
    let mut kept = Vec::new();
    let rotated = rotated(log)?;
    for path in &rotated {
        let name = path.to_string_lossy();
        let done = with_suffix(path, COMPRESSED);
        if name.ends_with(UNFINISHED) || rotated.contains(&done) {
            fs::remove_file(path)?;
        } else {
            kept.push(path);
        }
    }
    let excess = kept.len().saturating_sub(files_max.saturating_sub(2));
    for (index, path) in kept.into_iter().enumerate() {
        if index < excess {
            fs::remove_file(path)?;
        } else if !path.to_string_lossy().ends_with(COMPRESSED) {
            compress(path)?;
        }
    }
    Ok(())
}

/// Gives the log the name of a rotated one.
pub fn move_away(log: &Path, now: Timestamp) -> io::Result<PathBuf> {
    let target = with_suffix(log, &format!(".{}", now.strftime(TIME_FORMAT)));
    fs::rename(log, &target)?;
    Ok(target)
}

/// Removes a container's log with all that was rotated away from it.
pub fn remove(log: &Path) -> io::Result<()> {
    for path in rotated(log)?.iter().map(PathBuf::as_path).chain([log]) {
        match fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// The rotated files of a log, the oldest first.
fn rotated(log: &Path) -> io::Result<Vec<PathBuf>> {
    let (Some(dir), Some(name)) = (log.parent(), log.file_name()) else { return Ok(Vec::new()) };
    let prefix = format!("{}.", name.to_string_lossy());
    let mut found = Vec::new();
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Replaces a file by its compressed form; one that is broken off leaves the file as it was.
fn compress(path: &Path) -> io::Result<()> {
    let unfinished = with_suffix(path, UNFINISHED);
    let mut encoder = GzEncoder::new(File::create(&unfinished)?, Compression::default());
    io::copy(&mut File::open(path)?, &mut encoder)?;
    encoder.finish()?.sync_all()?;
    fs::rename(&unfinished, with_suffix(path, COMPRESSED))?;
    fs::remove_file(path)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;

    use super::*;

    /// A folder of its own that goes with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("log-files-{name}-{}", std::process::id()));
            fs::create_dir_all(&dir).expect("makes");
            Folder(dir)
        }

        fn log(&self) -> PathBuf {
            self.0.join("0.log")
        }

        fn write(&self, names: &[&str]) {
            for name in names {
                fs::write(self.0.join(name), name).expect("writes");
            }
        }

        fn names(&self) -> Vec<String> {
            let entries = fs::read_dir(&self.0).expect("lists");
            let name = |entry: io::Result<fs::DirEntry>| {
                entry.expect("reads").file_name().into_string().expect("text")
            };
            let mut names: Vec<String> = entries.map(name).collect();
            names.sort();
            names
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("removes");
        }
    }

    #[test]
    fn the_oldest_go_and_the_rest_is_compressed() {
        let folder = Folder::new("oldest");
        folder.write(&["0.log", "0.log.1.gz", "0.log.2.gz", "0.log.3.gz", "0.log.4", "1.log", "10.log"]);
        make_room(&folder.log(), 5).expect("makes room");
        assert_eq!(folder.names(), ["0.log", "0.log.2.gz", "0.log.3.gz", "0.log.4.gz", "1.log", "10.log"]);
        let mut text = String::new();
        let packed = File::open(folder.0.join("0.log.4.gz")).expect("opens");
        GzDecoder::new(packed).read_to_string(&mut text).expect("reads");
        assert_eq!(text, "0.log.4");
    }

    #[test]
    fn what_a_broken_off_compression_left_is_cleaned_up() {
        let folder = Folder::new("broken-off");
        folder.write(&["0.log", "0.log.1", "0.log.1.gz", "0.log.2", "0.log.2.tmp"]);
        make_room(&folder.log(), 5).expect("makes room");
        assert_eq!(folder.names(), ["0.log", "0.log.1.gz", "0.log.2.gz"]);
    }

    #[test]
    fn two_files_are_the_written_one_and_the_one_before_it() {
        let folder = Folder::new("two");
        folder.write(&["0.log", "0.log.1"]);
        make_room(&folder.log(), 2).expect("makes room");
        move_away(&folder.log(), Timestamp::UNIX_EPOCH).expect("moves");
        assert_eq!(folder.names(), ["0.log.19700101-000000"]);
    }

    #[test]
    fn a_removed_log_leaves_nothing() {
        let folder = Folder::new("removed");
        folder.write(&["0.log", "0.log.1.gz", "0.log.2", "1.log"]);
        remove(&folder.log()).expect("removes");
        remove(&folder.log()).expect("again");
        assert_eq!(folder.names(), ["1.log"]);
    }
}
