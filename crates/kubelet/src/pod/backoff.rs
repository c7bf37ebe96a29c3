//! Growing pauses between attempts that fail (follows client-go's `flowcontrol.Backoff` as the kubelet uses it:
//! 10 s doubled up to 5 min, forgotten after twice the maximum without a failure).

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

/// Upstream: `backOffPeriod` of containers and images.
const INITIAL: SignedDuration = SignedDuration::from_secs(10);
/// Upstream: `MaxContainerBackOff`, `MaxImageBackOff`.
const MAX: SignedDuration = SignedDuration::from_secs(300);

#[derive(Clone, Debug)]
struct Entry {
    delay: SignedDuration,
    failed_at: Timestamp,
}

/// Failures by container, or by image.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    entries: HashMap<String, Entry>,
}

impl Backoff {
    /// Notes a failure and returns the pause that follows it.
    pub fn fail(&mut self, key: &str, now: Timestamp) -> SignedDuration {
        let delay = match self.entries.get(key) {
            Some(entry) if now.duration_since(entry.failed_at) <= MAX * 2 => (entry.delay * 2).min(MAX),
            _ => INITIAL,
        };
        self.entries.insert(key.to_owned(), Entry { delay, failed_at: now });
        delay
    }

    /// When the next attempt may start, if that is still to come; counted from `since`, the end of the last one.
    pub fn until(&self, key: &str, since: Timestamp, now: Timestamp) -> Option<(Timestamp, SignedDuration)> {
        let entry = self.entries.get(key)?;
        let at = since + entry.delay;
        (at > now).then_some((at, entry.delay))
    }

    /// The same, counted from the last failure itself.
    pub fn until_since_failure(&self, key: &str, now: Timestamp) -> Option<(Timestamp, SignedDuration)> {
        let failed_at = self.entries.get(key)?.failed_at;
        self.until(key, failed_at, now)
    }

    pub fn forget(&mut self, key: &str) {
        self.entries.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_doubles_to_five_minutes_and_is_forgotten_after_ten() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::UNIX_EPOCH;
        let mut seconds = Vec::new();
        for _ in 0..7 {
            let delay = backoff.fail("c", now);
            seconds.push(delay.as_secs());
            now += delay;
        }
        assert_eq!(seconds, [10, 20, 40, 80, 160, 300, 300]);
        assert!(backoff.until_since_failure("c", now - SignedDuration::from_secs(1)).is_some());
        assert!(backoff.until_since_failure("c", now).is_none());
        assert_eq!(backoff.fail("c", now + SignedDuration::from_secs(601)).as_secs(), 10);
    }
}
