//! The files that describe static pods, read again whenever one of them changes (follows `config/file_linux.go`).

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;

use super::{Described, StaticPod, manifest};
use crate::inotify::{AddWatchFlags, Changes};

/// A longer file is not read to its end (upstream's `maxConfigLength`).
const FILE_BYTES_MAX: u64 = 10 << 20;

/// Reads the files once, and returns what follows them from then on.
pub fn watch_files(
    path: PathBuf,
    node_name: String,
    sender: watch::Sender<Described>,
) -> impl Future<Output = io::Result<()>> {
    let mut reader = Reader { path, node_name, first_seen: BTreeMap::new() };
    reader.tell(&sender);
    async move {
        loop {
            let watched = reader.nearest_folder()?;
            let mut changes = Changes::of(&watched.0, WANTED)?;
            // What happened before the watch stood.
            reader.tell(&sender);
            while reader.nearest_folder()? == watched {
                changes.wait().await?;
                reader.tell(&sender);
            }
        }
    }
}

const WANTED: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

/// Why a file describes no pod.
#[derive(Debug, thiserror::Error)]
enum Unreadable {
    #[error("it is empty")]
    Empty,
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error(transparent)]
    Manifest(#[from] manifest::Error),
}

struct Reader {
    /// A file, or a folder of files.
    path: PathBuf,
    node_name: String,
    /// By uid: a file that is read again describes the same pod.
    first_seen: BTreeMap<String, Timestamp>,
}

impl Reader {
    fn tell(&mut self, sender: &watch::Sender<Described>) {
        let pods = self.read();
        sender.send_if_modified(|known| {
            let changed = known.files != pods;
            known.files = pods;
            changed
        });
    }

    /// The folder, or else whatever is nearest above it, with its inode: a folder made anew is another.
    fn nearest_folder(&self) -> io::Result<(PathBuf, u64)> {
        let nearest = self.path.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/"));
        Ok((nearest.to_owned(), fs::metadata(nearest)?.ino()))
    }

    fn read(&mut self) -> Vec<Arc<StaticPod>> {
        let mut pods: Vec<Arc<StaticPod>> = Vec::new();
        for file in files(&self.path) {
            match self.read_one(&file) {
                // Somebody has just begun to write it.
                Err(Unreadable::Empty) => {}
                // Of two with one name the first counts.
                Ok(pod) if pods.iter().all(|known| known.name() != pod.name()) => pods.push(Arc::new(pod)),
                Ok(pod) => {
                    tracing::error!(file = %file.display(), pod = %pod.name(), "another file describes the same pod")
                }
                Err(error) => tracing::error!(file = %file.display(), %error, "static pod cannot be run"),
            }
        }
        self.first_seen.retain(|uid, _| pods.iter().any(|pod| pod.uid() == uid));
        pods
    }

    fn read_one(&mut self, file: &Path) -> Result<StaticPod, Unreadable> {
        let mut text = Vec::new();
        File::open(file)?.take(FILE_BYTES_MAX).read_to_end(&mut text)?;
        if text.is_empty() {
            return Err(Unreadable::Empty);
        }
        let parse = |now| {
            let origin = manifest::Origin::File(file);
            manifest::parse(&text, manifest::Context { origin, node_name: &self.node_name, now })
        };
        let now = Timestamp::now();
        let pod = parse(now)?;
        match self.first_seen.get(pod.uid()) {
            Some(seen) => Ok(parse(*seen)?),
            None => {
                self.first_seen.insert(pod.uid().to_owned(), now);
                Ok(pod)
            }
        }
    }
}

/// The file itself, or the folder's files in order of their names; hidden ones are somebody's work in progress.
fn files(path: &Path) -> Vec<PathBuf> {
    if path.is_file() {
        return vec![path.to_owned()];
    }
    let entries = match fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) => {
            tracing::debug!(path = %path.display(), %error, "no static pods there");
            return Vec::new();
        }
    };
    let visible = |path: &PathBuf| {
        path.is_file() && path.file_name().is_some_and(|name| !name.to_string_lossy().starts_with('.'))
    };
    let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(visible).collect();
    files.sort();
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_are_read_as_they_come_change_and_go() {
        let root = std::env::temp_dir().join(format!("static-pods-{}", std::process::id()));
        let (dir, file) = (root.join("manifests"), root.join("manifests/a.yaml"));
        fs::create_dir_all(&root).expect("makes");
        let (sender, mut described) = watch::channel(Described::default());
        let follow = tokio::spawn(watch_files(dir.clone(), "n".to_owned(), sender));
        assert!(described.borrow().pods().is_empty());
        let write = |image: &str| {
            let text = format!(
                "{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {{containers: [{{name: a, image: {image}}}]}}}}"
            );
            // As an editor does it.
            fs::write(dir.join(".a.yaml.new"), text).expect("writes");
            fs::rename(dir.join(".a.yaml.new"), &file).expect("moves");
        };
        fs::create_dir(&dir).expect("makes");
        write("b");
        described.wait_for(|now| now.files.len() == 1).await.expect("follows");
        let first = described.borrow().files[0].uid().to_owned();
        write("c");
        described.wait_for(|now| now.files.len() == 1 && now.files[0].uid() != first).await.expect("follows");
        fs::remove_dir_all(&dir).expect("removes");
        described.wait_for(|now| now.files.is_empty()).await.expect("follows");
        fs::create_dir(&dir).expect("makes");
        write("b");
        described.wait_for(|now| now.files.len() == 1 && now.files[0].uid() == first).await.expect("follows");
        follow.abort();
        fs::remove_dir_all(root).expect("removes");
    }
}
