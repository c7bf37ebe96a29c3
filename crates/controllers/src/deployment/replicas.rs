//! The arithmetic of a rollout: how many pods may be too many or too few, and how many a ReplicaSet gets.

use api::view::apps::{Deployment, ReplicaSet};
use apimachinery::Value;
use apimachinery::intstr::{IntOrString, Round};

pub fn desired(deployment: &Deployment) -> i32 {
    deployment.spec.replicas.unwrap_or(1)
}

pub fn size(replica_set: &ReplicaSet) -> i32 {
    replica_set.spec.replicas.unwrap_or(1)
}

pub fn is_active(replica_set: &ReplicaSet) -> bool {
    size(replica_set) > 0
}

pub fn is_rolling_update(deployment: &Deployment) -> bool {
    deployment.spec.strategy.kind != "Recreate"
}

/// Pods above the desired number that a rolling update may run (upstream: `MaxSurge`).
pub fn max_surge(deployment: &Deployment) -> i32 {
    if is_rolling_update(deployment) { fenceposts(deployment).0 } else { 0 }
}

/// Pods below the desired number that a rolling update may leave (upstream: `MaxUnavailable`).
pub fn max_unavailable(deployment: &Deployment) -> i32 {
    if !is_rolling_update(deployment) || desired(deployment) == 0 {
        return 0;
    }
    fenceposts(deployment).1.min(desired(deployment))
}

/// Surge rounds up and unavailability down; when both come to nothing, one pod may be unavailable, or the rollout
/// could never move (upstream: `ResolveFenceposts`).
fn fenceposts(deployment: &Deployment) -> (i32, i32) {
    let limits = deployment.spec.strategy.rolling_update.clone().unwrap_or_default();
    let scaled = |value: &Option<Value>, round| {
        let limit =
            value.clone().and_then(|v| apimachinery::from_value::<IntOrString>(v).ok()).unwrap_or_default();
        limit.scaled(desired(deployment), round).unwrap_or(0)
    };
    let surge = scaled(&limits.max_surge, Round::Up);
    let unavailable = scaled(&limits.max_unavailable, Round::Down);
    if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable) }
}

/// How large the new ReplicaSet may become now, `total` being the size of all (upstream: `NewRSNewReplicas`).
pub fn new_size(deployment: &Deployment, total: i32, current: i32) -> i32 {
    let desired = desired(deployment);
    if !is_rolling_update(deployment) {
        return desired;
    }
    let max_total = desired + max_surge(deployment);
    if total >= max_total {
        return current;
    }
    current + (max_total - total).min(desired - current)
}

#[cfg(test)]
mod tests {
    use apimachinery::json;

    use super::*;

    fn check(replicas: i32, surge: Value, unavailable: Value, expect: (i32, i32)) {
        let deployment: Deployment =
            apimachinery::from_value(json!({"spec": {"replicas": replicas, "strategy": {
            "type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}}}))
            .expect("a deployment");
        assert_eq!((max_surge(&deployment), max_unavailable(&deployment)), expect);
    }

    #[test]
    fn percentages_round_so_that_a_rollout_can_move() {
        check(10, json!("25%"), json!("25%"), (3, 2));
        check(3, json!("25%"), json!("25%"), (1, 0));
        check(1, json!(0), json!("25%"), (0, 1));
        check(4, json!(2), json!(9), (2, 4));
        check(0, json!("50%"), json!("50%"), (0, 0));
    }
}
