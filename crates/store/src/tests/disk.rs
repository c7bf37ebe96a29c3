//! A disk in memory that can fill up, fail, stall, and lose what was not flushed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex};

use crate::disk::{Disk, File};

/// The unit in which unflushed bytes reach the disk or not, when power is lost.
const SECTOR_BYTES: usize = 64;

#[derive(Clone, Debug, Default)]
pub(super) struct TestDisk {
    inner: Arc<(Mutex<Inner>, Condvar)>,
}

#[derive(Debug, Default)]
struct Inner {
    files: Vec<Contents>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    room: Option<usize>,
    /// How many flushes of files fail from now on.
    failing_syncs: usize,
    hold_sync: bool,
    syncs: usize,
}

#[derive(Clone, Debug, Default)]
struct Contents {
    written: Vec<u8>,
    durable: Vec<u8>,
    /// Sectors whose flush failed. As on Linux, no later flush tries again, until they are written anew.
    given_up: BTreeSet<usize>,
}

impl Contents {
    fn write(&mut self, bytes: &[u8], from: usize) {
        let to = from + bytes.len();
        self.written.resize(self.written.len().max(to), 0);
        self.written[from..to].copy_from_slice(bytes);
        self.given_up.retain(|sector| !(from / SECTOR_BYTES..to.div_ceil(SECTOR_BYTES)).contains(sector));
    }

    fn truncate(&mut self, size: usize) {
        self.written.truncate(size);
        self.given_up.retain(|sector| (sector + 1) * SECTOR_BYTES <= size);
    }

    fn flush(&mut self) {
        self.durable.resize(self.written.len(), 0);
        for (sector, bytes) in self.written.chunks(SECTOR_BYTES).enumerate() {
            if !self.given_up.contains(&sector) {
                let from = sector * SECTOR_BYTES;
                self.durable[from..from + bytes.len()].copy_from_slice(bytes);
            }
        }
    }

    fn give_up(&mut self) {
        for (sector, bytes) in self.written.chunks(SECTOR_BYTES).enumerate() {
            let from = sector * SECTOR_BYTES;
            if self.durable.get(from..from + bytes.len()) != Some(bytes) {
                self.given_up.insert(sector);
            }
        }
    }
}

impl TestDisk {
    /// At most this many more bytes fit.
    pub(super) fn set_room(&self, room: Option<usize>) {
        self.inner.0.lock().room = room;
    }

    /// Has the next flushes of files fail, this many.
    pub(super) fn fail_syncs(&self, count: usize) {
        self.inner.0.lock().failing_syncs = count;
    }

    /// Makes flushes wait, or lets them go on.
    pub(super) fn hold_sync(&self, hold: bool) {
        self.inner.0.lock().hold_sync = hold;
        self.inner.1.notify_all();
    }

    pub(super) fn syncs(&self) -> usize {
        self.inner.0.lock().syncs
    }

    /// All bytes of all files.
    pub(super) fn bytes(&self) -> u64 {
        let inner = self.inner.0.lock();
        inner.names.values().map(|id| inner.files[*id].written.len() as u64).sum()
    }

    pub(super) fn files(&self) -> Vec<String> {
        self.inner.0.lock().names.keys().cloned().collect()
    }

    pub(super) fn contents(&self) -> Vec<Vec<u8>> {
        let inner = self.inner.0.lock();
        inner.names.values().map(|id| inner.files[*id].written.clone()).collect()
    }

    /// Changes a file behind the store's back.
    pub(super) fn edit(&self, name: &str, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.inner.0.lock();
        let id = inner.names[name];
        edit(&mut inner.files[id].written);
        inner.files[id].durable = inner.files[id].written.clone();
    }

    /// The disk after a loss of power: every unflushed sector arrived or did not, as `seed` says.
    pub(super) fn after_power_loss(&self, seed: u64) -> TestDisk {
        let inner = self.inner.0.lock();
        let mut random = seed | 1;
        let mut coin = || {
            random = random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            random >> 63 == 0
        };
        let mut survive = |contents: &Contents| {
            let mut after = contents.durable.clone();
            for (n, sector) in contents.written.chunks(SECTOR_BYTES).enumerate() {
                let at = n * SECTOR_BYTES;
                if after.get(at..at + sector.len()) != Some(sector) && coin() {
                    after.resize(after.len().max(at + sector.len()), 0);
                    after[at..at + sector.len()].copy_from_slice(sector);
                }
            }
            Contents { written: after.clone(), durable: after, ..Contents::default() }
        };
        let files = inner.files.iter().map(&mut survive).collect();
        let names = inner.durable_names.clone();
        let after = Inner { files, names: names.clone(), durable_names: names, ..Inner::default() };
        TestDisk { inner: Arc::new((Mutex::new(after), Condvar::new())) }
    }

    fn handle(&self, id: usize) -> Box<dyn File> {
        Box::new(Handle { disk: self.clone(), id })
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Disk for TestDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn File>> {
        let mut inner = self.inner.0.lock();
        inner.files.push(Contents::default());
        let id = inner.files.len() - 1;
        inner.names.insert(name.to_owned(), id);
        drop(inner);
        Ok(self.handle(id))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn File>> {
        let id = self.inner.0.lock().names.get(name).copied().ok_or_else(missing)?;
        Ok(self.handle(id))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.inner.0.lock();
        let id = inner.names.remove(from).ok_or_else(missing)?;
        inner.names.insert(to.to_owned(), id);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.0.lock().names.remove(name).map(drop).ok_or_else(missing)
    }

    fn sync(&self) -> io::Result<()> {
        let mut inner = self.inner.0.lock();
        inner.durable_names = inner.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct Handle {
    disk: TestDisk,
    id: usize,
}

impl File for Handle {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.inner.0.lock().files[self.id].written.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let inner = self.disk.inner.0.lock();
        let from = offset as usize;
        let bytes = inner.files[self.id].written.get(from..from + buffer.len());
        buffer.copy_from_slice(bytes.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_all_at(&mut self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let mut inner = self.disk.inner.0.lock();
        let fits = inner.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        inner.room = inner.room.map(|room| room - fits);
        inner.files[self.id].write(&bytes[..fits], offset as usize);
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&mut self, size: u64) -> io::Result<()> {
        self.disk.inner.0.lock().files[self.id].truncate(size as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let (lock, released) = &*self.disk.inner;
        let mut inner = lock.lock();
        while inner.hold_sync {
            released.wait(&mut inner);
        }
        if inner.failing_syncs > 0 {
            inner.failing_syncs -= 1;
            inner.files[self.id].give_up();
            return Err(io::Error::other("the medium failed"));
        }
        inner.syncs += 1;
        inner.files[self.id].flush();
        Ok(())
    }
}
