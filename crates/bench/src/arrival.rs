//! When bytes reached a socket, as the kernel saw it, however late they are read.

use std::io::{self, IoSliceMut};
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
use nix::sys::time::TimeSpec;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

/// When the bytes that were last read from a connection had reached its socket.
#[derive(Clone, Debug, Default)]
pub struct Arrival(Arc<AtomicU64>);

/// What an `Arrival` holds while the kernel has stamped nothing; otherwise the nanoseconds since 1970.
const NO_STAMP: u64 = 0;

impl Arrival {
    /// By CLOCK_REALTIME, which is `SystemTime`'s. None when the kernel put no stamp on those bytes.
    pub fn time(&self) -> Option<SystemTime> {
        match self.0.load(Ordering::Relaxed) {
            NO_STAMP => None,
            stamp => Some(UNIX_EPOCH + Duration::from_nanos(stamp)),
        }
    }

    fn note(&self, stamp: Option<Duration>) {
        let nanoseconds = stamp.map_or(NO_STAMP, |stamp| stamp.as_nanos() as u64);
        self.0.store(nanoseconds, Ordering::Relaxed);
    }
}

/// A TCP stream that notes when what it reads had arrived.
///
/// The kernel tells of each read when the last segment in it came (SO_TIMESTAMPNS, socket(7)), and rustls reads 4 KiB
/// at most at a time. An event's stamp may be as late as that of what came right behind it, and is never too early.
#[derive(Debug)]
pub struct Stamped {
    stream: TcpStream,
    arrival: Arrival,
    /// Room for the stamp beside the data.
    control: Vec<u8>,
    /// Something was read, and those who have waited for it have not run yet.
    fresh: bool,
}

impl Stamped {
    pub fn new(stream: TcpStream) -> io::Result<Stamped> {
        setsockopt(&stream, sockopt::ReceiveTimestampns, &true)?;
        let control = nix::cmsg_space!(TimeSpec);
        Ok(Stamped { stream, arrival: Arrival::default(), control, fresh: false })
    }

    pub fn arrival(&self) -> Arrival {
        self.arrival.clone()
    }

    fn receive(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let Stamped { stream, arrival, control, .. } = self;
        let (read, stamp) = stream.try_io(Interest::READABLE, || {
            let mut into = [IoSliceMut::new(buffer.initialize_unfilled())];
            let message = recvmsg::<()>(
                stream.as_raw_fd(),
                &mut into,
                Some(control.as_mut_slice()),
                MsgFlags::empty(),
            )?;
            let stamp = message.cmsgs()?.find_map(|control| match control {
                ControlMessageOwned::ScmTimestampns(stamp) => Some(Duration::from(stamp)),
                _ => None,
            });
            Ok((message.bytes, stamp))
        })?;
        buffer.advance(read);
        arrival.note(stamp);
        Ok(())
    }
}

impl AsyncRead for Stamped {
    /// After each read the connection's task waits for its next turn. The tasks of a current-thread runtime run in the
    /// order in which they were woken, so there a watch sees the stamp of its own bytes, not of those read next.
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if std::mem::take(&mut self.fresh) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        loop {
            ready!(self.stream.poll_read_ready(context))?;
            match self.receive(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    self.fresh = true;
                    return Poll::Ready(result);
                }
            }
        }
    }
}

impl AsyncWrite for Stamped {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A stream whose bytes are stamped. The kernel begins to stamp a moment after the first socket has asked for it,
    /// and goes on for all as long as one asks.
    pub async fn stamped() -> (Stamped, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut reader, mut writer) = (Stamped::new(stream).unwrap(), listener.accept().await.unwrap().0);
        while reader.arrival().time().is_none() {
            writer.write_all(b".").await.unwrap();
            reader.read_u8().await.unwrap();
        }
        (reader, writer)
    }

    #[tokio::test]
    async fn the_stamp_is_of_the_arrival_and_not_of_the_reading() {
        let (mut reader, mut writer) = stamped().await;
        let before = SystemTime::now();
        writer.write_all(b"first").await.unwrap();
        reader.stream.readable().await.unwrap();
        let between = SystemTime::now();
        reader.read_exact(&mut [0; 5]).await.unwrap();
        let arrived = reader.arrival().time().unwrap();
        assert!(before <= arrived && arrived <= between, "{before:?} {arrived:?} {between:?}");
    }
}
