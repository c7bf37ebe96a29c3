//! How a crowd of watchers hears of changes: a few at a time, one after the other, so that whoever makes the changes is
//! served between them; and not again at once, so that what happens meanwhile is heard together.
//!
//! To tell one watcher over a connection costs a TLS record, a system call and its reader's waking, most of it whatever
//! the number of changes. Woken all together, a thousand watchers would keep every request waiting until the last of
//! them was told, and each would be told of each change by itself.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{Instant, sleep_until};

/// So many are woken together, fewer than what a worker of the runtime does before it looks for new requests.
const SLICE: usize = 32;

/// Ten times what one write costs, about. With this much time for each watcher, telling them of changes that keep coming
/// takes a tenth of a processor: with less, each change is told by itself, as single ones come every few milliseconds.
/// With twice as much a thousand watchers cost a third less, but hear of a burst's end four times later.
const TURN_TIME: Duration = Duration::from_micros(100);

/// Timers are no finer.
const GAP_MIN: Duration = Duration::from_millis(1);

/// Nobody waits longer than this for the others' sake, once those have been told.
const GAP_MAX: Duration = Duration::from_millis(25);

/// The shortest time between the beginnings of two rounds in which so many are woken.
fn gap(watchers: usize) -> Duration {
    let gap =
        u32::try_from(watchers).map_or(GAP_MAX, |watchers| TURN_TIME.saturating_mul(watchers).min(GAP_MAX));
    if gap < GAP_MIN { Duration::ZERO } else { gap }
}

/// One who sleeps until a change concerns him.
#[derive(Debug)]
pub(crate) struct Sleeper {
    wake: Notify,
    /// None of those who are woken at once.
    turns: Option<Arc<Queue>>,
    /// Whether his turn is to come.
    queued: AtomicBool,
}

impl Sleeper {
    pub(crate) fn new(turns: Option<&Turns>) -> Sleeper {
        let turns = turns.map(|turns| turns.queue.clone());
        Sleeper { wake: Notify::new(), turns, queued: AtomicBool::new(false) }
    }

    pub(crate) async fn sleep(&self) {
        self.wake.notified().await;
    }

    /// Wakes him, now or when it is his turn.
    pub(crate) fn call(self: &Arc<Sleeper>) {
        match &self.turns {
            None => self.wake(),
            Some(queue) => {
                if !self.queued.swap(true, Ordering::AcqRel) {
                    queue.waiting.lock().push_back(self.clone());
                }
            }
        }
    }

    /// Wakes him whether it is his turn or not.
    pub(crate) fn wake(&self) {
        self.wake.notify_one();
    }
}

/// Those whose turn is to come, in its order.
#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<VecDeque<Arc<Sleeper>>>,
    called: Notify,
}

impl Queue {
    /// Wakes the next few; whatever happens from here on calls them anew.
    fn wake(&self, count: usize) {
        let slice: Vec<_> = {
            let mut waiting = self.waiting.lock();
            let count = count.min(waiting.len());
            waiting.drain(..count).collect()
        };
        for sleeper in slice {
            sleeper.queued.store(false, Ordering::Release);
            sleeper.wake();
        }
    }

    /// Wakes round after round, each of those who were called by its beginning.
    async fn run(&self) {
        loop {
            self.called.notified().await;
            let (begin, round) = (Instant::now(), self.waiting.lock().len());
            for woken in (0..round).step_by(SLICE) {
                self.wake(SLICE.min(round - woken));
                yield_now().await;
            }
            sleep_until(begin + gap(round)).await;
        }
    }
}

/// The turns of one resource's watchers, for as long as there are any.
#[derive(Debug)]
pub(crate) struct Turns {
    queue: Arc<Queue>,
    task: AbortHandle,
}

impl Turns {
    /// Within a runtime, whose task gives the turns.
    pub(crate) fn begin() -> Turns {
        let queue = Arc::new(Queue::default());
        let own = queue.clone();
        Turns { queue, task: tokio::spawn(async move { own.run().await }).abort_handle() }
    }

    /// Those who were called get their turns; few enough all get theirs at once.
    pub(crate) fn give(&self) {
        if self.queue.waiting.lock().len() > SLICE {
            self.queue.called.notify_one();
        } else {
            self.queue.wake(SLICE);
        }
    }
}

impl Drop for Turns {
    fn drop(&mut self) {
        self.task.abort();
        self.queue.waiting.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// So many sleepers of whom each counts how often he was woken.
    fn asleep(turns: &Turns, count: usize) -> (Vec<Arc<Sleeper>>, Arc<AtomicUsize>) {
        let woken = Arc::new(AtomicUsize::new(0));
        let sleepers: Vec<_> = (0..count).map(|_| Arc::new(Sleeper::new(Some(turns)))).collect();
        for sleeper in &sleepers {
            let (sleeper, woken) = (sleeper.clone(), woken.clone());
            tokio::spawn(async move {
                loop {
                    sleeper.sleep().await;
                    woken.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        (sleepers, woken)
    }

    fn change(turns: &Turns, sleepers: &[Arc<Sleeper>]) {
        sleepers.iter().for_each(Sleeper::call);
        turns.give();
    }

    async fn until(woken: &AtomicUsize, expect: usize) {
        while woken.load(Ordering::SeqCst) < expect {
            yield_now().await;
        }
    }

    #[test]
    fn the_more_watch_the_more_goes_together_within_bounds() {
        let check = |watchers, expect| assert_eq!(gap(watchers), Duration::from_millis(expect), "{watchers}");
        check(1, 0);
        check(9, 0);
        check(10, 1);
        check(100, 10);
        check(250, 25);
        check(usize::MAX, 25);
    }

    #[tokio::test]
    async fn few_are_woken_at_once() {
        let turns = Turns::begin();
        let (sleepers, woken) = asleep(&turns, SLICE);
        change(&turns, &sleepers);
        assert!(sleepers.iter().all(|sleeper| !sleeper.queued.load(Ordering::SeqCst)));
        until(&woken, SLICE).await;
    }

    #[tokio::test]
    async fn of_a_crowd_no_more_than_a_slice_is_awake() {
        let turns = Turns::begin();
        let sleepers: Vec<_> = (0..3 * SLICE).map(|_| Arc::new(Sleeper::new(Some(&turns)))).collect();
        change(&turns, &sleepers);
        let waiting = || turns.queue.waiting.lock().len();
        let mut before = waiting();
        while before > 0 {
            yield_now().await;
            assert!(before - waiting() <= SLICE);
            before = waiting();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_happens_soon_after_is_heard_together() {
        const COUNT: usize = 200;
        let turns = Turns::begin();
        let (sleepers, woken) = asleep(&turns, COUNT);
        let start = Instant::now();
        change(&turns, &sleepers);
        until(&woken, COUNT).await;
        assert_eq!(start.elapsed(), Duration::ZERO, "the first change after a silence does not wait");
        for _ in 0..3 {
            change(&turns, &sleepers);
        }
        tokio::time::sleep(gap(COUNT) * 2).await;
        assert_eq!(woken.load(Ordering::SeqCst), 2 * COUNT);
    }

    #[tokio::test]
    async fn who_has_gone_keeps_nobody_waiting() {
        let turns = Turns::begin();
        let (mut sleepers, woken) = asleep(&turns, 3 * SLICE);
        sleepers.extend((0..SLICE).map(|_| Arc::new(Sleeper::new(Some(&turns)))));
        change(&turns, &sleepers);
        drop(sleepers);
        until(&woken, 3 * SLICE).await;
    }
}
