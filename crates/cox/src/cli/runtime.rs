//! What runs the containers, and where their images come from.

use std::path::PathBuf;

use clap::Args;
use cluster::Layout;

use crate::services::node::RuntimePlan;

#[derive(Args, Clone)]
pub struct RuntimeArgs {
    /// Use another CRI runtime, for example unix:///run/containerd/containerd.sock
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    /// Mirrors, credentials and authorities of image registries; registries.yaml in the folder of kubeconfigs if not given
    #[arg(long, value_name = "FILE")]
    pub private_registry: Option<PathBuf>,
    /// Folder of image archives that this node is to have; `images` in the cluster's data if not given
    #[arg(long, value_name = "DIR")]
    pub images_dir: Option<PathBuf>,
}

impl RuntimeArgs {
    pub fn plan(&self, layout: &Layout) -> RuntimePlan {
        RuntimePlan {
            endpoint: self.container_runtime_endpoint.clone(),
            registries: self.private_registry.clone().unwrap_or_else(|| layout.registries()),
            image_archives: self.images_dir.clone().unwrap_or_else(|| layout.image_archives()),
        }
    }
}
