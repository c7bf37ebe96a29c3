//! What the work queues of a process are measured by, under the names and with the buckets of upstream's
//! `component-base/metrics/prometheus/workqueue`.

use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;

use crate::metrics::{Histogram, Number, Source, exponential_buckets};

/// From ten nanoseconds to ten seconds (upstream's own).
const DURATION_FIRST: f64 = 10e-9;
const DURATION_FACTOR: f64 = 10.0;
const DURATION_COUNT: i32 = 10;

/// How a queue stands.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Standing {
    pub depth: usize,
    /// Of all keys that are worked on, since that began.
    pub unfinished: Duration,
    /// Of the one that has been worked on for longest.
    pub longest: Duration,
}

pub(super) trait Measured: Send + Sync {
    fn standing(&self) -> Standing;
}

/// The queues that have names. One that is gone is told of no more, but for what it has counted.
#[derive(Debug)]
pub struct QueueMetrics {
    adds: Number,
    retries: Number,
    waited: Histogram,
    worked: Histogram,
    depth: Number,
    unfinished: Number,
    longest: Number,
    queues: Mutex<Vec<(String, Weak<dyn Measured>)>>,
}

impl Default for QueueMetrics {
    fn default() -> Self {
        let durations = || exponential_buckets(DURATION_FIRST, DURATION_FACTOR, DURATION_COUNT);
        QueueMetrics {
            adds: Number::counter("workqueue_adds_total", "[BETA] Total number of adds handled by workqueue"),
            retries: Number::counter(
                "workqueue_retries_total",
                "[BETA] Total number of retries handled by workqueue",
            ),
            waited: Histogram::new(
                "workqueue_queue_duration_seconds",
                "[BETA] How long in seconds an item stays in workqueue before being requested.",
                durations(),
            ),
            worked: Histogram::new(
                "workqueue_work_duration_seconds",
                "[BETA] How long in seconds processing an item from workqueue takes.",
                durations(),
            ),
            depth: Number::gauge("workqueue_depth", "[BETA] Current depth of workqueue"),
            unfinished: Number::gauge(
                "workqueue_unfinished_work_seconds",
                "[BETA] How many seconds of work is in progress and has not been observed by work_duration.",
            ),
            longest: Number::gauge(
                "workqueue_longest_running_processor_seconds",
                "[BETA] How many seconds has the longest running processor for workqueue been running.",
            ),
            queues: Mutex::default(),
        }
    }
}

impl Source for QueueMetrics {
    fn write(&self, text: &mut String) {
        let mut queues = self.queues.lock();
        queues.retain(|(_, queue)| queue.strong_count() > 0);
        for gauge in [&self.depth, &self.unfinished, &self.longest] {
            gauge.retain(|labels| queues.iter().any(|(name, _)| name == labels));
        }
        for (labels, queue) in queues.iter() {
            let Standing { depth, unfinished, longest } =
                queue.upgrade().map(|queue| queue.standing()).unwrap_or_default();
            self.depth.set(labels, depth as f64);
            self.unfinished.set(labels, unfinished.as_secs_f64());
            self.longest.set(labels, longest.as_secs_f64());
        }
        drop(queues);
        [&self.adds, &self.depth, &self.longest].into_iter().for_each(|number| number.write(text));
        [&self.waited, &self.worked].into_iter().for_each(|histogram| histogram.write(text));
        [&self.retries, &self.unfinished].into_iter().for_each(|number| number.write(text));
    }
}

/// What one queue tells as it goes.
pub(super) struct Meter {
    metrics: Arc<QueueMetrics>,
    labels: String,
}

impl Meter {
    pub fn new(name: &str, metrics: &Arc<QueueMetrics>) -> Meter {
        Meter { metrics: metrics.clone(), labels: format!("name=\"{name}\"") }
    }

    /// The queue that is measured, to be asked how it stands.
    pub fn measures(&self, queue: Weak<dyn Measured>) {
        self.metrics.queues.lock().push((self.labels.clone(), queue));
    }

    pub fn added(&self) {
        self.metrics.adds.add(&self.labels, 1.0);
    }

    pub fn retried(&self) {
        self.metrics.retries.add(&self.labels, 1.0);
    }

    pub fn taken(&self, after: Duration) {
        self.metrics.waited.observe(&self.labels, after.as_secs_f64());
    }

    pub fn done(&self, after: Duration) {
        self.metrics.worked.observe(&self.labels, after.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::WorkQueue;

    fn shown(metrics: &QueueMetrics) -> String {
        let mut text = String::new();
        metrics.write(&mut text);
        text
    }

    #[tokio::test(start_paused = true)]
    async fn a_named_queue_tells_what_waits_and_what_is_worked_on() {
        let metrics = Arc::default();
        let queue = WorkQueue::named("things", &metrics);
        ["a", "b", "b"].into_iter().for_each(|key| queue.add(key));
        tokio::time::advance(Duration::from_secs(2)).await;
        let first = queue.get().await;
        tokio::time::advance(Duration::from_secs(3)).await;
        queue.add_rate_limited("c");
        let expect = |lines: &[&str]| {
            let text = shown(&metrics);
            for line in lines {
                assert!(text.contains(&format!("workqueue_{line}\n")), "{line} in {text}");
            }
        };
        expect(&[
            "adds_total{name=\"things\"} 2",
            "depth{name=\"things\"} 1",
            "retries_total{name=\"things\"} 1",
            "queue_duration_seconds_sum{name=\"things\"} 2",
            "unfinished_work_seconds{name=\"things\"} 3",
            "longest_running_processor_seconds{name=\"things\"} 3",
        ]);
        queue.done(&first);
        expect(&[
            "work_duration_seconds_sum{name=\"things\"} 3",
            "unfinished_work_seconds{name=\"things\"} 0",
        ]);
        drop(queue);
        assert!(!shown(&metrics).contains("workqueue_depth{"));
    }
}
