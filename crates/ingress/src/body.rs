//! Bodies on their way through: passed on frame by frame, never gathered.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;

use crate::pool::Lease;

/// A body in either direction.
pub enum Body {
    Empty,
    /// Of our own making.
    Whole(Bytes),
    /// From the other side. The lease is of the connection it comes over, if others may use that afterwards.
    Streamed(Incoming, Option<Lease>),
}

impl Body {
    pub fn streamed(incoming: Incoming, lease: Option<Lease>) -> Body {
        if incoming.is_end_stream() {
            lease.into_iter().for_each(Lease::give_back);
            return Body::Empty;
        }
        Body::Streamed(incoming, lease)
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        match this {
            Body::Empty => Poll::Ready(None),
            Body::Whole(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Body::Empty;
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Body::Streamed(incoming, lease) => {
                let polled = Pin::new(&mut *incoming).poll_frame(context);
                let ended = match &polled {
                    Poll::Ready(None) => true,
                    Poll::Ready(Some(Ok(_))) => incoming.is_end_stream(),
                    Poll::Ready(Some(Err(_))) | Poll::Pending => false,
                };
                if ended {
                    lease.take().into_iter().for_each(Lease::give_back);
                }
                polled
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Body::Empty => true,
            Body::Whole(bytes) => bytes.is_empty(),
            Body::Streamed(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Empty => SizeHint::with_exact(0),
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Body::Streamed(incoming, _) => incoming.size_hint(),
        }
    }
}
