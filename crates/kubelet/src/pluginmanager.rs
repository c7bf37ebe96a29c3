//! Finds the plugins of this node by their sockets in the plugin registry, and gives each to who deals with its kind
//! (follows upstream's `pkg/kubelet/pluginmanager`).
//!
//! Each socket has a task of its own, so that a plugin that does not answer keeps no other waiting.

mod registration;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use csi::pluginregistration::PluginInfo;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::Channel;
use tonic::{Response, Status, async_trait};

use crate::inotify::{AddWatchFlags, Changes, WatchDescriptor};

/// Between attempts to watch the folder.
const RETRY: Duration = Duration::from_secs(2);

/// Deals with the plugins of one kind.
#[async_trait]
pub trait PluginHandler: Send + Sync {
    /// What they call themselves.
    fn kind(&self) -> &'static str;

    /// Whether this kubelet can speak with the plugin that answers at `endpoint`.
    fn validate(&self, info: &PluginInfo, endpoint: &Path) -> Result<(), String>;

    /// A valid plugin has come, or come back.
    async fn register(&self, info: &PluginInfo, endpoint: &Path) -> Result<(), String>;

    /// Its socket in the registry is gone.
    async fn deregister(&self, name: &str, endpoint: &Path);
}

type Handlers = Arc<[Arc<dyn PluginHandler>]>;

/// Follows the registry for ever.
pub struct Registry {
    handlers: Handlers,
    dir: PathBuf,
    /// By the path of the socket.
    attended: BTreeMap<PathBuf, Attended>,
    /// What is not done yet with sockets that are gone, by their path.
    leaving: BTreeMap<PathBuf, JoinHandle<()>>,
}

/// A socket that somebody attends to.
struct Attended {
    /// Which of the sockets that have had the path.
    inode: u64,
    /// Says that it is gone; closed when the kubelet ends, which plugins are not told of.
    gone: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Registry {
    /// Of sockets in `plugins_registry` of the kubelet's folder.
    pub fn new(root: &Path, handlers: Vec<Arc<dyn PluginHandler>>) -> Self {
        Registry {
            handlers: handlers.into(),
            dir: root.join(csi::REGISTRY_DIR),
            attended: BTreeMap::new(),
            leaving: BTreeMap::new(),
        }
    }

    pub async fn run(mut self) {
        loop {
            if let Err(error) = self.follow().await {
                let dir = self.dir.display();
                tracing::warn!(%dir, %error, "plugin registry cannot be watched, will retry");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn follow(&mut self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut changes = Changes::new()?;
        let mut watched = BTreeSet::new();
        loop {
            let found = Found::below(&self.dir, &changes)?;
            for left in watched.difference(&found.folders) {
                changes.forget(*left);
            }
            watched = found.folders;
            self.compare(found.sockets);
            changes.wait().await?;
        }
    }

    /// Attends to what is new and lets go of what is gone.
    fn compare(&mut self, found: BTreeMap<PathBuf, u64>) {
        self.leaving.retain(|_, task| !task.is_finished());
        let gone = self.attended.extract_if(.., |path, attended| found.get(path) != Some(&attended.inode));
        for (path, attended) in gone {
            // It has none to tell when its task has panicked.
            attended.gone.send(()).ok();
            self.leaving.insert(path, attended.task);
        }
        for (path, inode) in found {
            if self.attended.contains_key(&path) {
                continue;
            }
            let (gone, is_gone) = oneshot::channel();
            let before = self.leaving.remove(&path);
            let attend = attend(self.handlers.clone(), path.clone(), before, is_gone);
            self.attended.insert(path, Attended { inode, gone, task: tokio::spawn(attend) });
        }
    }
}

/// From when a socket is found, and who had its path `before` is done with, until it `is_gone`.
async fn attend(
    handlers: Handlers,
    socket: PathBuf,
    before: Option<JoinHandle<()>>,
    mut is_gone: oneshot::Receiver<()>,
) {
    if let Some(before) = before {
        // One that panicked is done too.
        drop(before.await);
    }
    let mut back_off = registration::BackOff::default();
    let registered = loop {
        match registration::register(&handlers, &socket).await {
            Ok(registered) => break registered,
            Err(error) => {
                let pause = back_off.next();
                let socket = socket.display();
                tracing::warn!(%socket, %error, ?pause, "plugin not registered, will retry");
                // Also when the kubelet ends.
                if tokio::time::timeout(pause, &mut is_gone).await.is_ok() {
                    return;
                }
            }
        }
    };
    if is_gone.await.is_ok() {
        registered.handler.deregister(&registered.name, &registered.endpoint).await;
    }
}

/// One call to a plugin. Each makes a connection: a plugin that was replaced is found behind the same path.
pub async fn call<A, F>(socket: &Path, timeout: Duration, ask: impl FnOnce(Channel) -> F) -> Result<A, Status>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    let answer = async { ask(csi::connect(socket).await?).await };
    let answer = tokio::time::timeout(timeout, answer).await;
    let answer = answer.unwrap_or_else(|_| Err(Status::deadline_exceeded("context deadline exceeded")));
    answer.map(Response::into_inner)
}

/// What is in the registry, at any depth.
#[derive(Default)]
struct Found {
    /// Which of the sockets that have had its path each is.
    sockets: BTreeMap<PathBuf, u64>,
    /// The watches of its folders.
    folders: BTreeSet<WatchDescriptor>,
}

impl Found {
    /// Each folder is watched before it is read, so that nothing comes between unseen.
    fn below(dir: &Path, changes: &Changes) -> io::Result<Found> {
        let mut found = Found::default();
        let mut folders = found.read(dir, changes)?;
        while let Some(folder) = folders.pop() {
            match found.read(&folder, changes) {
                Ok(further) => folders.extend(further),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error, "folder of the plugin registry is left out");
                }
            }
        }
        Ok(found)
    }

    /// Notes the sockets of a folder, and returns the folders in it. As upstream, what begins with a dot is no plugin's.
    fn read(&mut self, dir: &Path, changes: &Changes) -> io::Result<Vec<PathBuf>> {
        let wanted = AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVE;
        self.folders.insert(changes.watch(dir, wanted)?);
        let mut folders = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let path = entry.path();
            // It may be gone already.
            let (Ok(kind), Ok(metadata)) = (entry.file_type(), fs::metadata(&path)) else { continue };
            if is_hidden(&entry.file_name()) {
                continue;
            }
            if kind.is_dir() {
                folders.push(path);
            } else if metadata.file_type().is_socket() {
                self.sockets.insert(path, metadata.ino());
            }
        }
        Ok(folders)
    }
}

fn is_hidden(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b".")
}
