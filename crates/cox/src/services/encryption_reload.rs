//! Follows the file that says what is encrypted on disk: takes in what it says now, and has the disk written anew.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use apiserver::encryption::Encryption;
use client::CancellationToken;
use kubelet::inotify::Changes;
use nix::sys::inotify::AddWatchFlags;
use store::Store;

/// What may be a new file: one that was written, or moved there; a mounted one is a link that is replaced.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_CLOSE_WRITE.union(AddWatchFlags::IN_MOVED_TO);

pub async fn run(encryption: Arc<Encryption>, store: Store, stop: CancellationToken) -> anyhow::Result<()> {
    let folder = encryption.path().parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let watching = || format!("cannot watch {}", folder.display());
    let mut changes = Changes::of(folder, CHANGES).with_context(watching)?;
    // It may have changed before it was watched.
    take_in(&encryption, &store).await;
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            changed = changes.wait() => changed.with_context(watching)?,
        }
        take_in(&encryption, &store).await;
    }
}

async fn take_in(encryption: &Arc<Encryption>, store: &Store) {
    // Plugins that it names are asked how they are.
    let reloading = encryption.clone();
    let reloaded = tokio::task::spawn_blocking(move || reloading.reload()).await;
    match reloaded.expect("reading a configuration does not panic") {
        Ok(true) => {
            tracing::info!("the encryption configuration has changed, what is on disk is written anew");
            store.rewrite();
        }
        Ok(false) => {}
        Err(error) => {
            tracing::error!(%error, "the encryption configuration cannot be used, it stays as it was")
        }
    }
}
