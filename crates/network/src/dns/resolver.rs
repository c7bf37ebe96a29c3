//! Where answers come from: the zone, the cache of other resolvers' responses, or those resolvers themselves.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::cache::{Cache, Key};
use super::metrics::Metrics;
use super::settings::Caching;
use super::upstreams::Upstreams;
use super::wire::{Code, Forwarded, Query, Record, Response, TCP_LEN_MAX, kind};
use super::zone::{Outcome, Zone};
use super::{Name, forward};

/// Forwarded questions under way; more are answered with a failure at once.
const FORWARDS_MAX: usize = 1024;

/// Aliases followed for one question.
const ALIASES_MAX: usize = 8;

const CLASS_IN: u16 = 1;

/// Finds answers, wherever they come from.
pub(super) struct Resolver {
    pub zone: Zone,
    pub metrics: Metrics,
    upstreams: Arc<Upstreams>,
    cache: Mutex<Cache>,
    forwards: Semaphore,
}

impl Resolver {
    pub fn new(zone: Zone, upstreams: Arc<Upstreams>) -> Resolver {
        Resolver {
            zone,
            metrics: Metrics::default(),
            upstreams,
            cache: Mutex::default(),
            forwards: Semaphore::new(FORWARDS_MAX),
        }
    }

    pub fn metrics_text(&self) -> String {
        let kept = self.cache.lock().kept();
        self.metrics.text(kept)
    }

    /// The answer, unless it takes another resolver.
    pub fn answer_at_once(&self, query: &Query, len_max: usize) -> Option<Vec<u8>> {
        let refused = |code| Some(Response::of(code).encode(query, len_max));
        if query.opcode != 0 {
            return refused(Code::NotImplemented);
        }
        if query.edns.is_some_and(|edns| edns.version != 0) {
            return refused(Code::BadVersion);
        }
        if query.class != CLASS_IN {
            return refused(Code::Refused);
        }
        match self.zone.resolve(&query.name, query.kind) {
            Outcome::Answer(mut response) => {
                // Clients commonly take the first address: give each a turn. SRV records have priorities for that.
                if matches!(query.kind, kind::A | kind::AAAA) {
                    let turn = usize::from(query.id).checked_rem(response.answers.len()).unwrap_or_default();
                    response.answers.rotate_left(turn);
                }
                Some(response.encode(query, len_max))
            }
            Outcome::Forward => match self.upstreams.by_hand(&query.name, query.kind) {
                Some(response) => Some(response.encode(query, len_max)),
                None => self.cached(query, len_max),
            },
            Outcome::Follow(..) => None,
        }
    }

    fn cached(&self, query: &Query, len_max: usize) -> Option<Vec<u8>> {
        let cache = self.cache.lock();
        let cached = cache.get(&key(query), Instant::now());
        self.metrics.looked_up(cached.map(|(response, _)| response.is_denial()));
        let (response, age) = cached?;
        let bytes = response.for_client(query, age);
        (bytes.len() <= len_max).then_some(bytes)
    }

    /// The answer with the help of other resolvers; `whole` if the client can take all of it.
    pub async fn answer_from_others(&self, query: &Query, len_max: usize, whole: bool) -> Vec<u8> {
        let Ok(_permit) = self.forwards.try_acquire() else {
            self.metrics.rejected();
            return Response::of(Code::ServerFailure).encode(query, len_max);
        };
        match self.zone.resolve(&query.name, query.kind) {
            Outcome::Follow(..) => self.follow(query).await.encode(query, len_max),
            _ => self.forward(query, len_max, whole).await,
        }
    }

    async fn forward(&self, query: &Query, len_max: usize, whole: bool) -> Vec<u8> {
        let Some((response, caching)) = self.ask(query, &query.name, whole).await else {
            return Response::of(Code::ServerFailure).encode(query, len_max);
        };
        let bytes = response.for_client(query, 0);
        self.cache.lock().put(key(query), response, caching, Instant::now());
        if bytes.len() <= len_max { bytes } else { truncated(query) }
    }

    async fn ask(&self, query: &Query, name: &Name, whole: bool) -> Option<(Forwarded, Caching)> {
        let (resolvers, caching) = self.upstreams.of(name);
        let asked = Instant::now();
        let Some((resolver, answer)) = forward::ask(&resolvers, query, name, whole).await else {
            self.metrics.not_forwarded();
            return None;
        };
        self.metrics.forwarded(resolver, answer.code(), asked.elapsed());
        Some((answer, caching))
    }

    /// Aliases and what they lead to, inside the zone or outside.
    async fn follow(&self, query: &Query) -> Response {
        let mut response = Response { authoritative: true, ..Response::of(Code::NoError) };
        let mut name = query.name.clone();
        for _ in 0..ALIASES_MAX {
            match self.zone.resolve(&name, query.kind) {
                Outcome::Follow(record, target) => {
                    response.answers.push(record);
                    name = target;
                }
                Outcome::Answer(found) => {
                    response.answers.extend(found.answers);
                    return response;
                }
                Outcome::Forward => {
                    match self.others(query, &name).await {
                        Some(found) => response.answers.extend(found),
                        None => response.code = Code::ServerFailure,
                    }
                    return response;
                }
            }
        }
        Response::of(Code::ServerFailure)
    }

    /// What an alias out of the zone leads to.
    async fn others(&self, query: &Query, name: &Name) -> Option<Vec<Record>> {
        match self.upstreams.by_hand(name, query.kind) {
            Some(response) => Some(response.answers),
            None => self.ask(query, name, true).await.map(|(found, _)| found.addresses),
        }
    }
}

/// An empty answer that makes the client come back over TCP.
fn truncated(query: &Query) -> Vec<u8> {
    let mut bytes = Response::of(Code::NoError).encode(query, TCP_LEN_MAX);
    bytes[2] |= 0x02;
    bytes
}

fn key(query: &Query) -> Key {
    (query.name.to_string(), query.kind, query.edns.map(|edns| edns.dnssec))
}
