//! CSI drivers on this node: found by their sockets, told to CSINode, and called to bring volumes into pods.

mod plugin;
mod proto;
mod registration;
mod volume;

#[cfg(test)]
mod tests;

pub use registration::{Driver, Drivers, Registry};
pub use volume::{set_up, tear_down};
