//! Answers that last, over HTTP/1.1: each has its connection to itself, so nothing of hyper is kept for it meanwhile.
//! Hyper holds buffers of several pages for a connection that neither sends nor receives, and there are many watches.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use http::header::{CONNECTION, DATE, TRANSFER_ENCODING};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body as _;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::body::{BoxError, WireBody};

/// What a client may send while it is being answered, which it has no reason to. More is not read.
const UNASKED_BYTES_MAX: usize = 4 << 10;

/// Says of a response that it lasts until somebody ends it.
#[derive(Clone, Copy, Debug)]
pub struct Lasting;

/// Where a response that lasts waits for its connection.
#[derive(Clone, Default)]
pub struct Handover(Arc<Mutex<Option<Response<WireBody>>>>);

impl Handover {
    pub fn put(&self, response: Response<WireBody>) {
        *self.0.lock() = Some(response);
    }

    pub fn take(&self) -> Option<Response<WireBody>> {
        self.0.lock().take()
    }
}

/// Whether the answer to a request may have the connection to itself: neither the request nor another answer has need
/// of it.
pub fn may_take_over<B: http_body::Body>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && request.body().is_end_stream()
        && request
            .headers()
            .get_all(CONNECTION)
            .iter()
            .all(|wish| wish.as_bytes().eq_ignore_ascii_case(b"keep-alive"))
}

/// Whether a response is one that lasts.
pub fn lasts(response: &Response<WireBody>) -> bool {
    response.status() == StatusCode::OK && response.extensions().get::<Lasting>().is_some()
}

/// Sends a response to its end. `unasked` is how many bytes the client has sent beyond its request. Returns whether the connection
/// can take another request.
pub fn send<S>(
    stream: &mut S,
    response: Response<WireBody>,
    unasked: usize,
) -> impl Future<Output = Result<bool, BoxError>> + use<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    // Here, so that what lasts has no room for the response's parts.
    let (head, body) = (head(&response), response.into_body());
    send_parts(stream, head, body, unasked)
}

async fn send_parts<S>(
    stream: &mut S,
    head: Vec<u8>,
    mut body: WireBody,
    mut unasked: usize,
) -> Result<bool, BoxError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    stream.write_all(&head).await?;
    stream.flush().await?;
    drop(head);
    while let Some(piece) = poll_fn(|cx| piece(cx, stream, &mut body, &mut unasked)).await? {
        // An empty chunk would be the last one.
        if !piece.is_empty() {
            stream.write_all_buf(&mut chunk(piece)).await?;
            stream.flush().await?;
        }
    }
    stream.write_all(b"0\r\n\r\n").await?;
    stream.flush().await?;
    // What the client sent meanwhile has not been kept.
    Ok(unasked == 0)
}

fn head(response: &Response<WireBody>) -> Vec<u8> {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&Timestamp::now()).ok();
    let date = date.and_then(|date| HeaderValue::try_from(date).ok());
    let chunked = HeaderValue::from_static("chunked");
    let own = date.iter().map(|date| (&DATE, date)).chain([(&TRANSFER_ENCODING, &chunked)]);
    for (name, value) in response.headers().iter().chain(own) {
        head.extend_from_slice(name.as_str().as_bytes());
        head.extend_from_slice(b": ");
        head.extend_from_slice(value.as_bytes());
        head.extend_from_slice(b"\r\n");
    }
    head.extend_from_slice(b"\r\n");
    head
}

fn chunk(piece: Bytes) -> impl Buf {
    let size = Bytes::from(format!("{:x}\r\n", piece.len()));
    size.chain(piece).chain(&b"\r\n"[..])
}

/// The body's next piece; none at its end. Fails when the client has gone.
fn piece<S: AsyncRead + Unpin>(
    cx: &mut Context<'_>,
    stream: &mut S,
    body: &mut WireBody,
    unasked: &mut usize,
) -> Poll<Result<Option<Bytes>, BoxError>> {
    if let Poll::Ready(frame) = Pin::new(body).poll_frame(cx) {
        let Some(frame) = frame.transpose()? else { return Poll::Ready(Ok(None)) };
        return Poll::Ready(Ok(Some(frame.into_data().unwrap_or_default())));
    }
    let mut buffer = [0; 64];
    while *unasked < UNASKED_BYTES_MAX {
        let mut buffer = ReadBuf::new(&mut buffer);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()));
        }
        *unasked += buffer.filled().len();
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use tokio::io::{AsyncReadExt, duplex};

    use super::*;
    use crate::body;

    fn response(pieces: &'static [&'static str]) -> Response<WireBody> {
        let pieces = pieces.iter().map(|piece| Bytes::from_static(piece.as_bytes()));
        let mut response = Response::new(body::wire(body::pieces(pieces)));
        response.headers_mut().insert("x", HeaderValue::from_static("y"));
        response
    }

    #[tokio::test]
    async fn a_body_goes_out_in_chunks() {
        let (mut ours, mut theirs) = duplex(1 << 10);
        let again = send(&mut ours, response(&["first", "", "a piece longer than that"]), 0).await;
        assert!(again.expect("is sent"));
        drop(ours);
        let mut text = String::new();
        theirs.read_to_string(&mut text).await.expect("is text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        assert!(head.starts_with("HTTP/1.1 200 OK\r\nx: y\r\ndate: "), "{head}");
        assert!(head.ends_with(" GMT\r\ntransfer-encoding: chunked"), "{head}");
        assert_eq!(body, "5\r\nfirst\r\n18\r\na piece longer than that\r\n0\r\n\r\n");
    }

    #[tokio::test]
    async fn a_client_that_leaves_ends_it() {
        let (mut ours, theirs) = duplex(1 << 10);
        drop(theirs);
        let endless = Response::new(body::wire(body::stream(stream::pending())));
        assert!(send(&mut ours, endless, 0).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_goes_on_talking_is_not_listened_to() {
        let (mut ours, mut theirs) = duplex(UNASKED_BYTES_MAX * 4);
        theirs.write_all(&[b'x'; UNASKED_BYTES_MAX * 2]).await.expect("there is room");
        let (stop, stopped) = tokio::sync::oneshot::channel::<Bytes>();
        let body = body::stream(stream::once(async { stopped.await.unwrap_or_default() }));
        let sending = tokio::spawn(async move {
            let again = send(&mut ours, Response::new(body::wire(body)), 0).await;
            (again.expect("is sent"), ours)
        });
        let mut head = [0; 12];
        theirs.read_exact(&mut head).await.expect("a head");
        stop.send(Bytes::from_static(b"end")).expect("is waited for");
        let (again, mut ours) = sending.await.expect("ends");
        assert!(!again);
        let mut left = [0; UNASKED_BYTES_MAX];
        ours.read_exact(&mut left[..UNASKED_BYTES_MAX - 64]).await.expect("much of it has not been read");
    }
}
