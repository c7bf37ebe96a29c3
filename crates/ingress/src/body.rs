//! Bodies on their way through: passed on frame by frame, never gathered.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::oneshot;

use crate::pool::Lease;

/// A body in either direction.
pub enum Body {
    Empty,
    /// Of our own making.
    Whole(Bytes),
    /// From the other side.
    Streamed(Incoming, Option<AtEnd>),
}

/// What happens when a body has come to its end.
pub enum AtEnd {
    /// Others may use the connection that it came over.
    GiveBack(Lease),
    /// Somebody is told; also when the body is given up.
    Tell(oneshot::Sender<()>),
}

impl AtEnd {
    fn happen(self) {
        match self {
            AtEnd::GiveBack(lease) => lease.give_back(),
            AtEnd::Tell(waiting) => drop(waiting),
        }
    }
}

impl Body {
    pub fn streamed(incoming: Incoming, at_end: Option<AtEnd>) -> Body {
        if incoming.is_end_stream() {
            at_end.into_iter().for_each(AtEnd::happen);
            return Body::Empty;
        }
        Body::Streamed(incoming, at_end)
    }

    /// Told when the rest of the body has gone through; `None` if there is none.
    pub fn ended(&mut self) -> Option<oneshot::Receiver<()>> {
        let Body::Streamed(_, at_end) = self else { return None };
        let (tell, told) = oneshot::channel();
        *at_end = Some(AtEnd::Tell(tell));
        Some(told)
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
            Body::Streamed(incoming, at_end) => {
                let polled = Pin::new(&mut *incoming).poll_frame(context);
                let ended = match &polled {
                    Poll::Ready(None) => true,
                    Poll::Ready(Some(Ok(_))) => incoming.is_end_stream(),
                    Poll::Ready(Some(Err(_))) | Poll::Pending => false,
                };
                if ended {
                    at_end.take().into_iter().for_each(AtEnd::happen);
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
