//! What PodDisruptionBudgets say to an eviction. Follows `canIgnorePDB` and `checkAndDecrement`.

use api::view::core::Pod;
use api::view::policy::{DISRUPTION_ALLOWED, PodDisruptionBudget, PodDisruptionBudgetStatus};
use apimachinery::meta::find_condition;
use apimachinery::status::StatusCause;
use apimachinery::{GroupResource, Status};
use jiff::Timestamp;

/// Evictions that the disruption controller has not confirmed yet (upstream: `MaxDisruptedPodSize`).
const DISRUPTED_PODS_MAX: usize = 2000;
/// Upstream: `DisruptionBudgetCause`.
const CAUSE: &str = "DisruptionBudget";
/// When to ask again while the controller is behind.
const RETRY_AFTER_SECONDS: i32 = 10;
const VIOLATED: &str = "Cannot evict pod as it would violate the pod's disruption budget.";

/// What an eviction must heed.
#[derive(Clone, Debug, PartialEq)]
pub enum Guard {
    Nothing,
    /// The pod serves nobody as it is: it may go unless it changes meanwhile. Names the budget.
    Unready(String),
    /// The budget must allow it.
    Budget(Box<PodDisruptionBudget>),
}

/// Whether a pod's end disrupts nothing, whatever budgets say.
pub fn ends_anyway(pod: &Pod) -> bool {
    pod.is_terminal() || pod.status.phase == "Pending" || pod.metadata.is_being_deleted()
}

/// Which of its namespace's budgets guards a pod.
pub fn guard(pod: &Pod, budgets: Vec<PodDisruptionBudget>) -> Result<Guard, Status> {
    let mut selecting = budgets.into_iter().filter(|budget| budget.selects(&pod.metadata));
    let Some(budget) = selecting.next() else { return Ok(Guard::Nothing) };
    if selecting.next().is_some() {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        return Err(Status::failure(500, "", message));
    }
    let may_go_unready = || {
        let always = budget.spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow");
        let status = &budget.status;
        always || (status.current_healthy >= status.desired_healthy && status.desired_healthy > 0)
    };
    if !pod.is_ready() && may_go_unready() {
        return Ok(Guard::Unready(budget.metadata.name));
    }
    Ok(Guard::Budget(Box::new(budget)))
}

/// The budget's status once the eviction is granted, or why it is not.
pub fn take(
    budget: &PodDisruptionBudget,
    pod: &str,
    now: Timestamp,
) -> Result<PodDisruptionBudgetStatus, Status> {
    let (name, status) = (&budget.metadata.name, &budget.status);
    let forbidden =
        |why: &str| Status::forbidden(&GroupResource::new("policy", "poddisruptionbudget"), name, why);
    if status.observed_generation < budget.metadata.generation {
        return Err(behind(name));
    }
    if status.disruptions_allowed < 0 {
        return Err(forbidden("pdb disruptions allowed is negative"));
    }
    if status.disrupted_pods.len() > DISRUPTED_PODS_MAX {
        return Err(forbidden(
            "DisruptedPods map too big - too many evictions not confirmed by PDB controller",
        ));
    }
    if status.disruptions_allowed == 0 {
        return Err(refusal(0, why_not(name, status)));
    }
    let mut status = status.clone();
    status.disruptions_allowed -= 1;
    if status.disruptions_allowed == 0 {
        status.note_disruptions_allowed(now);
    }
    status.disrupted_pods.insert(pod.to_owned(), now);
    Ok(status)
}

/// The answer while the budget's status is not what counts now.
pub fn behind(budget: &str) -> Status {
    let why = format!("The disruption budget {budget} is still being processed by the server.");
    refusal(RETRY_AFTER_SECONDS, why)
}

fn refusal(retry_after_seconds: i32, why: String) -> Status {
    let mut status = Status::too_many_requests(VIOLATED, retry_after_seconds);
    let cause = StatusCause { reason: CAUSE.to_owned(), message: why, ..StatusCause::default() };
    status.details.get_or_insert_default().causes.push(cause);
    status
}

fn why_not(name: &str, status: &PodDisruptionBudgetStatus) -> String {
    let condition = find_condition(&status.conditions, DISRUPTION_ALLOWED);
    let told = condition.filter(|condition| condition.status == "False" && !condition.message.is_empty());
    match told {
        Some(told) if told.reason == "SyncFailed" => format!(
            "The disruption budget {name} does not allow evicting pods currently because it failed sync: {}",
            told.message
        ),
        _ if status.current_healthy <= status.desired_healthy => format!(
            "The disruption budget {name} needs {} healthy pods and has {} currently",
            status.desired_healthy, status.current_healthy
        ),
        Some(told) => format!(
            "The disruption budget {name} does not allow evicting pods currently ({}): {}",
            told.reason, told.message
        ),
        None => format!("The disruption budget {name} does not allow evicting pods currently"),
    }
}

#[cfg(test)]
mod tests {
    use apimachinery::{Value, json};

    use super::*;

    fn budget(status: Value) -> PodDisruptionBudget {
        let budget = json!({"metadata": {"name": "b", "namespace": "a", "generation": 2},
            "spec": {"selector": {"matchLabels": {"app": "web"}}}, "status": status});
        apimachinery::from_value(budget).expect("a budget")
    }

    fn pod(phase: &str, ready: bool) -> Pod {
        let ready = if ready { "True" } else { "False" };
        let pod = json!({"metadata": {"name": "p", "namespace": "a", "labels": {"app": "web"}},
            "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}});
        apimachinery::from_value(pod).expect("a pod")
    }

    /// What is left, or the code and cause of the refusal.
    fn check(status: Value, expect: Result<i32, (u16, &str)>) {
        let taken = take(&budget(status), "p", Timestamp::UNIX_EPOCH);
        let found = match &taken {
            Ok(status) => Ok(status.disruptions_allowed),
            Err(refused) => {
                Err((refused.code, refused.causes().first().map_or("", |cause| cause.message.as_str())))
            }
        };
        assert_eq!(found, expect);
    }

    #[test]
    fn a_budget_is_taken_from_while_it_lasts_and_is_known() {
        check(json!({"observedGeneration": 2, "disruptionsAllowed": 2}), Ok(1));
        check(json!({"observedGeneration": 2, "disruptionsAllowed": -1}), Err((403, "")));
        let needs = "The disruption budget b needs 2 healthy pods and has 2 currently";
        let status = json!({"observedGeneration": 2, "currentHealthy": 2, "desiredHealthy": 2});
        check(status, Err((429, needs)));
        let behind = "The disruption budget b is still being processed by the server.";
        check(json!({"observedGeneration": 1, "disruptionsAllowed": 2}), Err((429, behind)));
        let last = take(
            &budget(json!({"observedGeneration": 2, "disruptionsAllowed": 1})),
            "p",
            Timestamp::UNIX_EPOCH,
        );
        let last = last.expect("there is one left");
        assert_eq!(last.conditions[0].reason, "InsufficientPods");
        assert!(last.disrupted_pods.contains_key("p"));
    }

    #[test]
    fn pods_that_serve_nobody_go_without_the_budget_if_enough_others_do() {
        let healthy = || budget(json!({"currentHealthy": 2, "desiredHealthy": 2}));
        let guards = |pod: &Pod, budgets| guard(pod, budgets).expect("at most one budget");
        assert_eq!(guards(&pod("Running", false), vec![healthy()]), Guard::Unready("b".into()));
        assert_eq!(guards(&pod("Running", true), vec![healthy()]), Guard::Budget(Box::new(healthy())));
        let poor = budget(json!({"currentHealthy": 1, "desiredHealthy": 2}));
        assert_eq!(guards(&pod("Running", false), vec![poor.clone()]), Guard::Budget(Box::new(poor.clone())));
        let mut lenient = poor;
        lenient.spec.unhealthy_pod_eviction_policy = Some("AlwaysAllow".into());
        assert_eq!(guards(&pod("Running", false), vec![lenient]), Guard::Unready("b".into()));
        assert_eq!(guards(&pod("Running", true), Vec::new()), Guard::Nothing);
        assert_eq!(guard(&pod("Running", true), vec![healthy(), healthy()]).expect_err("two").code, 500);
        assert!(ends_anyway(&pod("Pending", false)) && !ends_anyway(&pod("Running", false)));
    }
}
