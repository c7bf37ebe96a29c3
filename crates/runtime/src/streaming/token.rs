//! One-time tokens that stand for a request in a streaming URL.
//!
//! Follows requestCache of k8s.io/cri-streaming; the tokens are longer, since whoever has one may
//! run the command.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::rand::{SecureRandom, SystemRandom};

/// How long a token can be used (upstream's cacheTTL).
pub(super) const TOKEN_LIFETIME: Duration = Duration::from_secs(60);
/// Requests waiting to be fetched (upstream's maxInFlight).
pub(super) const MAX_IN_FLIGHT: usize = 1000;
/// Random bytes in a token.
const TOKEN_BYTES: usize = 24;

/// Why no token was given.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TokenError {
    #[error("maximum number of in-flight requests exceeded")]
    TooManyInFlight,
    #[error("the system gave no random bytes")]
    NoRandom,
}

/// Requests by token, each to be fetched once.
pub(super) struct TokenCache<R> {
    requests: HashMap<String, (R, Instant)>,
    /// Tokens in the order of their expiry; may name requests that were fetched.
    by_expiry: VecDeque<(Instant, String)>,
}

impl<R> TokenCache<R> {
    pub(super) fn new() -> Self {
        Self { requests: HashMap::new(), by_expiry: VecDeque::new() }
    }

    /// Keeps `request` and gives the token that fetches it.
    pub(super) fn insert(&mut self, request: R, now: Instant) -> Result<String, TokenError> {
        self.expire(now);
        if self.requests.len() >= MAX_IN_FLIGHT {
            return Err(TokenError::TooManyInFlight);
        }
        let mut random = [0; TOKEN_BYTES];
        SystemRandom::new().fill(&mut random).map_err(|_| TokenError::NoRandom)?;
        let token = URL_SAFE_NO_PAD.encode(random);
        let expires = now + TOKEN_LIFETIME;
        self.requests.insert(token.clone(), (request, expires));
        self.by_expiry.push_back((expires, token.clone()));
        Ok(token)
    }

    /// Fetches the request of `token`, if there is one that has not expired. It is gone afterwards.
    pub(super) fn consume(&mut self, token: &str, now: Instant) -> Option<R> {
        let (request, expires) = self.requests.remove(token)?;
        (now < expires).then_some(request)
    }

    fn expire(&mut self, now: Instant) {
        let gone = |(expires, token): &(Instant, String), requests: &HashMap<String, _>| {
            *expires <= now || !requests.contains_key(token)
        };
        while self.by_expiry.front().is_some_and(|oldest| gone(oldest, &self.requests)) {
            if let Some((_, token)) = self.by_expiry.pop_front() {
                self.requests.remove(&token);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_works_once_and_not_after_a_minute() {
        let (mut cache, now) = (TokenCache::new(), Instant::now());
        let (once, late) = (cache.insert("a", now).unwrap(), cache.insert("b", now).unwrap());
        assert_eq!(cache.consume(&once, now), Some("a"));
        assert_eq!(cache.consume(&once, now), None);
        assert_eq!(cache.consume(&late, now + TOKEN_LIFETIME), None);
    }

    #[test]
    fn the_thousand_and_first_request_is_refused_until_others_expire() {
        let (mut cache, now) = (TokenCache::new(), Instant::now());
        for n in 0..MAX_IN_FLIGHT {
            cache.insert(n, now).unwrap();
        }
        assert_eq!(cache.insert(0, now), Err(TokenError::TooManyInFlight));
        cache.insert(0, now + TOKEN_LIFETIME).unwrap();
        assert_eq!((cache.requests.len(), cache.by_expiry.len()), (1, 1));
    }
}
