//! Removes bootstrap tokens whose time is over (follows `TokenCleaner`).

use api::resource::SECRETS;
use async_trait::async_trait;
use client::{Client, Delta, Informer, Informers};
use jiff::Timestamp;

use super::{Expiration, Token, selector};
use crate::catalogue::Config;
use crate::controller::{Controller, Key, Watches, itself};
use crate::plan::{Action, Plan};

struct TokenCleaner {
    tokens: Informer<Token>,
}

pub fn new(_: &Config, informers: &Informers, _: &Client) -> Box<dyn Controller> {
    Box::new(TokenCleaner { tokens: informers.get_selected(SECRETS, &selector()) })
}

#[async_trait]
impl Controller for TokenCleaner {
    fn watch(&self, watches: &mut Watches) {
        watches.on(SECRETS, &self.tokens, |delta| match delta {
            Delta::Deleted(_) => Vec::new(),
            _ => itself(delta),
        });
    }

    async fn reconcile(&self, key: &Key, _: &Client, now: Timestamp) -> client::error::Result<Plan> {
        let token = self.tokens.get(&key.namespace, &key.name);
        Ok(token.map_or_else(Plan::default, |token| reconcile(&token, now)))
    }
}

fn reconcile(token: &Token, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    match token.expiration() {
        Expiration::Never => {}
        Expiration::At(end) if end > now => plan.requeue(end),
        _ => plan.act(Action::delete(SECRETS, &token.metadata)),
    }
    plan
}

#[cfg(test)]
mod tests {
    use api::bootstraptoken::EXPIRATION;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    use super::*;
    use crate::testing::at;

    fn check(expiration: Option<&str>, is_deleted: bool, requeue_at: Option<Timestamp>) {
        let mut token = Token::default();
        token.metadata.name = "bootstrap-token-abcdef".into();
        token.data.extend(expiration.map(|text| (EXPIRATION.to_owned(), STANDARD.encode(text))));
        let plan = reconcile(&token, at(0));
        assert_eq!((plan.steps.len() == 1, plan.requeue_at), (is_deleted, requeue_at), "{expiration:?}");
    }

    #[test]
    fn a_token_goes_when_its_time_is_over_or_cannot_be_read() {
        check(None, false, None);
        check(Some(&at(60).to_string()), false, Some(at(60)));
        check(Some(&at(0).to_string()), true, None);
        check(Some("soon"), true, None);
    }
}
