//! A byte stream carried in binary WebSocket messages (KEP-4006's tunnelled port-forward).

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

/// Bytes in flight between the socket and whoever uses the tunnel, each way.
const PIPE_BYTES: usize = 64 * 1024;
/// Bytes put into one message at most.
const CHUNK_BYTES: usize = 16 * 1024;

/// The near end of the tunnel. The socket is closed when the near end has been shut down.
/// Must be called within a runtime.
pub fn tunnel<S>(socket: WebSocketStream<S>) -> DuplexStream
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (near, far) = tokio::io::duplex(PIPE_BYTES);
    let (read, write) = tokio::io::split(far);
    let (sink, stream) = socket.split();
    tokio::spawn(from_socket(stream, write));
    tokio::spawn(to_socket(read, sink));
    near
}

async fn from_socket<S>(mut stream: SplitStream<WebSocketStream<S>>, mut pipe: WriteHalf<DuplexStream>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = stream.next().await {
        let data = match message {
            Ok(Message::Binary(data)) => data,
            Ok(Message::Text(_)) | Err(_) => break,
            Ok(_) => continue,
        };
        if pipe.write_all(&data).await.is_err() {
            break;
        }
    }
    if let Err(error) = pipe.shutdown().await {
        tracing::debug!(%error, "tunnel's near end has gone");
    }
}

async fn to_socket<S>(mut pipe: ReadHalf<DuplexStream>, mut sink: SplitSink<WebSocketStream<S>, Message>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let message = match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => Message::Close(None),
            Ok(length) => Message::Binary(buffer[..length].to_vec().into()),
        };
        let last = message.is_close();
        if let Err(error) = sink.send(message).await {
            tracing::debug!(%error, "tunnel's socket has gone");
            return;
        }
        if last {
            return;
        }
    }
}
