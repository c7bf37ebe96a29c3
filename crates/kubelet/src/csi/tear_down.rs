//! Takes volumes out of pods, and from the node those that no other pod has.

use std::path::Path;

use client::Client;
use csi::v1::{NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest};

use super::place::{self, Place, Record};
use super::publish::report_in_use;
use super::registration::{Driver, Turn};
use super::{Drivers, not_registered, rpc_error};
use crate::volumes::is_mounted;

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
        if !place::published(root).iter().any(|other| other.is_same_volume(&record)) {
            unstage(&driver, &record, &Place::staged(root, &record), &mut turn).await?;
        }
    }
    report_in_use(client, root, node_name).await
}

/// Unstages what no pod has: a kubelet that was killed may have left it so.
pub async fn unstage_unused(driver: &Driver, name: &str, root: &Path) {
    for record in place::staged(root).into_iter().filter(|record| record.driver_name == name) {
        let turn = driver.turn(&record.volume_handle);
        let mut turn = turn.lock().await;
        if place::published(root).iter().any(|other| other.is_same_volume(&record)) {
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
