//! Who makes a request: what `auth` finds out from what is at hand, and for tokens nobody here knows, the keys of other
//! issuers and a webhook. Follows upstream's union of authenticators, in its order.

mod oidc;
pub mod webhook;

use std::sync::Arc;

use apimachinery::Status;
use auth::{Anonymous, Identified, Presented, RequestHeader, UserInfo};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::core::Core;
use oidc::Source;
use webhook::Webhook;

/// Who is believed beyond the cluster's own certificates and tokens.
#[derive(Default)]
pub struct Config {
    pub request_header: Option<FrontProxies>,
    /// Other issuers of tokens.
    pub issuers: Vec<auth::oidc::Authenticator>,
    pub webhook: Option<webhook::Config>,
    /// What a configuration file says of who comes without credentials; it goes before the flag.
    pub anonymous: Option<Anonymous>,
}

/// Proxies that speak for users, such as an API server that aggregates this one.
#[derive(Clone, Debug)]
pub struct FrontProxies {
    /// Of their certificates, PEM.
    pub authority: String,
    pub headers: RequestHeader,
}

/// An identity, and for which audiences it holds.
pub type Reviewed = (UserInfo, Vec<String>);

/// Those who know tokens that this server does not.
pub struct Elsewhere {
    issuers: Vec<Arc<Source>>,
    webhook: Option<Webhook>,
}

impl Elsewhere {
    pub fn new(issuers: Vec<auth::oidc::Authenticator>, webhook: Option<webhook::Config>) -> Elsewhere {
        let issuers = issuers.into_iter().map(|issuer| Arc::new(Source::new(issuer))).collect();
        Elsewhere { issuers, webhook: webhook.map(Webhook::new) }
    }

    /// Finds out where the issuers' keys are, until `stop`.
    pub fn start(&self, stop: &CancellationToken) {
        for issuer in &self.issuers {
            let (issuer, stop) = (issuer.clone(), stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(issuer.discover()).await });
        }
    }

    /// None when nobody knows the token. `own` are the audiences of this server, which the tokens of other issuers are for.
    async fn review(
        &self,
        token: &str,
        wanted: &[String],
        own: &[String],
        now: Timestamp,
    ) -> Result<Option<Reviewed>, String> {
        let wanted = if wanted.is_empty() { own } else { wanted };
        let mut refusal = None;
        let for_us: Vec<String> = wanted.iter().filter(|audience| own.contains(audience)).cloned().collect();
        for issuer in self.issuers.iter().filter(|_| !for_us.is_empty()) {
            match issuer.user(token, now).await {
                None => {}
                Some(Ok(user)) => return Ok(Some((user, for_us))),
                Some(Err(error)) => refusal = Some(error.to_string()),
            }
        }
        if let Some(webhook) = &self.webhook {
            match webhook.review(token, wanted, own, now).await {
                Ok(Some(found)) => return Ok(Some(found)),
                Ok(None) => {}
                Err(error) => refusal = Some(error),
            }
        }
        refusal.map_or(Ok(None), Err)
    }
}

/// The identity behind a request for this path, or 401.
pub async fn authenticate(
    core: &Core,
    presented: &Presented<'_>,
    path: &str,
    now: Timestamp,
) -> Result<UserInfo, Status> {
    match core.authenticator.identify(presented, core, now) {
        Identified::User(user) => Ok(user),
        Identified::Unknown { token: None, refused } => core.authenticator.anonymous(refused, path),
        Identified::Unknown { token: Some(token), .. } => {
            // Boxed, as few requests need its room.
            Box::pin(review(core, token, &[], now)).await.map(|(user, _)| user).map_err(|error| {
                tracing::warn!(error, "unable to authenticate the request");
                Status::unauthorized()
            })
        }
    }
}

/// Whose token it is, and for which of the wanted audiences it holds; no wanted ones means this server's.
pub async fn review(core: &Core, token: &str, wanted: &[String], now: Timestamp) -> Result<Reviewed, String> {
    let here = match core.authenticator.review(token, wanted, core, now) {
        Ok(found) => return Ok(found),
        Err(refusal) => refusal.to_string(),
    };
    let own = core.authenticator.issuer().audiences();
    core.elsewhere.review(token, wanted, own, now).await?.ok_or(here)
}
