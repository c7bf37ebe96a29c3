//! A pod's volumes: made before its containers, refreshed when tokens near their end, removed after it.
//!
//! Layout, as upstream's: `ROOT/pods/UID/volumes/PLUGIN/NAME`.

mod atomic_writer;
pub mod downward;
mod host_path;
mod projected;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use api::resource::{CONFIG_MAPS, SECRETS};
use api::view::core::{Container, EmptyDirVolumeSource, Pod, Volume};
use client::Client;
use jiff::Timestamp;
use nix::mount::{MntFlags, MsFlags};
use runtime::cri;

use downward::Allocatable;

/// Why a volume is not there; worded for the pod's events.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("MountVolume.SetUp failed for volume {volume:?} : {why}")]
    SetUp { volume: String, why: String },
    #[error("volume {0:?} has a type that this kubelet does not support")]
    Unsupported(String),
}

/// What volumes may need beside the pod itself.
pub struct Context<'a> {
    pub client: &'a Client,
    pub root: &'a Path,
    pub allocatable: Allocatable,
    pub pod_ips: &'a [String],
    pub host_ip: &'a str,
    pub now: Timestamp,
}

pub fn pod_dir(root: &Path, uid: &str) -> PathBuf {
    root.join("pods").join(uid)
}

fn volume_dir(root: &Path, pod: &Pod, plugin: &str, name: &str) -> PathBuf {
    pod_dir(root, &pod.metadata.uid).join("volumes").join(format!("kubernetes.io~{plugin}")).join(name)
}

/// Where each volume of the pod is on the node.
pub type Paths = BTreeMap<String, PathBuf>;

/// Makes every volume, or refreshes it. Returns where they are, and when to call again.
pub async fn set_up(cx: &Context<'_>, pod: &Pod) -> Result<(Paths, Option<Timestamp>), Error> {
    let mut paths = Paths::new();
    let mut refresh_at: Option<Timestamp> = None;
    for volume in &pod.spec.volumes {
        let failed = |why: String| Error::SetUp { volume: volume.name.clone(), why };
        let (path, refresh) = set_up_one(cx, pod, volume).await?.map_err(failed)?;
        refresh_at = [refresh_at, refresh].into_iter().flatten().min();
        paths.insert(volume.name.clone(), path);
    }
    Ok((paths, refresh_at))
}

type SetUp = Result<(PathBuf, Option<Timestamp>), String>;

async fn set_up_one(cx: &Context<'_>, pod: &Pod, volume: &Volume) -> Result<SetUp, Error> {
    let group =
        pod.spec.security_context.as_ref().and_then(|c| c.fs_group).and_then(|g| u32::try_from(g).ok());
    let name = &volume.name;
    Ok(if let Some(source) = &volume.empty_dir {
        empty_dir(&volume_dir(cx.root, pod, "empty-dir", name), source, group).map(|path| (path, None))
    } else if let Some(source) = &volume.host_path {
        host_path::check(source).map(|path| (path, None))
    } else if let Some(source) = &volume.config_map {
        let payload = projected::config_map(cx.client, pod, source).await;
        written(&volume_dir(cx.root, pod, "configmap", name), payload, group)
    } else if let Some(source) = &volume.secret {
        let payload = projected::secret(cx.client, pod, source).await;
        written(&volume_dir(cx.root, pod, "secret", name), payload, group)
    } else if let Some(source) = &volume.downward_api {
        let payload = projected::downward_api(cx, pod, source);
        written(&volume_dir(cx.root, pod, "downward-api", name), payload, group)
    } else if let Some(source) = &volume.projected {
        let dir = volume_dir(cx.root, pod, "projected", name);
        match projected::projected(cx, pod, source, &dir).await {
            Ok((payload, refresh_at)) => {
                written(&dir, Ok(payload), group).map(|(path, _)| (path, refresh_at))
            }
            Err(why) => Err(why),
        }
    } else {
        return Err(Error::Unsupported(name.clone()));
    })
}

fn written(dir: &Path, payload: Result<atomic_writer::Payload, String>, group: Option<u32>) -> SetUp {
    atomic_writer::write(dir, &payload?, group).map_err(|e| e.to_string())?;
    Ok((dir.to_owned(), None))
}

fn empty_dir(dir: &Path, source: &EmptyDirVolumeSource, group: Option<u32>) -> Result<PathBuf, String> {
    if dir.exists() {
        return Ok(dir.to_owned());
    }
    let io = |e: std::io::Error| e.to_string();
    fs::create_dir_all(dir).map_err(io)?;
    if source.medium == "Memory" {
        let size = source
            .size_limit
            .as_deref()
            .and_then(|text| text.parse::<apimachinery::quantity::Quantity>().ok());
        let options = size.map(|quantity| format!("size={}", quantity.value()));
        nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), MsFlags::empty(), options.as_deref())
            .map_err(|e| e.to_string())?;
    }
    fs::set_permissions(dir, fs::Permissions::from_mode(if group.is_some() { 0o2777 } else { 0o777 }))
        .map_err(io)?;
    if group.is_some() {
        chown(dir, None, group).map_err(io)?;
    }
    Ok(dir.to_owned())
}

/// The container's mounts; `expand` resolves `$(VAR)` in `subPathExpr`.
pub fn mounts(
    container: &Container,
    paths: &Paths,
    expand: impl Fn(&str) -> String,
) -> Result<Vec<cri::Mount>, String> {
    container
        .volume_mounts
        .iter()
        .map(|mount| {
            let volume =
                paths.get(&mount.name).ok_or_else(|| format!("volume {:?} is not in the pod", mount.name))?;
            let sub_path = if mount.sub_path_expr.is_empty() {
                mount.sub_path.clone()
            } else {
                expand(&mount.sub_path_expr)
            };
            Ok(cri::Mount {
                container_path: mount.mount_path.clone(),
                host_path: sub_path_of(volume, &sub_path)?.display().to_string(),
                readonly: mount.read_only,
                recursive_read_only: mount.recursive_read_only.as_deref() == Some("Enabled"),
                propagation: match mount.mount_propagation.as_deref() {
                    Some("HostToContainer") => cri::MountPropagation::PropagationHostToContainer,
                    Some("Bidirectional") => cri::MountPropagation::PropagationBidirectional,
                    _ => cri::MountPropagation::PropagationPrivate,
                } as i32,
                ..Default::default()
            })
        })
        .collect()
}

/// The place below the volume, made if it is missing; it must not lead out of the volume, not even by links.
fn sub_path_of(volume: &Path, sub_path: &str) -> Result<PathBuf, String> {
    if sub_path.is_empty() {
        return Ok(volume.to_owned());
    }
    let plain = Path::new(sub_path)
        .components()
        .all(|c| matches!(c, std::path::Component::Normal(_) | std::path::Component::CurDir));
    if !plain {
        return Err(format!("subPath {sub_path:?} must be a relative path without '..'"));
    }
    let root = volume.canonicalize().map_err(|e| e.to_string())?;
    let resolved =
        make_below(&root, Path::new(sub_path)).map_err(|e| format!("subPath {sub_path:?}: {e}"))?;
    resolved.ok_or_else(|| format!("subPath {sub_path:?} leads out of its volume"))
}

/// Step by step, so that nothing is made where a link leads out of `root`: then `None`. What is made may be used by whom
/// `root` may be used by (upstream: `SafeMakeDir`).
fn make_below(root: &Path, sub_path: &Path) -> std::io::Result<Option<PathBuf>> {
    let permissions = fs::metadata(root)?.permissions();
    let mut path = root.to_owned();
    for component in sub_path.components() {
        path.push(component);
        if !path.exists() {
            fs::create_dir(&path)?;
            fs::set_permissions(&path, permissions.clone())?;
        }
        path = path.canonicalize()?;
        if !path.starts_with(root) {
            return Ok(None);
        }
    }
    Ok(Some(path))
}

/// Removes everything of a pod from the node.
pub fn tear_down(root: &Path, uid: &str) -> std::io::Result<()> {
    let dir = pod_dir(root, uid);
    let memory = dir.join("volumes/kubernetes.io~empty-dir");
    if let Ok(entries) = fs::read_dir(&memory) {
        for entry in entries {
            match nix::mount::umount2(&entry?.path(), MntFlags::MNT_DETACH) {
                // It was a plain directory.
                Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
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
    use super::*;

    #[test]
    fn a_sub_path_stays_in_its_volume() {
        let volume = std::env::temp_dir().join(format!("sub-path-{}", std::process::id()));
        fs::create_dir_all(&volume).expect("makes");
        std::os::unix::fs::symlink("/etc", volume.join("out")).expect("links");
        assert!(sub_path_of(&volume, "a/b").is_ok_and(|path| path.ends_with("a/b") && path.exists()));
        for bad in ["../x", "/etc", "out", "a/../../x"] {
            assert!(sub_path_of(&volume, bad).is_err(), "{bad}");
        }
        fs::remove_dir_all(volume).expect("removes");
    }

    #[test]
    fn nothing_is_made_where_a_link_leads_out() {
        let base = std::env::temp_dir().join(format!("sub-path-out-{}", std::process::id()));
        let (volume, outside) = (base.join("volume"), base.join("outside"));
        for dir in [&volume, &outside] {
            fs::create_dir_all(dir).expect("makes");
        }
        std::os::unix::fs::symlink(&outside, volume.join("out")).expect("links");
        std::os::unix::fs::symlink(outside.join("new"), volume.join("dangling")).expect("links");
        for bad in ["out/new", "dangling/x"] {
            assert!(sub_path_of(&volume, bad).is_err(), "{bad}");
        }
        assert_eq!(fs::read_dir(&outside).expect("there").count(), 0);
        fs::remove_dir_all(base).expect("removes");
    }

    #[test]
    fn what_is_made_for_a_sub_path_may_be_used_as_the_volume_may() {
        let volume = std::env::temp_dir().join(format!("sub-path-mode-{}", std::process::id()));
        fs::create_dir_all(&volume).expect("makes");
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o2777)).expect("opens");
        let made = sub_path_of(&volume, "a/b").expect("made");
        for dir in [made.as_path(), made.parent().expect("a")] {
            assert_eq!(fs::metadata(dir).expect("there").permissions().mode() & 0o7777, 0o2777);
        }
        fs::remove_dir_all(volume).expect("removes");
    }
}
