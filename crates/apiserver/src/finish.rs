//! Work that is done to its end even when nobody waits for it any more.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;

/// Does the work where it is awaited. Who stops waiting leaves the rest of it to a task: what a write has queued for the
/// log comes true, and what it holds besides, such as a Service's address, must follow that (upstream:
/// `finisher.FinishRequest`).
pub struct Finish<F>(Option<Pin<Box<F>>>)
where
    F: Future<Output: Send> + Send + 'static;

impl<F> Finish<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    pub fn of(work: Pin<Box<F>>) -> Finish<F> {
        Finish(Some(work))
    }
}

impl<F> Future for Finish<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        // Work that panics is not there any more: nobody may go on with it.
        let mut work = self.0.take().expect("what is done is not polled again");
        let outcome = work.as_mut().poll(context);
        if outcome.is_pending() {
            self.0 = Some(work);
        }
        outcome
    }
}

impl<F> Drop for Finish<F>
where
    F: Future<Output: Send> + Send + 'static,
{
    fn drop(&mut self) {
        // Where no runtime is left, nothing is.
        if let (Some(work), Ok(runtime)) = (self.0.take(), Handle::try_current()) {
            runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_finished() {
        let (go, gone) = oneshot::channel();
        let (tell, told) = oneshot::channel();
        let mut work = Finish::of(Box::pin(async move {
            gone.await.expect("is told to go");
            tell.send("done").expect("somebody listens");
        }));
        assert!((&mut work).now_or_never().is_none());
        drop(work);
        go.send(()).expect("the work goes on");
        assert_eq!(told.await, Ok("done"));
    }

    #[tokio::test]
    async fn nothing_is_left_of_what_is_done() {
        let mut work = Finish::of(Box::pin(async { "done" }));
        assert_eq!((&mut work).await, "done");
        assert!(work.0.is_none());
    }

    #[tokio::test]
    async fn nobody_goes_on_with_what_panicked() {
        let mut work = Finish::of(Box::pin(async { panic!("amid the work") }));
        let outcome: Result<(), _> = std::panic::AssertUnwindSafe(&mut work).catch_unwind().await;
        outcome.expect_err("panics here, not in a task");
        assert!(work.0.is_none());
    }
}
