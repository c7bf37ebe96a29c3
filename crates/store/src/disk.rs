//! The seam between the log and the operating system, so that tests can tear writes, fill disks and lose power.

use std::fmt::Debug;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::log::OpenError;

const LOCK_FILE: &str = "lock";

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
    /// The operating system releases the lock with the file, however the process ends.
    _lock: fs::File,
}

impl Directory {
    /// Makes the directory when missing, and locks it.
    pub fn open(path: &Path) -> Result<Directory, OpenError> {
        let at = |what| move |source| OpenError::Io { what, source };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(DIR_MODE).create(path).map_err(at("make the directory"))?;
        let lock = options().create(true).truncate(false).open(path.join(LOCK_FILE));
        let mut lock = lock.map_err(at("open the lock file"))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(locked(path, lock)),
            Err(fs::TryLockError::Error(source)) => return Err(at("lock the directory")(source)),
        }
        let named = lock.set_len(0).and_then(|()| write!(lock, "process {}", std::process::id()));
        named.map_err(at("write the lock file"))?;
        Ok(Directory { path: path.to_owned(), _lock: lock })
    }
}

fn locked(path: &Path, mut lock: fs::File) -> OpenError {
    let mut holder = String::new();
    let read = lock.rewind().and_then(|()| lock.take(HOLDER_BYTES_MAX).read_to_string(&mut holder));
    if read.is_err() || holder.is_empty() {
        "another process".clone_into(&mut holder);
    }
    OpenError::Locked { dir: path.to_owned(), holder }
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
