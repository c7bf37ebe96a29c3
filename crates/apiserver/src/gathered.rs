//! A connection that many answers share: what they write goes out together. HTTP/2's frames would each be a TLS record
//! and a system call of their own, which for an event of a watch is most of what it costs.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// More is not gathered: a TLS record of it is still something small to the allocator, which has room for it at hand.
const GATHERED_BYTES_MAX: usize = 12 << 10;

/// Who has sent no more than this - that he is still there, or a small answer - keeps no more room for what comes next.
const ROOM_BYTES: usize = 1 << 10;

/// A stream whose writes wait until whoever [`drives`](Gathered::drive) its connection sends them.
pub struct Gathered<S>(Arc<Mutex<Inner<S>>>);

struct Inner<S> {
    stream: S,
    waiting: Vec<u8>,
    /// How much of what waits has gone out.
    sent: usize,
}

impl<S: AsyncWrite + Unpin> Inner<S> {
    fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Sends what waits, as far as the stream takes it.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.waiting.len() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.waiting[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                sent => self.sent += sent,
            }
        }
        self.waiting.clear();
        if std::mem::take(&mut self.sent) <= ROOM_BYTES {
            self.waiting.shrink_to(ROOM_BYTES);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.waiting.len() >= GATHERED_BYTES_MAX {
            ready!(self.poll_send(cx))?;
        }
        slices.iter().for_each(|slice| self.waiting.extend_from_slice(slice));
        Poll::Ready(Ok(slices.iter().map(|slice| slice.len()).sum()))
    }
}

impl<S: AsyncWrite + Unpin> Gathered<S> {
    pub fn new(stream: S) -> Gathered<S> {
        Gathered(Arc::new(Mutex::new(Inner { stream, waiting: Vec::new(), sent: 0 })))
    }

    /// The same stream, for the connection that is to be driven.
    pub fn share(&self) -> Gathered<S> {
        Gathered(self.0.clone())
    }

    /// Runs the connection to its end. What it writes goes out once all those have run who were ready to run with it.
    pub async fn drive<T, E: From<io::Error>>(
        &self,
        connection: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        let mut connection = pin!(connection);
        let mut has_waited = false;
        poll_fn(|cx| {
            if let Poll::Ready(ended) = connection.as_mut().poll(cx) {
                return Poll::Ready(ended);
            }
            let mut inner = self.0.lock();
            if !inner.is_empty() && !has_waited {
                has_waited = true;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            has_waited = false;
            match inner.poll_flush(cx) {
                Poll::Ready(Err(error)) => Poll::Ready(Err(error.into())),
                _ => Poll::Pending,
            }
        })
        .await
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathered<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.lock().stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathered<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.lock().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// That is its driver's.
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.0.lock();
        ready!(inner.poll_flush(cx))?;
        Pin::new(&mut inner.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use proptest::prelude::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};
    use tokio::task::yield_now;

    use super::*;

    /// Tells what it is given, write by write.
    struct Told(tokio::sync::mpsc::UnboundedSender<Vec<u8>>);

    impl AsyncWrite for Told {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
            self.0.send(bytes.to_vec()).expect("the test listens");
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn what_is_written_meanwhile_goes_out_together() {
        let (told, mut writes) = tokio::sync::mpsc::unbounded_channel();
        let stream = Gathered::new(Told(told));
        let mut io = stream.share();
        let connection = async move {
            io.write_all(b"one, ").await?;
            io.flush().await?;
            yield_now().await;
            io.write_all(b"two").await?;
            pending::<io::Result<()>>().await
        };
        tokio::spawn(async move { stream.drive(connection).await });
        assert_eq!(writes.recv().await.expect("is sent"), b"one, two");
    }

    #[tokio::test]
    async fn a_connection_that_fails_says_so() {
        let (ours, theirs) = duplex(8);
        drop(theirs);
        let stream = Gathered::new(ours);
        let mut io = stream.share();
        let connection = async move {
            io.write_all(b"nobody reads this").await?;
            pending::<io::Result<()>>().await
        };
        assert_eq!(stream.drive(connection).await.expect_err("is told").kind(), io::ErrorKind::BrokenPipe);
    }

    proptest! {
        #[test]
        fn everything_arrives_in_order(
            sizes in prop::collection::vec(prop_oneof![0..100_usize, 0..2 * GATHERED_BYTES_MAX], 0..12),
            room in 1..40_000_usize,
        ) {
            let written: Vec<Vec<u8>> = (b'a'..).zip(&sizes).map(|(byte, size)| vec![byte; *size]).collect();
            let expected = written.concat();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let read = runtime.block_on(async {
                let (ours, mut theirs) = duplex(room);
                let stream = Gathered::new(ours);
                let mut io = stream.share();
                let connection = async move {
                    for bytes in written {
                        io.write_all(&bytes).await?;
                        io.flush().await?;
                    }
                    io.shutdown().await
                };
                let mut read = Vec::new();
                let (ended, all) = tokio::join!(stream.drive(connection), theirs.read_to_end(&mut read));
                ended.and(all).map(|_| read)
            });
            prop_assert!(read.expect("nothing fails") == expected);
        }
    }
}
