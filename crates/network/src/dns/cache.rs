//! A small bounded cache of other resolvers' responses.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use super::metrics::Kept;
use super::settings::Caching;
use super::wire::Forwarded;

/// Responses kept at once; a few hundred bytes each.
pub const ENTRIES_MAX: usize = 4096;

/// Response codes worth keeping: no error, and no such name.
const CODES_KEPT: [u8; 2] = [0, 3];

/// Name in lower case, type, and, with EDNS, whether DNSSEC records were asked for.
pub type Key = (String, u16, Option<bool>);

#[derive(Default)]
pub struct Cache {
    entries: HashMap<Key, Entry>,
    /// Keys in the order they came, the oldest first, each once per entry made.
    order: VecDeque<(Key, Instant)>,
}

struct Entry {
    response: Forwarded,
    stored: Instant,
    expires: Instant,
}

impl Cache {
    /// The response with its age in seconds.
    pub fn get(&self, key: &Key, now: Instant) -> Option<(&Forwarded, u32)> {
        let entry = self.entries.get(key).filter(|entry| now < entry.expires)?;
        Some((&entry.response, (now - entry.stored).as_secs() as u32))
    }

    /// How many responses are held, those whose time is over included.
    pub fn kept(&self) -> Kept {
        let denial = self.entries.values().filter(|entry| entry.response.is_denial()).count();
        Kept { success: self.entries.len() - denial, denial }
    }

    /// `caching` limits how long, whatever the response says.
    pub fn put(&mut self, key: Key, response: Forwarded, caching: Caching, now: Instant) {
        if response.is_truncated() || !CODES_KEPT.contains(&response.code()) {
            return;
        }
        let longest = if response.is_denial() { caching.denial } else { caching.success };
        let ttl = response.ttl_min().map_or(longest, |ttl| Duration::from_secs(ttl.into()).min(longest));
        if ttl.is_zero() {
            return;
        }
        self.order.push_back((key.clone(), now));
        self.entries.insert(key, Entry { response, stored: now, expires: now + ttl });
        while self.order.len() > ENTRIES_MAX {
            let Some((oldest, stored)) = self.order.pop_front() else { break };
            if self.entries.get(&oldest).is_some_and(|entry| entry.stored == stored) {
                self.entries.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dns::Name;
    use crate::dns::wire::{Code, Data, Record, Response, TCP_LEN_MAX, encode_query, kind, parse_query};

    fn response(ttl: Option<u32>) -> Forwarded {
        let name = Name::parse("example.org").unwrap();
        let query = parse_query(&encode_query(1, &name, kind::A, None)).unwrap();
        let answers = ttl.map(|ttl| Record { name: name.clone(), ttl, data: Data::A([192, 0, 2, 1].into()) });
        let response = Response { answers: answers.into_iter().collect(), ..Response::of(Code::NoError) };
        Forwarded::parse(response.encode(&query, TCP_LEN_MAX), 1, &name, kind::A).unwrap()
    }

    fn key(number: usize) -> Key {
        (number.to_string(), kind::A, None)
    }

    #[test]
    fn a_response_is_kept_for_its_ttl_within_bounds() {
        let start = Instant::now();
        for (ttl, kept) in [(Some(10), 10), (Some(3600), 30), (None, 5), (Some(0), 0)] {
            let mut cache = Cache::default();
            cache.put(key(0), response(ttl), Caching::default(), start);
            let at = |seconds| start + Duration::from_secs(seconds);
            assert!(cache.get(&key(0), at(kept)).is_none(), "{ttl:?}");
            if kept > 0 {
                assert_eq!(cache.get(&key(0), at(kept - 1)).map(|(_, age)| u64::from(age)), Some(kept - 1));
            }
        }
    }

    #[test]
    fn the_oldest_response_gives_way_when_the_cache_is_full() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        (0..=ENTRIES_MAX)
            .for_each(|number| cache.put(key(number), response(Some(10)), Caching::default(), now));
        assert_eq!(cache.entries.len(), ENTRIES_MAX);
        assert!(cache.get(&key(0), now).is_none() && cache.get(&key(ENTRIES_MAX), now).is_some());
    }
}
