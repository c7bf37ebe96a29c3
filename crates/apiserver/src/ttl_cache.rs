//! Answers of others, remembered for a while.

use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

/// Forgets all that has expired once it is full, and if that is nothing, everything.
pub struct TtlCache<K, V> {
    entries: Mutex<HashMap<K, (V, Timestamp)>>,
    max: usize,
}

impl<K: Hash + Eq, V: Clone> TtlCache<K, V> {
    pub fn new(max: usize) -> Self {
        TtlCache { entries: Mutex::default(), max }
    }

    pub fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q, now: Timestamp) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let entries = self.entries.lock();
        entries.get(key).filter(|(_, until)| now < *until).map(|(value, _)| value.clone())
    }

    pub fn put(&self, key: K, value: V, ttl: Duration, now: Timestamp) {
        if ttl.is_zero() {
            return;
        }
        let mut entries = self.entries.lock();
        if entries.len() >= self.max {
            entries.retain(|_, (_, until)| now < *until);
        }
        if entries.len() >= self.max {
            entries.clear();
        }
        entries.insert(key, (value, now + ttl));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_lasts_its_time_and_no_more_are_kept_than_fit() {
        let cache = TtlCache::new(2);
        let at = |second: i64| Timestamp::from_second(second).expect("a time");
        let ttl = Duration::from_secs;
        cache.put("a", 1, ttl(10), at(0));
        cache.put("none", 1, ttl(0), at(0));
        assert_eq!((cache.get("a", at(9)), cache.get("a", at(10))), (Some(1), None));
        assert_eq!(cache.get("none", at(0)), None);
        cache.put("b", 2, ttl(100), at(0));
        cache.put("c", 3, ttl(100), at(20));
        assert_eq!(
            (cache.get("a", at(5)), cache.get("b", at(20)), cache.get("c", at(20))),
            (None, Some(2), Some(3))
        );
        cache.put("d", 4, ttl(100), at(20));
        assert_eq!((cache.get("b", at(20)), cache.get("d", at(20))), (None, Some(4)));
    }
}
