//! Flow control of what one stream sends.
//!
//! Kubernetes' clients (moby/spdystream) never send WINDOW_UPDATE and never look at windows, so a
//! sender that held to the draft would stop after 64 KiB. Hence the window is always accounted but
//! binds only once the other side has shown that it takes part, by a WINDOW_UPDATE or by setting
//! an initial window.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;

/// The window a stream starts with when no setting says otherwise (SPDY/3 draft 2.6.8).
pub(super) const INITIAL_WINDOW_BYTES: i64 = 64 * 1024;

/// What one stream may still send.
pub(super) struct SendWindow(Mutex<Window>);

struct Window {
    /// Bytes the other side has room for; negative when more was sent before windows bound.
    credit: i64,
    /// The stream can send no more: reset, or its connection is gone.
    dead: bool,
    /// The one writer waiting for credit.
    waiting: Option<Waker>,
}

/// The stream was reset or its connection ended.
#[derive(Debug)]
pub(super) struct Dead;

impl SendWindow {
    pub(super) fn new(credit: i64) -> Self {
        Self(Mutex::new(Window { credit, dead: false, waiting: None }))
    }

    /// Bytes of `wanted` that may be sent now; `binding` says whether the window counts.
    pub(super) fn poll_available(
        &self,
        wanted: usize,
        binding: &AtomicBool,
        cx: &Context<'_>,
    ) -> Poll<Result<usize, Dead>> {
        let mut window = self.0.lock();
        if window.dead {
            return Poll::Ready(Err(Dead));
        }
        if !binding.load(Ordering::Acquire) {
            return Poll::Ready(Ok(wanted));
        }
        if window.credit > 0 {
            return Poll::Ready(Ok(wanted.min(usize::try_from(window.credit).unwrap_or(usize::MAX))));
        }
        window.waiting = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Records that `bytes` were sent.
    pub(super) fn take(&self, bytes: usize) {
        self.0.lock().credit -= bytes as i64;
    }

    /// Gives (or, after a smaller initial window, withdraws) credit.
    pub(super) fn give(&self, bytes: i64) {
        let mut window = self.0.lock();
        window.credit = window.credit.saturating_add(bytes);
        wake(&mut window);
    }

    pub(super) fn kill(&self) {
        let mut window = self.0.lock();
        window.dead = true;
        wake(&mut window);
    }
}

fn wake(window: &mut Window) {
    if let Some(waker) = window.waiting.take() {
        waker.wake();
    }
}
