//! The plugins, one module each, and the table of them in upstream's default order.

pub mod dynamic_resources;
mod image_locality;
mod inter_pod_affinity;
mod node_affinity;
mod node_name;
mod node_ports;
mod node_resources_balanced_allocation;
mod node_resources_fit;
mod node_unschedulable;
mod node_volume_limits;
mod pod_topology_spread;
mod taint_toleration;
pub mod volume_binding;
mod volume_restrictions;
mod volume_zone;

use crate::framework::ClusterEvent::{
    AssignedPodAdd, AssignedPodDelete, AssignedPodUpdate, CsiDriver, CsiNode, CsiStorageCapacity,
    DeviceClass, NamespaceLabel, NodeAdd, NodeAllocatable, NodeLabel, NodeTaint, PersistentVolume,
    PersistentVolumeClaim, ResourceClaim, ResourceSlice, StorageClass, VolumeAttachment,
};
use crate::framework::{Plugin, WeightedScoreFn};

/// Weights are upstream's defaults.
pub static PLUGINS: &[Plugin] = &[
    Plugin {
        name: "NodeUnschedulable",
        filter: Some(node_unschedulable::filter),
        score: None,
        wakes: &[NodeAdd, NodeTaint],
    },
    Plugin { name: "NodeName", filter: Some(node_name::filter), score: None, wakes: &[NodeAdd] },
    Plugin {
        name: "TaintToleration",
        filter: Some(taint_toleration::filter),
        score: Some(WeightedScoreFn { weight: 3, prepare: taint_toleration::score }),
        wakes: &[NodeAdd, NodeTaint],
    },
    Plugin {
        name: "NodeAffinity",
        filter: Some(node_affinity::filter),
        score: Some(WeightedScoreFn { weight: 2, prepare: node_affinity::score }),
        wakes: &[NodeAdd, NodeLabel],
    },
    Plugin {
        name: "NodePorts",
        filter: Some(node_ports::filter),
        score: None,
        wakes: &[NodeAdd, AssignedPodDelete],
    },
    Plugin {
        name: "NodeResourcesFit",
        filter: Some(node_resources_fit::filter),
        score: Some(WeightedScoreFn { weight: 1, prepare: node_resources_fit::score }),
        wakes: &[NodeAdd, NodeAllocatable, AssignedPodUpdate, AssignedPodDelete, DeviceClass],
    },
    Plugin {
        name: "VolumeRestrictions",
        filter: Some(volume_restrictions::filter),
        score: None,
        wakes: &[NodeAdd, AssignedPodDelete, PersistentVolumeClaim],
    },
    Plugin {
        name: "NodeVolumeLimits",
        filter: Some(node_volume_limits::filter),
        score: None,
        wakes: &[NodeAdd, AssignedPodDelete, CsiNode, PersistentVolumeClaim, VolumeAttachment],
    },
    Plugin {
        name: "VolumeBinding",
        filter: Some(volume_binding::filter),
        score: None,
        wakes: &[
            NodeAdd,
            NodeLabel,
            StorageClass,
            PersistentVolumeClaim,
            PersistentVolume,
            CsiNode,
            CsiDriver,
            CsiStorageCapacity,
        ],
    },
    Plugin {
        name: "VolumeZone",
        filter: Some(volume_zone::filter),
        score: None,
        wakes: &[NodeAdd, NodeLabel, StorageClass, PersistentVolumeClaim, PersistentVolume],
    },
    Plugin {
        name: "PodTopologySpread",
        filter: Some(pod_topology_spread::filter),
        score: Some(WeightedScoreFn { weight: 2, prepare: pod_topology_spread::score }),
        wakes: &[NodeAdd, NodeLabel, NodeTaint, AssignedPodAdd, AssignedPodUpdate, AssignedPodDelete],
    },
    Plugin {
        name: "InterPodAffinity",
        filter: Some(inter_pod_affinity::filter),
        score: Some(WeightedScoreFn { weight: 2, prepare: inter_pod_affinity::score }),
        wakes: &[NodeAdd, NodeLabel, AssignedPodAdd, AssignedPodUpdate, AssignedPodDelete, NamespaceLabel],
    },
    Plugin {
        name: dynamic_resources::NAME,
        filter: Some(dynamic_resources::filter),
        score: None,
        wakes: &[NodeAdd, NodeLabel, NodeTaint, ResourceClaim, DeviceClass, ResourceSlice],
    },
    Plugin {
        name: "NodeResourcesBalancedAllocation",
        filter: None,
        score: Some(WeightedScoreFn { weight: 1, prepare: node_resources_balanced_allocation::score }),
        wakes: &[],
    },
    Plugin {
        name: "ImageLocality",
        filter: None,
        score: Some(WeightedScoreFn { weight: 1, prepare: image_locality::score }),
        wakes: &[],
    },
];
