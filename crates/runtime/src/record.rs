//! What the runtime remembers of sandboxes and containers: one JSON file each, written whole.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cri::{ContainerConfig, PodSandboxConfig};
use crate::files::write_atomically;
use crate::shim::spec::ExitRecord;
use crate::{Error, Result};

/// Raised when a reader of the old meaning would go wrong.
const VERSION: u32 = 1;
const FILE_NAME: &str = "record.json";
/// Where a shim leaves how a container ended.
pub const EXIT_FILE_NAME: &str = "exit.json";

/// A pod sandbox.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct SandboxRecord {
    pub version: u32,
    pub id: String,
    pub config: PodSandboxConfig,
    pub runtime_handler: String,
    /// Nanoseconds since 1970.
    pub created_at: i64,
    /// The pod's cgroup.
    pub cgroup: String,
    pub ips: Vec<String>,
    /// Process id of the shim, which holds the namespaces.
    pub shim: i32,
    /// False once it was stopped or its shim has died.
    pub ready: bool,
}

impl SandboxRecord {
    pub fn new(
        id: String,
        config: PodSandboxConfig,
        runtime_handler: String,
        created_at: i64,
        cgroup: String,
    ) -> Self {
        let (version, ips, shim, ready) = (VERSION, Vec::new(), 0, false);
        SandboxRecord { version, id, config, runtime_handler, created_at, cgroup, ips, shim, ready }
    }

    /// The shim's own cgroup.
    pub fn shim_cgroup(&self) -> String {
        format!("{}/{}", self.cgroup, self.id)
    }
}

/// A container.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ContainerRecord {
    pub version: u32,
    pub id: String,
    pub sandbox_id: String,
    pub config: ContainerConfig,
    pub image_id: String,
    /// The tag users know the image by.
    pub image_name: String,
    /// `name@digest` if the image came from a registry, else its id.
    pub image_ref: String,
    /// Layer folders, bottom first.
    pub layers: Vec<String>,
    /// The same of images that are mounted as volumes, by where.
    #[serde(default)]
    pub volume_layers: BTreeMap<String, Vec<String>>,
    pub stop_signal: i32,
    pub created_at: i64,
    pub cgroup: String,
    pub user: User,
    /// Set by a start, successful or not.
    pub started_at: Option<i64>,
    pub pid: i32,
    pub exit: Option<ExitRecord>,
    /// Why it could not be started, or why its end is not known.
    pub message: String,
}

/// Resolved identity of a container's first process.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
}

impl ContainerRecord {
    pub const VERSION: u32 = VERSION;

    pub fn is_running(&self) -> bool {
        self.started_at.is_some() && self.exit.is_none()
    }
}

pub fn save(dir: &Path, record: &impl Serialize) -> Result<()> {
    let path = dir.join(FILE_NAME);
    let bytes = serde_json::to_vec(record).map_err(|e| Error::InvalidArgument(e.to_string()))?;
    write_atomically(&path, &bytes).map_err(Error::io("write", &path))
}

/// Every record below `dir`; folders without one are what a crash left of a creation, and are returned apart. A record
/// that cannot be read is an error, never taken for none: what it tells of may be running.
pub fn load<T: DeserializeOwned>(dir: &Path) -> Result<(Vec<T>, Vec<PathBuf>)> {
    let (mut records, mut incomplete) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let folder = entry.map_err(Error::io("read", dir))?.path();
        let path = folder.join(FILE_NAME);
        match fs::read(&path) {
            Ok(bytes) => records.push(decode(&bytes).map_err(Error::io("read", &path))?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => incomplete.push(folder),
            Err(error) => return Err(Error::io("read", &path)(error)),
        }
    }
    Ok((records, incomplete))
}

fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u32,
    }
    let Versioned { version } = serde_json::from_slice(bytes)?;
    if version > VERSION {
        let text = format!("a newer version wrote it (format {version}, known is {VERSION})");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    Ok(serde_json::from_slice(bytes)?)
}

pub fn read_exit(container_dir: &Path) -> Option<ExitRecord> {
    let bytes = fs::read(container_dir.join(EXIT_FILE_NAME)).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Small {
        version: u32,
        name: String,
    }

    /// Loads one folder with this record, or with none.
    fn check(record: Option<&str>) -> Result<(Vec<Small>, usize)> {
        let dir = std::env::temp_dir().join(format!("records-{}", crate::files::random_id()));
        fs::create_dir_all(dir.join("one")).expect("makes");
        if let Some(record) = record {
            fs::write(dir.join("one").join(FILE_NAME), record).expect("writes");
        }
        let loaded = load(&dir);
        fs::remove_dir_all(dir).expect("removes");
        loaded.map(|(records, incomplete)| (records, incomplete.len()))
    }

    #[test]
    fn only_a_folder_without_a_record_is_incomplete() {
        let known = Small { version: VERSION, name: "a".into() };
        assert_eq!(check(Some(r#"{"version": 1, "name": "a"}"#)).expect("loads"), (vec![known], 0));
        assert_eq!(check(None).expect("loads"), (vec![], 1));
    }

    #[test]
    fn a_record_that_cannot_be_read_is_named_and_left_alone() {
        for bad in ["", "{", r#"{"version": 2, "name": "a"}"#, r#"{"version": 1}"#] {
            let error = crate::error::with_sources(&check(Some(bad)).expect_err(bad));
            assert!(error.contains(FILE_NAME), "{error}");
        }
    }
}
