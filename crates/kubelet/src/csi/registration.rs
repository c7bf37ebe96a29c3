//! Which CSI drivers are on this node, as the plugin registry and then CSINode tell (follows upstream's
//! `nodeinfomanager`).

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use api::resource::{CSI_NODES, NODES};
use api::view::core::Node;
use api::view::storage::{CsiNode, CsiNodeDriver, VolumeNodeResources};
use apimachinery::json;
use client::{Client, PatchType};
use csi::pluginregistration::PluginInfo;
use csi::v1::NodeGetInfoResponse;
use tokio::sync::{Mutex, watch};

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
}

impl Driver {
    fn new(plugin: Plugin) -> Self {
        Driver { plugin, turns: Arc::default() }
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
        let written = self.write_csi_node(&info.name, Some(&node)).await;
        written.map_err(|error| format!("CSINode not written: {error}"))?;
        let driver = Driver::new(plugin);
        self.drivers.set(&info.name, Some(driver.clone()));
        let (name, root) = (info.name.clone(), self.root.clone());
        tokio::spawn(async move { unstage_unused(&driver, &name, &root).await });
        Ok(())
    }

    async fn deregister(&self, name: &str, _: &Path) {
        self.drivers.set(name, None);
        if let Err(error) = self.write_csi_node(name, None).await {
            tracing::warn!(driver = name, %error, "CSINode still names a driver that is gone");
        }
    }
}

impl Registration {
    /// Puts the driver into the node's CSINode, or takes it out.
    async fn write_csi_node(
        &self,
        name: &str,
        info: Option<&NodeGetInfoResponse>,
    ) -> client::error::Result<()> {
        let mut csi_node = self.csi_node().await?;
        let drivers = &mut csi_node.spec.drivers;
        drivers.retain(|driver| driver.name != name);
        drivers.extend(info.map(|info| entry(name, info)));
        let patch = json!({
            "metadata": {"resourceVersion": csi_node.metadata.resource_version}, "spec": {"drivers": drivers},
        });
        self.client.patch(CSI_NODES, "", &self.node_name, None, PatchType::Merge, &patch).await?;
        let segments =
            info.and_then(|info| info.accessible_topology.as_ref()).map(|topology| &topology.segments);
        if let Some(segments) = segments.filter(|segments| !segments.is_empty()) {
            let labels = json!({"metadata": {"labels": segments}});
            self.client.patch(NODES, "", &self.node_name, None, PatchType::Merge, &labels).await?;
        }
        Ok(())
    }

    /// The node's CSINode, made when it is missing.
    async fn csi_node(&self) -> client::error::Result<CsiNode> {
        match self.client.get(CSI_NODES, "", &self.node_name).await {
            Err(error) if error.is_not_found() => {}
            found => return found,
        }
        let node: Node = self.client.get(NODES, "", &self.node_name).await?;
        let made = json!({
            "apiVersion": CSI_NODES.api_version(), "kind": CSI_NODES.kind,
            "metadata": {"name": self.node_name, "ownerReferences": [{
                "apiVersion": NODES.api_version(), "kind": NODES.kind, "name": self.node_name, "uid": node.metadata.uid,
            }]},
            "spec": {"drivers": []},
        });
        self.client.create(CSI_NODES, "", &made).await?;
        self.client.get(CSI_NODES, "", &self.node_name).await
    }
}

fn entry(name: &str, info: &NodeGetInfoResponse) -> CsiNodeDriver {
    let limit = i32::try_from(info.max_volumes_per_node).ok().filter(|limit| *limit > 0);
    let segments = info.accessible_topology.iter().flat_map(|topology| topology.segments.keys());
    let mut topology_keys: Vec<String> = segments.cloned().collect();
    topology_keys.sort();
    CsiNodeDriver {
        name: name.to_owned(),
        node_id: info.node_id.clone(),
        topology_keys,
        allocatable: limit.map(|limit| VolumeNodeResources { count: Some(limit) }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use csi::v1::Topology;

    #[test]
    fn a_driver_without_a_limit_has_none() {
        let info = |limit| NodeGetInfoResponse {
            node_id: "id".into(),
            max_volumes_per_node: limit,
            accessible_topology: Some(Topology { segments: [("zone".to_owned(), "x".to_owned())].into() }),
        };
        assert_eq!(entry("d", &info(0)).allocatable, None);
        let limited = entry("d", &info(7));
        assert_eq!(limited.allocatable, Some(VolumeNodeResources { count: Some(7) }));
        assert_eq!((limited.node_id.as_str(), limited.topology_keys), ("id", vec!["zone".to_owned()]));
    }
}
