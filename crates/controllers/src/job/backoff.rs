//! How long a Job waits after failures before it makes new pods: 10 s, doubled with each failure in a row, at most
//! 10 min (upstream: `DefaultJobPodFailureBackOff`, `MaxJobPodFailureBackOff`).

use std::sync::Arc;

use api::view::core::Pod;
use jiff::{SignedDuration, Timestamp};

use super::pods::ended_at;

const PAUSE_MIN: SignedDuration = SignedDuration::from_secs(10);
const PAUSE_MAX: SignedDuration = SignedDuration::from_mins(10);
/// So many doublings reach the maximum.
const DOUBLINGS_MAX: u32 = 6;

/// When the next pod may be made, given pods of the Job or of one index of it.
pub fn until<'a>(pods: impl Iterator<Item = &'a Arc<Pod>>) -> Option<Timestamp> {
    let mut ended: Vec<(Timestamp, bool)> = pods
        .filter(|pod| pod.is_terminal())
        .filter_map(|pod| Some((ended_at(pod)?, pod.status.phase == "Failed")))
        .collect();
    ended.sort_unstable();
    let failures = ended.iter().rev().take_while(|(_, failed)| *failed).count();
    let (last, _) = ended.last().filter(|_| failures > 0)?;
    let doublings = u32::try_from(failures - 1).unwrap_or(DOUBLINGS_MAX).min(DOUBLINGS_MAX);
    last.checked_add((PAUSE_MIN * 2_i32.pow(doublings)).min(PAUSE_MAX)).ok()
}
