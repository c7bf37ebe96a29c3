//! How the node keeps itself healthy: upstream's `KubeletConfiguration`, as far as that is concerned, with its defaults.

use std::path::PathBuf;

pub use crate::eviction::Settings as Eviction;
pub use crate::eviction::Thresholds as EvictionThresholds;
pub use crate::imagegc::Policy as ImageGc;
pub use crate::logs::Limits as ContainerLog;
pub use crate::nodeshutdown::Periods as Shutdown;

#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub container_log: ContainerLog,
    /// Sysctls, or beginnings of them with a `*`, that pods may set beyond the safe ones.
    pub allowed_unsafe_sysctls: Vec<String>,
    /// A file, or a folder of files, of static pods.
    pub static_pod_path: Option<PathBuf>,
    pub eviction: Eviction,
    pub image_gc: ImageGc,
    /// What pods get to end before the node goes down.
    pub shutdown: Shutdown,
}
