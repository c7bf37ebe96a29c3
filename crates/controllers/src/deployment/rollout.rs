//! The two strategies, and what remains of former revisions (follows upstream's `rolling.go` and `recreate.go`).

use std::sync::Arc;

use api::view::apps::ReplicaSet;
use api::view::core::Pod;

use super::draft::Draft;
use super::reconcile::{World, create_new};
use super::replicas::{desired, is_active, max_unavailable, new_size, size};
use super::revision::revision;
use super::scale::resize;
use super::status::is_complete;

/// A limit that is written as the largest number means no limit.
const NO_LIMIT: i32 = i32::MAX;

/// One step of a rolling update: the new one up as far as the surge lets it, else the old ones down as far as
/// availability lets them.
pub fn rolling(draft: &mut Draft, namespace: &[Arc<ReplicaSet>]) {
    if draft.new.is_none() {
        create_new(draft, namespace);
    }
    if draft.new.is_none() {
        return;
    }
    grow_new(draft);
    if draft.has_scaled() {
        return;
    }
    shrink_old(draft);
    if !draft.has_scaled() && is_complete(draft.deployment, &draft.deployment.status) {
        clean_up(draft);
    }
}

fn grow_new(draft: &mut Draft) {
    let (deployment, total) = (draft.deployment, draft.total());
    let Some(new) = &mut draft.new else { return };
    let (current, wanted) = (size(new), desired(deployment));
    let to = if current > wanted { wanted } else { new_size(deployment, total, current) };
    resize(deployment, new, to);
}

fn shrink_old(draft: &mut Draft) {
    if !draft.old.iter().any(is_active) {
        return;
    }
    let deployment = draft.deployment;
    let min_available = desired(deployment) - max_unavailable(deployment);
    let new_unavailable = draft.new.as_ref().map_or(0, |new| size(new) - new.status.available_replicas);
    let most = draft.total() - min_available - new_unavailable;
    if most <= 0 {
        return;
    }
    drop_unhealthy(draft, most);
    let available: i32 = draft.all().map(|rs| rs.status.available_replicas).sum();
    let mut left = available - min_available;
    for old in draft.old.iter_mut().filter(|rs| is_active(rs)) {
        let by = size(old).min(left.max(0));
        let to = size(old) - by;
        resize(deployment, old, to);
        left -= by;
    }
}

/// Unhealthy pods of old revisions go first: they serve no one and would hold the rollout up.
fn drop_unhealthy(draft: &mut Draft, most: i32) {
    let mut left = most;
    for old in draft.old.iter_mut().filter(|rs| is_active(rs)) {
        let by = left.min(size(old) - old.status.available_replicas).max(0);
        let to = size(old) - by;
        resize(draft.deployment, old, to);
        left -= by;
    }
}

/// All old pods go before the first new one comes.
pub fn recreate(draft: &mut Draft, world: &World) {
    let deployment = draft.deployment;
    for old in &mut draft.old {
        resize(deployment, old, 0);
    }
    if draft.has_scaled() || old_pods_running(draft, &world.pods) {
        return;
    }
    if draft.new.is_none() {
        create_new(draft, &world.replica_sets);
    }
    if let Some(new) = &mut draft.new {
        resize(deployment, new, desired(deployment));
    }
    if is_complete(deployment, &deployment.status) {
        clean_up(draft);
    }
}

fn old_pods_running(draft: &Draft, pods: &[Arc<Pod>]) -> bool {
    let new = draft.new.as_ref().map(|rs| rs.metadata.uid.as_str());
    let is_old = |pod: &Pod| pod.metadata.controller().map(|c| c.uid.as_str()) != new;
    draft.old.iter().any(|rs| rs.status.replicas > 0)
        || pods.iter().any(|pod| is_old(pod) && !pod.is_terminal())
}

/// Deletes the oldest revisions past the history limit that have no pods (upstream: `cleanupDeployment`).
pub fn clean_up(draft: &mut Draft) {
    let limit = draft.deployment.spec.revision_history_limit.unwrap_or(NO_LIMIT);
    let mut cleanable: Vec<ReplicaSet> =
        draft.old.iter().filter(|rs| !rs.metadata.is_being_deleted()).cloned().collect();
    let excess = cleanable.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    cleanable.sort_by_key(|rs| (revision(rs), rs.metadata.creation_timestamp));
    for replica_set in &cleanable[..excess] {
        let is_idle = replica_set.status.replicas == 0
            && size(replica_set) == 0
            && replica_set.metadata.generation <= replica_set.status.observed_generation;
        if is_idle {
            draft.delete(replica_set);
        }
    }
}
