//! How components reach the API: the same requests over HTTPS or in process, shared informers over them, a work
//! queue, an event recorder and leader election; beside them what components tell of themselves.
//!
//! Nothing here knows which side of the wire the server is on, nor any particular kind.

pub mod accept;
pub mod certificate;
pub mod config;
pub mod debug;
pub mod error;
pub mod event;
pub mod flowcontrol;
pub mod head;
pub mod informer;
pub mod leaderelection;
pub mod listen;
pub mod measured;
pub mod metrics;
pub mod process;
pub mod query;
pub mod queue;
pub mod request;
pub mod service_account;
pub mod slis;
pub mod tls;
pub mod transport;
pub mod watch;
pub mod zpages;

pub use error::Error;
pub use event::EventRecorder;
pub use informer::{Delta, Informer, Informers, NamedInformers};
pub use measured::{Measured, RestMetrics};
pub use queue::{QueueMetrics, WorkQueue};
pub use request::{Client, DeleteOptions, PatchType};
pub use service_account::ServiceAccount;
pub use tokio_util::sync::CancellationToken;
pub use transport::{Body, Transport};
