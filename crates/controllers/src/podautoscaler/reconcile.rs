//! From an autoscaler, its target's size and its metrics to a new size and its status (follows `reconcileAutoscaler`).

use std::sync::Arc;

use api::resource::{HORIZONTAL_POD_AUTOSCALERS, Resource};
use api::view::autoscaling::{HorizontalPodAutoscaler, HorizontalPodAutoscalerStatus};
use api::view::condition;
use api::view::core::Pod;
use apimachinery::labels;
use apimachinery::meta::Condition;
use apimachinery::{Value, json};
use jiff::{SignedDuration, Timestamp};

use super::history::History;
use super::metrics::Reading;
use super::normalize::{Bounds, normalize};
use super::replicas::{Context, Tolerances};
use crate::controller::Key;
use crate::plan::{Action, ERROR, Event, Plan, Step, reference};
use crate::scale::Scale;

mod proposal;

use proposal::{Proposal, Refusal};

/// Upstream: `--horizontal-pod-autoscaler-sync-period`.
const SYNC_PERIOD: SignedDuration = SignedDuration::from_secs(15);
/// Upstream: `--horizontal-pod-autoscaler-tolerance`.
const TOLERANCE: f64 = 0.1;

const ABLE_TO_SCALE: &str = "AbleToScale";
const SCALING_ACTIVE: &str = "ScalingActive";
const SCALING_LIMITED: &str = "ScalingLimited";

/// What an autoscaler sizes.
#[derive(Clone, Debug)]
pub struct Target {
    pub resource: Resource,
    pub scale: Scale,
}

#[derive(Clone, Debug)]
pub struct World {
    pub target: Result<Target, String>,
    /// Those that the target's scale selects.
    pub pods: Vec<Arc<Pod>>,
    /// All autoscalers that are about these pods.
    pub rivals: Vec<Key>,
    /// What each of the metrics says, where `needs_metrics`.
    pub readings: Vec<Result<Reading, String>>,
    /// Why the target could not be sized last time.
    pub failure: Option<String>,
}

impl Default for World {
    fn default() -> Self {
        World {
            target: Err(String::new()),
            pods: Vec::new(),
            rivals: Vec::new(),
            readings: Vec::new(),
            failure: None,
        }
    }
}

fn min_replicas(autoscaler: &HorizontalPodAutoscaler) -> i32 {
    autoscaler.spec.min_replicas.unwrap_or(1)
}

/// Whether the size is not decided by the limits alone.
pub fn needs_metrics(autoscaler: &HorizontalPodAutoscaler, scale: &Scale) -> bool {
    let current = scale.spec.replicas;
    current != 0 && current <= autoscaler.spec.max_replicas && current >= min_replicas(autoscaler)
}

pub fn reconcile(
    autoscaler: &HorizontalPodAutoscaler,
    world: &World,
    history: &mut History,
    now: Timestamp,
) -> Plan {
    let mut draft = Draft {
        autoscaler,
        status: autoscaler.status.clone(),
        now,
        plan: Plan { requeue_at: now.checked_add(SYNC_PERIOD).ok(), ..Plan::default() },
    };
    match &world.target {
        Ok(target) => draft.size(target, world, history),
        Err(error) => {
            draft.warn("FailedGetScale", error.clone());
            let message = format!("the HPA controller was unable to get the target's current scale: {error}");
            draft.note(ABLE_TO_SCALE, "False", "FailedGetScale", &message);
            draft.write_status();
        }
    }
    draft.plan
}

struct Draft<'a> {
    autoscaler: &'a HorizontalPodAutoscaler,
    status: HorizontalPodAutoscalerStatus,
    now: Timestamp,
    plan: Plan,
}

impl Draft<'_> {
    fn size(&mut self, target: &Target, world: &World, history: &mut History) {
        let current = target.scale.spec.replicas;
        let message = "the HPA controller was able to get the target's current scale";
        self.note(ABLE_TO_SCALE, "True", "SucceededGetScale", message);
        history.begin(current, self.now);
        let (min, max) = (min_replicas(self.autoscaler), self.autoscaler.spec.max_replicas);
        let mut statuses = None;
        let (desired, reason) = if current == 0 {
            let message = "scaling is disabled since the replica count of the target is zero";
            self.note(SCALING_ACTIVE, "False", "ScalingDisabled", message);
            (current, String::new())
        } else if current > max {
            (max, "Current number of replicas above Spec.MaxReplicas".to_owned())
        } else if current < min {
            (min, "Current number of replicas below Spec.MinReplicas".to_owned())
        } else {
            let (measured, proposed) = self.by_metrics(target, world);
            statuses = measured;
            let Some(proposal) = proposed else {
                self.set_sizes(current, self.status.desired_replicas, statuses);
                return self.write_status();
            };
            self.normalized(&proposal, Bounds { current, min, max }, history)
        };
        if desired != current {
            self.rescale(target, desired, &reason, world.failure.as_deref());
            if self.autoscaler.spec.behavior.is_some() {
                history.plan_change(desired - current, self.now);
            }
            self.status.last_scale_time = Some(self.now);
        }
        self.set_sizes(current, desired, statuses);
        self.write_status();
    }

    /// The largest size that a metric asks for, unless too little is known; and the metrics' status.
    fn by_metrics(&mut self, target: &Target, world: &World) -> (Option<Vec<Value>>, Option<Proposal>) {
        if let Err((event, error, shown)) = check_selector(&target.scale.status.selector, &world.rivals) {
            self.warn(event, error.clone());
            let reason = if event == "AmbiguousSelector" { event } else { "InvalidSelector" };
            self.note(SCALING_ACTIVE, "False", reason, &shown);
            self.warn("FailedComputeMetricsReplicas", error);
            return (None, None);
        }
        let context = Context {
            pods: &world.pods,
            current_replicas: target.scale.spec.replicas,
            tolerances: tolerances(self.autoscaler),
            now: self.now,
        };
        let metrics = &self.autoscaler.spec.metrics;
        let mut statuses = Vec::new();
        let mut best: Option<Proposal> = None;
        let mut refusals: Vec<Refusal> = Vec::new();
        for (metric, reading) in metrics.iter().zip(&world.readings) {
            match proposal::propose(context, target.scale.status.replicas, metric, reading) {
                Ok(proposal) => {
                    statuses.push(proposal.status.clone());
                    if best
                        .as_ref()
                        .is_none_or(|best| best.replicas == 0 || proposal.replicas > best.replicas)
                    {
                        best = Some(proposal);
                    }
                }
                Err(refusal) => {
                    statuses.push(json!({"type": ""}));
                    refusals.push(refusal);
                }
            }
        }
        for refusal in &refusals {
            self.warn(refusal.reason, refusal.error.clone());
        }
        // A metric that is missing might have asked for more.
        let best = best.filter(|best| refusals.is_empty() || best.replicas >= context.current_replicas);
        match (&best, refusals.first()) {
            (Some(best), _) => {
                let message =
                    format!("the HPA was able to successfully calculate a replica count from {}", best.name);
                self.note(SCALING_ACTIVE, "True", "ValidMetricFound", &message);
            }
            (None, Some(first)) => {
                let message = format!("the HPA was unable to compute the replica count: {}", first.error);
                self.note(SCALING_ACTIVE, "False", first.reason, &message);
                let (invalid, all) = (refusals.len(), metrics.len());
                let error = &first.whole_error;
                let message =
                    format!("invalid metrics ({invalid} invalid out of {all}), first error is: {error}");
                self.warn("FailedComputeMetricsReplicas", message);
            }
            (None, None) => {}
        }
        (Some(statuses), best)
    }

    /// The size within all limits, and why it changes.
    fn normalized(&mut self, proposal: &Proposal, bounds: Bounds, history: &mut History) -> (i32, String) {
        let wanted = proposal.replicas;
        let reason = match wanted.cmp(&bounds.current) {
            std::cmp::Ordering::Greater => format!("{} above target", proposal.name),
            std::cmp::Ordering::Less => "All metrics below target".to_owned(),
            std::cmp::Ordering::Equal => String::new(),
        };
        let behavior = self.autoscaler.spec.behavior.as_ref();
        let normalized = normalize(behavior, history, bounds, wanted, self.now);
        self.note(ABLE_TO_SCALE, "True", normalized.stabilized.0, normalized.stabilized.1);
        let limited = if normalized.is_limited { "True" } else { "False" };
        self.note(SCALING_LIMITED, limited, normalized.limited.0, normalized.limited.1);
        (normalized.replicas, reason)
    }

    fn rescale(&mut self, target: &Target, desired: i32, reason: &str, failure: Option<&str>) {
        let meta = &target.scale.metadata;
        let object = json!({
            "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": meta, "spec": {"replicas": desired},
        });
        let regarding = reference(HORIZONTAL_POD_AUTOSCALERS, &self.autoscaler.metadata);
        let told = format!("New size: {desired}; reason: {reason}");
        let failed = format!("{told}; error: {ERROR}");
        if let Some(failure) = failure {
            // Shown before it is tried again: of what fails nothing after it is carried out.
            let message = format!("the HPA controller was unable to update the target scale: {failure}");
            self.note(ABLE_TO_SCALE, "False", "FailedUpdateScale", &message);
            self.write_status();
        }
        self.plan.steps.push(Step {
            action: Action::Update {
                resource: target.resource,
                namespace: meta.namespace.clone(),
                name: meta.name.clone(),
                subresource: Some("scale"),
                object,
            },
            done: Some(Event::normal(regarding.clone(), "SuccessfulRescale", told)),
            failed: Some(Event::warning(regarding, "FailedRescale", failed)),
        });
        let message = format!("the HPA controller was able to update the target scale to {desired}");
        self.note(ABLE_TO_SCALE, "True", "SucceededRescale", &message);
    }

    fn set_sizes(&mut self, current: i32, desired: i32, metrics: Option<Vec<Value>>) {
        self.status = HorizontalPodAutoscalerStatus {
            observed_generation: None,
            last_scale_time: self.status.last_scale_time,
            current_replicas: current,
            desired_replicas: desired,
            current_metrics: metrics,
            conditions: std::mem::take(&mut self.status.conditions),
        };
    }

    /// One write of the status in a plan: a second would be stale.
    fn write_status(&mut self) {
        let is_written = |step: &Step| step.action.resource() == HORIZONTAL_POD_AUTOSCALERS;
        if self.status != self.autoscaler.status && !self.plan.steps.iter().any(is_written) {
            let status = apimachinery::to_value(&self.status).expect("a status encodes");
            self.plan.act(Action::update_status(
                HORIZONTAL_POD_AUTOSCALERS,
                &self.autoscaler.metadata,
                status,
            ));
        }
    }

    fn warn(&mut self, reason: &'static str, message: String) {
        let regarding = reference(HORIZONTAL_POD_AUTOSCALERS, &self.autoscaler.metadata);
        self.plan.events.push(Event::warning(regarding, reason, message));
    }

    fn note(&mut self, kind: &str, status: &str, reason: &str, message: &str) {
        let noted = Condition {
            kind: kind.into(),
            status: status.into(),
            reason: reason.into(),
            message: message.into(),
            ..Condition::default()
        };
        condition::set(&mut self.status.conditions, noted, self.now);
    }
}

/// Of what is wrong with the selector: the event's reason, the error, and what the condition says.
fn check_selector(selector: &str, rivals: &[Key]) -> Result<(), (&'static str, String, String)> {
    if selector.is_empty() {
        let shown = "the HPA target's scale is missing a selector".to_owned();
        return Err(("SelectorRequired", "selector is required".to_owned(), shown));
    }
    if let Err(error) = labels::parse(selector) {
        let error =
            format!("couldn't convert selector into a corresponding internal selector object: {error}");
        return Err(("InvalidSelector", error.clone(), error));
    }
    if rivals.len() > 1 {
        let names: Vec<String> =
            rivals.iter().map(|key| format!("{{{} {}}}", key.name, key.namespace)).collect();
        let error =
            format!("pods by selector {selector} are controlled by multiple HPAs: [{}]", names.join(" "));
        return Err(("AmbiguousSelector", error.clone(), error));
    }
    Ok(())
}

fn tolerances(autoscaler: &HorizontalPodAutoscaler) -> Tolerances {
    let behavior = autoscaler.spec.behavior.clone().unwrap_or_default();
    let of = |rules: Option<api::view::autoscaling::ScalingRules>| {
        rules.and_then(|rules| rules.tolerance).map_or(TOLERANCE, |tolerance| tolerance.as_f64())
    };
    Tolerances { down: of(behavior.scale_down), up: of(behavior.scale_up) }
}
