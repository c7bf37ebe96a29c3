//! Many durations and what is said of them.

use std::time::Duration;

/// Durations in order.
#[derive(Debug)]
pub struct Latencies {
    sorted: Vec<Duration>,
}

impl Latencies {
    pub fn new(mut durations: Vec<Duration>) -> Latencies {
        durations.sort_unstable();
        Latencies { sorted: durations }
    }

    /// The nearest-rank percentile: the least duration that `percent` of all do not exceed. Zero when there are none.
    pub fn percentile(&self, percent: f64) -> Duration {
        let rank = (percent / 100.0 * self.sorted.len() as f64).ceil() as usize;
        self.sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
    }

    pub fn len(&self) -> usize {
        self.sorted.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let latencies = Latencies::new((1..=10).rev().map(Duration::from_secs).collect());
        let seconds = |percent| latencies.percentile(percent).as_secs();
        assert_eq!([0.0, 50.0, 51.0, 99.0, 100.0].map(seconds), [1, 5, 6, 10, 10]);
        assert_eq!(Latencies::new(Vec::new()).percentile(50.0), Duration::ZERO);
    }
}
