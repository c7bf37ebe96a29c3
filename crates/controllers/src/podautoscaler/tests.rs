//! Autoscalers against targets, pods and metrics.

use std::sync::Arc;

use api::resource::{DEPLOYMENTS, HORIZONTAL_POD_AUTOSCALERS};
use api::view::autoscaling::HorizontalPodAutoscaler;
use api::view::core::Pod;
use apimachinery::{Value, json};
use jiff::SignedDuration;
use proptest::prelude::*;

use super::history::History;
use super::metrics::{Reading, Sample};
use super::normalize::{Bounds, normalize};
use super::reconcile::{Target, World, reconcile};
use crate::plan::{Action, Plan};
use crate::scale::{Scale, ScaleSpec, ScaleStatus};
use crate::testing::{Cluster, at};

fn cpu(percent: i32) -> Value {
    json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": percent}}}])
}

fn autoscaler(metrics: Value, behavior: Value) -> Value {
    let mut spec = json!({"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": 1, "maxReplicas": 10, "metrics": metrics});
    if !behavior.is_null() {
        spec["behavior"] = behavior;
    }
    json!({"metadata": {"name": "h", "namespace": "a"}, "spec": spec})
}

fn pod(index: usize) -> Arc<Pod> {
    let pod = json!({"metadata": {"name": format!("p{index}"), "namespace": "a"},
        "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}}]},
        "status": {"phase": "Running", "startTime": at(-3600).to_string(),
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(-3500).to_string()}]}});
    Arc::new(apimachinery::from_value(pod).expect("a pod"))
}

fn target(replicas: i32) -> Result<Target, String> {
    let status = ScaleStatus { replicas, selector: "app=web".into() };
    let scale = Scale { spec: ScaleSpec { replicas }, status, ..Scale::default() };
    Ok(Target { resource: DEPLOYMENTS, scale })
}

/// Pods of which each used so many thousandths of a CPU; without a number it has no metric.
fn world(usage: &[Option<i64>]) -> World {
    let sample = |value| Sample { value, timestamp: at(0), window: SignedDuration::from_secs(30) };
    let samples =
        usage.iter().enumerate().filter_map(|(n, value)| Some((format!("p{n}"), sample((*value)?))));
    World {
        target: target(usage.len() as i32),
        pods: (0..usage.len()).map(pod).collect(),
        rivals: Vec::new(),
        readings: vec![Ok(Reading::Pods(samples.collect()))],
        failure: None,
    }
}

struct Decided {
    size: Option<i64>,
    status: Value,
    told: Vec<(String, String)>,
}

fn decide(object: Value, world: &World, history: &mut History) -> (Decided, Plan) {
    let mut cluster = Cluster::new();
    cluster.create(HORIZONTAL_POD_AUTOSCALERS, object);
    let view = cluster.get::<HorizontalPodAutoscaler>("a", "h").expect("it is there");
    let plan = reconcile(&view, world, history, cluster.now);
    let size = plan.steps.iter().find_map(|step| match &step.action {
        Action::Update { subresource: Some("scale"), object, .. } => object["spec"]["replicas"].as_i64(),
        _ => None,
    });
    let status = plan.steps.iter().find_map(|step| match &step.action {
        Action::Update { subresource: Some("status"), object, .. } => Some(object["status"].clone()),
        _ => None,
    });
    let told = plan.events.iter().map(|event| (event.reason.to_owned(), event.message.clone())).collect();
    (Decided { size, status: status.unwrap_or_default(), told }, plan)
}

fn check(metrics: Value, world: &World, expect: Option<i64>) -> Decided {
    let (decided, _) = decide(autoscaler(metrics, Value::Null), world, &mut History::default());
    assert_eq!(decided.size, expect, "{}", decided.status);
    decided
}

fn condition<'a>(decided: &'a Decided, kind: &str) -> (&'a str, &'a str) {
    let all = decided.status["conditions"].as_array().expect("conditions");
    let found = all.iter().find(|condition| condition["type"] == kind).expect("the condition");
    (found["status"].as_str().expect("a status"), found["reason"].as_str().expect("a reason"))
}

#[test]
fn usage_above_the_target_adds_pods_and_below_takes_them_away() {
    let up = check(cpu(50), &world(&[Some(100), Some(80)]), Some(4));
    assert_eq!(up.status["desiredReplicas"], 4);
    assert_eq!(up.status["currentReplicas"], 2);
    let current = json!({"averageUtilization": 90, "averageValue": "90m"});
    assert_eq!(
        up.status["currentMetrics"],
        json!([{"type": "Resource", "resource": {"name": "cpu", "current": current}}])
    );
    assert_eq!(condition(&up, "AbleToScale"), ("True", "SucceededRescale"));
    assert_eq!(condition(&up, "ScalingActive"), ("True", "ValidMetricFound"));
    assert_eq!(condition(&up, "ScalingLimited"), ("False", "DesiredWithinRange"));
    // The size it began with is younger than five minutes.
    let down = check(cpu(50), &world(&[Some(10), Some(20), Some(10), Some(20)]), None);
    assert_eq!(condition(&down, "AbleToScale"), ("True", "ScaleDownStabilized"));
    let near = check(cpu(50), &world(&[Some(52), Some(50)]), None);
    assert_eq!(condition(&near, "AbleToScale"), ("True", "ReadyForNewScale"));
}

#[test]
fn growth_is_limited_by_pace_and_size() {
    let pace = check(cpu(10), &world(&[Some(100); 3]), Some(6));
    assert_eq!(condition(&pace, "ScalingLimited"), ("True", "ScaleUpLimit"));
    let size = check(cpu(10), &world(&[Some(100); 6]), Some(10));
    assert_eq!(condition(&size, "ScalingLimited"), ("True", "TooManyReplicas"));
    let mut above = world(&[]);
    above.target = target(12);
    check(cpu(50), &above, Some(10));
}

#[test]
fn pods_without_a_metric_change_as_little_as_possible() {
    // Three at 90 % would ask for six; with the fourth at nothing, five.
    check(cpu(50), &world(&[Some(90), Some(90), Some(90), None]), Some(6));
    check(cpu(50), &world(&[Some(60), Some(60), None, None]), None);
    check(cpu(50), &world(&[None, None]), None);
}

#[test]
fn an_average_value_needs_no_requests() {
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "20m"}}}]);
    let decided = check(metrics, &world(&[Some(40), Some(20)]), Some(3));
    let current = &decided.status["currentMetrics"][0]["resource"]["current"];
    assert_eq!(*current, json!({"averageValue": "30m"}));
}

#[test]
fn values_of_objects_and_from_outside_count_for_all_pods_together() {
    let mut world = world(&[Some(0), Some(0)]);
    world.readings = vec![Ok(Reading::Value(9_000))];
    let external = |target: Value| json!([{"type": "External", "external": {"metric": {"name": "m"}, "target": target}}]);
    check(external(json!({"type": "Value", "value": "6"})), &world, Some(3));
    check(external(json!({"type": "AverageValue", "averageValue": "3"})), &world, Some(3));
    let object = json!([{"type": "Object", "object": {"metric": {"name": "m"}, "target": {"type": "Value", "value": "6"},
        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "s"}}}]);
    check(object, &world, Some(3));
}

#[test]
fn without_metrics_nothing_is_done_and_people_are_told() {
    let mut world = world(&[Some(1), Some(1)]);
    world.readings = vec![Err("unable to get metrics for resource cpu: no".into())];
    let decided = check(cpu(50), &world, None);
    assert_eq!(condition(&decided, "ScalingActive"), ("False", "FailedGetResourceMetric"));
    let error = "failed to get cpu utilization: unable to get metrics for resource cpu: no";
    let whole = format!(
        "invalid metrics (1 invalid out of 1), first error is: failed to get cpu resource metric value: {error}"
    );
    let expect = [("FailedGetResourceMetric", error), ("FailedComputeMetricsReplicas", &whole)];
    assert_eq!(decided.told, expect.map(|(reason, message)| (reason.to_owned(), message.to_owned())));
}

#[test]
fn a_target_that_is_not_there_or_not_running_is_left_alone() {
    let gone = World { target: Err("no".into()), ..World::default() };
    let decided = check(cpu(50), &gone, None);
    assert_eq!(condition(&decided, "AbleToScale"), ("False", "FailedGetScale"));
    let off = World { target: target(0), ..World::default() };
    let decided = check(cpu(50), &off, None);
    assert_eq!(condition(&decided, "ScalingActive"), ("False", "ScalingDisabled"));
}

#[test]
fn two_autoscalers_of_the_same_pods_do_nothing() {
    let mut world = world(&[Some(100)]);
    let key = |name: &str| crate::controller::Key::new("a", name);
    world.rivals = vec![key("h"), key("i")];
    let decided = check(cpu(50), &world, None);
    assert_eq!(condition(&decided, "ScalingActive"), ("False", "AmbiguousSelector"));
    assert!(decided.told[0].1.ends_with("multiple HPAs: [{h a} {i a}]"), "{:?}", decided.told);
}

#[test]
fn behavior_bounds_the_change_of_a_period() {
    let behavior = json!({"scaleUp": {"stabilizationWindowSeconds": 0, "selectPolicy": "Max",
        "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}});
    let mut history = History::default();
    let (first, _) = decide(autoscaler(cpu(10), behavior.clone()), &world(&[Some(100); 2]), &mut history);
    assert_eq!(first.size, Some(3));
    history.settle(true);
    let (second, _) = decide(autoscaler(cpu(10), behavior), &world(&[Some(100); 3]), &mut history);
    assert_eq!(second.size, None);
    assert_eq!(condition(&second, "ScalingLimited"), ("True", "ScaleUpLimit"));
}

proptest! {
    #[test]
    fn a_size_is_within_its_bounds_and_moves_towards_what_is_wished(
        current in 1_i32..20, desired in 0_i32..40, max in 5_i32..20, with_behavior in any::<bool>(),
    ) {
        let current = current.min(max);
        let bounds = Bounds { current, min: 1, max };
        let behavior = with_behavior.then(Default::default);
        let mut history = History::default();
        let normalized = normalize(behavior.as_ref(), &mut history, bounds, desired, at(0));
        prop_assert!((1..=max).contains(&normalized.replicas));
        prop_assert!((normalized.replicas - current).signum() * (desired - current).signum() >= 0);
    }
}
