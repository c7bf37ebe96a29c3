//! Port-forward over the channels of a WebSocket: two for each port, data and error, and each
//! begins with its port, lower byte first. Follows handleWebSocketStreams.

use std::{io, sync::Arc};

use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    task::JoinSet,
    time::timeout,
};
use tokio_tungstenite::WebSocketStream;

use super::{CLOSE_TIMEOUT, forward, log_panic};
use crate::streaming::{
    Backend, Duplex, Reader, Writer,
    websocket::{Connection, Encoding},
};

/// Ports of one connection: base64 messages begin with a character for the channel, `0` and what
/// follows it, and there are 80 of them in ASCII.
pub(in crate::streaming) const MAX_PORTS: usize = 40;

/// Channels of a port: first that of its data, then that of its error.
const CHANNELS_PER_PORT: usize = 2;

/// What a port has of the connection.
struct Pair {
    port: u16,
    data: Box<dyn Duplex>,
    error: Writer,
}

/// Connects every port once, and ends when all these connections have, or the client.
pub(super) async fn serve<S>(
    socket: WebSocketStream<S>,
    encoding: Encoding,
    backend: Arc<dyn Backend>,
    sandbox_id: String,
    ports: Vec<u16>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let data_channels = || (0..).step_by(CHANNELS_PER_PORT).take(ports.len());
    let (connection, mut readers) = Connection::new(socket, encoding, data_channels());
    let mut pairs = Vec::with_capacity(ports.len());
    for (channel, port) in data_channels().zip(&ports) {
        let reader = readers.remove(&channel).expect("data channels are readable");
        match open(&connection, channel, *port, reader).await {
            Ok(pair) => pairs.push(pair),
            Err(error) => return tracing::debug!(%error, "port-forward client left at once"),
        }
    }
    let mut forwards = JoinSet::new();
    for Pair { port, data, error } in pairs {
        forwards.spawn(forward(backend.clone(), sandbox_id.clone(), port, data, error));
    }
    tokio::select! {
        () = finish(&mut forwards) => {}
        () = connection.closed() => {
            // To leave is the only way to say that all is sent; what was sent still reaches the pod.
            if timeout(CLOSE_TIMEOUT, finish(&mut forwards)).await.is_err() {
                tracing::debug!("port-forward client left its connections open");
            }
        }
    }
    if timeout(CLOSE_TIMEOUT, connection.close()).await.is_err() {
        tracing::debug!("port-forward client did not close its connection");
    }
}

/// Tells the client which port the two channels that begin at `channel` belong to.
async fn open(connection: &Connection, channel: u8, port: u16, reader: Reader) -> io::Result<Pair> {
    let (mut data, mut error) = (connection.writer(channel), connection.writer(channel + 1));
    for writer in [&mut data, &mut error] {
        writer.write_all(&port.to_le_bytes()).await?;
    }
    Ok(Pair { port, data: Box::new(tokio::io::join(reader, data)), error: Box::new(error) })
}

async fn finish(forwards: &mut JoinSet<()>) {
    while let Some(ended) = forwards.join_next().await {
        log_panic(ended);
    }
}
