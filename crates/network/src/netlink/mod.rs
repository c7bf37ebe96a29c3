//! Netlink, the kernel's socket protocol for configuring networking: messages with nested
//! attributes, and a socket that sends them and waits for the kernel's verdict.
//!
//! Written here, rather than taken from a crate, because nf_tables' NAT expressions, conntrack and
//! the few link messages we need all share these two hundred lines. The kernel handles a request
//! inside `sendmsg`, so calls take microseconds and are synchronous; async callers put longer
//! batches on a blocking thread.

mod attribute;
mod message;
mod socket;

pub use attribute::{Attributes, text, u32_be};
pub use message::Message;
pub use socket::{Error, Family, Reply, Socket};

/// Rounds up to the four-byte boundary on which headers and attributes begin.
const fn align(length: usize) -> usize {
    (length + 3) & !3
}
