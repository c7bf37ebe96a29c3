//! A work queue as client-go's: a key waits once however often it is added, is never worked on twice at a time, and
//! comes back later with a growing delay after failures.

mod metrics;

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::metrics::QueueMetrics;
use self::metrics::{Measured, Meter, Standing};

/// client-go's default controller rate limiter: 5 ms doubled per failure, up to 1000 s.
const RETRY_MIN: Duration = Duration::from_millis(5);
const RETRY_MAX: Duration = Duration::from_secs(1000);

struct State<K> {
    ready: VecDeque<K>,
    /// What `ready` holds, and what came in while it was being processed, by when it came in.
    dirty: HashMap<K, Instant>,
    /// By when that began.
    processing: HashMap<K, Instant>,
    /// By time due, then key.
    delayed: BTreeSet<(Instant, K)>,
    /// When each key of `delayed` is due, which is in there once.
    due: HashMap<K, Instant>,
    failures: HashMap<K, u32>,
    /// Who is told what happens; nobody if the queue has no name.
    meter: Option<Meter>,
}

/// Cloning shares the queue.
pub struct WorkQueue<K> {
    state: Arc<Mutex<State<K>>>,
    /// Wakes one waiter: something became ready, or an earlier deadline came in.
    changed: Arc<Notify>,
}

impl<K> Clone for WorkQueue<K> {
    fn clone(&self) -> Self {
        WorkQueue { state: self.state.clone(), changed: self.changed.clone() }
    }
}

impl<K: Clone + Eq + Hash + Ord> Default for WorkQueue<K> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K: Clone + Eq + Hash + Ord> WorkQueue<K> {
    pub fn new() -> Self {
        Self::measured_by(None)
    }

    fn measured_by(meter: Option<Meter>) -> Self {
        WorkQueue {
            state: Arc::new(Mutex::new(State {
                ready: VecDeque::new(),
                dirty: HashMap::new(),
                processing: HashMap::new(),
                delayed: BTreeSet::new(),
                due: HashMap::new(),
                failures: HashMap::new(),
                meter,
            })),
            changed: Arc::new(Notify::new()),
        }
    }

    pub fn add(&self, key: K) {
        self.state.lock().add(key);
        self.changed.notify_one();
    }

    /// Of several delays of one key the one that ends first counts, as in client-go's delaying queue.
    pub fn add_after(&self, key: K, delay: Duration) {
        if delay.is_zero() {
            return self.add(key);
        }
        let mut state = self.state.lock();
        state.add_at(key, Instant::now() + delay);
        state.tell(Meter::retried);
        drop(state);
        self.changed.notify_one();
    }

    /// After a failure: the delay doubles each time until `forget`.
    pub fn add_rate_limited(&self, key: K) {
        let delay = {
            let mut state = self.state.lock();
            let failures = state.failures.entry(key.clone()).or_insert(0);
            let delay =
                RETRY_MIN.saturating_mul(1u32.checked_shl(*failures).unwrap_or(u32::MAX)).min(RETRY_MAX);
            *failures = failures.saturating_add(1);
            delay
        };
        self.add_after(key, delay);
    }

    pub fn forget(&self, key: &K) {
        self.state.lock().failures.remove(key);
    }

    /// How often in a row the key has failed.
    pub fn failures(&self, key: &K) -> u32 {
        self.state.lock().failures.get(key).copied().unwrap_or(0)
    }

    /// The next key; `done` must follow.
    pub async fn get(&self) -> K {
        loop {
            let changed = self.changed.notified();
            let (key, more, due) = {
                let mut state = self.state.lock();
                state.release(Instant::now());
                let key = state.take();
                (key, !state.ready.is_empty(), state.delayed.first().map(|(at, _)| *at))
            };
            if let Some(key) = key {
                if more || due.is_some() {
                    self.changed.notify_one();
                }
                return key;
            }
            match due {
                Some(at) => tokio::select! {
                    () = changed => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => changed.await,
            }
        }
    }

    /// The key's work is over; if it was added meanwhile it is ready again.
    pub fn done(&self, key: &K) {
        let mut state = self.state.lock();
        if let Some(since) = state.processing.remove(key) {
            state.tell(|meter| meter.done(since.elapsed()));
        }
        if state.dirty.contains_key(key) {
            state.ready.push_back(key.clone());
            drop(state);
            self.changed.notify_one();
        }
    }
}

impl<K: Clone + Eq + Hash + Ord + Send + 'static> WorkQueue<K> {
    /// A queue that is measured under a name.
    pub fn named(name: &str, metrics: &Arc<QueueMetrics>) -> Self {
        let queue = Self::measured_by(Some(Meter::new(name, metrics)));
        let measured: Arc<dyn Measured> = queue.state.clone();
        queue.state.lock().tell(|meter| meter.measures(Arc::downgrade(&measured)));
        queue
    }
}

impl<K: Send> Measured for Mutex<State<K>> {
    fn standing(&self) -> Standing {
        let state = self.lock();
        let running = || state.processing.values().map(|since| since.elapsed());
        Standing {
            depth: state.ready.len(),
            unfinished: running().sum(),
            longest: running().max().unwrap_or_default(),
        }
    }
}

impl<K: Clone + Eq + Hash + Ord> State<K> {
    fn add(&mut self, key: K) {
        if self.dirty.contains_key(&key) {
            return;
        }
        self.tell(Meter::added);
        self.dirty.insert(key.clone(), Instant::now());
        if !self.processing.contains_key(&key) {
            self.ready.push_back(key);
        }
    }

    fn add_at(&mut self, key: K, at: Instant) {
        match self.due.get(&key) {
            Some(earlier) if *earlier <= at => return,
            Some(later) => self.delayed.remove(&(*later, key.clone())),
            None => false,
        };
        self.due.insert(key.clone(), at);
        self.delayed.insert((at, key));
    }

    /// Moves what is due from `delayed` to `ready`.
    fn release(&mut self, now: Instant) {
        while self.delayed.first().is_some_and(|(at, _)| *at <= now) {
            let (_, key) = self.delayed.pop_first().expect("it was there a line ago");
            self.due.remove(&key);
            self.add(key);
        }
    }

    fn take(&mut self) -> Option<K> {
        let key = self.ready.pop_front()?;
        if let Some(since) = self.dirty.remove(&key) {
            self.tell(|meter| meter.taken(since.elapsed()));
        }
        self.processing.insert(key.clone(), Instant::now());
        Some(key)
    }

    fn tell(&self, what: impl FnOnce(&Meter)) {
        if let Some(meter) = &self.meter {
            what(meter);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_key_waits_once_and_is_not_worked_on_twice() {
        let queue = WorkQueue::new();
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.get().await, "a");
        queue.add("a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.get()).await.is_err());
        queue.done(&"a");
        assert_eq!(queue.get().await, "a");
        queue.done(&"a");
        assert!(tokio::time::timeout(Duration::from_secs(1), queue.get()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn delays_are_kept_and_grow_with_failures() {
        let queue = WorkQueue::new();
        queue.add_after("late", Duration::from_secs(10));
        queue.add_after("soon", Duration::from_secs(1));
        let start = Instant::now();
        assert_eq!(queue.get().await, "soon");
        assert_eq!(queue.get().await, "late");
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.done(&"late");
        for failure in 0..3 {
            assert_eq!(queue.failures(&"late"), failure);
            queue.add_rate_limited("late");
            let before = Instant::now();
            assert_eq!(queue.get().await, "late");
            assert!(before.elapsed() >= RETRY_MIN * 2u32.pow(failure));
            queue.done(&"late");
        }
        queue.forget(&"late");
        assert_eq!(queue.failures(&"late"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn of_several_delays_of_a_key_the_shortest_counts() {
        let queue = WorkQueue::new();
        for seconds in [20, 10, 30] {
            queue.add_after("a", Duration::from_secs(seconds));
        }
        let start = Instant::now();
        assert_eq!(queue.get().await, "a");
        assert_eq!(start.elapsed().as_secs(), 10);
        queue.done(&"a");
        assert!(tokio::time::timeout(Duration::from_secs(60), queue.get()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn several_workers_share_the_keys() {
        let queue = WorkQueue::new();
        let workers: Vec<_> = (0..3)
            .map(|_| {
                tokio::spawn({
                    let queue = queue.clone();
                    async move { queue.get().await }
                })
            })
            .collect();
        for key in 0..3 {
            queue.add(key);
        }
        let mut got = Vec::new();
        for worker in workers {
            got.push(worker.await.expect("finishes"));
        }
        got.sort_unstable();
        assert_eq!(got, [0, 1, 2]);
    }
}
