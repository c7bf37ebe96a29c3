//! How full volumes are, by the word of their drivers (follows `NodeGetVolumeStats` in `csi_metrics`).

use std::path::Path;

use csi::v1::node_service_capability::rpc::Type as Capability;
use csi::v1::volume_usage::Unit;
use csi::v1::{NodeGetVolumeStatsRequest, NodeGetVolumeStatsResponse, VolumeUsage};

use super::Drivers;
use super::place::{Place, Record, published_by};
use super::registration::Driver;
use crate::stats::Filesystem;

/// A volume of a pod, under the name that the pod gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Usage {
    pub name: String,
    pub fs: Filesystem,
    /// Whether something is wrong with it, where the driver tells.
    pub is_abnormal: Option<bool>,
}

/// Of each volume that the pod has of a driver which tells.
pub async fn stats(drivers: &Drivers, root: &Path, uid: &str) -> Vec<Usage> {
    let mut found = Vec::new();
    for record in published_by(root, uid) {
        let Some(driver) = drivers.get(&record.driver_name) else { continue };
        match of_volume(&driver, root, uid, &record).await {
            Ok(usage) => found.extend(usage),
            Err(status) => {
                let (driver, volume) = (&record.driver_name, &record.volume_handle);
                tracing::debug!(
                    driver,
                    volume,
                    error = status.message(),
                    "driver does not tell a volume's usage"
                );
            }
        }
    }
    found
}

async fn of_volume(
    driver: &Driver,
    root: &Path,
    uid: &str,
    record: &Record,
) -> Result<Option<Usage>, tonic::Status> {
    let held = driver.plugin.capabilities().await?;
    if !held.contains(&Capability::GetVolumeStats) {
        return Ok(None);
    }
    let staged = Place::staged(root, record);
    let request = NodeGetVolumeStatsRequest {
        volume_id: record.volume_handle.clone(),
        volume_path: Place::published(root, uid, record).path.display().to_string(),
        staging_target_path: if staged.dir.exists() {
            staged.path.display().to_string()
        } else {
            String::new()
        },
    };
    let answer = driver.plugin.stats(request).await?;
    Ok(Some(usage(&record.name_in_pod, &answer, held.contains(&Capability::VolumeCondition))))
}

fn usage(name: &str, answer: &NodeGetVolumeStatsResponse, tells_condition: bool) -> Usage {
    let of = |unit: Unit| answer.usage.iter().find(|usage| usage.unit() == unit).copied().unwrap_or_default();
    let count = |value: i64| u64::try_from(value).unwrap_or_default();
    let (bytes, inodes): (VolumeUsage, VolumeUsage) = (of(Unit::Bytes), of(Unit::Inodes));
    let fs = Filesystem {
        available_bytes: count(bytes.available),
        capacity_bytes: count(bytes.total),
        used_bytes: count(bytes.used),
        inodes: count(inodes.total),
        inodes_free: count(inodes.available),
        inodes_used: count(inodes.used),
    };
    let is_abnormal = answer.volume_condition.as_ref().map(|condition| condition.abnormal);
    Usage { name: name.to_owned(), fs, is_abnormal: is_abnormal.filter(|_| tells_condition) }
}

#[cfg(test)]
mod tests {
    use csi::v1::VolumeCondition;

    use super::*;

    #[test]
    fn what_a_driver_does_not_tell_is_none_and_its_word_on_health_counts_only_if_it_gives_it() {
        let bytes = VolumeUsage { available: 3, total: 7, used: 4, unit: Unit::Bytes.into() };
        let condition = Some(VolumeCondition { abnormal: true, message: String::new() });
        let answer = NodeGetVolumeStatsResponse { usage: vec![bytes], volume_condition: condition };
        let told = usage("v", &answer, true);
        assert_eq!((told.fs.capacity_bytes, told.fs.used_bytes, told.fs.inodes), (7, 4, 0));
        assert_eq!((told.is_abnormal, usage("v", &answer, false).is_abnormal), (Some(true), None));
    }
}
