//! What was given out, in a file that survives the process. Written whole and renamed into place.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::IpAddr;
use std::path::Path;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::peers::Hop;
use crate::protocol::Protocol;
use crate::sysctl;

/// Version of the file's format.
const VERSION: u32 = 1;

/// What keeping the file can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("read pod network state {path}: {source}")]
    Read { path: String, source: io::Error },
    #[error("pod network state {path} is damaged: {source}; remove the file once no pod is running")]
    Damaged { path: String, source: serde_json::Error },
    #[error("pod network state {path} has format version {found}, this program knows {VERSION}")]
    Version { path: String, found: u32 },
    #[error("write pod network state {path}: {source}")]
    Write { path: String, source: io::Error },
}

/// The file's content.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    version: u32,
    /// The address given out last, per pod CIDR.
    pub last: BTreeMap<IpNet, IpAddr>,
    /// By sandbox id.
    pub attachments: BTreeMap<String, Attachment>,
    /// Ways to other nodes' pods.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub peers: BTreeMap<IpNet, Hop>,
    /// Kernel settings as they were before we came.
    pub sysctls: sysctl::Previous,
}

/// What one sandbox has.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Attachment {
    pub addresses: Vec<IpAddr>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub host_ports: Vec<HostPort>,
}

/// A port of the host that leads to the pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostPort {
    /// Only on this address of the host; on all when absent.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
    pub host_port: u16,
    pub container_port: u16,
    pub protocol: Protocol,
}

impl Default for State {
    fn default() -> State {
        State {
            version: VERSION,
            last: BTreeMap::new(),
            attachments: BTreeMap::new(),
            peers: BTreeMap::new(),
            sysctls: sysctl::Previous::new(),
        }
    }
}

impl State {
    /// Empty if there is no file.
    pub fn load(path: &Path) -> Result<State, Error> {
        let name = || path.display().to_string();
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(State::default()),
            Err(source) => return Err(Error::Read { path: name(), source }),
        };
        let state: State =
            serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path: name(), source })?;
        if state.version != VERSION {
            return Err(Error::Version { path: name(), found: state.version });
        }
        Ok(state)
    }

    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let bytes = serde_json::to_vec(self).expect("the state has only string keys");
        write_whole(path, &bytes).map_err(|source| Error::Write { path: path.display().to_string(), source })
    }

    pub fn remove(path: &Path) -> Result<(), Error> {
        match fs::remove_file(path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Write { path: path.display().to_string(), source })
            }
            _ => Ok(()),
        }
    }
}

fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let new = path.with_extension("new");
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(new, path)
}
