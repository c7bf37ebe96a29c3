//! What the runtime remembers of sandboxes and containers: one JSON file each, written whole.

use std::fs;
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

/// Every complete record below `dir`; folders without one are what a crash left of a creation, and are returned apart.
pub fn load<T: DeserializeOwned>(dir: &Path) -> Result<(Vec<T>, Vec<PathBuf>)> {
    let (mut records, mut incomplete) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir).map_err(Error::io("read", dir))? {
        let path = entry.map_err(Error::io("read", dir))?.path();
        match fs::read(path.join(FILE_NAME)).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
            Some(record) => records.push(record),
            None => incomplete.push(path),
        }
    }
    Ok((records, incomplete))
}

pub fn read_exit(container_dir: &Path) -> Option<ExitRecord> {
    let bytes = fs::read(container_dir.join(EXIT_FILE_NAME)).ok()?;
    serde_json::from_slice(&bytes).ok()
}
