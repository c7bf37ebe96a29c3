//! Wakes when something happens to files or folders.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;

pub use nix::sys::inotify::{AddWatchFlags, WatchDescriptor};
use nix::sys::inotify::{InitFlags, Inotify};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub struct Changes {
    inotify: AsyncFd<Descriptor>,
}

/// nix's own type does not tell its number.
struct Descriptor(Inotify);

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl Changes {
    /// Of nothing yet.
    pub fn new() -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        // SAFETY: the descriptor owns what it tells the number of until it is dropped, which AsyncFd does after deregistering.
        let inotify = unsafe { AsyncFd::register_with_interest(Descriptor(inotify), Interest::READABLE) }?;
        Ok(Changes { inotify })
    }

    pub fn of(path: &Path, wanted: AddWatchFlags) -> io::Result<Self> {
        let changes = Self::new()?;
        changes.watch(path, wanted)?;
        Ok(changes)
    }

    pub fn watch(&self, path: &Path, wanted: AddWatchFlags) -> io::Result<WatchDescriptor> {
        Ok(self.inotify.get_ref().0.add_watch(path, wanted)?)
    }

    /// Forgets what is watched no more; the kernel may have done so before.
    pub fn forget(&self, watch: WatchDescriptor) {
        if let Err(error) = self.inotify.get_ref().0.rm_watch(watch) {
            tracing::trace!(%error, "watch was gone already");
        }
    }

    pub async fn wait(&mut self) -> io::Result<()> {
        self.next().await.map(drop)
    }

    /// Which of the watched something happened to.
    pub async fn next(&mut self) -> io::Result<Vec<WatchDescriptor>> {
        loop {
            let mut guard = self.inotify.readable().await?;
            let read = guard.try_io(|descriptor| Ok(descriptor.get_ref().0.read_events()?));
            if let Ok(events) = read {
                return Ok(events?.into_iter().map(|event| event.wd).collect());
            }
        }
    }
}
