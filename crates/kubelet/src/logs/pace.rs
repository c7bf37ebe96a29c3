//! When to look at a log again: when it could be full at the pace it grows. Pure.

use jiff::{SignedDuration, Timestamp};

/// However fast a log grows, it is looked at no sooner.
const SOONEST: SignedDuration = SignedDuration::from_secs(1);
/// However slowly, one that grows is looked at no later (upstream's `containerLogMonitorInterval`).
const LATEST: SignedDuration = SignedDuration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It does not grow: the next write tells.
    AfterWrite,
    At(Timestamp),
}

/// What the last look found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    last: Option<(Timestamp, u64)>,
}

impl Pace {
    /// A look found `bytes`, fewer than `bytes_max`.
    pub fn looked(&mut self, bytes: u64, bytes_max: u64, now: Timestamp) -> Next {
        let last = self.last.replace((now, bytes));
        let Some((at, before)) = last.filter(|(_, before)| *before < bytes) else {
            return Next::AfterWrite;
        };
        let bytes_per_second = (bytes - before) as f64 / now.duration_since(at).max(SOONEST).as_secs_f64();
        let seconds = bytes_max.saturating_sub(bytes) as f64 / bytes_per_second;
        let pause = SignedDuration::from_secs_f64(seconds.min(LATEST.as_secs_f64()));
        Next::At(now + pause.max(SOONEST))
    }

    /// The first write after a quiet time: how fast it goes on shows soon.
    pub fn written(&mut self, now: Timestamp) -> Timestamp {
        if let Some((at, _)) = &mut self.last {
            *at = now;
        }
        now + SOONEST
    }

    pub fn failed(&mut self, now: Timestamp) -> Timestamp {
        self.last = None;
        now + LATEST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BYTES_MAX: u64 = 1000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
    }

    /// Looks at the given seconds, each with the size found, and the seconds of the look that must follow the last.
    fn check(looks: &[(i64, u64)], expect: Option<i64>) {
        let mut pace = Pace::default();
        let mut next = Next::AfterWrite;
        for (seconds, bytes) in looks {
            next = pace.looked(*bytes, BYTES_MAX, at(*seconds));
        }
        assert_eq!(next, expect.map_or(Next::AfterWrite, |seconds| Next::At(at(seconds))), "{looks:?}");
    }

    #[test]
    fn a_quiet_log_is_not_looked_at() {
        check(&[(0, 0)], None);
        check(&[(0, 500), (10, 500)], None);
        check(&[(0, 500), (10, 0)], None);
    }

    #[test]
    fn a_growing_log_is_looked_at_when_it_could_be_full() {
        check(&[(0, 0), (1, 200)], Some(5));
        check(&[(0, 0), (1, 1)], Some(11));
        check(&[(0, 0), (1, 999)], Some(2));
    }

    #[test]
    fn after_a_quiet_time_the_pace_counts_from_the_first_write() {
        let mut pace = Pace::default();
        assert_eq!(pace.looked(0, BYTES_MAX, at(0)), Next::AfterWrite);
        assert_eq!(pace.written(at(3600)), at(3601));
        assert_eq!(pace.looked(500, BYTES_MAX, at(3601)), Next::At(at(3602)));
    }
}
