//! Volumes of CSI drivers in pods: staged once on the node, published into each pod, and back (follows upstream's
//! `pkg/volume/csi`, with its folders and `vol_data.json`).

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use api::resource::{CSI_DRIVERS, NODES, VOLUME_ATTACHMENTS};
use api::storage::csi::{attachment_name, unique_name};
use api::view::core::persistentvolume::volume_mode;
use api::view::core::{CsiPersistentVolumeSource, PersistentVolume, Pod};
use api::view::storage::{CsiDriver, VolumeAttachment};
use apimachinery::json;
use client::{Client, PatchType};
use serde::{Deserialize, Serialize};

use super::proto::{
    AccessMode, Capability, Mode, MountVolume, NodePublishVolumeRequest, NodeStageVolumeRequest,
    NodeUnpublishVolumeRequest, NodeUnstageVolumeRequest, Texts, VolumeCapability,
};
use super::{Driver, Drivers};
use crate::volumes::persistent::own_by_pod;
use crate::volumes::{Context, is_mount_point, pod_dir};

const VOLUMES: &str = "volumes/kubernetes.io~csi";
const STAGED: &str = "plugins/kubernetes.io/csi";
const RECORD: &str = "vol_data.json";

/// What must be known to take a volume away again, kept beside where it is mounted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Record {
    #[serde(rename = "specVolID")]
    spec_vol_id: String,
    volume_handle: String,
    driver_name: String,
    node_name: String,
    /// Empty when the driver attaches nothing.
    #[serde(rename = "attachmentID")]
    attachment_id: String,
}

/// Where the volume is in the pod's folder, once it is mounted there.
pub async fn set_up(
    cx: &Context<'_>,
    pod: &Pod,
    volume: &PersistentVolume,
    source: &CsiPersistentVolumeSource,
) -> Result<PathBuf, String> {
    let name = &volume.metadata.name;
    let dir = pod_dir(cx.root, &pod.metadata.uid).join(VOLUMES).join(name);
    let target = dir.join("mount");
    if is_mounted(&target) {
        return Ok(target);
    }
    if volume_mode(volume.spec.volume_mode.as_ref()) != "Filesystem" {
        return Err(format!("volume {name:?} is a block device, which CSI drivers here cannot be asked for"));
    }
    let driver = cx.csi_drivers.get(&source.driver).ok_or_else(|| not_registered(&source.driver))?;
    let settings = settings(cx.client, &source.driver).await?;
    let (attachment_id, publish_context) = attached(cx, source, &settings).await?;
    let record = Record {
        spec_vol_id: name.clone(),
        volume_handle: source.volume_handle.clone(),
        driver_name: source.driver.clone(),
        node_name: cx.node_name.to_owned(),
        attachment_id,
    };
    let _turn = driver.turn.lock().await;
    write_record(&dir, &record)?;
    report_in_use(cx.client, cx.root, cx.node_name).await?;
    let group = pod.spec.security_context.as_ref().and_then(|context| context.fs_group);
    let capability = capability(&driver, volume, source, group).await?;
    let staging = stage(cx.root, &driver, &record, &publish_context, &capability, source).await?;
    fs::create_dir_all(&dir).map_err(|e| e.to_string())?;
    let mut volume_context: Texts = source.volume_attributes.clone().into_iter().collect();
    if settings.spec.pod_info_on_mount == Some(true) {
        volume_context.extend(pod_info(pod));
    }
    let request = NodePublishVolumeRequest {
        volume_id: source.volume_handle.clone(),
        publish_context,
        staging_target_path: staging,
        target_path: target.display().to_string(),
        volume_capability: Some(capability),
        readonly: source.read_only,
        volume_context,
    };
    driver
        .plugin
        .publish(request)
        .await
        .map_err(|status| rpc_error("SetUpAt failed to publish volume", &status))?;
    if !needs_no_group(&driver, group).await? && belongs_to_group(&settings, volume, source) {
        own_by_pod(&target, pod).map_err(|error| format!("applyFSGroup failed for vol {name}: {error}"))?;
    }
    Ok(target)
}

/// Whether there is no group, or the driver itself gives the volume to it.
async fn needs_no_group(driver: &Driver, group: Option<i64>) -> Result<bool, String> {
    if group.is_none() {
        return Ok(true);
    }
    let has = driver.plugin.has(Capability::VolumeMountGroup).await;
    has.map_err(|status| rpc_error("failed to get the driver's capabilities", &status))
}

/// Whether the kubelet gives the volume to the pod's group (upstream: `supportsFSGroup`).
fn belongs_to_group(
    settings: &CsiDriver,
    volume: &PersistentVolume,
    source: &CsiPersistentVolumeSource,
) -> bool {
    let is_one_nodes = volume.spec.access_modes.iter().any(|mode| mode.starts_with("ReadWriteOnce"));
    match settings.spec.fs_group_policy.as_deref() {
        Some("None") => false,
        Some("File") => true,
        _ => !source.read_only && !source.fs_type.is_empty() && is_one_nodes,
    }
}

fn not_registered(driver: &str) -> String {
    format!("driver name {driver} not found in the list of registered CSI drivers")
}

fn rpc_error(what: &str, status: &tonic::Status) -> String {
    format!("{what}: rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// The driver's CSIDriver; one that has none behaves by the defaults.
async fn settings(client: &Client, driver: &str) -> Result<CsiDriver, String> {
    match client.get(CSI_DRIVERS, "", driver).await {
        Ok(settings) => Ok(settings),
        Err(error) if error.is_not_found() => Ok(CsiDriver::default()),
        Err(error) => Err(format!("failed to fetch CSIDriver {driver}: {error}")),
    }
}

/// The attachment by which the node has the volume, and what it tells the driver.
async fn attached(
    cx: &Context<'_>,
    source: &CsiPersistentVolumeSource,
    settings: &CsiDriver,
) -> Result<(String, Texts), String> {
    if !settings.spec.needs_attach() {
        return Ok(Default::default());
    }
    let name = attachment_name(&source.volume_handle, &source.driver, cx.node_name);
    let attachment: VolumeAttachment = cx
        .client
        .get(VOLUME_ATTACHMENTS, "", &name)
        .await
        .map_err(|error| format!("volume attachment {name} cannot be read: {error}"))?;
    if !attachment.status.attached {
        return Err(format!(
            "volume {} has volume attachment {name} which is not attached yet",
            source.volume_handle
        ));
    }
    Ok((name, attachment.status.attachment_metadata.into_iter().collect()))
}

async fn capability(
    driver: &Driver,
    volume: &PersistentVolume,
    source: &CsiPersistentVolumeSource,
    group: Option<i64>,
) -> Result<VolumeCapability, String> {
    let has = async |capability| {
        let has = driver.plugin.has(capability).await;
        has.map_err(|status| rpc_error("failed to get the driver's capabilities", &status))
    };
    let tells_writers = has(Capability::SingleNodeMultiWriter).await?;
    let mode =
        volume.spec.access_modes.first().map_or(Mode::Unknown, |mode| access_mode(mode, tells_writers));
    let volume_mount_group = match group {
        Some(group) if has(Capability::VolumeMountGroup).await? => group.to_string(),
        _ => String::new(),
    };
    let mount = MountVolume {
        fs_type: source.fs_type.clone(),
        mount_flags: volume.spec.mount_options.clone(),
        volume_mount_group,
    };
    Ok(VolumeCapability { mount: Some(mount), access_mode: Some(AccessMode { mode: mode.into() }) })
}

/// Drivers that tell one writer from several on a node get the finer modes.
fn access_mode(mode: &str, tells_writers: bool) -> Mode {
    match (mode, tells_writers) {
        ("ReadWriteOnce", true) => Mode::SingleNodeMultiWriter,
        ("ReadWriteOncePod", true) => Mode::SingleNodeSingleWriter,
        ("ReadWriteOnce" | "ReadWriteOncePod", false) => Mode::SingleNodeWriter,
        ("ReadOnlyMany", _) => Mode::MultiNodeReaderOnly,
        ("ReadWriteMany", _) => Mode::MultiNodeMultiWriter,
        _ => Mode::Unknown,
    }
}

fn pod_info(pod: &Pod) -> Texts {
    let metadata = &pod.metadata;
    let told = [
        ("pod.name", metadata.name.as_str()),
        ("pod.namespace", &metadata.namespace),
        ("pod.uid", &metadata.uid),
        ("serviceAccount.name", &pod.spec.service_account_name),
        ("ephemeral", "false"),
    ];
    told.into_iter().map(|(key, value)| (format!("csi.storage.k8s.io/{key}"), value.to_owned())).collect()
}

fn staged_dir(root: &Path, record: &Record) -> PathBuf {
    let name = api::storage::csi::hex_digest(&[&record.volume_handle]);
    root.join(STAGED).join(&record.driver_name).join(name)
}

/// Stages the volume where the driver wants that; returns the place, empty when there is none.
async fn stage(
    root: &Path,
    driver: &Driver,
    record: &Record,
    publish_context: &Texts,
    capability: &VolumeCapability,
    source: &CsiPersistentVolumeSource,
) -> Result<String, String> {
    let stages = driver.plugin.has(Capability::StageUnstageVolume).await;
    if !stages.map_err(|status| rpc_error("failed to get the driver's capabilities", &status))? {
        return Ok(String::new());
    }
    let dir = staged_dir(root, record);
    let place = dir.join("globalmount");
    write_record(&dir, record)?;
    fs::create_dir_all(&place).map_err(|e| e.to_string())?;
    let request = NodeStageVolumeRequest {
        volume_id: record.volume_handle.clone(),
        publish_context: publish_context.clone(),
        staging_target_path: place.display().to_string(),
        volume_capability: Some(capability.clone()),
        volume_context: source.volume_attributes.clone().into_iter().collect(),
    };
    let staged = driver.plugin.stage(request).await;
    staged.map_err(|status| rpc_error("MountVolume.MountDevice failed", &status))?;
    Ok(place.display().to_string())
}

/// Takes all of a pod's volumes away, and from the node those that no other pod has.
pub async fn tear_down(
    client: &Client,
    drivers: &Drivers,
    root: &Path,
    node_name: &str,
    uid: &str,
) -> Result<(), String> {
    let dirs = subdirectories(&pod_dir(root, uid).join(VOLUMES));
    if dirs.is_empty() {
        return Ok(());
    }
    for dir in dirs {
        let Some(record) = read_record(&dir) else { continue };
        let driver = drivers.get(&record.driver_name).ok_or_else(|| not_registered(&record.driver_name))?;
        let _turn = driver.turn.lock().await;
        let target = dir.join("mount");
        let request = NodeUnpublishVolumeRequest {
            volume_id: record.volume_handle.clone(),
            target_path: target.display().to_string(),
        };
        let unpublished = driver.plugin.unpublish(request).await;
        unpublished.map_err(|status| rpc_error("Unmounter.TearDownAt failed", &status))?;
        if is_mounted(&target) {
            return Err(format!("the driver left {} mounted", target.display()));
        }
        fs::remove_dir_all(&dir).map_err(|e| e.to_string())?;
        let is_needed = published(root).iter().any(|other| {
            (&other.driver_name, &other.volume_handle) == (&record.driver_name, &record.volume_handle)
        });
        if !is_needed {
            unstage(root, &driver, &record).await?;
        }
    }
    report_in_use(client, root, node_name).await
}

async fn unstage(root: &Path, driver: &Driver, record: &Record) -> Result<(), String> {
    let dir = staged_dir(root, record);
    if !dir.exists() {
        return Ok(());
    }
    let place = dir.join("globalmount");
    let request = NodeUnstageVolumeRequest {
        volume_id: record.volume_handle.clone(),
        staging_target_path: place.display().to_string(),
    };
    let unstaged = driver.plugin.unstage(request).await;
    unstaged.map_err(|status| rpc_error("UnmountDevice failed", &status))?;
    if is_mounted(&place) {
        return Err(format!("the driver left {} mounted", place.display()));
    }
    fs::remove_dir_all(&dir).map_err(|e| e.to_string())
}

fn is_mounted(place: &Path) -> bool {
    place.exists() && is_mount_point(place).unwrap_or(true)
}

/// What pods of this node have of CSI drivers.
fn published(root: &Path) -> Vec<Record> {
    let pods = subdirectories(&root.join("pods"));
    let volumes = pods.iter().flat_map(|pod| subdirectories(&pod.join(VOLUMES)));
    volumes.filter_map(|dir| read_record(&dir)).collect()
}

/// Tells the attach-detach controller what must stay attached.
async fn report_in_use(client: &Client, root: &Path, node_name: &str) -> Result<(), String> {
    let attached = published(root).into_iter().filter(|record| !record.attachment_id.is_empty());
    let mut names: Vec<String> =
        attached.map(|record| unique_name(&record.driver_name, &record.volume_handle)).collect();
    names.sort();
    names.dedup();
    let patch = json!({"status": {"volumesInUse": names}});
    let written = client.patch(NODES, "", node_name, Some("status"), PatchType::Merge, &patch).await;
    written.map(drop).map_err(|error| format!("volumes in use not reported: {error}"))
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn write_record(dir: &Path, record: &Record) -> Result<(), String> {
    let write = || -> io::Result<()> {
        fs::create_dir_all(dir)?;
        fs::write(dir.join(RECORD), serde_json::to_vec(record)?)
    };
    write().map_err(|error| format!("{} not written: {error}", dir.join(RECORD).display()))
}

fn read_record(dir: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_and_is_spelled_as_upstreams() {
        let root = std::env::temp_dir().join(format!("csi-record-{}", std::process::id()));
        let record = Record { driver_name: "d".into(), volume_handle: "h".into(), ..Record::default() };
        write_record(&root.join("pods/u").join(VOLUMES).join("v"), &record).expect("writes");
        assert_eq!(published(&root), std::slice::from_ref(&record));
        let text = serde_json::to_value(&record).expect("JSON");
        assert_eq!((&text["driverName"], &text["specVolID"]), (&json!("d"), &json!("")));
        fs::remove_dir_all(root).expect("removes");
    }

    #[test]
    fn drivers_that_tell_writers_apart_get_the_finer_modes() {
        assert_eq!(access_mode("ReadWriteOnce", false), Mode::SingleNodeWriter);
        assert_eq!(access_mode("ReadWriteOnce", true), Mode::SingleNodeMultiWriter);
        assert_eq!(access_mode("ReadWriteOncePod", true), Mode::SingleNodeSingleWriter);
        assert_eq!(access_mode("ReadOnlyMany", true), Mode::MultiNodeReaderOnly);
    }
}
