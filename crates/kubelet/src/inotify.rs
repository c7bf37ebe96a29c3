//! Wakes when something happens to a file or a folder.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::io::unix::AsyncFd;

pub struct Changes {
    inotify: AsyncFd<OwnedFd>,
}

impl Changes {
    pub fn of(path: &Path, wanted: AddWatchFlags) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)?;
        inotify.add_watch(path, wanted)?;
        let descriptor = OwnedFd::from(inotify);
        // SAFETY: an OwnedFd gives the same open descriptor until it is dropped, which AsyncFd does after deregistering.
        let inotify = unsafe { AsyncFd::register(descriptor) }?;
        Ok(Changes { inotify })
    }

    pub async fn wait(&mut self) -> io::Result<()> {
        let mut guard = self.inotify.readable().await?;
        // What happened does not matter, only that it did.
        let mut told = [0; 4096];
        while nix::unistd::read(guard.get_inner(), &mut told).is_ok() {}
        guard.clear_ready();
        Ok(())
    }
}
