//! Networks that other programs provide: plugins of the Container Network Interface (its
//! specification 1.1.0), chosen by the first configuration in a folder such as `/etc/cni/net.d`,
//! as containerd does. These are the only programs this crate ever runs, and only where the
//! operator has asked for them.

mod config;
mod exec;
mod network;
mod result;

#[cfg(test)]
mod tests;

pub use network::{Attach, Cni, Config, Error};
