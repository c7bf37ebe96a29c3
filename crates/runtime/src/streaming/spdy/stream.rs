//! One stream of a session: a byte pipe each way, each closed on its own.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::mpsc,
};
use tokio_util::sync::PollSender;

use super::{
    flow::SendWindow,
    frame::{Frame, MAX_DATA_FRAME_BYTES, StreamId, reset},
    headers::Headers,
    session::{Outbound, SessionError, Shared},
};

/// Bytes read from a stream before its sender is told that there is room again.
const WINDOW_UPDATE_BYTES: u32 = 16 * 1024;

/// A stream the other side has asked for and that has not been answered yet. Nothing may be
/// written to it before `accept`: spdystream drops data that precedes the reply.
pub struct Incoming(pub(super) Stream);

impl Incoming {
    pub fn id(&self) -> StreamId {
        self.0.writer.id
    }

    pub fn headers(&self) -> &Headers {
        &self.0.headers
    }

    /// Answers with SYN_REPLY.
    pub async fn accept(self) -> Result<Stream, SessionError> {
        let reply = Frame::SynReply { id: self.id(), fin: false, headers: Headers::default() };
        self.0.writer.shared.send(Outbound::Frame(reply)).await?;
        Ok(self.0)
    }

    /// Answers with RST_STREAM, status REFUSED_STREAM.
    pub async fn refuse(mut self) -> Result<(), SessionError> {
        let id = self.id();
        self.0.writer.finished = true;
        self.0.writer.shared.forget(id);
        let frame = Frame::RstStream { id, status: reset::REFUSED_STREAM };
        self.0.writer.shared.send(Outbound::Frame(frame)).await
    }
}

/// An open stream. Dropping it closes its sending side after all that was written.
pub struct Stream {
    headers: Headers,
    reader: StreamReader,
    writer: StreamWriter,
}

impl Stream {
    pub(super) fn new(
        id: StreamId,
        headers: Headers,
        inbound: mpsc::Receiver<Bytes>,
        window: Arc<SendWindow>,
        shared: Arc<Shared>,
    ) -> Self {
        let sender = PollSender::new(shared.outbound.clone());
        let reader =
            StreamReader { id, inbound, current: Bytes::new(), unreported: 0, shared: shared.clone() };
        let writer = StreamWriter { id, sender, window, shared, finished: false };
        Self { headers, reader, writer }
    }

    pub fn id(&self) -> StreamId {
        self.writer.id
    }

    /// The headers of the SYN_STREAM that opened it.
    pub fn headers(&self) -> &Headers {
        &self.headers
    }

    pub fn into_split(self) -> (StreamReader, StreamWriter) {
        (self.reader, self.writer)
    }
}

/// The receiving side of a stream. It ends at the other side's FIN or reset, or with the session.
pub struct StreamReader {
    id: StreamId,
    inbound: mpsc::Receiver<Bytes>,
    current: Bytes,
    /// Bytes read that the sender has not been told of.
    unreported: u32,
    shared: Arc<Shared>,
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while self.current.is_empty() {
            match ready!(self.inbound.poll_recv(cx)) {
                Some(data) => self.current = data,
                None => return Poll::Ready(Ok(())),
            }
        }
        let length = self.current.len().min(buf.remaining());
        buf.put_slice(&self.current[..length]);
        self.current.advance(length);
        self.unreported += length as u32;
        if self.unreported >= WINDOW_UPDATE_BYTES && self.shared.report_room(self.id, self.unreported) {
            self.unreported = 0;
        }
        Poll::Ready(Ok(()))
    }
}

/// The sending side of a stream. `shutdown`, or dropping it, sends FIN after all that was written.
pub struct StreamWriter {
    id: StreamId,
    sender: PollSender<Outbound>,
    window: Arc<SendWindow>,
    shared: Arc<Shared>,
    /// FIN was queued; nothing may follow.
    finished: bool,
}

impl AsyncWrite for StreamWriter {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.finished {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        // Credit first: a writer that waits for credit must not hold a place in the queue.
        let wanted = buf.len().min(MAX_DATA_FRAME_BYTES);
        let length = ready!(self.window.poll_available(wanted, &self.shared.windows_bind, cx))
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        ready!(self.sender.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        self.window.take(length);
        let frame = Frame::Data { id: self.id, fin: false, data: Bytes::copy_from_slice(&buf[..length]) };
        self.sender.send_item(Outbound::Frame(frame)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Poll::Ready(Ok(length))
    }

    /// The queue is written in order and flushed whenever it is empty, so there is nothing to do.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.finished {
            ready!(self.sender.poll_reserve(cx)).map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.finished = true;
            self.shared.local_finished(self.id);
            let frame = Frame::Data { id: self.id, fin: true, data: Bytes::new() };
            self.sender.send_item(Outbound::Frame(frame)).map_err(|_| io::ErrorKind::BrokenPipe)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.finish_later(self.id);
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buf)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
