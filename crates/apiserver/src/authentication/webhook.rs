//! Asks another server whose a token is, by TokenReviews. Follows `plugin/pkg/authenticator/token/webhook` behind
//! `pkg/authentication/token/cache`.

use std::time::Duration;

use apimachinery::meta::str_at;
use apimachinery::{Value, json};
use auth::UserInfo;
use jiff::Timestamp;
use ring::digest::{SHA256, digest};
use serde::Deserialize;

use super::Reviewed;
use crate::review::strings;
use crate::review_client::ReviewClient;
use crate::ttl_cache::TtlCache;

/// Answers remembered at most.
const ANSWERS_MAX: usize = 4096;
/// The webhook answers within this time (upstream: `--authentication-...`'s AuthenticationRequestTimeout).
const TIMEOUT: Duration = Duration::from_secs(10);

/// What the operator decides about it.
pub struct Config {
    pub client: ReviewClient,
    /// `v1` or `v1beta1`.
    pub version: String,
    /// How long answers count.
    pub cache_ttl: Duration,
}

pub struct Webhook {
    config: Config,
    /// By the digest of token and audiences: tokens are not kept.
    answers: TtlCache<Vec<u8>, Option<Reviewed>>,
}

impl Webhook {
    pub fn new(config: Config) -> Webhook {
        Webhook { config, answers: TtlCache::new(ANSWERS_MAX) }
    }

    /// None when the webhook does not know the token, or not for these audiences, of which there may be none.
    pub async fn review(
        &self,
        token: &str,
        wanted: &[String],
        own: &[String],
        now: Timestamp,
    ) -> Result<Option<Reviewed>, String> {
        let question = json!([token, wanted]).to_string();
        let key = digest(&SHA256, question.as_bytes()).as_ref().to_vec();
        if let Some(answer) = self.answers.get(&key, now) {
            return Ok(answer);
        }
        let review = json!({"kind": "TokenReview", "metadata": {}, "status": {"user": {}},
            "apiVersion": format!("authentication.k8s.io/{}", self.config.version),
            "spec": {"token": token, "audiences": wanted}});
        let answered = self.config.client.post(&review, TIMEOUT).await;
        let review =
            answered.map_err(|error| format!("Failed to make webhook authenticator request: {error}"))?;
        let found = read(&review["status"], wanted, own)?;
        self.answers.put(key, found.clone(), self.config.cache_ttl, now);
        Ok(found)
    }
}

/// What a TokenReview's status says. One without audiences is about those of this server; who wants none takes any.
fn read(status: &Value, wanted: &[String], own: &[String]) -> Result<Option<Reviewed>, String> {
    if status["authenticated"] != true {
        return match str_at(status, &["error"]) {
            "" => Ok(None),
            error => Err(error.to_owned()),
        };
    }
    let said = strings(status.get("audiences"));
    let good = if said.is_empty() { own } else { &said };
    let audiences: Vec<String> = wanted.iter().filter(|audience| good.contains(audience)).cloned().collect();
    if audiences.is_empty() && !wanted.is_empty() {
        return Ok(None);
    }
    let user = UserInfo::deserialize(&status["user"]).map_err(|error| error.to_string())?;
    Ok(Some((
        UserInfo { uid: user.uid, extra: user.extra, ..UserInfo::new(user.name, user.groups) },
        audiences,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: Value, expect: Result<Option<(&str, &[&str])>, &str>) {
        let list = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let found = read(&status, &list(&["a", "b"]), &list(&["a", "own"]));
        let found = found.map(|found| found.map(|(user, audiences)| (user.name, audiences)));
        let expect = expect.map(|found| found.map(|(name, audiences)| (name.to_owned(), list(audiences))));
        assert_eq!(found, expect.map_err(str::to_owned), "{status}");
    }

    #[test]
    fn an_answer_counts_for_the_audiences_it_is_about() {
        let user = json!({"username": "jane", "groups": ["dev"], "extra": {"k": ["v"]}});
        let known = |audiences: Value| json!({"authenticated": true, "user": user, "audiences": audiences});
        check(known(json!(["b", "c"])), Ok(Some(("jane", &["b"]))));
        check(known(Value::Null), Ok(Some(("jane", &["a"]))));
        check(known(json!(["c"])), Ok(None));
        check(json!({}), Ok(None));
        check(json!({"error": "expired"}), Err("expired"));
        let (user, audiences) = read(&known(json!(["c"])), &[], &[]).expect("is read").expect("is known");
        assert_eq!((user.name.as_str(), audiences.len()), ("jane", 0));
    }
}
