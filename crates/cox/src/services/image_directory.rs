//! Images that lie as archives in a folder of the node: imported when the node starts, and when a file is put there.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use client::CancellationToken;
use kubelet::inotify::{AddWatchFlags, Changes};
use runtime::Runtime;
use runtime::images::{Store, import_changed};

/// A file that is whole: written to its end, or moved here.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE.union(AddWatchFlags::IN_MOVED_TO);

/// Follows the folder until `stop`.
pub async fn run(runtime: Arc<Runtime>, dir: PathBuf, stop: CancellationToken) -> anyhow::Result<()> {
    let watching = || format!("cannot watch {}", dir.display());
    std::fs::create_dir_all(&dir).with_context(watching)?;
    let mut changes = Changes::of(&dir, CHANGES).with_context(watching)?;
    loop {
        let (store, folder) = (runtime.images().clone(), dir.clone());
        tokio::task::spawn_blocking(move || take_in(&store, &folder)).await?;
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = changes.wait() => changed.with_context(watching)?,
        }
    }
}

/// What cannot be imported is told and left: the node is useful without it.
fn take_in(store: &Store, dir: &Path) {
    let imported = match import_changed(store, dir) {
        Ok(imported) => imported,
        Err(error) => {
            tracing::warn!(dir = %dir.display(), %error, "images were not imported");
            return;
        }
    };
    for one in imported {
        let archive = one.archive.display();
        match one.result {
            Ok(images) => {
                let names: Vec<&str> =
                    images.iter().map(|image| image.name.as_deref().unwrap_or(&image.id)).collect();
                tracing::info!(%archive, images = names.join(" "), "images imported");
            }
            Err(error) => tracing::warn!(%archive, %error, "archive was not imported"),
        }
    }
}
