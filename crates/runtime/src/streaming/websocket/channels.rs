//! Several streams in one WebSocket: each message begins with the number of its channel.
//!
//! Follows wsstream.Conn, and client-go's v5 remote command for the close signal: channel 255
//! carries the number of a channel that has ended.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::mpsc,
    task::JoinHandle,
};
use tokio_stream::wrappers::ReceiverStream;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};
use tokio_util::{
    io::StreamReader,
    sync::{CancellationToken, PollSender},
};

use crate::streaming::Reader;

pub const V1: &str = "channel.k8s.io";
pub const V1_BASE64: &str = "base64.channel.k8s.io";
pub const V4: &str = "v4.channel.k8s.io";
pub const V4_BASE64: &str = "v4.base64.channel.k8s.io";
pub const V5: &str = "v5.channel.k8s.io";

/// Channel on which v5 clients announce the end of another.
const CLOSE_CHANNEL: u8 = 255;
/// Messages a channel holds unread; then the connection waits for the channel's reader.
const INBOUND_MESSAGES: usize = 64;
/// Messages waiting to be written; then writers wait.
const OUTBOUND_MESSAGES: usize = 64;
/// Largest payload of a message sent; more is split.
const MAX_PAYLOAD_BYTES: usize = 32 * 1024;

/// How messages carry bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// Binary messages; the first byte is the channel.
    Binary,
    /// Text messages; the first character is the channel's digit, the rest is base64.
    Base64,
}

impl Encoding {
    /// That of a subprotocol; a client that offered none sends binary.
    pub fn of(protocol: Option<&str>) -> Self {
        match protocol {
            Some(V1_BASE64 | V4_BASE64) => Encoding::Base64,
            _ => Encoding::Binary,
        }
    }
}

/// One WebSocket with its channels.
pub struct Connection {
    encoding: Encoding,
    outbound: mpsc::Sender<Outbound>,
    closed: CancellationToken,
    reader: JoinHandle<()>,
    writer: JoinHandle<()>,
}

enum Outbound {
    Message(Message),
    /// Say goodbye; nothing follows.
    Close,
}

/// Where messages of the open channels go.
type Inbound = Arc<Mutex<HashMap<u8, mpsc::Sender<Bytes>>>>;

impl Connection {
    /// Takes messages of the channels `readable`, and gives the receiving side of each; messages
    /// of any other channel are dropped.
    pub fn new<S>(
        socket: WebSocketStream<S>,
        encoding: Encoding,
        readable: impl IntoIterator<Item = u8>,
    ) -> (Self, HashMap<u8, Reader>)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (sink, stream) = socket.split();
        let (outbound, outbound_receiver) = mpsc::channel(OUTBOUND_MESSAGES);
        let closed = CancellationToken::new();
        let (inbound, readers): (HashMap<_, _>, HashMap<_, _>) =
            readable.into_iter().map(open_channel).unzip();
        let inbound = Arc::new(Mutex::new(inbound));
        let reader = tokio::spawn(read_messages(stream, encoding, inbound, closed.clone()));
        let writer = tokio::spawn(write_messages(sink, outbound_receiver, closed.clone()));
        (Self { encoding, outbound, closed, reader, writer }, readers)
    }

    /// The sending side of a channel.
    pub fn writer(&self, channel: u8) -> ChannelWriter {
        ChannelWriter { channel, encoding: self.encoding, sender: PollSender::new(self.outbound.clone()) }
    }

    /// Sends an empty message, by which clients see that the connection is served.
    pub async fn announce(&self, channel: u8) {
        let message = Outbound::Message(encode(self.encoding, channel, &[]));
        if self.outbound.send(message).await.is_err() {
            tracing::debug!("WebSocket closed before it was served");
        }
    }

    /// Completes when the other side has gone.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Writes all that is queued, says goodbye and waits for the answer. The caller bounds the time.
    pub async fn close(mut self) {
        if self.outbound.send(Outbound::Close).await.is_err() {
            return;
        }
        for task in [&mut self.writer, &mut self.reader] {
            if let Err(error) = task.await {
                tracing::debug!(%error, "WebSocket task ended badly");
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
        self.closed.cancel();
    }
}

fn open_channel(channel: u8) -> ((u8, mpsc::Sender<Bytes>), (u8, Reader)) {
    let (sender, receiver) = mpsc::channel(INBOUND_MESSAGES);
    let stream = ReceiverStream::new(receiver).map(Ok::<_, io::Error>);
    ((channel, sender), (channel, Box::new(StreamReader::new(stream))))
}

async fn read_messages<S>(
    mut stream: SplitStream<WebSocketStream<S>>,
    encoding: Encoding,
    inbound: Inbound,
    closed: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(message) = stream.next().await {
        let payload = match message.map(|message| decode(encoding, message)) {
            Ok(Some(payload)) => payload,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(%error, "WebSocket ends");
                break;
            }
        };
        dispatch(&inbound, payload).await;
    }
    inbound.lock().clear();
    closed.cancel();
}

async fn dispatch(inbound: &Inbound, (channel, data): (u8, Bytes)) {
    if channel == CLOSE_CHANNEL {
        if let Some(ended) = data.first() {
            inbound.lock().remove(ended);
        }
        return;
    }
    let sender = inbound.lock().get(&channel).cloned();
    if let Some(sender) = sender
        && !data.is_empty()
        && sender.send(data).await.is_err()
    {
        tracing::trace!(channel, "data for a channel that nobody reads");
    }
}

/// The channel and payload of a message; `None` for control messages and malformed ones.
fn decode(encoding: Encoding, message: Message) -> Option<(u8, Bytes)> {
    let bytes = match message {
        Message::Binary(bytes) => bytes,
        Message::Text(text) => text.into(),
        _ => return None,
    };
    let (channel, data) = (*bytes.first()?, bytes.slice(1..));
    match encoding {
        Encoding::Binary => Some((channel, data)),
        Encoding::Base64 => Some((channel.checked_sub(b'0')?, STANDARD.decode(data).ok()?.into())),
    }
}

fn encode(encoding: Encoding, channel: u8, data: &[u8]) -> Message {
    match encoding {
        Encoding::Binary => {
            let mut payload = BytesMut::with_capacity(data.len() + 1);
            payload.put_u8(channel);
            payload.put_slice(data);
            Message::Binary(payload.freeze())
        }
        Encoding::Base64 => {
            let mut text = String::from(char::from(b'0' + channel));
            STANDARD.encode_string(data, &mut text);
            Message::Text(text.into())
        }
    }
}

async fn write_messages<S>(
    mut sink: SplitSink<WebSocketStream<S>, Message>,
    mut outbound: mpsc::Receiver<Outbound>,
    closed: CancellationToken,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let result = loop {
        let next = tokio::select! {
            biased;
            next = outbound.recv() => next,
            () = closed.cancelled() => None,
        };
        let Some(Outbound::Message(message)) = next else {
            let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
            break sink.send(Message::Close(Some(frame))).await;
        };
        let fed = sink.feed(message).await;
        let result = if fed.is_ok() && outbound.is_empty() { sink.flush().await } else { fed };
        if result.is_err() {
            break result;
        }
    };
    match result {
        Ok(()) | Err(Error::ConnectionClosed | Error::AlreadyClosed) => {}
        Err(error) => {
            tracing::debug!(%error, "WebSocket cannot be written");
            closed.cancel();
        }
    }
}

/// The sending side of one channel.
pub struct ChannelWriter {
    channel: u8,
    encoding: Encoding,
    sender: PollSender<Outbound>,
}

impl AsyncWrite for ChannelWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        ready!(self.sender.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        let length = buf.len().min(MAX_PAYLOAD_BYTES);
        let message = encode(self.encoding, self.channel, &buf[..length]);
        self.sender.send_item(Outbound::Message(message)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Poll::Ready(Ok(length))
    }

    /// The queue is written in order and flushed whenever it is empty, so there is nothing to do.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// The protocol has no end of a single channel from server to client.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn messages_survive_either_encoding(channel in 0..80u8, data in proptest::collection::vec(any::<u8>(), 0..99)) {
            for encoding in [Encoding::Binary, Encoding::Base64] {
                let decoded = decode(encoding, encode(encoding, channel, &data));
                prop_assert_eq!(decoded, Some((channel, data.clone().into())));
            }
        }

        #[test]
        fn garbage_never_panics(data in proptest::collection::vec(any::<u8>(), 0..99)) {
            decode(Encoding::Base64, Message::Binary(data.into()));
        }
    }
}
