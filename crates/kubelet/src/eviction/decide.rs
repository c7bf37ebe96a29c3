//! Which shortage the node is in, since when, and whether it is time to act (follows the kubelet's
//! `eviction_manager.go`, `synchronize`). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::threshold::{Condition, Signal, Threshold};

/// What one look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observation {
    pub available: i64,
    pub capacity: i64,
}

/// What could be measured; the rest is nobody's shortage.
pub type Observations = BTreeMap<Signal, Observation>;

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub struct State {
    /// Indices of thresholds that were met and whose minimum is not reclaimed yet.
    met: BTreeSet<usize>,
    /// By index of the threshold: when its shortage began.
    first_met_at: BTreeMap<usize, Timestamp>,
    /// When each condition was seen last.
    last_seen_at: BTreeMap<Condition, Timestamp>,
}

#[derive(Debug, Default, PartialEq)]
pub struct Verdict {
    /// What the node tells of itself.
    pub conditions: BTreeSet<Condition>,
    /// What has to be relieved, the most urgent first.
    pub relieve: Vec<Threshold>,
}

impl State {
    /// A condition stays for `transition_period` after it was seen last, so that the node does not waver.
    pub fn observe(
        &mut self,
        thresholds: &[Threshold],
        observations: &Observations,
        transition_period: Duration,
        now: Timestamp,
    ) -> Verdict {
        let mut met: BTreeSet<usize> = (0..thresholds.len())
            .filter(|index| {
                let unresolved = self.met.contains(index);
                is_met(&thresholds[*index], observations, false)
                    || unresolved && is_met(&thresholds[*index], observations, true)
            })
            .collect();
        self.first_met_at.retain(|index, _| met.contains(index));
        for index in &met {
            self.first_met_at.entry(*index).or_insert(now);
            self.last_seen_at.insert(thresholds[*index].signal.condition(), now);
        }
        self.last_seen_at.retain(|_, at| *at == now || passed(*at, now) < transition_period);
        met.retain(|index| {
            passed(self.first_met_at[index], now) >= thresholds[*index].grace_period.unwrap_or_default()
        });
        self.met = met;
        let mut relieve: Vec<Threshold> = self.met.iter().map(|index| thresholds[*index]).collect();
        relieve.sort_by_key(|threshold| threshold.signal.condition() != Condition::Memory);
        Verdict { conditions: self.last_seen_at.keys().copied().collect(), relieve }
    }
}

/// Whether none of the thresholds is met any more, with what is to be reclaimed beyond them.
pub fn is_relieved(thresholds: &[Threshold], observations: &Observations) -> bool {
    !thresholds.iter().any(|threshold| is_met(threshold, observations, true))
}

fn is_met(threshold: &Threshold, observations: &Observations, with_reclaim: bool) -> bool {
    let Some(observed) = observations.get(&threshold.signal) else { return false };
    let reclaim = threshold.minimum_reclaim.filter(|_| with_reclaim);
    let reclaim = reclaim.map_or(0, |amount| amount.of(observed.capacity));
    observed.available < threshold.amount.of(observed.capacity).saturating_add(reclaim)
}

fn passed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;
    use crate::eviction::threshold::Amount;

    const TRANSITION: Duration = Duration::from_secs(300);

    fn memory(amount: i64, grace_seconds: Option<u64>, reclaim: Option<i64>) -> Threshold {
        Threshold {
            signal: Signal::MemoryAvailable,
            amount: Amount::Units(amount),
            grace_period: grace_seconds.map(Duration::from_secs),
            minimum_reclaim: reclaim.map(Amount::Units),
        }
    }

    /// Looks at the given seconds with so much memory free; what each look found: under pressure, to be relieved.
    fn check(threshold: Threshold, looks: &[(i64, i64)], expect: &[(bool, bool)]) {
        let mut state = State::default();
        let found: Vec<(bool, bool)> = looks
            .iter()
            .map(|(seconds, available)| {
                let observed = Observation { available: *available, capacity: 1000 };
                let now = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(*seconds);
                let observations = [(Signal::MemoryAvailable, observed)].into();
                let verdict = state.observe(&[threshold], &observations, TRANSITION, now);
                (!verdict.conditions.is_empty(), !verdict.relieve.is_empty())
            })
            .collect();
        assert_eq!(found, expect);
    }

    #[test]
    fn a_hard_threshold_counts_at_once_and_its_condition_stays_for_a_while() {
        let looks = [(0, 100), (10, 99), (20, 100), (309, 500), (310, 500)];
        let expect = [(false, false), (true, true), (true, false), (true, false), (false, false)];
        check(memory(100, None, None), &looks, &expect);
    }

    #[test]
    fn a_soft_threshold_must_be_met_all_through_its_grace_period() {
        let looks = [(0, 50), (20, 50), (25, 200), (30, 50), (59, 50), (60, 50)];
        let expect =
            [(true, false), (true, false), (true, false), (true, false), (true, false), (true, true)];
        check(memory(100, Some(30), None), &looks, &expect);
    }

    #[test]
    fn a_shortage_lasts_until_the_minimum_is_reclaimed() {
        let looks = [(0, 120), (10, 90), (20, 120), (30, 150)];
        let expect = [(false, false), (true, true), (true, true), (true, false)];
        check(memory(100, None, Some(50)), &looks, &expect);
    }

    #[test]
    fn memory_comes_first_and_what_cannot_be_measured_is_no_shortage() {
        let threshold = |signal| Threshold { signal, ..memory(100, None, None) };
        let thresholds =
            [Signal::NodeFsAvailable, Signal::MemoryAvailable, Signal::PidAvailable].map(threshold);
        let low = Observation { available: 1, capacity: 1000 };
        let observations =
            [(Signal::NodeFsAvailable, low), (Signal::MemoryAvailable, low)].into_iter().collect();
        let verdict = State::default().observe(&thresholds, &observations, TRANSITION, Timestamp::UNIX_EPOCH);
        let signals: Vec<Signal> = verdict.relieve.iter().map(|threshold| threshold.signal).collect();
        assert_eq!(signals, [Signal::MemoryAvailable, Signal::NodeFsAvailable]);
        assert_eq!(verdict.conditions, [Condition::Memory, Condition::Disk].into());
    }

    proptest! {
        #[test]
        fn what_is_relieved_is_a_condition_too(looks in prop::collection::vec((0..100_i64, 0..300_i64), 1..20)) {
            let thresholds = [memory(100, None, Some(50)), memory(200, Some(30), None)];
            let mut state = State::default();
            let mut at = Timestamp::UNIX_EPOCH;
            for (pause, available) in looks {
                at += SignedDuration::from_secs(pause);
                let observations = [(Signal::MemoryAvailable, Observation { available, capacity: 1000 })].into();
                let verdict = state.observe(&thresholds, &observations, TRANSITION, at);
                prop_assert!(verdict.relieve.is_empty() || !verdict.conditions.is_empty());
                prop_assert!(available >= 100 || !verdict.relieve.is_empty());
                prop_assert!(available < 200 || verdict.relieve.is_empty());
            }
        }
    }
}
