//! Whether somebody may ask a component for something: whoever may do everything, certain paths, and else the API server's
//! word. Follows `DelegatingAuthorizationOptions`.

use std::sync::Arc;
use std::time::Duration;

use apimachinery::Status;
use auth::{Attributes, Authorizer, Decision, authorizationconfiguration as configured};
use client::Transport;
use jiff::Timestamp;

use crate::authorization::Webhook;
use crate::review_client::ReviewClient;

/// Where a request is judged.
const SUBJECT_ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
/// The API server answers within this time (upstream: ClientTimeout).
const TIMEOUT: Duration = Duration::from_secs(10);

/// A path that cannot be allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("only trailing * allowed in {0:?}")]
pub struct PathError(String);

/// Paths that anybody may ask for, without their leading slash (upstream: `path.NewAuthorizer`).
#[derive(Clone, Debug, Default)]
pub struct AlwaysAllowed {
    paths: Vec<String>,
    prefixes: Vec<String>,
}

impl AlwaysAllowed {
    /// A path that ends in `*` stands for all that begin so.
    pub fn parse<'p>(paths: impl IntoIterator<Item = &'p str>) -> Result<AlwaysAllowed, PathError> {
        let mut allowed = AlwaysAllowed::default();
        for path in paths {
            let path = path.strip_prefix('/').unwrap_or(path);
            match path.split_once('*') {
                None => allowed.paths.push(path.to_owned()),
                Some((prefix, "")) => allowed.prefixes.push(prefix.to_owned()),
                Some(_) => return Err(PathError(path.to_owned())),
            }
        }
        Ok(allowed)
    }

    fn allow(&self, path: &str) -> bool {
        let path = path.strip_prefix('/').unwrap_or(path);
        self.paths.iter().any(|allowed| allowed == path)
            || self.prefixes.iter().any(|prefix| path.starts_with(prefix.as_str()))
    }
}

/// Who decides what may be asked of a component.
pub struct Authorization {
    always_allowed: AlwaysAllowed,
    /// Without it nobody else may do anything.
    webhook: Option<Webhook>,
}

impl Authorization {
    /// `reviewer` is the way to the API server. How long its word counts depends on what it is.
    pub fn new(
        always_allowed: AlwaysAllowed,
        reviewer: Option<Arc<dyn Transport>>,
        authorized_ttl: Duration,
        unauthorized_ttl: Duration,
    ) -> Authorization {
        let webhook = reviewer.map(|reviewer| {
            let asked = configured::Webhook {
                name: "delegated".to_owned(),
                kube_config_file: String::new(),
                version: "v1".to_owned(),
                authorized_ttl,
                unauthorized_ttl,
                timeout: TIMEOUT,
                denies_on_failure: false,
                conditions: Default::default(),
            };
            Webhook::asking(asked, ReviewClient::over(reviewer, SUBJECT_ACCESS_REVIEWS))
        });
        Authorization { always_allowed, webhook }
    }

    pub(super) async fn check(&self, wanted: &Attributes<'_>, now: Timestamp) -> Result<(), Status> {
        if Authorizer::is_superuser(wanted.user) || self.always_allowed.allow(wanted.path) {
            return Ok(());
        }
        let decision = match &self.webhook {
            Some(webhook) => webhook.authorize(wanted, now).await,
            None => Decision::NoOpinion(String::new()),
        };
        if decision.is_allowed() { Ok(()) } else { Err(wanted.forbidden(decision.reason())) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: &[&str], path: &str, expect: bool) {
        let allowed = AlwaysAllowed::parse(allowed.iter().copied()).expect("paths");
        assert_eq!(allowed.allow(path), expect, "{allowed:?} {path}");
    }

    #[test]
    fn paths_are_allowed_whole_or_by_their_beginning() {
        check(&["/healthz", "readyz"], "/healthz", true);
        check(&["/healthz", "readyz"], "/readyz", true);
        check(&["/healthz"], "/healthz/ping", false);
        check(&["/healthz*"], "/healthz/ping", true);
        check(&["*"], "/metrics", true);
        check(&["/"], "/", true);
        check(&["/"], "/metrics", false);
        check(&[], "/healthz", false);
        let refused = AlwaysAllowed::parse(["/a*b"]).expect_err("is no path");
        assert_eq!(refused.to_string(), "only trailing * allowed in \"a*b\"");
    }
}
