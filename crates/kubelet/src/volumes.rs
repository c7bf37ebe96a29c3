//! A pod's volumes: made before its containers, refreshed when their sources change or tokens near their end, removed
//! after it. Secrets and tokens live in memory.
//!
//! Layout, as upstream's: `ROOT/pods/UID/volumes/PLUGIN/NAME`.

mod atomic_writer;
mod device;
pub mod downward;
mod empty_dir;
pub mod growth;
mod host_path;
pub mod local_path;
mod mounts;
pub mod persistent;
mod projected;
mod sub_path;
pub mod watched;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use api::resource::{CONFIG_MAPS, SECRETS};
use api::view::core::{Container, Pod, Volume, VolumeDevice, VolumeMount, VolumeProjection};
use client::{Client, EventRecorder};
use jiff::Timestamp;
use runtime::cri;

pub use mounts::is_mounted;
pub use projected::service_account_token;

use crate::csi::{self, Drivers};
use crate::metrics::VolumeMetrics;
use downward::Allocatable;

/// Within a pod's folder.
pub const VOLUMES: &str = "volumes";
/// Beside it, the parts of volumes that containers see.
const SUB_PATHS: &str = "volume-subpaths";

/// Why a volume is not there; worded for the pod's events.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
    SetUp { volume: String, why: String },
    /// A controller is at it, and will tell.
    #[error("volume {volume:?} is awaited: {why}")]
    Awaited { volume: String, why: String },
    /// It cannot come to this node.
    #[error("{0}")]
    LimitExceeded(String),
    #[error("volume {0:?} has a type that this kubelet does not support")]
    Unsupported(String),
}

impl Error {
    fn of_csi(volume: &str, error: csi::Error) -> Self {
        let (volume, why) = (volume.to_owned(), error.to_string());
        match error {
            csi::Error::NotAttached { .. } => Error::Awaited { volume, why },
            csi::Error::LimitExceeded { .. } => Error::LimitExceeded(why),
            csi::Error::Failed(_) => Error::SetUp { volume, why },
        }
    }
}

/// What volumes may need beside the pod itself.
pub struct Context<'a> {
    pub client: &'a Client,
    pub recorder: &'a EventRecorder,
    pub root: &'a Path,
    pub local_path_root: Option<&'a Path>,
    pub csi_drivers: &'a Drivers,
    pub metrics: &'a VolumeMetrics,
    pub node_name: &'a str,
    pub allocatable: Allocatable,
    pub pod_ips: &'a [String],
    pub host_ips: &'a [String],
    pub now: Timestamp,
}

pub fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

pub fn volume_dir(root: &Path, pod: &Pod, plugin: &str, name: &str) -> PathBuf {
    pod_dir(root, &pod.metadata.uid).join(VOLUMES).join(format!("kubernetes.io~{plugin}")).join(name)
}

/// Where each volume of the pod is on the node.
pub type Paths = BTreeMap<String, PathBuf>;

/// Volumes that are images, which the runtime mounts.
pub type Images = BTreeMap<String, cri::ImageSpec>;

/// Every volume of a pod, by name.
#[derive(Default)]
pub struct Places {
    pub paths: Paths,
    pub images: Images,
}

/// Volumes that no container uses are not made (upstream: `GetPodVolumeNames`).
fn used(pod: &Pod) -> impl Iterator<Item = &Volume> {
    let mut names = BTreeSet::new();
    for (container, _) in crate::pod::all_containers(pod) {
        names.extend(container.volume_mounts.iter().map(|mount| mount.name.as_str()));
        names.extend(container.volume_devices.iter().map(|device| device.name.as_str()));
    }
    pod.spec.volumes.iter().filter(move |volume| names.contains(volume.name.as_str()))
}

/// Makes every volume that is used, or refreshes it. Returns where they are, and when to call again.
pub async fn set_up(cx: &Context<'_>, pod: &Pod) -> Result<(Paths, Option<Timestamp>), Error> {
    let mut paths = Paths::new();
    let mut refresh_at: Option<Timestamp> = None;
    for volume in used(pod).filter(|volume| volume.image.is_none()) {
        let (path, refresh) = set_up_one(cx, pod, volume).await?;
        refresh_at = [refresh_at, refresh].into_iter().flatten().min();
        paths.insert(volume.name.clone(), path);
    }
    Ok((paths, refresh_at))
}

/// Where a volume is, and when to call again.
type SetUp = Result<(PathBuf, Option<Timestamp>), String>;

async fn set_up_one(
    cx: &Context<'_>,
    pod: &Pod,
    volume: &Volume,
) -> Result<(PathBuf, Option<Timestamp>), Error> {
    let failed = |why: String| Error::SetUp { volume: volume.name.clone(), why };
    let bound = match volume.claim_name(&pod.metadata.name) {
        Some(claim) => Some(persistent::find(cx, pod, volume, &claim).await.map_err(failed)?),
        None => None,
    };
    let plugin = match &bound {
        Some(bound) => Some(bound.plugin()),
        None => plugin_of(volume),
    };
    let plugin = plugin.ok_or_else(|| Error::Unsupported(volume.name.clone()))?;
    let mounting = cx.metrics.mounting(&pod.metadata.uid, &volume.name, plugin);
    let made = mount(cx, pod, volume, bound.as_ref()).await;
    if !matches!(made, Err(Error::Awaited { .. })) {
        mounting.ended(made.is_ok());
    }
    made
}

/// What brings a volume into the pod that says itself what it is, in upstream's words.
fn plugin_of(volume: &Volume) -> Option<String> {
    let plain = [
        (volume.empty_dir.is_some(), "empty-dir"),
        (volume.host_path.is_some(), "host-path"),
        (volume.config_map.is_some(), "configmap"),
        (volume.secret.is_some(), "secret"),
        (volume.downward_api.is_some(), "downward-api"),
        (volume.projected.is_some(), "projected"),
    ];
    let plain = plain.into_iter().find(|(is_it, _)| *is_it).map(|(_, name)| plugin(name));
    plain.or_else(|| volume.csi.as_ref().map(|source| csi_plugin(&source.driver)))
}

fn plugin(name: &str) -> String {
    format!("kubernetes.io/{name}")
}

fn csi_plugin(driver: &str) -> String {
    format!("kubernetes.io/csi:{driver}")
}

/// `bound` is what the volume's claim is bound to.
async fn mount(
    cx: &Context<'_>,
    pod: &Pod,
    volume: &Volume,
    bound: Option<&persistent::Bound>,
) -> Result<(PathBuf, Option<Timestamp>), Error> {
    let name = &volume.name;
    let of_csi = |error| Error::of_csi(name, error);
    if let Some(bound) = bound {
        return persistent::set_up(cx, pod, volume, bound).await.map_err(of_csi);
    }
    if let Some(source) = &volume.csi {
        let source = csi::Source::inline(pod, name, source);
        return csi::set_up(cx, pod, &source, None).await.map_err(of_csi);
    }
    let made = mount_own(cx, pod, volume).await;
    made.map_err(|why| Error::SetUp { volume: name.clone(), why })
}

/// A volume that this kubelet makes itself.
async fn mount_own(cx: &Context<'_>, pod: &Pod, volume: &Volume) -> SetUp {
    let group = crate::pod::fs_group(pod);
    let dir = |plugin: &str| volume_dir(cx.root, pod, plugin, &volume.name);
    if let Some(source) = &volume.empty_dir {
        let dir = dir("empty-dir");
        empty_dir::set_up(&dir, pod, source, cx.allocatable.memory_bytes, group).map(|()| (dir, None))
    } else if let Some(source) = &volume.host_path {
        host_path::check(source).map(|path| (path, None))
    } else if let Some(source) = &volume.config_map {
        let payload = projected::config_map(cx.client, pod, source).await;
        written(&dir("configmap"), payload, group, cx.now)
    } else if let Some(source) = &volume.secret {
        let payload = projected::secret(cx.client, pod, source).await;
        let dir = dir("secret");
        in_memory(&dir).and_then(|()| written(&dir, payload, group, cx.now))
    } else if let Some(source) = &volume.downward_api {
        let payload = projected::downward_api(cx, pod, source);
        written(&dir("downward-api"), payload, group, cx.now)
    } else {
        let source = volume.projected.as_ref().expect("no other volume has a plugin");
        let dir = dir("projected");
        if source.sources.iter().any(is_secret) {
            in_memory(&dir)?;
        }
        let (payload, refresh_at) = projected::projected(cx, pod, source, &dir).await?;
        written(&dir, Ok(payload), group, cx.now).map(|(path, _)| (path, refresh_at))
    }
}

fn is_secret(projection: &VolumeProjection) -> bool {
    projection.secret.is_some() || projection.service_account_token.is_some()
}

/// No disk ever sees what is written here.
fn in_memory(dir: &Path) -> Result<(), String> {
    mounts::memory(dir, None).map_err(|e| format!("mount tmpfs: {e}"))
}

fn written(
    dir: &Path,
    payload: Result<atomic_writer::Payload, String>,
    group: Option<u32>,
    now: Timestamp,
) -> SetUp {
    atomic_writer::write(dir, &payload?, group, now).map_err(|e| e.to_string())?;
    Ok((dir.to_owned(), None))
}

/// The container's mounts; `expand` resolves `$(VAR)` in `subPathExpr`.
pub fn mounts(
    root: &Path,
    pod: &Pod,
    container: &Container,
    places: &Places,
    expand: impl Fn(&str) -> Result<String, String>,
) -> Result<Vec<cri::Mount>, String> {
    let shown = pod_dir(root, &pod.metadata.uid).join(SUB_PATHS);
    let mount = |(index, mount): (usize, &VolumeMount)| {
        let sub_path = if mount.sub_path_expr.is_empty() {
            mount.sub_path.clone()
        } else {
            expand(&mount.sub_path_expr)?
        };
        if let Some(image) = places.images.get(&mount.name) {
            return Ok(image_mount(mount, image, sub_path));
        }
        let volume = places.paths.get(&mount.name);
        let volume = volume.ok_or_else(|| format!("volume {:?} is not in the pod", mount.name))?;
        let place = if sub_path.is_empty() {
            volume.clone()
        } else {
            let at = shown.join(&mount.name).join(&container.name).join(index.to_string());
            sub_path::mount_at(volume, &sub_path, &at)?
        };
        Ok(path_mount(pod, mount, &place))
    };
    container.volume_mounts.iter().enumerate().map(mount).collect()
}

fn path_mount(pod: &Pod, mount: &VolumeMount, place: &Path) -> cri::Mount {
    cri::Mount {
        container_path: mount.mount_path.clone(),
        host_path: place.display().to_string(),
        readonly: mount.read_only || is_read_only(pod, &mount.name),
        recursive_read_only: matches!(mount.recursive_read_only.as_deref(), Some("Enabled" | "IfPossible")),
        propagation: match mount.mount_propagation.as_deref() {
            Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
            Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
            _ => cri::MountPropagation::PropagationPrivate,
        } as i32,
        ..Default::default()
    }
}

/// The container's devices: volumes that it sees as such.
pub fn devices(pod: &Pod, container: &Container, places: &Places) -> Result<Vec<cri::Device>, String> {
    let device = |device: &VolumeDevice| {
        let place = places.paths.get(&device.name);
        let place = place.ok_or_else(|| format!("volume {:?} is not in the pod", device.name))?;
        let permissions = if is_read_only(pod, &device.name) { "r" } else { "mrw" };
        Ok(cri::Device {
            container_path: device.device_path.clone(),
            host_path: place.display().to_string(),
            permissions: permissions.to_owned(),
        })
    };
    container.volume_devices.iter().map(device).collect()
}

/// Nobody writes to an image.
fn image_mount(mount: &VolumeMount, image: &cri::ImageSpec, sub_path: String) -> cri::Mount {
    cri::Mount {
        container_path: mount.mount_path.clone(),
        image: Some(image.clone()),
        image_sub_path: sub_path,
        readonly: true,
        ..Default::default()
    }
}

/// A claim may be used for reading only, by all containers.
fn is_read_only(pod: &Pod, name: &str) -> bool {
    let volume = pod.spec.volumes.iter().find(|volume| volume.name == name);
    volume.and_then(|volume| volume.persistent_volume_claim.as_ref()).is_some_and(|claim| claim.read_only)
}

/// Removes what the volumes of a pod hold, once nothing of it runs any more. Its other files may still be asked for.
pub fn free(root: &Path, uid: &str) -> std::io::Result<()> {
    let dir = pod_dir(root, uid);
    mounts::detach_below(&dir)?;
    [VOLUMES, SUB_PATHS].into_iter().try_for_each(|part| remove_all(&dir.join(part)))
}

/// Removes everything of a pod from the node.
pub fn tear_down(root: &Path, uid: &str) -> std::io::Result<()> {
    let dir = pod_dir(root, uid);
    mounts::detach_below(&dir)?;
    remove_all(&dir)
}

fn remove_all(dir: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes away what the volumes of all pods have mounted on the node, so that their files can be removed.
pub fn unmount_all(root: &Path) -> std::io::Result<()> {
    mounts::detach_below(&root.join("pods"))?;
    mounts::detach_below(&root.join("plugins"))
}

/// Reads a ConfigMap; `None` when there is none.
pub async fn get_config_map(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<api::view::core::ConfigMap>, String> {
    optional(client.get(CONFIG_MAPS, namespace, name).await)
}

/// Reads a Secret; `None` when there is none.
pub async fn get_secret(
    client: &Client,
    namespace: &str,
    name: &str,
) -> Result<Option<api::view::core::Secret>, String> {
    optional(client.get(SECRETS, namespace, name).await)
}

fn optional<T>(got: Result<T, client::Error>) -> Result<Option<T>, String> {
    match got {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn volumes_that_no_container_uses_are_not_made() {
        let pod: Pod = apimachinery::from_value(json!({"spec": {
            "volumes": [{"name": "init"}, {"name": "disk"}, {"name": "late"}, {"name": "nobodys"}],
            "initContainers": [{"name": "a", "volumeMounts": [{"name": "init"}]}],
            "containers": [{"name": "b", "volumeDevices": [{"name": "disk"}]}],
            "ephemeralContainers": [{"name": "c", "volumeMounts": [{"name": "late"}]}]}}))
        .expect("a pod");
        let names: Vec<&str> = used(&pod).map(|volume| volume.name.as_str()).collect();
        assert_eq!(names, ["init", "disk", "late"]);
    }
}
