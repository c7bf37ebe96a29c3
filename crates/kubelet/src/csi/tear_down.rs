//! Takes volumes out of pods, and from the node those that no other pod has.

use std::path::Path;
use std::time::Duration;

use client::Client;
use csi::v1::{NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};

use super::place::{self, Place, Record};
use super::publish::report_in_use;
use super::registration::{Driver, Turn};
use super::{Drivers, not_registered, rpc_error};
use crate::volumes::is_mounted;

/// Between attempts to unstage a volume (upstream: `exponentialbackoff`).
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(122);

/// Takes all of a pod's volumes away.
pub async fn tear_down(
    client: &Client,
    drivers: &Drivers,
    root: &Path,
    node_name: &str,
    uid: &str,
) -> Result<(), String> {
    let records = place::published_by(root, uid);
    if records.is_empty() {
        return Ok(());
    }
    for record in records {
        let driver = drivers.get(&record.driver_name).ok_or_else(|| not_registered(&record.driver_name))?;
        let turn = driver.turn(&record.volume_handle);
        let mut turn = turn.lock().await;
        unpublish(&driver, &record, &Place::published(root, uid, &record)).await?;
        if is_unused(root, &record)
            && let Err(error) = unstage(&driver, &record, &Place::staged(root, &record), &mut turn).await
        {
            tracing::warn!(volume = record.volume_handle, error, "unused volume remains staged, will retry");
            let (client, root, node) = (client.clone(), root.to_owned(), node_name.to_owned());
            let driver = driver.clone();
            tokio::spawn(async move { unstage_later(&client, &driver, &record, &root, &node).await });
        }
    }
    report_in_use(client, root, node_name).await
}

/// The pod need not wait for this: another may want the volume meanwhile.
async fn unstage_later(client: &Client, driver: &Driver, record: &Record, root: &Path, node_name: &str) {
    let mut pause = RETRY_MIN;
    loop {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
        let turn = driver.turn(&record.volume_handle);
        let mut turn = turn.lock().await;
        if !is_unused(root, record) {
            return;
        }
        let unstaged = unstage(driver, record, &Place::staged(root, record), &mut turn).await;
        let told = match unstaged {
            Ok(()) => report_in_use(client, root, node_name).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(
                    volume = record.volume_handle,
                    error,
                    "unused volume remains staged, will retry"
                );
            }
        }
    }
}

/// No pod has it.
fn is_unused(root: &Path, record: &Record) -> bool {
    !place::published(root).iter().any(|other| other.is_same_volume(record))
}

/// Unstages what no pod has: a kubelet that was killed may have left it so.
pub async fn unstage_unused(driver: &Driver, name: &str, root: &Path) {
    for record in place::staged(root).into_iter().filter(|record| record.driver_name == name) {
        let turn = driver.turn(&record.volume_handle);
        let mut turn = turn.lock().await;
        if !is_unused(root, &record) {
            continue;
        }
        if let Err(error) = unstage(driver, &record, &Place::staged(root, &record), &mut turn).await {
            tracing::warn!(
                driver = name,
                volume = record.volume_handle,
                error,
                "unused volume remains staged"
            );
        }
    }
}

async fn unpublish(driver: &Driver, record: &Record, place: &Place) -> Result<(), String> {
    let request = NodeUnpublishVolumeRequest {
        volume_id: record.volume_handle.clone(),
        target_path: place.path.display().to_string(),
    };
    let unpublished = driver.plugin.unpublish(request).await;
    unpublished.map_err(|status| rpc_error("Unmounter.TearDownAt failed", &status))?;
    check_unmounted(place)?;
    place.remove()
}

async fn unstage(driver: &Driver, record: &Record, place: &Place, turn: &mut Turn) -> Result<(), String> {
    if !place.dir.exists() {
        return Ok(());
    }
    let request = NodeUnstageVolumeRequest {
        volume_id: record.volume_handle.clone(),
        staging_target_path: place.path.display().to_string(),
    };
    // Whatever comes of it, the next pod has the volume staged anew.
    turn.is_staged = false;
    let unstaged = driver.plugin.unstage(request).await;
    unstaged.map_err(|status| rpc_error("UnmountDevice failed", &status))?;
    check_unmounted(place)?;
    *turn = Turn::default();
    place.remove()
}

fn check_unmounted(place: &Place) -> Result<(), String> {
    if is_mounted(&place.path) {
        return Err(format!("the driver left {} mounted", place.path.display()));
    }
    Ok(())
}
