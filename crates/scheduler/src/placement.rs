//! What a pod's placement needs written before the pod is bound.

use crate::devices::PodDevices;
use crate::nodeinfo::NodeInfo;
use crate::plugins::{dynamic_resources, volume_binding};
use crate::podinfo::PodInfo;
use crate::snapshot::Snapshot;
use crate::volumes::PodVolumes;

#[derive(Clone, Debug, Default, PartialEq)]
pub struct Placement {
    pub volumes: PodVolumes,
    pub devices: PodDevices,
}

impl Placement {
    /// For a node that all filters have passed.
    pub fn decide(pod: &PodInfo, snapshot: &Snapshot, node: &NodeInfo) -> Self {
        Placement {
            volumes: volume_binding::decide(pod, snapshot, node),
            devices: dynamic_resources::decide(pod, snapshot, node),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.volumes.is_empty() && self.devices.is_empty()
    }
}
