//! What becomes of an occurrence: a new Event, one more of an old one, one that stands for many alike, or nothing
//! (follows client-go's `EventCorrelator`: spam filter, then aggregator, then logger).

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use jiff::{SignedDuration, Timestamp};

use super::{Occurrence, Regarding};
use crate::flowcontrol::TokenBucket;

/// Events about one object that may come at once, and how often one more may follow (client-go: 25, one in 5 min).
const BURST: f64 = 25.0;
const REFILL: SignedDuration = SignedDuration::from_mins(5);
/// Different messages with one reason about one object, within the interval, before they are told as one
/// (client-go: `defaultAggregateMaxEvents`, `defaultAggregateIntervalInSeconds`).
const SIMILAR_MAX: usize = 10;
const SIMILAR_INTERVAL: SignedDuration = SignedDuration::from_mins(10);
const COMBINED_PREFIX: &str = "(combined from similar events): ";
/// Objects, groups and events remembered; past that, the oldest is forgotten (client-go: `maxLruCacheEntries`).
pub const REMEMBERED_MAX: usize = 4096;

/// A map that forgets its oldest entry when it is full.
pub struct Remembered<K, V> {
    entries: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K: Clone + Eq + Hash, V> Remembered<K, V> {
    pub fn new() -> Self {
        Remembered { entries: HashMap::new(), order: VecDeque::new() }
    }

    pub fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        self.entries.get_mut(key)
    }

    pub fn insert(&mut self, key: K, value: V) {
        if self.entries.insert(key.clone(), value).is_some() {
            return;
        }
        if self.order.len() == REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
        self.order.push_back(key);
    }

    pub fn remove(&mut self, key: &K) {
        if self.entries.remove(key).is_some() {
            self.order.retain(|known| known != key);
        }
    }

    fn get_or_insert(&mut self, key: K, new: impl FnOnce() -> V) -> &mut V {
        if !self.entries.contains_key(&key) {
            self.insert(key.clone(), new());
        }
        self.entries.get_mut(&key).expect("it was inserted above")
    }
}

struct Group {
    messages: HashSet<String>,
    last: Timestamp,
}

/// Per component.
pub struct Correlator {
    buckets: Remembered<Regarding, TokenBucket>,
    groups: Remembered<Occurrence, Group>,
}

impl Correlator {
    pub fn new() -> Self {
        Correlator { buckets: Remembered::new(), groups: Remembered::new() }
    }

    /// The occurrence to write: itself, or the one that stands for all of its kind; `None` when there are too many
    /// about this object. The key under which occurrences are counted together comes first.
    pub fn correlate(&mut self, occurrence: Occurrence, at: Timestamp) -> Option<(Occurrence, Occurrence)> {
        let correlated = self.aggregate(occurrence, at);
        self.passes(&correlated.1.regarding, at).then_some(correlated)
    }

    fn passes(&mut self, regarding: &Regarding, at: Timestamp) -> bool {
        let full = || TokenBucket::new(1.0 / REFILL.as_secs_f64(), BURST, at);
        self.buckets.get_or_insert(regarding.clone(), full).try_take(at)
    }

    fn aggregate(&mut self, occurrence: Occurrence, at: Timestamp) -> (Occurrence, Occurrence) {
        let kind = Occurrence { message: String::new(), ..occurrence.clone() };
        let group = self.groups.get_or_insert(kind.clone(), || Group { messages: HashSet::new(), last: at });
        if at.duration_since(group.last) > SIMILAR_INTERVAL {
            group.messages.clear();
        }
        group.last = at;
        if group.messages.len() < SIMILAR_MAX {
            group.messages.insert(occurrence.message.clone());
        }
        if group.messages.len() < SIMILAR_MAX {
            return (occurrence.clone(), occurrence);
        }
        let message = format!("{COMBINED_PREFIX}{}", occurrence.message);
        (kind, Occurrence { message, ..occurrence })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::EventType;

    fn occurrence(object: &str, message: String) -> Occurrence {
        let regarding = Regarding { name: object.to_owned(), ..Regarding::default() };
        Occurrence { regarding, kind: EventType::Normal, reason: "R".to_owned(), message }
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + seconds).expect("in range")
    }

    #[test]
    fn too_many_events_about_one_object_are_dropped_and_others_are_not() {
        let mut correlator = Correlator::new();
        let passed = (0..100).filter(|_| correlator.correlate(occurrence("a", "m".into()), at(0)).is_some());
        assert_eq!(passed.count(), 25);
        assert!(correlator.correlate(occurrence("b", "m".into()), at(0)).is_some());
        assert!(correlator.correlate(occurrence("a", "m".into()), at(299)).is_none());
        assert!(correlator.correlate(occurrence("a", "m".into()), at(301)).is_some());
    }

    #[test]
    fn messages_that_differ_are_combined_from_the_tenth_on() {
        let mut correlator = Correlator::new();
        let messages: Vec<String> = (0..11)
            .filter_map(|i| correlator.correlate(occurrence("a", format!("m{i}")), at(i)))
            .map(|(_, written)| written.message)
            .collect();
        assert_eq!(messages[8], "m8");
        assert_eq!(messages[9], "(combined from similar events): m9");
        assert_eq!(messages[10], "(combined from similar events): m10");
        let (_, later) = correlator.correlate(occurrence("a", "m".into()), at(1000)).expect("passes");
        assert_eq!(later.message, "m");
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut remembered = Remembered::new();
        for key in 0..=REMEMBERED_MAX {
            remembered.insert(key, ());
        }
        assert!(remembered.get_mut(&0).is_none());
        assert!(remembered.get_mut(&1).is_some());
        assert_eq!(remembered.entries.len(), REMEMBERED_MAX);
    }
}
