//! Devices of the node that containers get: those asked for by path, and those that vendors describe.

pub mod cdi;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};

use crate::container_spec::{below, security_context};
use crate::cri::ContainerConfig;
use crate::shim::spec::DeviceSpec;

/// Folders of devices within `/dev` that are looked into.
const DEVICE_DEPTH_MAX: usize = 4;

/// Device nodes of this machine, looked up only for those who ask.
pub fn host_devices(config: &ContainerConfig) -> Vec<DeviceSpec> {
    let mut found = Vec::new();
    if security_context(config).privileged {
        collect_devices(Path::new("/dev"), DEVICE_DEPTH_MAX, &mut found);
    }
    for wish in &config.devices {
        found.extend(devices_at(Path::new(&wish.host_path)));
    }
    found
}

/// What the path leads to, under the name by which it was asked for.
fn devices_at(path: &Path) -> Vec<DeviceSpec> {
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mut found = Vec::new();
    collect_devices(&real, DEVICE_DEPTH_MAX, &mut found);
    for device in &mut found {
        let rest = device.path.strip_prefix(&real).expect("devices are found at the path or below");
        device.path = below(path, rest);
    }
    found
}

fn collect_devices(path: &Path, depth: usize, found: &mut Vec<DeviceSpec>) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    let kind = metadata.file_type();
    if kind.is_dir() && depth > 0 {
        let entries: Vec<PathBuf> =
            fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path()).collect();
        entries.iter().for_each(|entry| collect_devices(entry, depth - 1, found));
    } else if kind.is_block_device() || kind.is_char_device() {
        found.push(DeviceSpec {
            path: path.to_owned(),
            block: kind.is_block_device(),
            major: major(metadata.rdev()),
            minor: minor(metadata.rdev()),
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_to_a_device_is_the_device() {
        let folder = tempfile::tempdir().expect("a folder");
        let link = folder.path().join("disk");
        std::os::unix::fs::symlink("/dev/null", &link).expect("links");
        let found = devices_at(&link);
        let paths: Vec<&Path> = found.iter().map(|device| device.path.as_path()).collect();
        assert_eq!((paths, found[0].minor), (vec![link.as_path()], 3));
    }
}
