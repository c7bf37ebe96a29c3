//! When a seed may be used, and when another is needed: decided from what a plugin says of itself. Pure.
//! Follows `isKMSv2ProviderHealthyAndMaybeRotateDEK` and `rotateDEKOnKeyIDChange`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::envelope::{Source, Wrapped, validate_key_id};
use super::proto::StatusResponse;

/// A plugin that is well is asked again after this (upstream: kmsv2PluginHealthzPositiveInterval).
const POSITIVE_INTERVAL: Duration = Duration::from_secs(60);
/// One that is not, after this (upstream: kmsv2PluginHealthzNegativeInterval).
const NEGATIVE_INTERVAL: Duration = Duration::from_secs(10);
/// A seed that the plugin has not confirmed for so long is not written with (upstream:
/// kmsv2PluginWriteDEKSourceMaxTTL).
const WRITE_MAX: Duration = Duration::from_secs(180);
/// Whoever asks for a plugin's health within these times gets what was found last (upstream:
/// kmsPluginHealthzPositiveTTL and kmsPluginHealthzNegativeTTL).
const POSITIVE_TTL: Duration = Duration::from_secs(20);
const NEGATIVE_TTL: Duration = Duration::from_secs(3);

const VERSIONS: [&str; 2] = ["v2", "v2beta1"];

/// The seed that is written with.
#[derive(Clone, Debug)]
pub struct State {
    pub source: Arc<Source>,
    pub wrapped: Arc<Wrapped>,
    /// Until when.
    pub expires: Instant,
}

impl State {
    /// A seed that has just been wrapped, or confirmed.
    pub fn until(source: Arc<Source>, wrapped: Arc<Wrapped>, asked: Instant) -> State {
        State { source, wrapped, expires: asked + WRITE_MAX }
    }

    pub fn may_write(&self, now: Instant) -> bool {
        now <= self.expires
    }
}

/// What is to be done about a plugin's answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// The seed holds on.
    Confirm,
    /// The plugin is to wrap a new seed, with the key of this id.
    Rotate(String),
}

/// What was wrong with it, which does not keep a seed from being confirmed or rotated.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judgement {
    pub next: Option<Next>,
    pub errors: Vec<String>,
    /// As metrics count an id that cannot be used.
    pub invalid_key_id: Option<&'static str>,
}

/// `version` is the one that the plugin named first.
pub fn judge(answer: &StatusResponse, state: Option<&State>, version: &mut String) -> Judgement {
    let mut judgement = Judgement::default();
    let StatusResponse { version: said, healthz, key_id } = answer;
    if healthz != "ok" {
        judgement.errors.push(format!("got unexpected healthz status: {healthz}"));
    }
    if !VERSIONS.contains(&said.as_str()) {
        judgement.errors.push(format!("expected KMSv2 API version {}, got {said}", VERSIONS[0]));
    } else if version.is_empty() {
        version.clone_from(said);
    } else if version != said {
        judgement.errors.push(format!(
            "KMSv2 API version should not change after the initial status response version {version}, got {said}"
        ));
    }
    match validate_key_id(key_id) {
        Err(error) => {
            judgement.invalid_key_id = Some(error.code());
            judgement.errors.push(format!("got invalid KMSv2 KeyID hash {:?}: {error}", hash(key_id)));
        }
        Ok(()) if state.is_some_and(|state| state.wrapped.key_id == *key_id) => {
            judgement.next = Some(Next::Confirm);
        }
        Ok(()) => judgement.next = Some(Next::Rotate(key_id.clone())),
    }
    judgement
}

/// When a plugin is asked again.
pub fn interval(is_well: bool) -> Duration {
    if is_well { POSITIVE_INTERVAL } else { NEGATIVE_INTERVAL }
}

/// For how long it counts what was found.
pub fn counts_for(is_well: bool) -> Duration {
    if is_well { POSITIVE_TTL } else { NEGATIVE_TTL }
}

/// Ids are shown by their hashes: they may tell of what only the plugin's operator should know.
pub fn hash(key_id: &str) -> String {
    if key_id.is_empty() {
        return String::new();
    }
    let digest = ring::digest::digest(&ring::digest::SHA256, key_id.as_bytes());
    let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(key_id: &str) -> State {
        let source = Source::new(1, Source::random_seed()).expect("long enough");
        let wrapped = Wrapped {
            source_type: 1,
            key_id: key_id.to_owned(),
            source: vec![1],
            annotations: Default::default(),
        };
        State::until(source.into(), wrapped.into(), Instant::now())
    }

    fn answer(version: &str, healthz: &str, key_id: &str) -> StatusResponse {
        StatusResponse { version: version.to_owned(), healthz: healthz.to_owned(), key_id: key_id.to_owned() }
    }

    fn check(said: [&str; 3], held: Option<&str>, next: Option<Next>, errors: &[&str]) {
        let [version, healthz, key_id] = said;
        let held = held.map(state);
        let found = judge(&answer(version, healthz, key_id), held.as_ref(), &mut "v2".to_owned());
        assert_eq!((found.next, found.errors), (next, errors.iter().map(|e| (*e).to_owned()).collect()));
    }

    #[test]
    fn a_seed_holds_as_long_as_the_key_is_the_same() {
        check(["v2", "ok", "1"], Some("1"), Some(Next::Confirm), &[]);
        check(["v2", "ok", "2"], Some("1"), Some(Next::Rotate("2".to_owned())), &[]);
        check(["v2", "ok", "1"], None, Some(Next::Rotate("1".to_owned())), &[]);
        let sick = ["got unexpected healthz status: sick"];
        check(["v2", "sick", "1"], Some("1"), Some(Next::Confirm), &sick);
        check(["v3", "ok", "1"], Some("1"), Some(Next::Confirm), &["expected KMSv2 API version v2, got v3"]);
        let changed =
            "KMSv2 API version should not change after the initial status response version v2, got v2beta1";
        check(["v2beta1", "ok", "1"], Some("1"), Some(Next::Confirm), &[changed]);
        check(["v2", "ok", ""], Some("1"), None, &["got invalid KMSv2 KeyID hash \"\": keyID is empty"]);
    }

    #[test]
    fn an_unconfirmed_seed_is_written_with_for_three_minutes() {
        let (now, state) = (Instant::now(), state("1"));
        assert!(state.may_write(now + WRITE_MAX - Duration::from_secs(1)));
        assert!(!state.may_write(now + WRITE_MAX + Duration::from_secs(1)));
        assert!(interval(false) < interval(true) && interval(true) < WRITE_MAX);
    }

    #[test]
    fn keys_are_named_by_their_hashes() {
        let expect = "sha256:6b86b273ff34fce19d6b804eff5a3f5747ada4eaa22f1d49c01e52ddb7875b4b";
        assert_eq!(hash("1"), expect);
        assert_eq!(hash(""), "");
    }
}
