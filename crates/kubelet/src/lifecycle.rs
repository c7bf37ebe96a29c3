//! Container hooks: after the start and before the stop (follows the kubelet's `lifecycle/handlers.go`).

use std::time::Duration;

use api::view::core::{Container, Handler};

use crate::probe::{Target, attempt};

/// A post-start hook has no deadline of its own upstream; ours ends with the day.
const POST_START_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

pub fn post_start(container: &Container) -> Option<&Handler> {
    container.lifecycle.as_ref()?.post_start.as_ref()
}

pub fn pre_stop(container: &Container) -> Option<&Handler> {
    container.lifecycle.as_ref()?.pre_stop.as_ref()
}

/// Runs the hook to its end.
pub async fn run_post_start(target: &Target, handler: &Handler) -> Result<(), String> {
    attempt(target, handler, POST_START_TIMEOUT).await.map(drop).map_err(|trouble| trouble.to_string())
}

/// The reason for which a container is ended whose post-start hook failed.
pub const FAILED_POST_START_HOOK: &str = "FailedPostStartHook";

/// What is left at least of a grace period (upstream's `minimumGracePeriodInSeconds`).
pub const LEFT_MIN_SECONDS: i64 = 2;

/// Runs the hook within the grace period and returns how much of it is left.
pub async fn run_pre_stop(
    target: &Target,
    handler: &Handler,
    grace_seconds: i64,
) -> (Result<(), String>, i64) {
    let started = tokio::time::Instant::now();
    let limit = Duration::from_secs(u64::try_from(grace_seconds).unwrap_or(0));
    let result = match tokio::time::timeout(limit, attempt(target, handler, limit)).await {
        Ok(result) => result.map(drop).map_err(|trouble| trouble.to_string()),
        Err(_) => Err(format!("PreStop hook did not complete in {grace_seconds} seconds")),
    };
    let used = i64::try_from(started.elapsed().as_secs()).unwrap_or(i64::MAX);
    (result, grace_seconds.saturating_sub(used).max(LEFT_MIN_SECONDS))
}
