//! Where volumes of CSI drivers are on the node, and what must be known to take each away again: it lies beside the
//! volume, and outlives the kubelet. Folders and `vol_data.json` are upstream's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::source::Source;
use crate::volumes::pod_dir;

const PLUGIN: &str = "plugins/kubernetes.io/csi";
const DEVICES: &str = "plugins/kubernetes.io/csi/volumeDevices";
const VOLUMES_OF_POD: &str = "volumes/kubernetes.io~csi";
const DEVICES_OF_POD: &str = "volumeDevices/kubernetes.io~csi";
const RECORD: &str = "vol_data.json";
const BLOCK: &str = "Block";

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Record {
    #[serde(rename = "specVolID")]
    pub spec_vol_id: String,
    pub volume_handle: String,
    pub driver_name: String,
    pub node_name: String,
    /// Empty when the driver attaches nothing.
    #[serde(rename = "attachmentID")]
    pub attachment_id: String,
    /// `Persistent` or `Ephemeral`.
    pub volume_lifecycle_mode: String,
    /// `Block`, or empty for a file system. This one and the next are not upstream's.
    pub volume_mode: String,
    /// What the pod calls it.
    pub name_in_pod: String,
}

impl Record {
    pub fn of(source: &Source, node_name: &str, attachment_id: &str) -> Self {
        Record {
            spec_vol_id: source.name.clone(),
            volume_handle: source.handle.clone(),
            driver_name: source.driver.clone(),
            node_name: node_name.to_owned(),
            attachment_id: attachment_id.to_owned(),
            volume_lifecycle_mode: source.lifecycle.as_str().to_owned(),
            volume_mode: if source.is_block { BLOCK } else { "" }.to_owned(),
            name_in_pod: source.name_in_pod.clone(),
        }
    }

    pub fn is_block(&self) -> bool {
        self.volume_mode == BLOCK
    }

    /// Whether both are of one volume.
    pub fn is_same_volume(&self, other: &Record) -> bool {
        (&self.driver_name, &self.volume_handle) == (&other.driver_name, &other.volume_handle)
    }
}

/// A volume's place: what the driver is told of, and the folder that holds the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub dir: PathBuf,
    pub path: PathBuf,
}

impl Place {
    /// Where a pod sees the volume.
    pub fn published(root: &Path, uid: &str, record: &Record) -> Self {
        let name = &record.spec_vol_id;
        if record.is_block() {
            let dir = pod_dir(root, uid).join(DEVICES_OF_POD).join(name);
            return Place { dir, path: root.join(DEVICES).join("publish").join(name).join(uid) };
        }
        let dir = pod_dir(root, uid).join(VOLUMES_OF_POD).join(name);
        Place { path: dir.join("mount"), dir }
    }

    /// Where the node has it for all its pods.
    pub fn staged(root: &Path, record: &Record) -> Self {
        let name = &record.spec_vol_id;
        if record.is_block() {
            let devices = root.join(DEVICES);
            return Place { dir: devices.join(name).join("data"), path: devices.join("staging").join(name) };
        }
        let digest = api::storage::csi::hex_digest(&[&record.volume_handle]);
        let dir = root.join(PLUGIN).join(&record.driver_name).join(digest);
        Place { path: dir.join("globalmount"), dir }
    }

    pub fn write(&self, record: &Record) -> Result<(), String> {
        let write = || -> io::Result<()> {
            fs::create_dir_all(&self.dir)?;
            fs::write(self.dir.join(RECORD), serde_json::to_vec(record)?)
        };
        write().map_err(|error| format!("{} not written: {error}", self.dir.join(RECORD).display()))
    }

    /// Forgets the volume, once nothing is mounted any more. Nothing is removed but empty folders and the record: what
    /// a driver left behind may be data.
    pub fn remove(&self) -> Result<(), String> {
        let failed = |what: &Path, error: io::Error| format!("{} not removed: {error}", what.display());
        let removed = match fs::symlink_metadata(&self.path) {
            Ok(found) if found.is_dir() => fs::remove_dir(&self.path),
            Ok(_) => fs::remove_file(&self.path),
            Err(error) => Err(error),
        };
        absent_is_fine(removed).map_err(|error| failed(&self.path, error))?;
        let record = self.dir.join(RECORD);
        absent_is_fine(fs::remove_file(&record)).map_err(|error| failed(&record, error))?;
        absent_is_fine(fs::remove_dir(&self.dir)).map_err(|error| failed(&self.dir, error))?;
        for parent in [self.path.parent(), self.dir.parent()].into_iter().flatten() {
            // It stays while it holds what others have.
            drop(fs::remove_dir(parent));
        }
        Ok(())
    }
}

fn absent_is_fine(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// What this pod has of CSI drivers.
pub fn published_by(root: &Path, uid: &str) -> Vec<Record> {
    let pod = pod_dir(root, uid);
    let dirs = [VOLUMES_OF_POD, DEVICES_OF_POD].into_iter().flat_map(|of| subdirectories(&pod.join(of)));
    dirs.filter_map(|dir| read(&dir)).collect()
}

/// What all pods of this node have.
pub fn published(root: &Path) -> Vec<Record> {
    let pods = subdirectories(&root.join("pods"));
    let uids = pods.iter().filter_map(|pod| pod.file_name()?.to_str());
    uids.flat_map(|uid| published_by(root, uid)).collect()
}

/// Whether a pod other than this one has the volume (upstream: `IsVolumeMountedElsewhere`).
pub fn is_elsewhere(root: &Path, uid: &str, record: &Record) -> bool {
    let pods = subdirectories(&root.join("pods"));
    let others = pods.iter().filter_map(|pod| pod.file_name()?.to_str()).filter(|other| *other != uid);
    others.flat_map(|other| published_by(root, other)).any(|held| held.is_same_volume(record))
}

/// What the node has for its pods.
pub fn staged(root: &Path) -> Vec<Record> {
    let of_drivers = subdirectories(&root.join(PLUGIN));
    let devices = root.join(DEVICES);
    let mounted = of_drivers.iter().filter(|dir| **dir != devices).flat_map(|dir| subdirectories(dir));
    let mapped = subdirectories(&devices).into_iter().map(|dir| dir.join("data"));
    mounted.chain(mapped).filter_map(|dir| read(&dir)).collect()
}

fn read(dir: &Path) -> Option<Record> {
    serde_json::from_slice(&fs::read(dir.join(RECORD)).ok()?).ok()
}

fn subdirectories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn record(name: &str, mode: &str) -> Record {
        Record {
            spec_vol_id: name.into(),
            volume_handle: format!("handle-{name}"),
            driver_name: "d".into(),
            volume_mode: mode.into(),
            ..Record::default()
        }
    }

    #[test]
    fn records_of_mounts_and_devices_are_found_again_where_they_were_written() {
        let root = std::env::temp_dir().join(format!("csi-place-{}", std::process::id()));
        let all = [record("a", ""), record("b", BLOCK)];
        for record in &all {
            Place::published(&root, "u", record).write(record).expect("writes");
            Place::staged(&root, record).write(record).expect("writes");
        }
        assert_eq!((published(&root), staged(&root)), (all.to_vec(), all.to_vec()));
        assert!(published_by(&root, "v").is_empty());
        for record in &all {
            Place::published(&root, "u", record).remove().expect("removes");
            Place::staged(&root, record).remove().expect("removes");
        }
        assert!(published(&root).is_empty() && staged(&root).is_empty());
        fs::remove_dir_all(root).expect("removes");
    }

    #[test]
    fn a_record_is_spelled_as_upstreams() {
        let text = apimachinery::to_value(record("a", "")).expect("JSON");
        assert_eq!((&text["driverName"], &text["specVolID"]), (&json!("d"), &json!("a")));
    }

    #[test]
    fn data_that_a_driver_left_behind_stays() {
        let root = std::env::temp_dir().join(format!("csi-left-{}", std::process::id()));
        let record = record("a", "");
        let place = Place::published(&root, "u", &record);
        place.write(&record).expect("writes");
        fs::create_dir(&place.path).expect("makes");
        fs::write(place.path.join("data"), "1").expect("writes");
        assert!(place.remove().is_err());
        assert!(place.path.join("data").exists());
        fs::remove_dir_all(root).expect("removes");
    }
}
