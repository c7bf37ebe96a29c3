//! A Deployment's counts and conditions (follows upstream's `calculateStatus` and `syncRolloutStatus`).

use api::view::apps::{Deployment, DeploymentStatus, ReplicaSet};
use apimachinery::meta::{Condition, find_condition};
use jiff::{SignedDuration, Timestamp};

use super::draft::Draft;
use super::replicas::{desired, max_unavailable, size};

const PROGRESSING: &str = "Progressing";
const AVAILABLE: &str = "Available";
const REPLICA_FAILURE: &str = "ReplicaFailure";

const NEW_RS_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";

/// A deadline that is written as the largest number means none.
const NO_DEADLINE: i32 = i32::MAX;

/// The seconds within which a rollout must show progress, if it must.
fn deadline(deployment: &Deployment) -> Option<SignedDuration> {
    let seconds = deployment.spec.progress_deadline_seconds.filter(|s| *s != NO_DEADLINE)?;
    Some(SignedDuration::from_secs(seconds.into()))
}

/// Every wanted pod is of the new revision and available, and no other runs (upstream: `DeploymentComplete`).
pub fn is_complete(deployment: &Deployment, status: &DeploymentStatus) -> bool {
    let wanted = desired(deployment);
    [status.updated_replicas, status.replicas, status.available_replicas].iter().all(|n| *n == wanted)
        && status.observed_generation >= deployment.metadata.generation
}

/// Counts and availability only: while scaling, paused or deleted, progress is not judged.
pub fn sync(draft: &mut Draft) {
    draft.status = calculate(draft);
}

/// Counts, availability, progress and failures of a rollout; asks to be called again at the deadline.
pub fn sync_rollout(draft: &mut Draft) {
    let mut status = calculate(draft);
    let current = find_condition(&draft.status.conditions, PROGRESSING).cloned();
    judge_progress(draft, &mut status, current.as_ref());
    match replica_failure(draft) {
        Some(failure) => set(&mut status, failure),
        None => remove(&mut status, REPLICA_FAILURE),
    }
    draft.status = status;
    requeue_at_deadline(draft);
}

fn calculate(draft: &Draft) -> DeploymentStatus {
    let sum = |count: &dyn Fn(&ReplicaSet) -> i32| draft.all().map(count).sum::<i32>();
    let deployment = draft.deployment;
    let available = sum(&|rs| rs.status.available_replicas);
    let mut status = DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: sum(&|rs| rs.status.replicas),
        updated_replicas: draft.new.as_ref().map_or(0, |new| new.status.replicas),
        ready_replicas: sum(&|rs| rs.status.ready_replicas),
        available_replicas: available,
        unavailable_replicas: (sum(&size) - available).max(0),
        terminating_replicas: draft.all().map(|rs| rs.status.terminating_replicas).sum(),
        collision_count: draft.status.collision_count,
        conditions: draft.status.conditions.clone(),
    };
    let is_available = available >= desired(deployment) - max_unavailable(deployment);
    let (value, reason, message) = if is_available {
        ("True", "MinimumReplicasAvailable", "Deployment has minimum availability.")
    } else {
        ("False", "MinimumReplicasUnavailable", "Deployment does not have minimum availability.")
    };
    set(&mut status, condition(AVAILABLE, value, reason, message, draft.now));
    status
}

fn judge_progress(draft: &Draft, status: &mut DeploymentStatus, current: Option<&Condition>) {
    let deployment = draft.deployment;
    let Some(deadline) = deadline(deployment) else { return remove(status, PROGRESSING) };
    let was_complete = current.is_some_and(|c| c.reason == NEW_RS_AVAILABLE);
    if was_complete && status.replicas == status.updated_replicas {
        return;
    }
    let subject = match &draft.new {
        Some(new) => format!("ReplicaSet {:?}", new.metadata.name),
        None => format!("Deployment {:?}", deployment.metadata.name),
    };
    if is_complete(deployment, status) {
        let message = format!("{subject} has successfully progressed.");
        set(status, condition(PROGRESSING, "True", NEW_RS_AVAILABLE, &message, draft.now));
    } else if is_progressing(&deployment.status, status) {
        let message = format!("{subject} is progressing.");
        let mut progress = condition(PROGRESSING, "True", "ReplicaSetUpdated", &message, draft.now);
        if let Some(current) = current.filter(|c| c.is_true()) {
            progress.last_transition_time = current.last_transition_time;
        }
        // Every sign of progress restarts the deadline, also under the same reason.
        remove(status, PROGRESSING);
        set(status, progress);
    } else if has_timed_out(status, deadline, draft.now) {
        let message = format!("{subject} has timed out progressing.");
        set(status, condition(PROGRESSING, "False", TIMED_OUT, &message, draft.now));
    }
}

/// More new or ready or available pods, or fewer old ones (upstream: `DeploymentProgressing`).
fn is_progressing(before: &DeploymentStatus, after: &DeploymentStatus) -> bool {
    let old = |status: &DeploymentStatus| status.replicas - status.updated_replicas;
    after.updated_replicas > before.updated_replicas
        || old(after) < old(before)
        || after.ready_replicas > before.ready_replicas
        || after.available_replicas > before.available_replicas
}

fn has_timed_out(status: &DeploymentStatus, deadline: SignedDuration, now: Timestamp) -> bool {
    match find_condition(&status.conditions, PROGRESSING) {
        None => false,
        Some(c) if c.reason == NEW_RS_AVAILABLE => false,
        Some(c) if c.reason == TIMED_OUT => true,
        Some(c) => expires(c, deadline).is_some_and(|at| at < now),
    }
}

fn expires(progressing: &Condition, deadline: SignedDuration) -> Option<Timestamp> {
    progressing.last_update_time?.checked_add(deadline).ok()
}

fn requeue_at_deadline(draft: &mut Draft) {
    let Some(deadline) = deadline(draft.deployment) else { return };
    let Some(progressing) = find_condition(&draft.status.conditions, PROGRESSING) else { return };
    if is_complete(draft.deployment, &draft.status) || progressing.reason == TIMED_OUT {
        return;
    }
    // Times are written in whole seconds: one more puts the next look past the deadline.
    let margin = SignedDuration::from_secs(1);
    if let Some(at) = expires(progressing, deadline).and_then(|at| at.checked_add(margin).ok()) {
        draft.plan.requeue(at.max(draft.now));
    }
}

/// The failure of the new ReplicaSet, else of any (upstream: `getReplicaFailures`).
fn replica_failure(draft: &Draft) -> Option<Condition> {
    let mut newest_first = draft.new.iter().chain(&draft.old);
    let failure = newest_first.find_map(|rs| find_condition(&rs.status.conditions, REPLICA_FAILURE))?;
    Some(Condition { last_update_time: failure.last_transition_time, ..failure.clone() })
}

/// Says that the rollout is paused, or no more, so that the pause does not count as lack of progress.
pub fn note_pause(draft: &mut Draft) {
    if deadline(draft.deployment).is_none() {
        return;
    }
    let reason = find_condition(&draft.status.conditions, PROGRESSING).map(|c| c.reason.as_str());
    let note = match (draft.deployment.spec.paused, reason) {
        (_, Some(TIMED_OUT)) | (true, Some(PAUSED)) => return,
        (true, _) => condition(PROGRESSING, "Unknown", PAUSED, "Deployment is paused", draft.now),
        (false, Some(PAUSED)) => {
            condition(PROGRESSING, "Unknown", "DeploymentResumed", "Deployment is resumed", draft.now)
        }
        (false, _) => return,
    };
    set(&mut draft.status, note);
}

pub fn note_found(draft: &mut Draft, message: String) {
    let is_noted = find_condition(&draft.status.conditions, PROGRESSING).is_some();
    if deadline(draft.deployment).is_some() && !is_noted {
        let found = condition(PROGRESSING, "True", "FoundNewReplicaSet", &message, draft.now);
        set(&mut draft.status, found);
    }
}

pub fn note_created(draft: &mut Draft, message: String) {
    if deadline(draft.deployment).is_some() {
        let created = condition(PROGRESSING, "True", "NewReplicaSetCreated", &message, draft.now);
        set(&mut draft.status, created);
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, now: Timestamp) -> Condition {
    Condition {
        kind: kind.into(),
        status: status.into(),
        reason: reason.into(),
        message: message.into(),
        last_update_time: Some(now),
        last_transition_time: Some(now),
        ..Condition::default()
    }
}

/// Upstream's `SetDeploymentCondition`: the same status and reason change nothing, the same status keeps its time.
fn set(status: &mut DeploymentStatus, mut condition: Condition) {
    if let Some(current) = find_condition(&status.conditions, &condition.kind) {
        if current.status == condition.status && current.reason == condition.reason {
            return;
        }
        if current.status == condition.status {
            condition.last_transition_time = current.last_transition_time;
        }
    }
    remove(status, &condition.kind.clone());
    status.conditions.push(condition);
}

fn remove(status: &mut DeploymentStatus, kind: &str) {
    status.conditions.retain(|c| c.kind != kind);
}
