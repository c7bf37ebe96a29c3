//! Spreads a changed size over the ReplicaSets in proportion, so that scaling neither speeds up nor undoes a rollout
//! (follows upstream's `scale` and `GetReplicaSetProportion`).

use std::cmp::Reverse;

use api::view::apps::{Deployment, ReplicaSet};

use super::draft::Draft;
use super::replicas::{desired, is_active, is_rolling_update, max_surge, size};
use super::revision::{MAX_REPLICAS, annotate_size, noted};

/// Sets a size and notes what it was set for; where nothing changes, nothing is noted either.
pub fn resize(deployment: &Deployment, replica_set: &mut ReplicaSet, to: i32) {
    if size(replica_set) != to {
        replica_set.spec.replicas = Some(to);
        annotate_size(deployment, replica_set);
    }
}

pub fn scale(draft: &mut Draft) {
    let deployment = draft.deployment;
    if let Some(only) = active_or_latest(draft) {
        return resize(deployment, only, desired(deployment));
    }
    if draft.new.as_ref().is_some_and(|new| is_saturated(deployment, new)) {
        for old in &mut draft.old {
            resize(deployment, old, 0);
        }
    } else if is_rolling_update(deployment) {
        scale_proportionally(draft);
    }
}

/// The one active ReplicaSet, or the newest when none is (upstream: `FindActiveOrLatest`).
fn active_or_latest<'d>(draft: &'d mut Draft) -> Option<&'d mut ReplicaSet> {
    let active = draft.all().filter(|rs| is_active(rs)).count();
    let mut all = draft.old.iter_mut().chain(&mut draft.new);
    match active {
        0 => all.next_back(),
        1 => all.find(|rs| is_active(rs)),
        _ => None,
    }
}

/// The new ReplicaSet has all its pods, and they are available (upstream: `IsSaturated`).
fn is_saturated(deployment: &Deployment, new: &ReplicaSet) -> bool {
    let wanted = desired(deployment);
    size(new) == wanted
        && noted(new, super::revision::DESIRED_REPLICAS) == Some(wanted)
        && new.status.available_replicas == wanted
}

fn scale_proportionally(draft: &mut Draft) {
    let deployment = draft.deployment;
    let total = draft.total();
    let allowed = if desired(deployment) > 0 { desired(deployment) + max_surge(deployment) } else { 0 };
    let to_add = allowed - total;
    let mut active: Vec<&mut ReplicaSet> =
        draft.old.iter_mut().chain(&mut draft.new).filter(|rs| is_active(rs)).collect();
    let created = |rs: &ReplicaSet| (rs.metadata.creation_timestamp, rs.metadata.name.clone());
    if to_add > 0 {
        active.sort_by_key(|rs| Reverse((size(rs), created(rs))));
    } else {
        active.sort_by_key(|rs| (Reverse(size(rs)), created(rs)));
    }
    let mut sizes = Vec::new();
    let mut added = 0;
    for replica_set in &active {
        let share = proportion(deployment, replica_set, to_add, added);
        sizes.push(size(replica_set) + share);
        added += share;
    }
    // What rounding left over goes to the largest.
    if let Some(largest) = sizes.first_mut() {
        *largest = (*largest + to_add - added).max(0);
    }
    for (replica_set, to) in active.into_iter().zip(sizes) {
        replica_set.spec.replicas = Some(to);
        annotate_size(deployment, replica_set);
    }
}

/// This ReplicaSet's part of the change, of which `added` is given out already.
fn proportion(deployment: &Deployment, replica_set: &ReplicaSet, to_add: i32, added: i32) -> i32 {
    if to_add == added {
        return 0;
    }
    let (fraction, left) = (fraction(deployment, replica_set), to_add - added);
    if to_add > 0 { fraction.min(left) } else { fraction.max(left) }
}

fn fraction(deployment: &Deployment, replica_set: &ReplicaSet) -> i32 {
    let current = size(replica_set);
    if desired(deployment) == 0 {
        return -current;
    }
    let max_before =
        noted(replica_set, MAX_REPLICAS).filter(|n| *n > 0).unwrap_or(deployment.status.replicas);
    if max_before == 0 {
        return 0;
    }
    let max_now = desired(deployment) + max_surge(deployment);
    (f64::from(current) * f64::from(max_now) / f64::from(max_before)).round() as i32 - current
}
