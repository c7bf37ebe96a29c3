//! The kubelet: runs the pods bound to this node through any CRI runtime, and reports what became of them.
//!
//! What to do is decided purely: `pod::actions` compares a pod with what the runtime shows and returns a plan,
//! `pod::status` words the result. One task per pod (`worker`) carries plans out; runtime events wake it, nothing polls.

mod allocation;
pub mod config;
mod csi;
mod dns;
mod env;
mod images;
pub mod inotify;
mod kubelet;
mod lifecycle;
mod node;
mod observe;
mod pod;
mod probe;
mod resources;
mod server;
mod termination_message;
mod volumes;
mod worker;

pub use config::Config;
pub use kubelet::run;
pub use volumes::unmount_all as unmount_volumes;
