//! Request and response bodies, whichever transport they came by.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use apimachinery::Status;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};

/// The largest body of a request (upstream: MaxRequestBodyBytes).
pub const REQUEST_BODY_BYTES_MAX: usize = 3 << 20;

/// Pieces of a long response are joined up to this size: large enough that framing costs little.
pub const CHUNK_BYTES: usize = 64 << 10;

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

pub type Body = UnsyncBoxBody<Bytes, BoxError>;

/// Why a body broke off, as a type of its own: hyper wants one.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct BodyError(BoxError);

/// A body on its way to hyper.
pub struct WireBody(Body);

impl http_body::Body for WireBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        Pin::new(&mut self.0).poll_frame(cx).map_err(BodyError)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

pub fn wire(body: Body) -> WireBody {
    WireBody(body)
}

pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never: Infallible| match never {}).boxed_unsync()
}

pub fn empty() -> Body {
    full(Bytes::new())
}

/// A body whose pieces are made as they are taken.
pub fn pieces(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Body {
    stream(futures_util::stream::iter(pieces))
}

/// A body whose pieces come over time.
pub fn stream(pieces: impl Stream<Item = Bytes> + Send + 'static) -> Body {
    StreamBody::new(pieces.map(|bytes| Ok::<_, BoxError>(Frame::data(bytes)))).boxed_unsync()
}

/// Reads a whole request body; more than the limit is refused without being read.
pub async fn read(body: Body) -> Result<Bytes, Status> {
    read_at_most(body, REQUEST_BODY_BYTES_MAX).await
}

pub async fn read_at_most(body: Body, max: usize) -> Result<Bytes, Status> {
    match Limited::new(wire(body), max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Status::request_entity_too_large(max)),
        Err(error) => Err(Status::bad_request(format!("unable to read the request body: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit_and_no_further() {
        let body = read_at_most(full("12345"), 5).await.expect("fits");
        assert_eq!(&body[..], b"12345");
        let status = read_at_most(full("123456"), 5).await.expect_err("is too large");
        assert_eq!(status.code, 413);
    }
}
