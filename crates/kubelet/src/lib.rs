//! The kubelet: runs the pods bound to this node through any CRI runtime, and reports what became of them.
//!
//! What to do is decided purely: `pod::actions` compares a pod with what the runtime shows and returns a plan,
//! `pod::status` words the result. One task per pod (`worker`) carries plans out; runtime events wake it, nothing polls.

mod active;
mod admission;
mod allocation;
pub mod certificate;
mod cm;
pub mod config;
mod containergc;
mod csi;
mod dns;
mod env;
mod eviction;
mod hugepages;
mod imagegc;
mod images;
pub mod inotify;
mod kubelet;
pub mod kubeletconfig;
mod lifecycle;
mod logs;
mod metrics;
mod node;
mod nodeshutdown;
mod observe;
mod operations;
mod pluginmanager;
mod pod;
mod pod_workers;
mod probe;
mod resources;
mod runtimeclass;
mod server;
mod started;
mod startup;
mod staticpods;
mod stats;
mod termination_message;
mod userns;
mod volumes;
mod worker;

pub use config::Config;
pub use eviction::disk;
pub use kubelet::run;
pub use kubeletconfig::KubeletConfiguration;
pub use volumes::unmount_all as unmount_volumes;
