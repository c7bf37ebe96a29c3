//! The task that writes a session's frames.

use std::{ops::ControlFlow, sync::Arc};

use bytes::Bytes;
use futures_util::SinkExt;
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::codec::FramedWrite;

use super::{
    frame::{Frame, FrameEncoder, FrameError},
    session::{Outbound, Shared},
};

pub(super) struct FrameWriter<W> {
    shared: Arc<Shared>,
    sink: FramedWrite<W, FrameEncoder>,
    /// Frames of streams, in order.
    outbound: mpsc::Receiver<Outbound>,
    /// Answers to the other side; they go first.
    control: mpsc::Receiver<Frame>,
}

type Step = Result<ControlFlow<()>, FrameError>;

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    pub(super) fn new(
        shared: Arc<Shared>,
        sink: FramedWrite<W, FrameEncoder>,
        outbound: mpsc::Receiver<Outbound>,
        control: mpsc::Receiver<Frame>,
    ) -> Self {
        Self { shared, sink, outbound, control }
    }

    /// Writes until the session is closed or nothing can be written any more.
    pub(super) async fn run(mut self) {
        let result = loop {
            match self.step().await {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => break self.say_goodbye().await,
                Err(error) => break Err(error),
            }
        };
        if let Err(error) = result {
            tracing::debug!(%error, "SPDY session cannot be written");
        }
        self.shared.end();
    }

    /// Writes what comes next, and flushes when that was all.
    async fn step(&mut self) -> Step {
        let flow = tokio::select! {
            biased;
            Some(frame) = self.control.recv() => {
                self.sink.feed(frame).await?;
                ControlFlow::Continue(())
            }
            Some(next) = self.outbound.recv() => self.write(next).await?,
            () = self.shared.finish.notified() => self.finish_dropped().await?,
            () = self.shared.closed.cancelled() => ControlFlow::Break(()),
        };
        if self.outbound.is_empty() && self.control.is_empty() {
            self.sink.flush().await?;
        }
        Ok(flow)
    }

    async fn write(&mut self, next: Outbound) -> Step {
        match next {
            Outbound::Frame(frame) => {
                self.sink.feed(frame).await?;
                Ok(ControlFlow::Continue(()))
            }
            Outbound::Close => Ok(ControlFlow::Break(())),
        }
    }

    /// Sends FIN for the streams that were dropped. What they wrote before is in the queue when they
    /// are taken note of, so the queue as it is then goes first.
    async fn finish_dropped(&mut self) -> Step {
        let dropped = self.shared.take_dropped();
        let mut flow = ControlFlow::Continue(());
        for _ in 0..self.outbound.len() {
            let Ok(next) = self.outbound.try_recv() else { break };
            if self.write(next).await?.is_break() {
                flow = ControlFlow::Break(());
                break;
            }
        }
        for id in dropped {
            self.shared.local_finished(id);
            self.sink.feed(Frame::Data { id, fin: true, data: Bytes::new() }).await?;
        }
        Ok(flow)
    }

    async fn say_goodbye(&mut self) -> Result<(), FrameError> {
        // What was dropped before the session was closed has all been written: the queue is in order.
        for id in self.shared.take_dropped() {
            self.sink.feed(Frame::Data { id, fin: true, data: Bytes::new() }).await?;
        }
        self.sink.send(Frame::GoAway { last_good: self.shared.last_peer_id(), status: 0 }).await?;
        self.sink.get_mut().shutdown().await?;
        Ok(())
    }
}
