//! The streaming server of the CRI: exec, attach and port-forward.
//!
//! A client reaches it through the API server and the kubelet, which pass the upgraded connection
//! on byte by byte; so every protocol that kubectl and the client libraries speak ends here:
//! SPDY/3.1, the WebSocket channel protocols, and SPDY tunnelled in WebSocket messages. What runs
//! behind the streams is the [`Backend`]'s business. Follows k8s.io/kubelet/pkg/cri/streaming.

mod negotiate;
mod portforward;
mod remotecommand;
mod server;
pub mod spdy;
#[cfg(test)]
mod tests;
mod token;
pub mod websocket;

use async_trait::async_trait;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
};

pub use portforward::must_name_ports;
pub use server::{AttachRequest, ExecRequest, PortForwardRequest, RequestError, Server};

/// A byte stream to read from.
pub type Reader = Box<dyn AsyncRead + Send + Unpin>;
/// A byte stream to write to.
pub type Writer = Box<dyn AsyncWrite + Send + Unpin>;

/// A byte pipe each way, each closed on its own.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// Size of a terminal in characters, as clients send it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TerminalSize {
    pub width: u16,
    pub height: u16,
}

/// The streams of one exec or attach. What the client did not ask for is `None`; with a terminal
/// `stderr` is `None`. Dropping a writer closes that stream after all that was written to it.
pub struct Streams {
    pub stdin: Option<Reader>,
    pub stdout: Option<Writer>,
    pub stderr: Option<Writer>,
    pub resize: Option<mpsc::Receiver<TerminalSize>>,
}

/// Why a stream could not be served. The text reaches the user.
#[derive(Debug, thiserror::Error)]
pub enum StreamError {
    #[error("{kind} {id:?} not found")]
    NotFound { kind: &'static str, id: String },
    #[error("container {0:?} is not running")]
    NotRunning(String),
    #[error("{operation}: {source}")]
    Failed {
        operation: &'static str,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StreamError {
    /// Wraps what went wrong during `operation`.
    pub fn failed(
        operation: &'static str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Failed { operation, source: source.into() }
    }
}

/// What the streams lead to. A future is dropped when the client has left.
#[async_trait]
pub trait Backend: Send + Sync + 'static {
    /// Runs `cmd` until it ends and gives its exit code. All output is written when it returns.
    async fn exec(
        &self,
        container_id: &str,
        cmd: Vec<String>,
        tty: bool,
        io: Streams,
    ) -> Result<i32, StreamError>;

    /// Connects to the container's first process until that ends, or until the client's input does if the process's
    /// stays open.
    async fn attach(&self, container_id: &str, tty: bool, io: Streams) -> Result<(), StreamError>;

    /// Connects `stream` to `port` of the pod's loopback address until both directions have ended.
    async fn port_forward(
        &self,
        sandbox_id: &str,
        port: u16,
        stream: Box<dyn Duplex>,
    ) -> Result<(), StreamError>;
}
