//! Which pods to delete first when there are too many (follows upstream's `ActivePodsWithRanks`).

use std::cmp::{Ordering, Reverse};
use std::collections::HashMap;
use std::sync::Arc;

use api::view::core::Pod;
use jiff::Timestamp;

/// Lower is deleted sooner; pods without it count as 0.
const DELETION_COST: &str = "controller.kubernetes.io/pod-deletion-cost";

/// Sorts so that what is least missed comes first.
pub fn sort_for_deletion(pods: &mut [Arc<Pod>], related: &[Arc<Pod>], now: Timestamp) {
    let mut on_node: HashMap<&str, usize> = HashMap::new();
    for pod in related.iter().filter(|pod| is_active(pod)) {
        *on_node.entry(&pod.spec.node_name).or_default() += 1;
    }
    let crowd = |pod: &Pod| on_node.get(pod.spec.node_name.as_str()).copied().unwrap_or(0);
    pods.sort_by(|a, b| compare(a, b, &crowd, now));
}

/// Neither ended nor ending.
pub fn is_active(pod: &Pod) -> bool {
    !pod.is_terminal() && !pod.metadata.is_being_deleted()
}

fn compare(a: &Pod, b: &Pod, crowd: &impl Fn(&Pod) -> usize, now: Timestamp) -> Ordering {
    let assigned = |pod: &Pod| !pod.spec.node_name.is_empty();
    assigned(a)
        .cmp(&assigned(b))
        .then_with(|| phase_rank(a).cmp(&phase_rank(b)))
        .then_with(|| a.is_ready().cmp(&b.is_ready()))
        .then_with(|| deletion_cost(a).cmp(&deletion_cost(b)))
        .then_with(|| Reverse(crowd(a)).cmp(&Reverse(crowd(b))))
        .then_with(|| younger_first(ready_since(a), ready_since(b), (a, b), now))
        .then_with(|| compare_restarts(a, b))
        .then_with(|| {
            younger_first(a.metadata.creation_timestamp, b.metadata.creation_timestamp, (a, b), now)
        })
}

fn phase_rank(pod: &Pod) -> u8 {
    match pod.status.phase.as_str() {
        "Pending" => 0,
        "Unknown" => 1,
        _ => 2,
    }
}

fn deletion_cost(pod: &Pod) -> i32 {
    pod.metadata.annotations.get(DELETION_COST).and_then(|cost| cost.parse().ok()).unwrap_or(0)
}

fn ready_since(pod: &Pod) -> Option<Timestamp> {
    pod.condition("Ready").filter(|c| c.is_true()).and_then(|c| c.last_transition_time)
}

/// By age in powers of two, so that among pods of like age chance decides, not the last second; the UID is the chance.
fn younger_first(a: Option<Timestamp>, b: Option<Timestamp>, pods: (&Pod, &Pod), now: Timestamp) -> Ordering {
    match (a, b) {
        (None, None) => Ordering::Equal,
        (None, Some(_)) => Ordering::Less,
        (Some(_), None) => Ordering::Greater,
        (Some(a), Some(b)) if a == b => Ordering::Equal,
        (Some(a), Some(b)) => {
            let by_age = age_rank(a, now).cmp(&age_rank(b, now));
            by_age.then_with(|| pods.0.metadata.uid.cmp(&pods.1.metadata.uid))
        }
    }
}

fn age_rank(since: Timestamp, now: Timestamp) -> i32 {
    let age = now.duration_since(since).as_nanos();
    if age > 0 { age.ilog2() as i32 } else { -1 }
}

fn compare_restarts(a: &Pod, b: &Pod) -> Ordering {
    restarts(b).cmp(&restarts(a))
}

/// The most restarts of a container, then of a sidecar.
fn restarts(pod: &Pod) -> (i32, i32) {
    let most = |statuses: &[api::view::core::ContainerStatus], counts: &dyn Fn(&str) -> bool| {
        statuses.iter().filter(|s| counts(&s.name)).map(|s| s.restart_count).max().unwrap_or(0)
    };
    let is_sidecar = |name: &str| {
        let containers = &pod.spec.init_containers;
        containers.iter().any(|c| c.name == name && c.restart_policy.as_deref() == Some("Always"))
    };
    (most(&pod.status.container_statuses, &|_| true), most(&pod.status.init_container_statuses, &is_sidecar))
}
