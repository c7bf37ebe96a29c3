//! What pods get of the node's resources, and the cgroups that hold them to it (follows `pkg/kubelet/cm`).

pub mod checkpoint;
pub mod container_manager;
mod cpumanager;
mod cpuset;
pub mod devicemanager;
pub mod pod_cgroups;
pub mod podresources;
mod settings;
mod topology;
mod topologymanager;

pub use container_manager::{ContainerManager, Pinned};
pub use settings::{FULL_PCPUS_ONLY, STRICT_CPU_RESERVATION, Settings};
