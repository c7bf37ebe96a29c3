//! The seam between the log and the operating system, so that tests can tear writes, fill disks and lose power.

use std::fmt::Debug;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::log::OpenError;

const LOCK_FILE: &str = "lock";

/// How long a lock may outlive whoever named themselves in it. A process that forks hands all its files on, locks with
/// them, until the child becomes another program: 27 ms were seen on a busy machine.
const LINGER_MAX: Duration = Duration::from_secs(1);
const LINGER_STEP: Duration = Duration::from_millis(5);

/// A holder is told by its process ID.
const HOLDER: &str = "process ";

/// The longest description of a lock's holder that is read back.
const HOLDER_BYTES_MAX: u64 = 256;

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// A flat directory of files. A new, renamed or removed name is durable after `sync`.
pub trait Disk: Debug + Send + Sync {
    fn list(&self) -> io::Result<Vec<String>>;
    /// A new empty file, in the place of any other of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn File>>;
    fn open(&self, name: &str) -> io::Result<Box<dyn File>>;
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    fn remove(&self, name: &str) -> io::Result<()>;
    fn sync(&self) -> io::Result<()>;
}

/// A file whose contents are durable after `sync`.
pub trait File: Debug + Send {
    fn size(&self) -> io::Result<u64>;
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()>;
    fn truncate(&mut self, size: u64) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the file system, locked against other processes for as long as this lives.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    /// The operating system releases the lock with the file, however the process ends. It holds who has it.
    lock: fs::File,
}

impl Directory {
    /// Makes the directory when missing, and locks it.
    pub fn open(path: &Path) -> Result<Directory, OpenError> {
        let at = |what| move |source| OpenError::Io { what, source };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(DIR_MODE).create(path).map_err(at("make the directory"))?;
        let lock = options().create(true).truncate(false).open(path.join(LOCK_FILE));
        let mut lock = lock.map_err(at("open the lock file"))?;
        let begin = Instant::now();
        take(path, &mut lock, || {
            sleep(LINGER_STEP);
            begin.elapsed() < LINGER_MAX
        })?;
        let named = lock.set_len(0).and_then(|()| write!(lock, "{HOLDER}{}", std::process::id()));
        named.map_err(at("write the lock file"))?;
        Ok(Directory { path: path.to_owned(), lock })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Err(error) = self.lock.set_len(0) {
            tracing::warn!(%error, "cannot clear the lock file");
        }
    }
}

/// Locks the file, unless somebody else lives who has it. `pause` tells whether to wait longer for who does not.
fn take(path: &Path, lock: &mut fs::File, mut pause: impl FnMut() -> bool) -> Result<(), OpenError> {
    let at = |what| move |source| OpenError::Io { what, source };
    loop {
        match lock.try_lock() {
            Ok(()) => break lock.rewind().map_err(at("read the lock file")),
            Err(fs::TryLockError::Error(source)) => return Err(at("lock the directory")(source)),
            Err(fs::TryLockError::WouldBlock) => {}
        }
        let holder = holder(lock).map_err(at("read the lock file"))?;
        if lives(&holder) || !pause() {
            return Err(OpenError::Locked { dir: path.to_owned(), holder });
        }
    }
}

fn holder(lock: &mut fs::File) -> io::Result<String> {
    let mut holder = String::new();
    lock.rewind()?;
    lock.take(HOLDER_BYTES_MAX).read_to_string(&mut holder)?;
    Ok(if holder.is_empty() { "another process".to_owned() } else { holder })
}

fn lives(holder: &str) -> bool {
    holder.strip_prefix(HOLDER).is_some_and(|id| Path::new("/proc").join(id).exists())
}

fn options() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).mode(FILE_MODE);
    options
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.path)?.map(|entry| entry.map(|entry| entry.file_name()));
        names.map(|name| name.map(|name| name.to_string_lossy().into_owned())).collect()
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(options().create(true).truncate(true).open(self.path.join(name))?))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        Ok(Box::new(options().open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.path)?.sync_all()
    }
}

impl File for fs::File {
    fn size(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        FileExt::read_exact_at(self, buffer, offset)
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_that_outlives_its_holder_is_waited_for() {
        let dir = std::env::temp_dir().join(format!("cox-store-linger-{}", std::process::id()));
        drop(Directory::open(&dir).expect("is free"));
        let open = || options().open(dir.join(LOCK_FILE)).expect("opens");
        // As a child has it that is about to become another program.
        let child = open();
        child.lock().expect("is free");
        let (mut lock, mut child) = (open(), Some(child));
        let refused = take(&dir, &mut lock, || false);
        let mut pauses = 0;
        let taken = take(&dir, &mut lock, || {
            drop(child.take());
            pauses += 1;
            true
        });
        assert!(
            matches!(&refused, Err(OpenError::Locked { holder, .. }) if holder == "another process"),
            "{refused:?}"
        );
        assert!(taken.is_ok() && pauses == 1, "{taken:?} after {pauses} pauses");
        fs::remove_dir_all(&dir).expect("is there");
    }
}
