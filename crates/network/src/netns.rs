//! Network namespaces. A socket stays in the namespace in which it was opened, so one short visit
//! by a thread of its own is enough to configure another namespace from here.

use std::fs::File;
use std::io;
use std::path::Path;

use nix::sched::{CloneFlags, setns};

use crate::netlink::{Family, Socket};

/// What entering a network namespace can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("open network namespace {path}: {source}")]
    Open { path: String, source: io::Error },
    #[error("enter network namespace {path}: {source}")]
    Enter { path: String, source: io::Error },
    #[error(transparent)]
    Socket(#[from] crate::netlink::Error),
}

/// Opens the namespace that a path such as `/proc/PID/ns/net` names.
pub fn open(path: &Path) -> Result<File, Error> {
    File::open(path).map_err(|source| Error::Open { path: path.display().to_string(), source })
}

/// A route socket that acts inside the namespace.
pub fn route_socket(path: &Path) -> Result<Socket, Error> {
    let namespace = open(path)?;
    let entered = |source| Error::Enter { path: path.display().to_string(), source };
    std::thread::scope(|scope| {
        let visit = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, || {
            setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(|errno| entered(errno.into()))?;
            Socket::open(Family::Route).map_err(Error::from)
        });
        visit.map_err(entered)?.join().expect("opening a socket does not panic")
    })
}
