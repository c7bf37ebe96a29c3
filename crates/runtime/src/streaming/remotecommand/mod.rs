//! Exec and attach: a command's streams over either transport, and how its end is told.
//!
//! Protocol versions: v1 and v2 know no terminal size, v4 tells the exit code as a Status object
//! where earlier ones send plain text, v5 adds (on WebSockets) the end of standard input.
//! Follows pkg/streaming/remotecommand of k8s.io/cri-streaming.

mod channels;
mod resize;
mod status;
mod streams;

use std::{sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, time::timeout};

use super::{Backend, Streams, Writer, spdy, websocket};

pub(super) use channels::{PROTOCOLS as WEBSOCKET_PROTOCOLS, connect as connect_websocket};
pub(super) use streams::{PROTOCOLS as SPDY_PROTOCOLS, connect as connect_spdy};

/// How long writing the rest of the output and the goodbye may take once the command has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(30);

/// Which streams a request asks for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Options {
    pub(super) tty: bool,
    pub(super) stdin: bool,
    pub(super) stdout: bool,
    pub(super) stderr: bool,
}

/// What to connect the streams to.
#[derive(Debug, Clone)]
pub(super) enum Command {
    Exec { container_id: String, cmd: Vec<String> },
    Attach { container_id: String },
}

/// A client's connection with the streams it was asked for.
pub(super) struct Connected {
    io: Streams,
    /// The error stream.
    status: Writer,
    format: status::Format,
    transport: Transport,
}

enum Transport {
    Spdy(spdy::Session),
    WebSocket(websocket::Connection),
}

impl Transport {
    async fn closed(&self) {
        match self {
            Transport::Spdy(session) => session.closed().await,
            Transport::WebSocket(connection) => connection.closed().await,
        }
    }

    async fn close(self) {
        match self {
            Transport::Spdy(session) => session.close().await,
            Transport::WebSocket(connection) => connection.close().await,
        }
    }
}

/// Runs the command, tells its end on the error stream and closes the connection. Output, status
/// and goodbye share one queue, so nothing overtakes the output.
pub(super) async fn serve(connected: Connected, backend: Arc<dyn Backend>, command: Command, tty: bool) {
    let Connected { io, mut status, format, transport } = connected;
    let outcome = tokio::select! {
        outcome = run(&*backend, command, tty, io) => outcome,
        () = transport.closed() => {
            tracing::debug!("client left before its command ended");
            return;
        }
    };
    let goodbye = async {
        let text = format.render(&outcome);
        if let Err(error) = write_status(&mut status, &text).await {
            tracing::debug!(%error, "status not delivered");
        }
        drop(status);
        transport.close().await;
    };
    if timeout(CLOSE_TIMEOUT, goodbye).await.is_err() {
        tracing::debug!("client did not read the end of its command");
    }
}

async fn write_status(status: &mut Writer, text: &[u8]) -> std::io::Result<()> {
    status.write_all(text).await?;
    status.shutdown().await
}

async fn run(backend: &dyn Backend, command: Command, tty: bool, io: Streams) -> status::Outcome {
    match command {
        Command::Exec { container_id, cmd } => match backend.exec(&container_id, cmd, tty, io).await {
            Ok(0) => status::Outcome::Success,
            Ok(code) => status::Outcome::ExitCode(code),
            Err(error) => status::Outcome::Error(format!("error executing command in container: {error}")),
        },
        // As upstream: an attach that worked is a success, whatever the container's exit code.
        Command::Attach { container_id } => match backend.attach(&container_id, tty, io).await {
            Ok(()) => status::Outcome::Success,
            Err(error) => status::Outcome::Error(format!("error attaching to container: {error}")),
        },
    }
}
