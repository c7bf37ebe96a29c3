//! Claims bound to volumes of this very node: `local` and `hostPath` (follows the desired state populator's
//! `getPVCExtractPV` and the two plugins).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use api::resource::{PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES};
use api::view::core::persistentvolume::volume_mode;
use api::view::core::{HostPathVolumeSource, PersistentVolume, Pod, Volume};
use apimachinery::Value;
use apimachinery::meta::str_at;
use jiff::Timestamp;

use super::growth::{Growth, Known, Refusal};
use super::{Context, device, is_mounted, local_path, volume_dir};
use crate::csi;

/// The volume that a pod's claim is bound to.
pub struct Bound {
    claim: Value,
    found: Value,
    volume: PersistentVolume,
}

impl Bound {
    /// What brings it into the pod, in upstream's words.
    pub fn plugin(&self) -> String {
        match &self.volume.spec.csi {
            Some(source) => super::csi_plugin(&source.driver),
            None if self.volume.spec.local.is_some() => super::plugin("local-volume"),
            None => super::plugin("host-path"),
        }
    }
}

/// The volume behind the claim that the pod names `volume`.
pub async fn find(cx: &Context<'_>, pod: &Pod, volume: &Volume, name: &str) -> Result<Bound, String> {
    let namespace = &pod.metadata.namespace;
    let claim: Value = cx
        .client
        .get(PERSISTENT_VOLUME_CLAIMS, namespace, name)
        .await
        .map_err(|e| format!("failed to fetch PVC {namespace}/{name}: {e}"))?;
    if volume.ephemeral.is_some() && !belongs_to(&claim, pod) {
        return Err(format!(
            "PVC {namespace}/{name} was not created for pod {namespace}/{} (pod is not owner)",
            pod.metadata.name
        ));
    }
    let bound = bound_volume(&claim)?;
    let found: Value = cx
        .client
        .get(PERSISTENT_VOLUMES, "", bound)
        .await
        .map_err(|e| format!("failed to fetch PV {bound}: {e}"))?;
    check_claim(&found, &claim)?;
    let volume = apimachinery::from_value(found.clone()).map_err(|e| e.to_string())?;
    Ok(Bound { claim, found, volume })
}

/// Where the claim's volume is on this node, and when to call again.
pub async fn set_up(
    cx: &Context<'_>,
    pod: &Pod,
    volume: &Volume,
    bound: &Bound,
) -> Result<(PathBuf, Option<Timestamp>), csi::Error> {
    let Bound { claim, found, volume: persistent } = bound;
    let name = &persistent.metadata.name;
    let is_block = volume_mode(persistent.spec.volume_mode.as_ref()) == "Block";
    check_use(pod, &volume.name, is_block)?;
    if let Some(source) = &persistent.spec.csi {
        let source = csi::Source::persistent(volume, persistent, source);
        return csi::set_up(cx, pod, &source, Some(claim)).await;
    }
    if let Some(root) = cx.local_path_root {
        local_path::make(root, persistent).map_err(|e| format!("make the directory of PV {name}: {e}"))?;
    }
    let path = place(found)?;
    check_device(persistent, &path, is_block)?;
    let Some(local) = &persistent.spec.local else { return Ok((path, None)) };
    let read_only = volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.read_only);
    let dir = volume_dir(cx.root, pod, "local-volume", name);
    let is_shown = !is_block && device::is_block(&path);
    let growth = Growth {
        pod,
        claim,
        volume: name,
        capacity: persistent.capacity(),
        read_only,
        is_online: is_mounted(&dir),
    };
    if is_shown {
        let options = &persistent.spec.mount_options;
        device::mount_at(&path, local.fs_type.as_deref(), options, read_only, &dir).await?;
    }
    let grow = async {
        if is_shown { device::grow(&path, &dir).await.map_err(|why| (Refusal::Final, why)) } else { Ok(()) }
    };
    growth.carry_out(cx, &mut Known::default(), grow).await?;
    let path = if is_shown { dir } else { path };
    if !is_block && !read_only {
        own_by_pod(&path, pod).map_err(|e| format!("applyFSGroup failed for vol {name}: {e}"))?;
    }
    Ok((path, None))
}

/// What containers are to see as a device must be one.
fn check_device(volume: &PersistentVolume, path: &Path, is_block: bool) -> Result<(), String> {
    if !is_block {
        return Ok(());
    }
    if volume.spec.local.is_none() {
        return Err(
            "MapVolume.FindMapperPluginBySpec failed to find BlockVolumeMapper plugin. Volume plugin is nil."
                .to_owned(),
        );
    }
    if !device::is_block(path) {
        return Err(format!("MapVolume.MapBlockVolume failed: {} is not a block device", path.display()));
    }
    Ok(())
}

/// A device is no folder: containers must name a volume as what it is.
fn check_use(pod: &Pod, name: &str, is_block: bool) -> Result<(), String> {
    let (mode, wrong) = if is_block { ("Block", "volumeMounts") } else { ("Filesystem", "volumeDevices") };
    let is_misused = crate::pod::all_containers(pod).any(|(container, _)| {
        if is_block {
            container.volume_mounts.iter().any(|mount| mount.name == name)
        } else {
            container.volume_devices.iter().any(|device| device.name == name)
        }
    });
    if is_misused {
        return Err(format!("volume {name} has volumeMode {mode}, but is specified in {wrong}"));
    }
    Ok(())
}

fn belongs_to(claim: &Value, pod: &Pod) -> bool {
    let owners = claim["metadata"]["ownerReferences"].as_array();
    owners.into_iter().flatten().any(|owner| owner["uid"] == pod.metadata.uid.as_str())
}

fn bound_volume(claim: &Value) -> Result<&str, String> {
    let (phase, volume) = (str_at(claim, &["status", "phase"]), str_at(claim, &["spec", "volumeName"]));
    if !str_at(claim, &["metadata", "deletionTimestamp"]).is_empty() {
        return Err("PVC is being deleted".to_owned());
    }
    if phase != "Bound" || volume.is_empty() {
        let (namespace, name) =
            (str_at(claim, &["metadata", "namespace"]), str_at(claim, &["metadata", "name"]));
        return Err(format!(
            "PVC {namespace}/{name} has non-bound phase ({phase:?}) or empty pvc.Spec.VolumeName ({volume:?})"
        ));
    }
    Ok(volume)
}

fn check_claim(volume: &Value, claim: &Value) -> Result<(), String> {
    let (held, asking) = (str_at(volume, &["spec", "claimRef", "uid"]), str_at(claim, &["metadata", "uid"]));
    if held == asking {
        return Ok(());
    }
    let name = str_at(volume, &["metadata", "name"]);
    Err(format!(
        "found PV object {name:?} but its pv.Spec.ClaimRef.UID {held:?} does not point to pvc.UID {asking:?}"
    ))
}

fn place(volume: &Value) -> Result<PathBuf, String> {
    let spec = &volume["spec"];
    if spec["hostPath"].is_object() {
        let source: HostPathVolumeSource =
            apimachinery::from_value(spec["hostPath"].clone()).map_err(|e| e.to_string())?;
        return super::host_path::check(&source);
    }
    if spec["local"].is_object() {
        let path = Path::new(str_at(spec, &["local", "path"]));
        return match fs::metadata(path) {
            Ok(_) => Ok(path.to_owned()),
            Err(_) => Err(format!("path {:?} does not exist", path.display().to_string())),
        };
    }
    Err("no volume plugin matched".to_owned())
}

/// Gives the tree to the pod's group, if the pod has one.
pub fn own_by_pod(path: &Path, pod: &Pod) -> std::io::Result<()> {
    let Some(group) = crate::pod::fs_group(pod) else { return Ok(()) };
    let policy =
        pod.spec.security_context.as_ref().and_then(|of_pod| of_pod.fs_group_change_policy.as_deref());
    own(path, group, policy == Some("OnRootMismatch"))
}

/// Gives the tree to the group: readable and writable, and inherited by what is made in it
/// (upstream: `SetVolumeOwnership`).
fn own(root: &Path, group: u32, on_mismatch: bool) -> std::io::Result<()> {
    const DIRECTORY_MODE: u32 = 0o2770;
    let found = fs::metadata(root)?;
    if on_mismatch && found.gid() == group && found.mode() & DIRECTORY_MODE == DIRECTORY_MODE {
        return Ok(());
    }
    // The volume is what its path leads to; links in it stay as they are.
    let mut left = vec![fs::canonicalize(root)?];
    while let Some(path) = left.pop() {
        let found = fs::symlink_metadata(&path)?;
        if found.is_symlink() {
            continue;
        }
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                left.push(entry?.path());
            }
        }
        chown(&path, None, Some(group))?;
        let added = if found.is_dir() { DIRECTORY_MODE } else { 0o660 };
        fs::set_permissions(&path, fs::Permissions::from_mode(found.mode() & 0o7777 | added))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    #[test]
    fn a_claim_must_be_bound_to_the_volume_that_names_it() {
        let claim = |phase: &str, volume: &str| {
            json!({"metadata": {"name": "c", "namespace": "d", "uid": "1"},
                "spec": {"volumeName": volume}, "status": {"phase": phase}})
        };
        assert_eq!(bound_volume(&claim("Bound", "v")), Ok("v"));
        assert_eq!(
            bound_volume(&claim("Pending", "")).expect_err("unbound"),
            "PVC d/c has non-bound phase (\"Pending\") or empty pvc.Spec.VolumeName (\"\")"
        );
        let volume = |uid: &str| json!({"metadata": {"name": "v"}, "spec": {"claimRef": {"uid": uid}}});
        assert!(check_claim(&volume("1"), &claim("Bound", "v")).is_ok());
        assert!(check_claim(&volume("2"), &claim("Bound", "v")).is_err());
    }

    #[test]
    fn a_volume_is_used_as_what_it_is() {
        let pod: Pod = apimachinery::from_value(json!({"spec": {"containers": [
            {"name": "a", "volumeMounts": [{"name": "files"}], "volumeDevices": [{"name": "disk"}]}]}}))
        .expect("a pod");
        assert!(check_use(&pod, "files", false).is_ok() && check_use(&pod, "disk", true).is_ok());
        assert_eq!(
            check_use(&pod, "files", true).expect_err("a mount"),
            "volume files has volumeMode Block, but is specified in volumeMounts"
        );
        assert!(check_use(&pod, "disk", false).is_err());
    }

    #[test]
    fn what_is_no_device_cannot_be_shown_as_one() {
        let volume = |source: Value| -> PersistentVolume {
            apimachinery::from_value(json!({"metadata": {"name": "v"}, "spec": source})).expect("a volume")
        };
        let check = |source: Value, is_block: bool, expect: Result<(), &str>| {
            let found = check_device(&volume(source), Path::new("/tmp"), is_block);
            assert_eq!(found, expect.map_err(str::to_owned));
        };
        let local = json!({"local": {"path": "/tmp"}});
        check(local.clone(), false, Ok(()));
        check(local, true, Err("MapVolume.MapBlockVolume failed: /tmp is not a block device"));
        check(
            json!({"hostPath": {"path": "/tmp"}}),
            true,
            Err(
                "MapVolume.FindMapperPluginBySpec failed to find BlockVolumeMapper plugin. Volume plugin is nil.",
            ),
        );
    }

    #[test]
    fn only_places_of_this_node_can_be_mounted() {
        assert_eq!(place(&json!({"spec": {"local": {"path": "/"}}})), Ok("/".into()));
        assert!(place(&json!({"spec": {"local": {"path": "/absent-here"}}})).is_err());
        assert!(place(&json!({"spec": {"hostPath": {"path": "/dev/null", "type": "Directory"}}})).is_err());
        assert_eq!(place(&json!({"spec": {"nfs": {}}})).expect_err("nfs"), "no volume plugin matched");
    }

    #[test]
    fn the_group_gets_the_whole_tree_unless_the_root_is_its_already() {
        let root = std::env::temp_dir().join(format!("fs-group-{}", std::process::id()));
        fs::create_dir_all(root.join("a")).expect("makes");
        own(&root, 4321, true).expect("owns");
        let found = fs::metadata(root.join("a")).expect("there");
        assert_eq!((found.gid(), found.mode() & 0o2070), (4321, 0o2070));
        fs::write(root.join("later"), "").expect("writes");
        chown(root.join("later"), None, Some(0)).expect("takes");
        own(&root, 4321, true).expect("owns");
        assert_eq!(fs::metadata(root.join("later")).expect("there").gid(), 0);
        own(&root, 4321, false).expect("owns");
        assert_eq!(fs::metadata(root.join("later")).expect("there").gid(), 4321);
        let link = root.with_extension("link");
        std::os::unix::fs::symlink(&root, &link).expect("links");
        own(&link, 1234, true).expect("owns");
        assert_eq!(fs::metadata(root.join("later")).expect("there").gid(), 1234);
        fs::remove_file(link).expect("removes");
        fs::remove_dir_all(root).expect("removes");
    }
}
