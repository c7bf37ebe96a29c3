//! Which CSI drivers are on this node, as the plugin registry tells (follows upstream's `RegistrationHandler`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use client::{CancellationToken, Client};
use csi::pluginregistration::PluginInfo;
use tokio::sync::{Mutex, watch};
use tokio_util::sync::DropGuard;

use super::node_info::NodeInfo;
use super::plugin::Plugin;
use super::tear_down::unstage_unused;
use crate::metrics::VolumeMetrics;
use crate::pluginmanager::PluginHandler;
use crate::volumes::growth::Known;

/// What is known of a volume since its driver came. Whoever changes the volume holds it: drivers are promised one call at
/// a time for each.
#[derive(Debug, Default)]
pub struct Turn {
    pub is_staged: bool,
    pub known: Known,
}

/// A registered driver.
#[derive(Clone)]
pub struct Driver {
    pub plugin: Plugin,
    /// By volume handle; those that are staged, or that somebody changes.
    turns: Arc<StdMutex<BTreeMap<String, Arc<Mutex<Turn>>>>>,
    /// Ends what keeps CSINode as the driver says, with the last that knows the driver.
    _kept: Arc<DropGuard>,
}

impl Driver {
    fn new(plugin: Plugin, kept: DropGuard) -> Self {
        Driver { plugin, turns: Arc::default(), _kept: Arc::new(kept) }
    }

    pub fn turn(&self, handle: &str) -> Arc<Mutex<Turn>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let is_known = |turn: &Turn| turn.is_staged || turn.known.capacity.is_some();
        turns.retain(|_, turn| {
            Arc::strong_count(turn) > 1 || turn.try_lock().is_ok_and(|turn| is_known(&turn))
        });
        turns.entry(handle.to_owned()).or_default().clone()
    }
}

/// The drivers of this node, by name.
#[derive(Default)]
pub struct Drivers(watch::Sender<BTreeMap<String, Driver>>);

impl Drivers {
    pub fn get(&self, name: &str) -> Option<Driver> {
        self.0.borrow().get(name).cloned()
    }

    /// Returns when the driver is there.
    #[cfg(test)]
    pub async fn registered(&self, name: &str) -> Driver {
        let mut drivers = self.0.subscribe();
        let found = drivers.wait_for(|drivers| drivers.contains_key(name)).await;
        found.expect("the sender is here")[name].clone()
    }

    fn set(&self, name: &str, driver: Option<Driver>) {
        self.0.send_modify(|drivers| match driver {
            Some(driver) => drop(drivers.insert(name.to_owned(), driver)),
            None => drop(drivers.remove(name)),
        });
    }
}

/// Tells of the drivers that come and go.
pub struct Registration {
    pub drivers: Arc<Drivers>,
    pub client: Client,
    pub node_name: String,
    /// The kubelet's folder.
    pub root: PathBuf,
    pub metrics: Arc<VolumeMetrics>,
}

#[tonic::async_trait]
impl PluginHandler for Registration {
    fn kind(&self) -> &'static str {
        "CSIPlugin"
    }

    fn validate(&self, info: &PluginInfo, endpoint: &Path) -> Result<(), String> {
        let is_of_version_1 =
            info.supported_versions.iter().any(|v| v.trim_start_matches('v').starts_with("1."));
        if is_of_version_1 {
            return Ok(());
        }
        let PluginInfo { name, supported_versions, .. } = info;
        Err(format!(
            "validation failed for CSI Driver {name} at endpoint {}: versions {supported_versions:?} do not have version 1",
            endpoint.display()
        ))
    }

    async fn register(&self, info: &PluginInfo, endpoint: &Path) -> Result<(), String> {
        let plugin = Plugin::new(&info.name, endpoint, self.metrics.clone());
        let node = plugin.node_info().await.map_err(|status| status.to_string())?;
        let told = self.node_info();
        let written = told.write(&info.name, Some(&node)).await;
        written.map_err(|error| format!("CSINode not written: {error}"))?;
        let stop = CancellationToken::new();
        tokio::spawn(told.keep(info.name.clone(), plugin.clone(), stop.clone()));
        let driver = Driver::new(plugin, stop.drop_guard());
        self.drivers.set(&info.name, Some(driver.clone()));
        let (name, root) = (info.name.clone(), self.root.clone());
        tokio::spawn(async move { unstage_unused(&driver, &name, &root).await });
        Ok(())
    }

    async fn deregister(&self, name: &str, _: &Path) {
        self.drivers.set(name, None);
        if let Err(error) = self.node_info().write(name, None).await {
            tracing::warn!(driver = name, %error, "CSINode still names a driver that is gone");
        }
    }
}

impl Registration {
    fn node_info(&self) -> NodeInfo {
        NodeInfo { client: self.client.clone(), node_name: self.node_name.clone() }
    }
}
