//! Remote command over a WebSocket: one channel per kind, told apart by number.

use super::{Connected, Options, Transport, resize, status::Format};
use crate::streaming::{
    Streams,
    websocket::{Connection, Encoding, V1, V1_BASE64, V4, V4_BASE64, V5},
};

/// Subprotocols served, newest first.
pub(in crate::streaming) const PROTOCOLS: &[&str] = &[V5, V4, V4_BASE64, V1, V1_BASE64];

const STDIN: u8 = 0;
const STDOUT: u8 = 1;
const STDERR: u8 = 2;
const ERROR: u8 = 3;
const RESIZE: u8 = 4;

/// The channels of a new connection. `protocol` is what was agreed on; a client that offered none
/// speaks v1 in binary.
pub(in crate::streaming) async fn connect<S>(
    socket: tokio_tungstenite::WebSocketStream<S>,
    protocol: Option<&str>,
    options: Options,
) -> Connected
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let readable = [options.stdin.then_some(STDIN), options.tty.then_some(RESIZE)];
    let (connection, mut readers) =
        Connection::new(socket, Encoding::of(protocol), readable.into_iter().flatten());
    let lowest = match options {
        Options { stdout: true, .. } => STDOUT,
        Options { stderr: true, .. } => STDERR,
        _ => ERROR,
    };
    connection.announce(lowest).await;
    let stdin = readers.remove(&STDIN);
    let sizes = readers.remove(&RESIZE);
    let io = Streams {
        stdin,
        stdout: options.stdout.then(|| Box::new(connection.writer(STDOUT)) as _),
        stderr: (options.stderr && !options.tty).then(|| Box::new(connection.writer(STDERR)) as _),
        resize: sizes.map(resize::receive),
    };
    let status = Box::new(connection.writer(ERROR));
    let format = if matches!(protocol, Some(V4 | V4_BASE64 | V5)) { Format::Json } else { Format::Text };
    Connected { io, status, format, transport: Transport::WebSocket(connection) }
}
