//! Since when a pod counts as available (upstream: `IsPodAvailable`).

use api::view::core::Pod;
use jiff::{SignedDuration, Timestamp};

/// When a pod that is ready became or becomes available.
pub fn available_at(pod: &Pod, min_ready_seconds: i32) -> Option<Timestamp> {
    let ready = pod.condition("Ready").filter(|c| c.is_true())?;
    if min_ready_seconds == 0 {
        return Some(Timestamp::MIN);
    }
    ready.last_transition_time?.checked_add(SignedDuration::from_secs(min_ready_seconds.into())).ok()
}

pub fn is_available(pod: &Pod, min_ready_seconds: i32, now: Timestamp) -> bool {
    available_at(pod, min_ready_seconds).is_some_and(|at| at <= now)
}

/// When the next of the pods becomes available, of those that are not yet.
pub fn next<'a>(
    pods: impl IntoIterator<Item = &'a Pod>,
    min_ready_seconds: i32,
    now: Timestamp,
) -> Option<Timestamp> {
    pods.into_iter().filter_map(|pod| available_at(pod, min_ready_seconds)).filter(|at| *at > now).min()
}
