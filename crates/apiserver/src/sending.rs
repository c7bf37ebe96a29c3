//! An answer on its way out: what its request holds until the last of it is taken, until when that must be, and who is
//! told when it is over. Upstream's handlers write their answers themselves, so that a request's seat, time limit and
//! duration include that.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::Response;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::body::{Body, BoxError};

/// Who has not taken the answer by its request's time limit does not get the rest.
#[derive(Debug, thiserror::Error)]
#[error("the answer was not taken within the request's time limit")]
struct TooLate;

/// What is left of an answer, and what is given back with it.
struct Outgoing<H> {
    body: Body,
    _held: H,
    /// Whoever waits for the next piece.
    taker: Option<Waker>,
}

struct Limited<H> {
    /// None once it has ended, or its time is up.
    outgoing: Arc<Mutex<Option<Outgoing<H>>>>,
    ended: bool,
    _taken: DropGuard,
}

/// Holds on to `held` until the answer has been taken or its time is up. One that is made already is as good as taken.
pub fn until<H: Send + 'static>(response: Response<Body>, deadline: Instant, held: H) -> Response<Body> {
    if response.body().size_hint().exact().is_some() {
        return response;
    }
    response.map(|body| {
        let outgoing = Arc::new(Mutex::new(Some(Outgoing { body, _held: held, taker: None })));
        let (late, taken) = (Arc::downgrade(&outgoing), CancellationToken::new());
        let guard = taken.clone().drop_guard();
        tokio::spawn(async move {
            if timeout_at(deadline, taken.cancelled()).await.is_ok() {
                return;
            }
            let rest = late.upgrade().and_then(|outgoing| outgoing.lock().take());
            if let Some(taker) = rest.and_then(|rest| rest.taker) {
                taker.wake();
            }
        });
        Limited { outgoing, ended: false, _taken: guard }.boxed_unsync()
    })
}

impl<H: Send> http_body::Body for Limited<H> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        let mut outgoing = self.outgoing.lock();
        let polled = match outgoing.as_mut() {
            None => Poll::Ready(Some(Err(TooLate.into()))),
            Some(rest) => {
                rest.taker = Some(cx.waker().clone());
                Pin::new(&mut rest.body).poll_frame(cx)
            }
        };
        let over = matches!(polled, Poll::Ready(None | Some(Err(_))));
        let rest = if over { outgoing.take() } else { None };
        drop(outgoing);
        drop(rest);
        self.ended = over;
        polled
    }
}

/// A body of which somebody is told how many bytes of it were taken, once that is over.
struct Told<F: FnOnce(u64)> {
    body: Body,
    sent: u64,
    tell: Option<F>,
}

/// Calls `tell` with the bytes that were sent when the answer has been taken, or nobody takes it any more.
pub fn told(response: Response<Body>, tell: impl FnOnce(u64) + Send + Unpin + 'static) -> Response<Body> {
    if let Some(bytes) = response.body().size_hint().exact() {
        tell(bytes);
        return response;
    }
    response.map(|body| Told { body, sent: 0, tell: Some(tell) }.boxed_unsync())
}

impl<F: FnOnce(u64)> Told<F> {
    fn finish(&mut self) {
        if let Some(tell) = self.tell.take() {
            tell(self.sent);
        }
    }
}

impl<F: FnOnce(u64)> Drop for Told<F> {
    fn drop(&mut self) {
        self.finish();
    }
}

impl<F: FnOnce(u64) + Unpin> http_body::Body for Told<F> {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.sent += frame.data_ref().map_or(0, |data| data.len() as u64),
            Poll::Ready(None | Some(Err(_))) => self.finish(),
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::body;

    const LIMIT: Duration = Duration::from_secs(60);

    fn pieces() -> Response<Body> {
        Response::new(body::pieces(["one", "two"].into_iter().map(Bytes::from)))
    }

    /// Whether what was held is still held.
    fn is_held(held: &Arc<()>) -> bool {
        Arc::strong_count(held) > 1
    }

    #[tokio::test]
    async fn what_an_answer_holds_is_given_back_with_its_last_piece() {
        let held = Arc::new(());
        let mut body = until(pieces(), Instant::now() + LIMIT, held.clone()).into_body();
        for _ in 0..2 {
            body.frame().await.expect("a piece").expect("in time");
            assert!(is_held(&held));
        }
        assert!(body.frame().await.is_none() && !is_held(&held));
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_take_an_answer_in_time_holds_nothing_any_more() {
        let held = Arc::new(());
        let mut body = until(pieces(), Instant::now() + LIMIT, held.clone()).into_body();
        body.frame().await.expect("a piece").expect("in time");
        tokio::time::sleep(LIMIT * 2).await;
        assert!(!is_held(&held));
        assert!(body.frame().await.expect("an end").is_err());
    }

    #[tokio::test]
    async fn who_goes_away_gives_all_back() {
        let held = Arc::new(());
        drop(until(pieces(), Instant::now() + LIMIT, held.clone()));
        while is_held(&held) {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn the_bytes_of_an_answer_are_told_once() {
        let (sender, told_bytes) = std::sync::mpsc::channel();
        let tell = |response| {
            let sender = sender.clone();
            told(response, move |bytes| sender.send(bytes).expect("somebody listens"))
        };
        drop(tell(Response::new(body::full("all"))));
        assert_eq!(told_bytes.try_iter().collect::<Vec<_>>(), [3]);
        tell(pieces()).into_body().collect().await.expect("a body");
        assert_eq!(told_bytes.try_iter().collect::<Vec<_>>(), [6]);
        let mut left = tell(pieces()).into_body();
        left.frame().await.expect("a piece").expect("is one");
        drop(left);
        assert_eq!(told_bytes.try_iter().collect::<Vec<_>>(), [3]);
    }
}
