//! A pod network made by plugins. What was asked for a sandbox, and what came of it, is in a file of
//! its own, so that it is undone with the same configuration even by a later process.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::{fs, io};

use apimachinery::{Value, json};
use serde::{Deserialize, Serialize};

use super::config::{self, NetworkList};
use super::exec::{self, Call};
use super::result::addresses;
use crate::link::Links;
use crate::netns;
use crate::pod_network::{Bandwidth, HostPort};
use crate::protocol::Protocol;

/// The pod's interface.
const INTERFACE: &str = "eth0";

/// Version of the files' format.
const VERSION: u32 = 1;

/// What may pass a rate limit at once, in bits, as CRI runtimes ask for.
const BURST_BITS: u64 = i32::MAX as u64;

/// What a network of plugins can fail with.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Config(#[from] config::Error),
    #[error(transparent)]
    Plugin(#[from] exec::Error),
    #[error(transparent)]
    Namespace(#[from] netns::Error),
    #[error("bring up loopback: {0}")]
    Loopback(#[source] crate::netlink::Error),
    #[error("the plugins gave sandbox {0} no address")]
    NoAddress(String),
    #[error("keep the state of sandbox {id} in {path}: {source}")]
    State { id: String, path: PathBuf, source: io::Error },
}

/// Where everything is.
#[derive(Clone, Debug)]
pub struct Config {
    /// Such as `/etc/cni/net.d`.
    pub conf_dir: PathBuf,
    /// Such as `/opt/cni/bin` and `/usr/lib/cni`.
    pub bin_dirs: Vec<PathBuf>,
    /// Where what was done is remembered.
    pub state_dir: PathBuf,
}

/// A sandbox to be connected.
#[derive(Clone, Debug, Default)]
pub struct Attach {
    pub sandbox_id: String,
    pub netns: PathBuf,
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub host_ports: Vec<HostPort>,
    pub bandwidth: Bandwidth,
}

/// The network of the first configuration in a folder.
#[derive(Clone, Debug)]
pub struct Cni {
    config: Config,
}

/// What is remembered of one sandbox.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Attached {
    version: u32,
    network: Value,
    netns: PathBuf,
    args: String,
    capabilities: Value,
    /// Null until all plugins were run.
    result: Value,
}

impl Cni {
    pub fn new(config: Config) -> Cni {
        Cni { config }
    }

    /// Whether there is a configuration; the error says what is missing.
    pub fn ready(&self) -> Result<(), Error> {
        NetworkList::load(&self.config.conf_dir)?;
        Ok(())
    }

    /// Runs the plugins one after the other. Attaching again changes nothing.
    pub async fn attach(&self, request: &Attach) -> Result<Vec<IpAddr>, Error> {
        let id = &request.sandbox_id;
        if let Some(attached) = self.load(id)? {
            if !attached.result.is_null() {
                return Ok(addresses(&attached.result));
            }
            self.undo(id, &attached).await?;
        }
        let network = NetworkList::load(&self.config.conf_dir)?;
        loopback_up(&request.netns)?;
        let mut attached = Attached {
            version: VERSION,
            network: network.value(),
            netns: request.netns.clone(),
            args: args(request),
            capabilities: capabilities(request),
            result: Value::Null,
        };
        self.save(id, &attached)?;
        let result = self.add(id, &network, &attached).await;
        match result {
            Ok(result) if !addresses(&result).is_empty() => {
                let found = addresses(&result);
                attached.result = result;
                self.save(id, &attached)?;
                Ok(found)
            }
            failed => {
                if let Err(error) = self.undo(id, &attached).await {
                    tracing::warn!(%error, sandbox = id, "undo of a failed attach failed");
                }
                failed.and_then(|_| Err(Error::NoAddress(id.clone())))
            }
        }
    }

    /// Undoes it; a sandbox that is not attached is no error.
    pub async fn detach(&self, sandbox_id: &str) -> Result<(), Error> {
        match self.load(sandbox_id)? {
            Some(attached) => self.undo(sandbox_id, &attached).await,
            None => Ok(()),
        }
    }

    async fn add(&self, id: &str, network: &NetworkList, attached: &Attached) -> Result<Value, Error> {
        let call = self.call("ADD", id, attached);
        let mut previous = None;
        for plugin in &network.plugins {
            let input = network.input(plugin, &attached.capabilities, previous.as_ref());
            previous = Some(call.run(plugin["type"].as_str().unwrap_or_default(), &input).await?);
        }
        Ok(previous.unwrap_or_default())
    }

    /// In reverse, each told what the whole call had given.
    async fn undo(&self, id: &str, attached: &Attached) -> Result<(), Error> {
        let path = self.path(id);
        let bad = |problem| config::Error::Bad { path: path.clone(), problem };
        let network = NetworkList::parse(&attached.network).map_err(bad)?;
        let call = self.call("DEL", id, attached);
        let previous = Some(&attached.result).filter(|result| !result.is_null());
        for plugin in network.plugins.iter().rev() {
            let input = network.input(plugin, &attached.capabilities, previous);
            call.run(plugin["type"].as_str().unwrap_or_default(), &input).await?;
        }
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::State { id: id.into(), path, source })
            }
            _ => Ok(()),
        }
    }

    fn call<'a>(&'a self, command: &'static str, id: &'a str, attached: &'a Attached) -> Call<'a> {
        let netns = Some(attached.netns.as_path()).filter(|path| path.exists());
        let folders = &self.config.bin_dirs;
        Call { command, container_id: id, netns, interface: INTERFACE, args: &attached.args, folders }
    }

    fn path(&self, id: &str) -> PathBuf {
        self.config.state_dir.join(format!("{id}.json"))
    }

    fn load(&self, id: &str) -> Result<Option<Attached>, Error> {
        let path = self.path(id);
        let failed = |source| Error::State { id: id.into(), path: path.clone(), source };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| failed(io::Error::other(error)))
    }

    fn save(&self, id: &str, attached: &Attached) -> Result<(), Error> {
        let path = self.path(id);
        let bytes = serde_json::to_vec(attached).expect("the state has only string keys");
        let new = path.with_extension("new");
        fs::create_dir_all(&self.config.state_dir)
            .and_then(|()| fs::write(&new, bytes))
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|source| Error::State { id: id.into(), path, source })
    }
}

/// Plugins leave it to the runtime.
fn loopback_up(netns: &Path) -> Result<(), Error> {
    let mut links = Links::new(netns::route_socket(netns)?);
    if let Some(loopback) = links.find("lo").map_err(Error::Loopback)? {
        links.set_up(loopback.index, None).map_err(Error::Loopback)?;
    }
    Ok(())
}

fn args(request: &Attach) -> String {
    let mut args = String::from("IgnoreUnknown=1");
    for (key, value) in [
        ("K8S_POD_NAMESPACE", &request.namespace),
        ("K8S_POD_NAME", &request.name),
        ("K8S_POD_INFRA_CONTAINER_ID", &request.sandbox_id),
        ("K8S_POD_UID", &request.uid),
    ] {
        write!(args, ";{key}={value}").expect("a String takes everything");
    }
    args
}

/// What the runtime knows and plugins may ask for (the specification's CONVENTIONS).
fn capabilities(request: &Attach) -> Value {
    let mut capabilities = json!({});
    if !request.host_ports.is_empty() {
        capabilities["portMappings"] = request.host_ports.iter().map(port_mapping).collect();
    }
    let mut bandwidth = json!({});
    for (name, rate) in [("ingress", request.bandwidth.ingress), ("egress", request.bandwidth.egress)] {
        if let Some(rate) = rate {
            bandwidth[format!("{name}Rate")] = rate.into();
            bandwidth[format!("{name}Burst")] = BURST_BITS.into();
        }
    }
    if bandwidth.as_object().is_some_and(|limits| !limits.is_empty()) {
        capabilities["bandwidth"] = bandwidth;
    }
    capabilities
}

fn port_mapping(port: &HostPort) -> Value {
    let protocol = match port.protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
        Protocol::Sctp => "sctp",
    };
    let host_ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
    json!({
        "hostPort": port.host_port, "containerPort": port.container_port,
        "protocol": protocol, "hostIP": host_ip,
    })
}
