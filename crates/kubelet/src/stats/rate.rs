//! How fast processor time grows. It takes two readings: the older one is at least a while old, so that what is told
//! does not jump when several ask.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

use super::{Reading, number};

/// What lies between the readings that a rate is made of, once there were enough (upstream's housekeeping interval).
const WINDOW: SignedDuration = SignedDuration::from_secs(10);
/// A rate over less would be noise.
const WINDOW_MIN: SignedDuration = SignedDuration::from_millis(100);
const NODE: &str = "";

#[derive(Clone, Copy)]
struct Counter {
    at: Timestamp,
    /// Nanoseconds of processor time.
    total: u64,
}

#[derive(Clone, Copy)]
struct Pair {
    older: Counter,
    newer: Counter,
}

/// The last readings of the node, and of pods and containers by what identifies them.
#[derive(Default)]
pub struct Rates {
    known: HashMap<String, Pair>,
}

impl Rates {
    /// Fills in the rates; whatever is not in the reading is forgotten.
    pub fn learn(&mut self, reading: &mut Reading) {
        let before = std::mem::take(&mut self.known);
        let at = reading.at;
        let mut rate = |key: &str, total: Option<u64>| {
            let (pair, rate) = advance(before.get(key).copied(), Counter { at, total: total? });
            self.known.insert(key.to_owned(), pair);
            rate
        };
        reading.node_rate = rate(NODE, Some(reading.node.cpu_nanos));
        for pod in &mut reading.pods {
            let total = pod.usage.cpu.as_ref().and_then(|cpu| number(cpu.usage_core_nano_seconds.as_ref()));
            pod.cpu_rate = rate(&pod.uid, total);
            for container in &mut pod.containers {
                let cpu = container.usage.cpu.as_ref();
                let total = cpu.and_then(|cpu| number(cpu.usage_core_nano_seconds.as_ref()));
                container.cpu_rate = rate(&container.id, total);
            }
        }
    }
}

fn advance(before: Option<Pair>, now: Counter) -> (Pair, Option<u64>) {
    let Some(Pair { older, newer }) = before.filter(|pair| pair.newer.total <= now.total) else {
        return (Pair { older: now, newer: now }, None);
    };
    let is_due = now.at.duration_since(newer.at) >= WINDOW;
    let pair = if is_due { Pair { older: newer, newer: now } } else { Pair { older, newer } };
    let window = now.at.duration_since(pair.older.at);
    let grown = u128::from(now.total - pair.older.total) * 1_000_000_000;
    let rate = (window >= WINDOW_MIN)
        .then(|| u64::try_from(grown / window.as_nanos().unsigned_abs()).unwrap_or(u64::MAX));
    (pair, rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counter(seconds: i64, total: u64) -> Counter {
        Counter { at: Timestamp::from_second(seconds).expect("a time"), total }
    }

    #[test]
    fn a_rate_takes_two_readings_and_then_spans_at_least_the_window() {
        let (pair, rate) = advance(None, counter(0, 0));
        assert_eq!(rate, None);
        let (pair, rate) = advance(Some(pair), counter(2, 1_000_000_000));
        assert_eq!(rate, Some(500_000_000));
        let (pair, _) = advance(Some(pair), counter(12, 6_000_000_000));
        let (_, rate) = advance(Some(pair), counter(14, 7_000_000_000));
        assert_eq!(rate, Some(500_000_000), "over 14 seconds");
    }

    #[test]
    fn a_counter_that_began_anew_has_no_rate() {
        let (pair, _) = advance(None, counter(0, 5));
        assert_eq!(advance(Some(pair), counter(10, 4)).1, None);
    }
}
