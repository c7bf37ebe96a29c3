//! Only one process runs a cluster: a lock that the kernel releases when its holder dies, however it dies.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds it.
    #[error("the cluster is already running (process {pid})")]
    Held { pid: u32 },
    #[error("lock file {0}: {1}")]
    Io(String, io::Error),
}

/// Held as long as it lives.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    pub fn take(path: &Path) -> Result<Lock, Error> {
        let failed = |e| Error::Io(path.display().to_string(), e);
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir).map_err(failed)?;
        }
        let mut file =
            File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(failed)?;
        match file.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => return Err(Error::Held { pid: read_pid(&mut file) }),
            Err(std::fs::TryLockError::Error(error)) => return Err(failed(error)),
            Ok(()) => {}
        }
        file.set_len(0).map_err(failed)?;
        write!(file, "{}", std::process::id()).map_err(failed)?;
        file.sync_data().map_err(failed)?;
        Ok(Lock { _file: file })
    }

    /// The process that holds the lock, if any does.
    pub fn holder(path: &Path) -> Option<u32> {
        let mut file = File::options().read(true).write(true).open(path).ok()?;
        match file.try_lock() {
            Err(std::fs::TryLockError::WouldBlock) => Some(read_pid(&mut file)),
            _ => None,
        }
    }
}

/// Zero when the holder has not written it yet.
fn read_pid(file: &mut File) -> u32 {
    let mut text = String::new();
    let read = file.rewind().and_then(|()| file.read_to_string(&mut text));
    read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let path = std::env::temp_dir().join(format!("cluster-lock-{}", std::process::id()));
        let lock = Lock::take(&path).expect("free");
        assert_eq!(Lock::holder(&path), Some(std::process::id()));
        assert!(matches!(Lock::take(&path), Err(Error::Held { pid }) if pid == std::process::id()));
        drop(lock);
        assert_eq!(Lock::holder(&path), None);
        drop(Lock::take(&path).expect("free again"));
        std::fs::remove_file(path).expect("removable");
    }
}
