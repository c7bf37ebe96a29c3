//! How often something may be done: so often, with bursts (client-go: `flowcontrol.RateLimiter`). Pure.

use std::time::Duration;

use jiff::Timestamp;

/// Holds tokens, of which each deed takes one; they come back with time.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    per_second: f64,
    burst: f64,
    /// Below zero when some were taken ahead of their time.
    tokens: f64,
    at: Timestamp,
}

impl TokenBucket {
    /// A full one.
    pub fn new(per_second: f64, burst: f64, now: Timestamp) -> Self {
        TokenBucket { per_second, burst, tokens: burst, at: now }
    }

    /// Takes a token if there is one.
    pub fn try_take(&mut self, now: Timestamp) -> bool {
        self.refill(now);
        let has = self.tokens >= 1.0;
        if has {
            self.tokens -= 1.0;
        }
        has
    }

    /// Takes a token, and says how long to wait until it is there.
    pub fn take(&mut self, now: Timestamp) -> Duration {
        self.refill(now);
        self.tokens -= 1.0;
        Duration::try_from_secs_f64(-self.tokens / self.per_second).unwrap_or_default()
    }

    fn refill(&mut self, now: Timestamp) {
        let passed = now.duration_since(self.at).as_secs_f64().max(0.0);
        self.tokens = (self.tokens + passed * self.per_second).min(self.burst);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    #[test]
    fn a_burst_passes_and_then_one_each_time_a_token_has_come_back() {
        let start = Timestamp::UNIX_EPOCH;
        let at = |millis| start + SignedDuration::from_millis(millis);
        let mut bucket = TokenBucket::new(2.0, 3.0, start);
        assert_eq!((0..5).filter(|_| bucket.try_take(start)).count(), 3);
        assert!(!bucket.try_take(at(400)));
        assert!(bucket.try_take(at(500)));
        assert_eq!((0..5).filter(|_| bucket.try_take(at(60_000))).count(), 3);
    }

    #[test]
    fn who_takes_ahead_waits_the_longer_the_more_have_done_so() {
        let start = Timestamp::UNIX_EPOCH;
        let mut bucket = TokenBucket::new(2.0, 1.0, start);
        let waits = [0; 3].map(|_| bucket.take(start).as_millis());
        assert_eq!(waits, [0, 500, 1000]);
        assert_eq!(bucket.take(start + SignedDuration::from_secs(60)), Duration::ZERO);
    }
}
