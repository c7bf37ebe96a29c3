//! What folders take on disk. Nothing tells but a walk through them, so an answer is kept for a while: the longer, the
//! longer the walk was.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Bytes of a block as `st_blocks` counts them.
const BLOCK_BYTES: u64 = 512;
/// An answer is kept at least so long (containerd's `stats_collect_period`).
const KEEP_MIN: Duration = Duration::from_secs(10);
/// And at least so many times as long as the walk took: walking takes a hundredth of a processor at most.
const KEEP_FACTOR: u32 = 100;
/// Folders remembered at most; then those whose time is over are forgotten.
const TREES_MAX: usize = 2048;

/// Bytes on disk, and inodes.
type Usage = (u64, u64);

#[derive(Default)]
pub(crate) struct Trees {
    /// With the time until when each answer is good.
    known: Mutex<HashMap<PathBuf, (Usage, Instant)>>,
}

impl Trees {
    /// What a folder takes, as of now or of a while ago.
    pub(crate) fn usage(&self, path: &Path) -> Usage {
        let started = Instant::now();
        if let Some((usage, until)) = self.known.lock().get(path)
            && *until > started
        {
            return *usage;
        }
        let usage = walk(path);
        let now = Instant::now();
        let until = now + KEEP_MIN.max(now.duration_since(started) * KEEP_FACTOR);
        let mut known = self.known.lock();
        if known.len() >= TREES_MAX {
            known.retain(|_, (_, until)| *until > now);
        }
        known.insert(path.to_owned(), (usage, until));
        usage
    }
}

/// What disappears meanwhile is not counted. Containers choose how deep their trees are, so this keeps its own stack.
fn walk(path: &Path) -> Usage {
    let (mut bytes, mut inodes) = (0, 0);
    let mut left = vec![path.to_owned()];
    while let Some(path) = left.pop() {
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        bytes += metadata.blocks() * BLOCK_BYTES;
        inodes += 1;
        if metadata.is_dir() {
            left.extend(fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        }
    }
    (bytes, inodes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_kept_for_a_while() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join("file"), vec![1; 8192]).expect("writes");
        let trees = Trees::default();
        let (bytes, inodes) = trees.usage(dir.path());
        assert!(bytes >= 8192);
        assert_eq!(inodes, 2);
        fs::write(dir.path().join("another"), "").expect("writes");
        assert_eq!(trees.usage(dir.path()), (bytes, inodes));
        assert_eq!(Trees::default().usage(dir.path()).1, 3);
    }

    #[test]
    fn what_is_not_there_takes_nothing() {
        assert_eq!(Trees::default().usage(Path::new("/nonexistent")), (0, 0));
    }
}
