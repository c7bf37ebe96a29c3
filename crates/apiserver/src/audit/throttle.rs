//! How often batches are handed on: so many a second, after so many at once (upstream: `flowcontrol.NewTokenBucketRateLimiter`).

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ThrottleConfig {
    pub per_second: f32,
    pub burst: u32,
}

/// A bucket of tokens, of which every batch takes one.
#[derive(Debug)]
pub struct Throttle {
    interval: Duration,
    burst: u32,
    /// When the bucket would be full if nobody took anything any more.
    full_at: Instant,
}

impl Throttle {
    /// Full at first.
    pub fn new(config: ThrottleConfig) -> Throttle {
        let interval = Duration::try_from_secs_f32(config.per_second.recip()).unwrap_or(Duration::MAX / 2);
        Throttle { interval, burst: config.burst.max(1), full_at: Instant::now() }
    }

    /// Takes a token, and waits until there is one.
    pub async fn wait(&mut self) {
        sleep_until(self.take(Instant::now())).await;
    }

    /// When the token that is taken now is there.
    fn take(&mut self, now: Instant) -> Instant {
        let full_at = self.full_at.max(now) + self.interval;
        self.full_at = full_at;
        full_at.checked_sub(self.interval * self.burst).map_or(now, |at| at.max(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn after_a_burst_tokens_come_one_by_one() {
        let mut throttle = Throttle::new(ThrottleConfig { per_second: 10.0, burst: 3 });
        let now = Instant::now();
        let waits: Vec<u128> = (0..6).map(|_| (throttle.take(now) - now).as_millis()).collect();
        assert_eq!(waits, [0, 0, 0, 100, 200, 300]);
        let later = now + Duration::from_secs(60);
        assert_eq!(throttle.take(later), later);
    }
}
