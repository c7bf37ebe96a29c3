//! What pods get of the node's resources, and the cgroups that hold them to it (follows `pkg/kubelet/cm`).

pub mod checkpoint;
pub mod container_manager;
mod cpumanager;
mod cpuset;
pub mod devicemanager;
pub mod dra;
mod memorymanager;
mod metrics;
pub mod pod_cgroups;
mod pod_scope;
pub mod podresources;
pub mod resourcestatus;
mod settings;
mod sockets;
mod topology;
mod topologymanager;

pub use container_manager::{ContainerManager, Pinned};
pub use settings::{FULL_PCPUS_ONLY, STRICT_CPU_RESERVATION, Settings};
pub use topology::{count_cores_and_sockets, count_cpus};
