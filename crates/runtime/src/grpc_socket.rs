//! Connections from gRPC clients on Unix sockets, whose `:authority` may be anything.
//!
//! A socket's path is no host, yet many clients (grpc-go with a dialer of its own, grpc-java, grpc for Python and C++) send
//! it as one, plain or percent-encoded. The HTTP/2 library rejects such requests as malformed, so the header is put right
//! before it sees them. Header blocks are state of the connection, thus all are decoded and encoded anew; the rest passes.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, BytesMut};
use http::uri::Authority;
use loona_hpack::{Decoder, Encoder};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::transport::server::Connected;

/// What clients send before the first frame: `PRI * HTTP/2.0`, two line ends, `SM`, two line ends (RFC 9113, 3.4).
const PREFACE_BYTES: usize = 24;
const FRAME_HEAD_BYTES: usize = 9;
/// The largest frame that a peer may send unless it was told otherwise, which it is not (RFC 9113, 4.2).
const FRAME_BYTES_MAX: usize = 1 << 14;
/// The largest header block, encoded or decoded; gRPC's headers take some hundred bytes.
const BLOCK_BYTES_MAX: usize = 64 << 10;
const READ_BYTES: usize = 8 << 10;

const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
const PRIORITY_BYTES: usize = 5;

/// What a client is taken to have meant that named no host.
const LOCALHOST: &[u8] = b"localhost";

/// The connections that a listener accepts.
pub fn incoming(listener: UnixListener) -> impl Stream<Item = io::Result<Connection>> {
    UnixListenerStream::new(listener).map(|accepted| accepted.map(Connection::new))
}

/// A client's connection, as the HTTP/2 library is to see it.
pub struct Connection {
    stream: UnixStream,
    rewriter: Rewriter,
}

impl Connection {
    fn new(stream: UnixStream) -> Self {
        Connection { stream, rewriter: Rewriter::new() }
    }
}

impl Connected for Connection {
    type ConnectInfo = ();

    fn connect_info(&self) {}
}

impl AsyncRead for Connection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Connection { stream, rewriter } = self.get_mut();
        while rewriter.output.is_empty() {
            let mut bytes = [0; READ_BYTES];
            let mut read = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            rewriter.take(read.filled())?;
        }
        let count = rewriter.output.len().min(buffer.remaining());
        buffer.put_slice(&rewriter.output.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

struct Rewriter {
    decoder: Decoder<'static>,
    encoder: Encoder<'static>,
    input: BytesMut,
    output: BytesMut,
    /// So many bytes pass as they are: the preface, or the rest of a frame that has no headers.
    passing: usize,
    /// The header block that continues in the next frame.
    unfinished: Option<Block>,
}

struct Block {
    stream: [u8; 4],
    /// Of its first frame.
    flags: u8,
    bytes: Vec<u8>,
}

impl Rewriter {
    fn new() -> Self {
        Rewriter {
            decoder: Decoder::new(),
            encoder: Encoder::new(),
            input: BytesMut::new(),
            output: BytesMut::new(),
            passing: PREFACE_BYTES,
            unfinished: None,
        }
    }

    /// Takes what the client sent, and puts out what can be.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.input.extend_from_slice(bytes);
        loop {
            let passed = self.input.split_to(self.passing.min(self.input.len()));
            self.passing -= passed.len();
            self.output.extend_from_slice(&passed);
            let Some(head) = self.input.first_chunk::<FRAME_HEAD_BYTES>() else { return Ok(()) };
            let [high, middle, low, kind, flags, stream @ ..] = *head;
            let length = usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low);
            if kind != HEADERS && kind != CONTINUATION {
                self.passing = FRAME_HEAD_BYTES + length;
                continue;
            }
            if length > FRAME_BYTES_MAX {
                return Err(malformed("a frame of headers is too long"));
            }
            if self.input.len() < FRAME_HEAD_BYTES + length {
                return Ok(());
            }
            let mut frame = self.input.split_to(FRAME_HEAD_BYTES + length);
            frame.advance(FRAME_HEAD_BYTES);
            self.headers(kind, flags, stream, &frame)?;
        }
    }

    fn headers(&mut self, kind: u8, flags: u8, stream: [u8; 4], payload: &[u8]) -> io::Result<()> {
        let mut block = match (kind, self.unfinished.take()) {
            (HEADERS, None) => Block { stream, flags, bytes: fragment(flags, payload)?.to_vec() },
            (CONTINUATION, Some(mut block)) if block.stream == stream => {
                block.bytes.extend_from_slice(payload);
                block
            }
            _ => return Err(malformed("frames of headers are out of order")),
        };
        if block.bytes.len() > BLOCK_BYTES_MAX {
            return Err(malformed("there are too many headers"));
        }
        if flags & END_HEADERS == 0 {
            self.unfinished = Some(block);
            return Ok(());
        }
        block.bytes = self.rewritten(&block.bytes)?;
        self.put(&block);
        Ok(())
    }

    fn rewritten(&mut self, block: &[u8]) -> io::Result<Vec<u8>> {
        let (mut headers, mut total) = (Vec::new(), 0);
        let decoded = self.decoder.decode_with_cb(block, |name, value| {
            total += name.len() + value.len();
            if total <= BLOCK_BYTES_MAX {
                headers.push((name.into_owned(), value.into_owned()));
            }
        });
        decoded.map_err(|error| malformed(format!("headers cannot be decoded: {error:?}")))?;
        if total > BLOCK_BYTES_MAX {
            return Err(malformed("there are too many headers"));
        }
        for (name, value) in &mut headers {
            if name == b":authority" && Authority::try_from(value.as_slice()).is_err() {
                LOCALHOST.clone_into(value);
            }
        }
        Ok(self.encoder.encode(headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))))
    }

    fn put(&mut self, block: &Block) {
        let (mut kind, mut flags) = (HEADERS, block.flags & !(PADDED | PRIORITY | END_HEADERS));
        let mut rest = block.bytes.as_slice();
        loop {
            let (fragment, more) = rest.split_at(rest.len().min(FRAME_BYTES_MAX));
            if more.is_empty() {
                flags |= END_HEADERS;
            }
            let [.., high, middle, low] = fragment.len().to_be_bytes();
            self.output.extend_from_slice(&[high, middle, low, kind, flags]);
            self.output.extend_from_slice(&block.stream);
            self.output.extend_from_slice(fragment);
            if more.is_empty() {
                return;
            }
            (kind, flags, rest) = (CONTINUATION, 0, more);
        }
    }
}

/// The part of a `HEADERS` frame that is headers (RFC 9113, 6.2).
fn fragment(flags: u8, payload: &[u8]) -> io::Result<&[u8]> {
    let has = |flag: u8| flags & flag != 0;
    let (padding, rest) = match payload.split_first() {
        Some((padding, rest)) if has(PADDED) => (usize::from(*padding), rest),
        _ if has(PADDED) => return Err(malformed("a frame is too short for its padding")),
        _ => (0, payload),
    };
    let from = if has(PRIORITY) { PRIORITY_BYTES } else { 0 };
    let to = rest.len().checked_sub(padding);
    to.and_then(|to| rest.get(from..to)).ok_or_else(|| malformed("a frame is too short for its padding"))
}

fn malformed(why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DATA: u8 = 0;
    const END_STREAM: u8 = 0x1;

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let [.., high, middle, low] = payload.len().to_be_bytes();
        [&[high, middle, low, kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn rewritten(chunks: &[&[u8]]) -> io::Result<Vec<u8>> {
        let mut rewriter = Rewriter::new();
        chunks.iter().try_for_each(|chunk| rewriter.take(chunk))?;
        Ok(rewriter.output.to_vec())
    }

    fn headers(authority: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
        let list =
            [(":method", "POST"), (":authority", authority), (":path", "/v1beta1.Registration/Register")];
        list.map(|(name, value)| (name.into(), value.into())).to_vec()
    }

    fn encoded(encoder: &mut Encoder<'static>, headers: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        encoder.encode(headers.iter().map(|(name, value)| (&name[..], &value[..])))
    }

    /// A connection with two requests; the second refers to headers of the first.
    fn conversation(authority: &str) -> Vec<u8> {
        let mut encoder = Encoder::new();
        let mut bytes = vec![b'P'; PREFACE_BYTES];
        let first = encoded(&mut encoder, &headers(authority));
        let (before, after) = first.split_at(7);
        let padded = [&[2, 0, 0, 0, 0, 9], before, &[0, 0]].concat();
        bytes.extend(frame(HEADERS, PADDED | PRIORITY, &padded));
        bytes.extend(frame(CONTINUATION, END_HEADERS, after));
        bytes.extend(frame(DATA, END_STREAM, b"a message"));
        bytes.extend(frame(HEADERS, END_HEADERS, &encoded(&mut encoder, &headers(authority))));
        bytes
    }

    #[test]
    fn an_authority_that_is_none_becomes_localhost_on_every_stream() {
        for (authority, expect) in [
            ("%2Fvar%2Flib%2Fkubelet.sock", "localhost"),
            ("/var/lib/kubelet.sock", "localhost"),
            ("example.com:80", "example.com:80"),
        ] {
            let output = rewritten(&[&conversation(authority)]).expect("well formed");
            let (mut decoder, mut rest) = (Decoder::new(), &output[PREFACE_BYTES..]);
            let mut kinds = Vec::new();
            while let Some((head, after)) = rest.split_first_chunk::<FRAME_HEAD_BYTES>() {
                let (payload, after) = after.split_at(usize::from(head[2]));
                kinds.push((head[3], head[4]));
                if head[3] == HEADERS {
                    let found = decoder.decode(payload).expect("decodes");
                    let found: Vec<_> = found.into_iter().map(|(n, v)| (n.to_vec(), v.to_vec())).collect();
                    assert_eq!(found, headers(expect));
                } else {
                    assert_eq!(payload, b"a message");
                }
                rest = after;
            }
            assert_eq!(kinds, [(HEADERS, END_HEADERS), (DATA, END_STREAM), (HEADERS, END_HEADERS)]);
        }
    }

    #[test]
    fn headers_out_of_order_or_without_end_are_refused() {
        let preface = [b'P'; PREFACE_BYTES];
        let refused = |frames: &[Vec<u8>]| {
            let bytes = [&preface[..], &frames.concat()].concat();
            rewritten(&[&bytes]).expect_err("malformed").to_string()
        };
        assert_eq!(refused(&[frame(CONTINUATION, 0, b"")]), "frames of headers are out of order");
        assert_eq!(refused(&[frame(HEADERS, PADDED, b"\x05ab")]), "a frame is too short for its padding");
        let full = vec![0; FRAME_BYTES_MAX];
        let mut endless = vec![frame(HEADERS, 0, &full)];
        endless.extend(std::iter::repeat_n(frame(CONTINUATION, 0, &full), BLOCK_BYTES_MAX / FRAME_BYTES_MAX));
        assert_eq!(refused(&endless), "there are too many headers");
        assert_eq!(
            refused(&[frame(HEADERS, 0, &[0; FRAME_BYTES_MAX + 1])]),
            "a frame of headers is too long"
        );
    }

    proptest! {
        #[test]
        fn it_does_not_matter_in_which_pieces_it_comes(cuts in prop::collection::vec(1_usize..40, 1..20)) {
            let whole = conversation("%2Fa.sock");
            let (mut rest, mut chunks) = (&whole[..], Vec::new());
            for cut in cuts.iter().cycle() {
                let (chunk, after) = rest.split_at((*cut).min(rest.len()));
                chunks.push(chunk);
                rest = after;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(rewritten(&chunks).expect("well formed"), rewritten(&[&whole]).expect("well formed"));
        }

        #[test]
        fn nonsense_is_no_panic(frames in prop::collection::vec((0_u8..10, any::<u8>(), prop::collection::vec(any::<u8>(), 0..80)), 0..8)) {
            let frames: Vec<Vec<u8>> = frames.iter().map(|(kind, flags, payload)| frame(*kind, *flags, payload)).collect();
            let bytes = [&[b'P'; PREFACE_BYTES][..], &frames.concat()].concat();
            rewritten(&[&bytes]).ok();
        }
    }
}
