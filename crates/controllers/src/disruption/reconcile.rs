//! From a PodDisruptionBudget, its pods and the sizes of their owners to its status (follows `trySync` and `failSafe`).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::resource::{POD_DISRUPTION_BUDGETS, PODS};
use api::view::core::Pod;
use api::view::policy::{PodDisruptionBudget, PodDisruptionBudgetStatus};
use apimachinery::intstr::{IntOrString, Round};
use apimachinery::meta::LabelSelector;
use jiff::{SignedDuration, Timestamp};

use crate::plan::{Action, Event, Plan, reference};

/// How long an eviction that was granted may take to begin (upstream: `DeletionTimeout`).
pub const DELETION_TIMEOUT: SignedDuration = SignedDuration::from_mins(2);

/// What stands behind pods, and how many it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scaled {
    pub uid: String,
    pub replicas: i32,
}

#[derive(Clone, Debug, Default)]
pub struct World {
    /// The pods that the budget selects.
    pub pods: Vec<Arc<Pod>>,
    /// The namespace's budgets.
    pub budgets: Vec<Arc<PodDisruptionBudget>>,
    /// By the UID of the pods' controllers what was found behind them; `None` for nothing.
    pub scales: BTreeMap<String, Result<Option<Scaled>, String>>,
}

/// Whether the budget is a share of what the owners want, or of what is missing from it.
pub fn needs_scales(budget: &PodDisruptionBudget) -> bool {
    let spec = &budget.spec;
    spec.max_unavailable.is_some() || matches!(spec.min_available, Some(IntOrString::String(_)))
}

pub fn reconcile(budget: &PodDisruptionBudget, world: &World, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    tell_of_rivals(budget, world, &mut plan);
    let tell = |reason, message: &str| {
        Event::warning(reference(POD_DISRUPTION_BUDGETS, &budget.metadata), reason, message)
    };
    if world.pods.is_empty() {
        let regarding = reference(POD_DISRUPTION_BUDGETS, &budget.metadata);
        plan.events.push(Event::normal(regarding, "NoPods", "No matching pods found"));
    }
    let status = match expectation(budget, world) {
        Ok(expected) => {
            if expected.has_unmanaged {
                plan.events.push(tell("UnmanagedPods", &unmanaged(budget.spec.selector.as_ref())));
            }
            let disrupted = disrupted_pods(budget, world, now, &mut plan);
            status(budget, world, &expected, disrupted, now)
        }
        Err(error) => {
            let message = format!("Failed to calculate the number of expected pods: {error}");
            plan.events.push(tell("CalculateExpectedPodCountFailed", &message));
            failed_status(budget, &error, now)
        }
    };
    if status != budget.status {
        let status = apimachinery::to_value(&status).expect("a status encodes");
        plan.act(Action::update_status(POD_DISRUPTION_BUDGETS, &budget.metadata, status));
    }
    plan
}

/// Evictions of a pod with several budgets are refused; the first of these tells.
fn tell_of_rivals(budget: &PodDisruptionBudget, world: &World, plan: &mut Plan) {
    for pod in &world.pods {
        let mut selecting = world.budgets.iter().filter(|other| other.selects(&pod.metadata));
        let first = selecting.next().map(|first| &first.metadata.name);
        if first == Some(&budget.metadata.name) && selecting.next().is_some() {
            let message = format!(
                "Pod {:?}/{:?} matches multiple PodDisruptionBudgets.  Chose {:?} arbitrarily.",
                pod.metadata.namespace, pod.metadata.name, budget.metadata.name
            );
            let regarding = reference(PODS, &pod.metadata);
            plan.events.push(Event::warning(regarding, "MultiplePodDisruptionBudgets", message));
        }
    }
}

struct Expectation {
    pods: i32,
    healthy: i32,
    /// Pods without a controller count for no scale.
    has_unmanaged: bool,
}

/// Upstream: `getExpectedPodCount`.
fn expectation(budget: &PodDisruptionBudget, world: &World) -> Result<Expectation, String> {
    let share = |of: &IntOrString, total: i32| of.scaled(total, Round::Up).map_err(|error| error.to_string());
    match (&budget.spec.max_unavailable, &budget.spec.min_available) {
        (Some(max_unavailable), _) => {
            let (pods, has_unmanaged) = expected_scale(world)?;
            let healthy = (pods - share(max_unavailable, pods)?).max(0);
            Ok(Expectation { pods, healthy, has_unmanaged })
        }
        (None, Some(IntOrString::Int(healthy))) => {
            Ok(Expectation { pods: world.pods.len() as i32, healthy: *healthy, has_unmanaged: false })
        }
        (None, Some(min_available)) => {
            let (pods, has_unmanaged) = expected_scale(world)?;
            Ok(Expectation { pods, healthy: share(min_available, pods)?, has_unmanaged })
        }
        (None, None) => Ok(Expectation { pods: 0, healthy: 0, has_unmanaged: false }),
    }
}

/// The sum of what the pods' owners want, and whether there are pods without one.
fn expected_scale(world: &World) -> Result<(i32, bool), String> {
    let mut wanted = BTreeMap::new();
    let mut has_unmanaged = false;
    for pod in &world.pods {
        let Some(owner) = pod.metadata.controller() else {
            has_unmanaged = true;
            continue;
        };
        match world.scales.get(&owner.uid) {
            Some(Ok(Some(scaled))) => {
                wanted.insert(&scaled.uid, scaled.replicas);
            }
            Some(Err(error)) => return Err(error.clone()),
            Some(Ok(None)) | None => {
                return Err(format!("found no controllers for pod {:?}", pod.metadata.name));
            }
        }
    }
    Ok((wanted.values().sum(), has_unmanaged))
}

/// The evictions that were granted and have neither begun nor been given up (upstream: `buildDisruptedPodMap`).
fn disrupted_pods(
    budget: &PodDisruptionBudget,
    world: &World,
    now: Timestamp,
    plan: &mut Plan,
) -> BTreeMap<String, Timestamp> {
    let mut disrupted = BTreeMap::new();
    for pod in world.pods.iter().filter(|pod| !pod.metadata.is_being_deleted()) {
        let Some(since) = budget.status.disrupted_pods.get(&pod.metadata.name) else { continue };
        let until = since.saturating_add(DELETION_TIMEOUT).unwrap_or(Timestamp::MAX);
        if until < now {
            let namespace = &budget.metadata.namespace;
            // The name of the namespace twice, as upstream has it.
            let message =
                format!("Pod was expected by PDB {namespace}/{namespace} to be deleted but it wasn't");
            plan.events.push(Event::warning(reference(PODS, &pod.metadata), "NotDeleted", message));
        } else {
            plan.requeue(until);
            disrupted.insert(pod.metadata.name.clone(), *since);
        }
    }
    disrupted
}

fn status(
    budget: &PodDisruptionBudget,
    world: &World,
    expected: &Expectation,
    disrupted_pods: BTreeMap<String, Timestamp>,
    now: Timestamp,
) -> PodDisruptionBudgetStatus {
    let is_healthy = |pod: &&Arc<Pod>| {
        !pod.metadata.is_being_deleted() && !disrupted_pods.contains_key(&pod.metadata.name) && pod.is_ready()
    };
    let current_healthy = world.pods.iter().filter(is_healthy).count() as i32;
    // Without expected pods a first pod would be fair game before it is counted.
    let spare = if expected.pods > 0 { current_healthy - expected.healthy } else { 0 };
    let disruptions_allowed = spare.max(0);
    let mut status = PodDisruptionBudgetStatus {
        observed_generation: budget.metadata.generation,
        disrupted_pods,
        disruptions_allowed,
        current_healthy,
        desired_healthy: expected.healthy,
        expected_pods: expected.pods,
        conditions: budget.status.conditions.clone(),
    };
    status.note_disruptions_allowed(now);
    status
}

/// When it cannot be told how many pods may go, none may (upstream: `failSafe`).
fn failed_status(budget: &PodDisruptionBudget, error: &str, now: Timestamp) -> PodDisruptionBudgetStatus {
    let mut status = PodDisruptionBudgetStatus { disruptions_allowed: 0, ..budget.status.clone() };
    status.note("False", "SyncFailed", error, now);
    status
}

fn unmanaged(selector: Option<&LabelSelector>) -> String {
    format!(
        "Pods selected by this PodDisruptionBudget (selector: {}) were found to be unmanaged. As a result, the status of \
         the PDB cannot be calculated correctly, which may result in undefined behavior. To account for these pods \
         please set \".spec.minAvailable\" field of the PDB to an integer value.",
        shown(selector)
    )
}

/// As Go prints a pointer to a selector.
fn shown(selector: Option<&LabelSelector>) -> String {
    let Some(selector) = selector else { return "nil".to_owned() };
    let labels: String =
        selector.match_labels.iter().map(|(key, value)| format!("{key}: {value},")).collect();
    let expressions = selector.match_expressions.iter().map(|expression| {
        let values = expression.values.join(" ");
        let (key, operator) = (&expression.key, &expression.operator);
        format!("LabelSelectorRequirement{{Key:{key},Operator:{operator},Values:[{values}],}},")
    });
    let expressions: String = expressions.collect();
    format!(
        "&LabelSelector{{MatchLabels:map[string]string{{{labels}}},MatchExpressions:[]LabelSelectorRequirement{{{expressions}}},}}"
    )
}
