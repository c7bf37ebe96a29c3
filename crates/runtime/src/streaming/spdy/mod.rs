//! SPDY/3.1: the multiplexed connection that exec, attach and port-forward were designed on.
//!
//! `frame` and `headers` are the wire format, `session` is a connection with its streams and
//! `stream` is one of them. Both roles are here: servers accept streams, clients open them.

mod dictionary;
mod flow;
mod frame;
mod headers;
mod session;
mod stream;
#[cfg(test)]
mod tests;
mod writer;

pub use frame::{FrameError, MAX_CONTROL_FRAME_BYTES, MAX_DATA_FRAME_BYTES, StreamId};
pub use headers::{Headers, MAX_HEADER_BLOCK_BYTES};
pub use session::{MAX_STREAMS, Role, Session, SessionError};
pub use stream::{Incoming, Stream, StreamReader, StreamWriter};
