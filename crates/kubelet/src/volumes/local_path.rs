//! Directories of this node that the built-in provisioner gave out as volumes: made when first mounted, and removed
//! with their data when the volume is deleted.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use api::resource::PERSISTENT_VOLUMES;
use api::storage::localpath::{FINALIZER, NODE_LABEL, PROVISIONER};
use api::view::core::PersistentVolume;
use api::view::core::persistentvolume::PROVISIONED_BY;
use apimachinery::json;
use apimachinery::meta::StringMap;
use client::{Client, Delta, Informer, PatchType};

/// Between attempts to remove a volume.
const RETRY: Duration = Duration::from_secs(10);
/// Any user of a pod may write, as the volume belongs to one claim.
const MODE: u32 = 0o777;

/// Where the volume's data is below `root`, if the provisioner made it there.
fn place(root: &Path, volume: &PersistentVolume) -> Option<PathBuf> {
    let place = root.join(&volume.metadata.name);
    let is_ours = volume.metadata.annotations.get(PROVISIONED_BY).is_some_and(|by| by == PROVISIONER);
    let is_there = volume.spec.local.as_ref().is_some_and(|local| Path::new(&local.path) == place);
    (is_ours && is_there).then_some(place)
}

/// Makes the volume's directory, unless it is there or somebody else's.
pub fn make(root: &Path, volume: &PersistentVolume) -> io::Result<()> {
    let Some(place) = place(root, volume) else { return Ok(()) };
    if place.exists() {
        return Ok(());
    }
    fs::create_dir_all(&place)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(MODE))
}

/// Removes what is deleted, until the informer ends.
pub async fn reclaim(client: Client, volumes: Informer<PersistentVolume>, root: PathBuf, node_name: String) {
    let here = StringMap::from([(NODE_LABEL.to_owned(), node_name)]);
    let mut changes = volumes.subscribe();
    drop(volumes);
    while let Some(delta) = changes.recv().await {
        let volume = delta.object();
        if matches!(delta, Delta::Deleted(_)) || !is_let_go(volume) || !volume.allows_node(&here) {
            continue;
        }
        if let Some(place) = place(&root, volume) {
            tokio::spawn(remove(client.clone(), volume.as_ref().clone(), place));
        }
    }
}

/// Whether only this node's work keeps the volume.
fn is_let_go(volume: &PersistentVolume) -> bool {
    volume.metadata.is_being_deleted() && volume.metadata.finalizers == [FINALIZER]
}

/// Removes the data, unless it is to be retained, and lets the object go.
async fn remove(client: Client, volume: PersistentVolume, place: PathBuf) {
    let name = &volume.metadata.name;
    let is_retained = volume.spec.persistent_volume_reclaim_policy == "Retain";
    loop {
        let removed = if is_retained { Ok(()) } else { remove_data(place.clone()).await };
        let outcome = match removed {
            Ok(()) => let_go(&client, &volume).await.map_err(|error| error.to_string()),
            Err(error) => Err(error.to_string()),
        };
        match outcome {
            Ok(()) => return,
            Err(error) => tracing::warn!(volume = name, error, "volume not removed, will retry"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn remove_data(place: PathBuf) -> io::Result<()> {
    let removal = tokio::task::spawn_blocking(move || match fs::remove_dir_all(place) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    });
    removal.await.map_err(io::Error::other)?
}

/// What changed meanwhile is heard of again.
async fn let_go(client: &Client, volume: &PersistentVolume) -> client::error::Result<()> {
    let metadata = &volume.metadata;
    let patch = json!({"metadata": {
        "uid": metadata.uid, "resourceVersion": metadata.resource_version, "finalizers": [],
    }});
    match client.patch(PERSISTENT_VOLUMES, "", &metadata.name, None, PatchType::Merge, &patch).await {
        Err(error) if !error.is_not_found() && !error.is_conflict() => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(name: &str, path: &Path, by: &str) -> PersistentVolume {
        apimachinery::from_value(json!({
            "metadata": {"name": name, "annotations": {PROVISIONED_BY: by}},
            "spec": {"local": {"path": path}},
        }))
        .expect("a volume")
    }

    #[tokio::test]
    async fn a_directory_of_the_provisioner_is_made_for_all_users_and_removed_with_its_data() {
        let root = std::env::temp_dir().join(format!("local-path-{}", std::process::id()));
        let own = volume("v", &root.join("v"), PROVISIONER);
        make(&root, &own).expect("makes");
        let mode = fs::metadata(root.join("v")).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        fs::write(root.join("v/data"), "1").expect("writes");
        make(&root, &own).expect("leaves it");
        assert!(root.join("v/data").exists());
        for _ in 0..2 {
            remove_data(root.join("v")).await.expect("removes");
        }
        assert!(!root.join("v").exists());
        fs::remove_dir_all(root).expect("removes");
    }

    #[test]
    fn directories_elsewhere_and_of_others_are_left_alone() {
        let root = Path::new("/absent-root");
        assert_eq!(place(root, &volume("v", &root.join("v"), PROVISIONER)), Some(root.join("v")));
        assert_eq!(place(root, &volume("v", &root.join("w"), PROVISIONER)), None);
        assert_eq!(place(root, &volume("v", Path::new("/etc"), PROVISIONER)), None);
        assert_eq!(place(root, &volume("v", &root.join("v"), "other")), None);
    }

    #[test]
    fn a_volume_is_removed_only_when_nothing_else_holds_it() {
        let mut held = volume("v", Path::new("/r/v"), PROVISIONER);
        held.metadata.finalizers = vec![FINALIZER.to_owned()];
        assert!(!is_let_go(&held));
        held.metadata.deletion_timestamp = Some(jiff::Timestamp::UNIX_EPOCH);
        assert!(is_let_go(&held));
        held.metadata.finalizers.push("kubernetes.io/pv-protection".to_owned());
        assert!(!is_let_go(&held));
    }
}
