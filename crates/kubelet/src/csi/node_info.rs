//! What CSINode says of a driver on this node, which the driver is asked again as often as its CSIDriver wants (follows
//! upstream's `nodeinfomanager` and `csiNodeUpdater`).

use std::time::Duration;

use api::resource::{CSI_DRIVERS, CSI_NODES, NODES};
use api::view::core::Node;
use api::view::storage::{CsiDriver, CsiNode, CsiNodeDriver, VolumeNodeResources};
use apimachinery::json;
use client::{CancellationToken, Client, Delta, Informer, PatchType};
use csi::v1::NodeGetInfoResponse;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use super::plugin::Plugin;

/// The node's CSINode and its labels, as far as drivers fill them.
#[derive(Clone)]
pub struct NodeInfo {
    pub client: Client,
    pub node_name: String,
}

impl NodeInfo {
    /// Puts the driver into the node's CSINode, or takes it out.
    pub async fn write(&self, name: &str, info: Option<&NodeGetInfoResponse>) -> client::error::Result<()> {
        let csi_node = self.csi_node().await?;
        let mut drivers = csi_node.spec.drivers.clone();
        drivers.retain(|driver| driver.name != name);
        drivers.extend(info.map(|info| entry(name, info)));
        if !is_same(&drivers, &csi_node.spec.drivers) {
            let patch = json!({
                "metadata": {"resourceVersion": csi_node.metadata.resource_version}, "spec": {"drivers": drivers},
            });
            self.client.patch(CSI_NODES, "", &self.node_name, None, PatchType::Merge, &patch).await?;
        }
        let segments =
            info.and_then(|info| info.accessible_topology.as_ref()).map(|topology| &topology.segments);
        if let Some(segments) = segments.filter(|segments| !segments.is_empty()) {
            let labels = json!({"metadata": {"labels": segments}});
            self.client.patch(NODES, "", &self.node_name, None, PatchType::Merge, &labels).await?;
        }
        Ok(())
    }

    /// Asks the driver again.
    pub async fn update(&self, name: &str, plugin: &Plugin) {
        let outcome = match plugin.node_info().await {
            Ok(info) => self.write(name, Some(&info)).await.map_err(|error| error.to_string()),
            Err(status) => Err(status.to_string()),
        };
        if let Err(error) = outcome {
            tracing::warn!(driver = name, error, "CSINode may say too much or too little of its driver");
        }
    }

    /// Asks the driver again and again while its CSIDriver wants that, until `stop`.
    pub async fn keep(self, name: String, plugin: Plugin, stop: CancellationToken) {
        let settings = Informer::of_one(self.client.clone(), CSI_DRIVERS, "", &name, stop.child_token());
        let mut deltas = settings.subscribe();
        // The cache, whose end closes the channel, must live no longer than the watch that feeds it.
        drop(settings);
        let (mut period, mut ticks) = (None, None);
        loop {
            tokio::select! {
                delta = deltas.recv() => {
                    let Some(delta) = delta else { return };
                    let wanted = wanted_period(&delta);
                    if wanted != period {
                        (period, ticks) = (wanted, wanted.map(every));
                    }
                }
                () = next(&mut ticks) => self.update(&name, &plugin).await,
            }
        }
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

fn wanted_period(delta: &Delta<CsiDriver>) -> Option<Duration> {
    match delta {
        Delta::Deleted(_) => None,
        Delta::Added(driver) | Delta::Updated { new: driver, .. } => driver.spec.allocatable_update_period(),
    }
}

fn every(period: Duration) -> Interval {
    let mut ticks = interval_at(Instant::now() + period, period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Never, without an interval.
async fn next(ticks: &mut Option<Interval>) {
    match ticks {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

fn is_same(new: &[CsiNodeDriver], old: &[CsiNodeDriver]) -> bool {
    new.len() == old.len() && new.iter().all(|driver| old.contains(driver))
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
