//! Growing pauses between attempts that fail (follows client-go's `flowcontrol.Backoff` as the kubelet uses it:
//! 10 s doubled up to 5 min, forgotten after twice the maximum without a failure).

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};

/// Upstream: `backOffPeriod` of containers and images.
const INITIAL: SignedDuration = SignedDuration::from_secs(10);
/// Upstream: `MaxContainerBackOff`, `MaxImageBackOff`.
const MAX: SignedDuration = SignedDuration::from_secs(300);
/// Upstream: `hasExpired`, twice the maximum.
const FORGOTTEN_AFTER: SignedDuration = SignedDuration::from_secs(600);

#[derive(Clone, Debug)]
struct Entry {
    delay: SignedDuration,
    failed_at: Timestamp,
}

/// Failures by container, or by image.
#[derive(Clone, Debug)]
pub struct Backoff {
    entries: HashMap<String, Entry>,
    max: SignedDuration,
}

impl Default for Backoff {
    fn default() -> Self {
        Backoff::up_to(MAX)
    }
}

impl Backoff {
    /// With another longest pause.
    pub fn up_to(max: SignedDuration) -> Self {
        Backoff { entries: HashMap::new(), max }
    }

    /// Notes a failure and returns the pause that follows it; forgets what failed too long ago.
    pub fn fail(&mut self, key: &str, now: Timestamp) -> SignedDuration {
        self.entries.retain(|_, entry| now.duration_since(entry.failed_at) <= FORGOTTEN_AFTER);
        let delay = self.entries.get(key).map_or(INITIAL, |entry| entry.delay * 2).min(self.max);
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

    /// Whether it failed once, but longer ago than counts.
    pub fn is_expired(&self, key: &str, now: Timestamp) -> bool {
        self.entries.get(key).is_some_and(|entry| now.duration_since(entry.failed_at) > FORGOTTEN_AFTER)
    }

    pub fn is_known(&self, key: &str) -> bool {
        self.entries.contains_key(key)
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

    #[test]
    fn the_longest_pause_may_be_shorter_than_the_first() {
        let mut backoff = Backoff::up_to(SignedDuration::from_secs(15));
        let pauses = [0; 3].map(|_| backoff.fail("c", Timestamp::UNIX_EPOCH).as_secs());
        assert_eq!(pauses, [10, 15, 15]);
        let mut backoff = Backoff::up_to(SignedDuration::from_secs(2));
        assert_eq!(backoff.fail("c", Timestamp::UNIX_EPOCH).as_secs(), 2);
    }

    #[test]
    fn failures_of_what_is_gone_take_no_memory_for_ever() {
        let mut backoff = Backoff::default();
        backoff.fail("gone", Timestamp::UNIX_EPOCH);
        backoff.fail("c", Timestamp::UNIX_EPOCH + FORGOTTEN_AFTER + SignedDuration::from_secs(1));
        assert!(!backoff.is_known("gone"));
    }
}
