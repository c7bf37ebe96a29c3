//! Networking of a node: addresses and links of pods, ways to other nodes, the service proxy, network
//! policies, and cluster DNS. It talks to the kernel over netlink only and runs no other program,
//! unless the operator has pods connected by CNI plugins.

pub mod netlink;
pub mod nftables;

pub mod link;
pub mod netns;
pub mod sysctl;

pub mod names;
pub mod protocol;

pub mod ipam;
pub mod pod_network;

pub mod nodes;

pub mod cni;

pub mod http;
pub use client::metrics;
pub mod service;

pub mod proxy;

pub mod policy;

pub mod dns;

pub use names::Names;
pub use pod_network::PodNetwork;
pub use protocol::Protocol;

#[cfg(test)]
mod testing;
