//! A connection whose client keeps taking what it is sent: one that takes nothing for too long has gone, whatever its
//! machine still says.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// A stream that fails when nothing of what is written goes out for this long.
pub struct Impatient<S> {
    stream: S,
    patience: Duration,
    /// Runs out while a write waits.
    waiting: Option<Pin<Box<Sleep>>>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    endless: AtomicBool,
    /// Whether something was written, or was to be, that has not gone out yet.
    unflushed: AtomicBool,
}

/// What others may know of a stream, and say.
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    /// Lets the stream wait for as long as it takes: for a session whose user may halt the output.
    pub fn set_endless(&self) {
        self.0.endless.store(true, Ordering::Relaxed);
    }

    /// Whether all that was written has gone out.
    pub fn is_flushed(&self) -> bool {
        !self.0.unflushed.load(Ordering::Relaxed)
    }
}

impl<S> Impatient<S> {
    pub fn new(stream: S, patience: Duration) -> Impatient<S> {
        Impatient { stream, patience, waiting: None, shared: Arc::default() }
    }

    pub fn handle(&self) -> Handle {
        Handle(self.shared.clone())
    }

    /// What has become of a write, unless it waits for too long.
    fn judge<T>(&mut self, written: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.waiting = None;
            return written;
        }
        if self.shared.endless.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        let patience = self.patience;
        let waiting = self.waiting.get_or_insert_with(|| Box::pin(sleep(patience)));
        waiting.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Impatient<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Impatient<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.shared.unflushed.store(true, Ordering::Relaxed);
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.judge(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.shared.unflushed.store(true, Ordering::Relaxed);
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.judge(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        if matches!(flushed, Poll::Ready(Ok(()))) {
            self.shared.unflushed.store(false, Ordering::Relaxed);
        }
        self.judge(flushed, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(shut, cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (ours, theirs) = duplex(4);
        let mut stream = Impatient::new(ours, PATIENCE);
        let failed = stream.write_all(b"more than fits").await.expect_err("nobody reads");
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(theirs);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_client_is_not() {
        let (ours, mut theirs) = duplex(4);
        let mut stream = Impatient::new(ours, PATIENCE);
        let reader = tokio::spawn(async move {
            let mut read = Vec::new();
            while let Ok(byte) = theirs.read_u8().await {
                read.push(byte);
                tokio::time::sleep(PATIENCE / 5).await;
            }
            read
        });
        stream.write_all(b"more than fits").await.expect("somebody reads");
        drop(stream);
        assert_eq!(reader.await.expect("ends"), b"more than fits");
    }

    #[tokio::test]
    async fn what_was_written_counts_until_it_has_gone_out() {
        let (ours, _theirs) = duplex(4);
        let mut stream = Impatient::new(ours, PATIENCE);
        let handle = stream.handle();
        assert!(handle.is_flushed());
        stream.write_all(b"text").await.expect("fits");
        assert!(!handle.is_flushed());
        stream.flush().await.expect("has gone out");
        assert!(handle.is_flushed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_waits_for_as_long_as_it_takes() {
        let (ours, _theirs) = duplex(4);
        let mut stream = Impatient::new(ours, PATIENCE);
        let handle = stream.handle();
        handle.set_endless();
        assert!(timeout(PATIENCE * 10, stream.write_all(b"more than fits")).await.is_err());
    }
}
