//! What runs the containers, and where their images come from.

use std::path::PathBuf;

use clap::Args;
use cluster::Layout;

use super::{ClusterArgs, LogArgs, NetworkArgs};
use crate::services::node::ImagePlan;

/// `cox runtime`.
#[derive(Args, Clone)]
pub struct RuntimeAloneArgs {
    #[command(flatten)]
    pub cluster: ClusterArgs,
    #[command(flatten)]
    pub network: NetworkArgs,
    #[command(flatten)]
    pub images: ImageArgs,
    #[command(flatten)]
    pub log: LogArgs,
}

#[derive(Args, Clone)]
#[command(next_help_heading = "Container runtime")]
pub struct RuntimeArgs {
    /// Use another CRI runtime, for example unix:///run/containerd/containerd.sock
    #[arg(long)]
    pub container_runtime_endpoint: Option<String>,
    #[command(flatten)]
    pub images: ImageArgs,
}

/// Where the images of the built-in runtime come from.
#[derive(Args, Clone)]
#[command(next_help_heading = "Container runtime")]
pub struct ImageArgs {
    /// Mirrors, credentials and authorities of image registries; registries.yaml in the folder of kubeconfigs if not given
    #[arg(long, value_name = "FILE")]
    pub private_registry: Option<PathBuf>,
    /// Folder of image archives that this node is to have; `images` in the cluster's data if not given
    #[arg(long, value_name = "DIR")]
    pub images_dir: Option<PathBuf>,
}

impl ImageArgs {
    pub fn plan(&self, layout: &Layout) -> ImagePlan {
        ImagePlan {
            registries: self.private_registry.clone().unwrap_or_else(|| layout.registries()),
            archives: self.images_dir.clone().unwrap_or_else(|| layout.image_archives()),
        }
    }
}
