//! The volumes on disk: `STATE/ID` holds `volume.json` and the data, a folder or the file behind a device. All changes go
//! through here and may be repeated, as CSI demands.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

const RECORD: &str = "volume.json";
/// Any user of a pod may write, as the volume belongs to one claim.
const MODE: u32 = 0o777;
/// A device that nobody sized: the least that file systems fit into.
const SIZE_DEFAULT: i64 = 16 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Volume {
    pub id: String,
    pub size_bytes: i64,
    pub is_block: bool,
    /// Made for one pod, and gone with it.
    pub is_ephemeral: bool,
    /// The node to which it is attached.
    pub attached_to: Option<String>,
    /// What the class of its attributes says; it is kept and shown, for a folder has nothing to set.
    #[serde(default)]
    pub attributes: BTreeMap<String, String>,
}

pub struct Volumes {
    root: PathBuf,
}

impl Volumes {
    pub fn open(root: &Path) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        Ok(Volumes { root: root.to_owned() })
    }

    /// The volume of this name as it is, or made as it is asked for.
    pub fn create(&self, wanted: Volume) -> io::Result<Volume> {
        if let Some(held) = self.get(&wanted.id)? {
            return Ok(held);
        }
        let size_bytes = if wanted.size_bytes > 0 { wanted.size_bytes } else { SIZE_DEFAULT };
        let wanted = Volume { size_bytes, ..wanted };
        fs::create_dir_all(self.dir(&wanted.id)?)?;
        let data = self.data(&wanted)?;
        if wanted.is_block {
            File::create(&data)?.set_len(length(size_bytes)?)?;
        } else {
            fs::create_dir_all(&data)?;
            fs::set_permissions(&data, fs::Permissions::from_mode(MODE))?;
        }
        self.write(&wanted)?;
        Ok(wanted)
    }

    pub fn get(&self, id: &str) -> io::Result<Option<Volume>> {
        match fs::read(self.dir(id)?.join(RECORD)) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub fn delete(&self, id: &str) -> io::Result<()> {
        match fs::remove_dir_all(self.dir(id)?) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Makes it at least that large.
    pub fn grow(&self, volume: &Volume, size_bytes: i64) -> io::Result<Volume> {
        let grown = Volume { size_bytes: volume.size_bytes.max(size_bytes), ..volume.clone() };
        if grown.is_block {
            File::options().write(true).open(self.data(&grown)?)?.set_len(length(grown.size_bytes)?)?;
        }
        self.write(&grown)?;
        Ok(grown)
    }

    /// The record is replaced whole, so that no reader finds half of it.
    pub fn write(&self, volume: &Volume) -> io::Result<()> {
        let dir = self.dir(&volume.id)?;
        let new = dir.join(format!("{RECORD}.new"));
        fs::write(&new, serde_json::to_vec(volume)?)?;
        fs::rename(new, dir.join(RECORD))
    }

    /// The folder, or the file behind the device.
    pub fn data(&self, volume: &Volume) -> io::Result<PathBuf> {
        Ok(self.dir(&volume.id)?.join(if volume.is_block { "disk" } else { "files" }))
    }

    /// An identifier comes from outside, and must name a folder here.
    fn dir(&self, id: &str) -> io::Result<PathBuf> {
        let is_plain = id.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if !is_plain || id.is_empty() || id.starts_with('.') {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("volume {id:?} cannot be one of ours"),
            ));
        }
        Ok(self.root.join(id))
    }
}

fn length(size_bytes: i64) -> io::Result<u64> {
    u64::try_from(size_bytes)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, "a size is not negative"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(id: &str, is_block: bool) -> Volume {
        Volume { id: id.into(), size_bytes: 1 << 20, is_block, ..Volume::default() }
    }

    #[test]
    fn what_is_made_twice_is_made_once_and_keeps_its_data() {
        let root = tempfile::tempdir().expect("a folder");
        let volumes = Volumes::open(root.path()).expect("opens");
        let made = volumes.create(volume("a", false)).expect("makes");
        fs::write(volumes.data(&made).expect("a path").join("x"), "1").expect("writes");
        volumes.create(volume("a", false)).expect("leaves it");
        assert!(volumes.data(&made).expect("a path").join("x").exists());
        for _ in 0..2 {
            volumes.delete("a").expect("deletes");
        }
        assert_eq!(volumes.get("a").expect("reads"), None);
    }

    #[test]
    fn a_device_is_as_large_as_its_file_and_only_grows() {
        let root = tempfile::tempdir().expect("a folder");
        let volumes = Volumes::open(root.path()).expect("opens");
        let made = volumes.create(volume("a", true)).expect("makes");
        let size =
            |volume: &Volume| fs::metadata(volumes.data(volume).expect("a path")).expect("there").len();
        let grown = volumes.grow(&made, 3 << 20).expect("grows");
        assert_eq!((size(&made), volumes.grow(&grown, 1).expect("stays").size_bytes), (3 << 20, 3 << 20));
    }

    #[test]
    fn no_name_leads_out_of_the_folder() {
        let root = tempfile::tempdir().expect("a folder");
        let volumes = Volumes::open(root.path()).expect("opens");
        for bad in ["", ".", "..", "../x", "a/b", "/etc"] {
            assert!(volumes.get(bad).is_err() && volumes.delete(bad).is_err(), "{bad}");
        }
    }
}
