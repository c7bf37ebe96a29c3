//! CSI drivers on this node: found by their sockets, told to CSINode, and called to bring volumes into pods (follows
//! upstream's `pkg/volume/csi`).

mod expand;
mod node_info;
mod place;
mod plugin;
mod publish;
mod registration;
mod source;
mod stage;
mod stats;
mod tear_down;

#[cfg(test)]
mod tests;

pub use publish::set_up;
pub use registration::{Drivers, Registration};
pub use source::Source;
pub use stats::{Usage, stats};
pub use tear_down::tear_down;

/// Why a volume is not in its pod yet.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The controllers have not attached it, and will tell.
    #[error("volume {handle} has volume attachment {attachment} which is not attached yet")]
    NotAttached { handle: String, attachment: String },
    /// The node holds as many of its driver's volumes as it can.
    #[error(
        "Node has reached its volume attachment limit, rejecting pod. unattached volumes=[{name}]: {why}"
    )]
    LimitExceeded { name: String, why: String },
    #[error("{0}")]
    Failed(String),
}

impl From<String> for Error {
    fn from(why: String) -> Self {
        Error::Failed(why)
    }
}

fn rpc_error(what: &str, status: &tonic::Status) -> String {
    format!("{what}: rpc error: code = {:?} desc = {}", status.code(), status.message())
}

/// After any but these the driver does nothing more for the call (upstream: `isFinalError`).
fn is_final(code: tonic::Code) -> bool {
    use tonic::Code::{Aborted, Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable};
    !matches!(code, Cancelled | DeadlineExceeded | Unavailable | ResourceExhausted | Aborted)
}

fn not_registered(driver: &str) -> String {
    format!("driver name {driver} not found in the list of registered CSI drivers")
}
