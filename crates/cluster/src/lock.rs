//! Only one process runs a cluster: a lock that the kernel releases when its holder dies, however it dies.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::path::Path;

use crate::layout::Layout;

/// Locks of whole machines. cgroups and rules are called after their cluster, whatever folders it has, so one node of a
/// name is all that a machine can run.
const OF_MACHINE: &str = "/run/lock/coxswain";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process holds it.
    #[error("the cluster is already running (process {pid})")]
    Held { pid: u32 },
    /// A node of the same name has other folders.
    #[error(
        "process {pid} runs a node of cluster {name:?} with other folders; choose another --name, or stop it with its own flags"
    )]
    NameTaken { name: String, pid: u32 },
    #[error("lock file {0}: {1}")]
    Io(String, io::Error),
}

/// The locks of what runs pods: of its folders, and of its name on the whole machine.
pub fn of_node(layout: &Layout) -> Result<Vec<Lock>, Error> {
    of_node_below(Path::new(OF_MACHINE), layout)
}

/// The lock of what runs none.
pub fn of_control_plane(layout: &Layout) -> Result<Vec<Lock>, Error> {
    Ok(vec![Lock::take(&layout.lock())?])
}

fn of_node_below(of_machine: &Path, layout: &Layout) -> Result<Vec<Lock>, Error> {
    let folders = Lock::take(&layout.lock())?;
    let name = Lock::take(&of_machine.join(layout.name())).map_err(|error| match error {
        Error::Held { pid } => Error::NameTaken { name: layout.name().to_owned(), pid },
        error => error,
    })?;
    Ok(vec![folders, name])
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
    use crate::layout::Roots;

    #[test]
    fn a_machine_runs_one_node_of_a_name_whatever_its_folders() {
        let root = std::env::temp_dir().join(format!("cluster-node-lock-{}", std::process::id()));
        let layout = |folder: &str, name: &str| {
            let dir = |kind: &str| root.join(folder).join(kind);
            let roots = Roots { data: dir("data"), config: dir("config"), run: dir("run") };
            Layout::new(name, roots).expect("a name")
        };
        let take = |folder: &str, name: &str| of_node_below(&root, &layout(folder, name));
        let first = take("a", "one").expect("free");
        assert!(matches!(take("a", "one"), Err(Error::Held { .. })));
        assert!(matches!(take("b", "one"), Err(Error::NameTaken { name, .. }) if name == "one"));
        drop(take("b", "two").expect("another name"));
        drop(first);
        drop(take("b", "one").expect("free again"));
        std::fs::remove_dir_all(root).expect("removable");
    }

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
