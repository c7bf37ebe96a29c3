//! The size that one metric asks for, and its status (follows `computeReplicasForMetric`).

use api::view::autoscaling::{
    CrossVersionObjectReference, CustomMetricSource, MetricSpec, MetricTarget, ResourceMetricSource,
};
use apimachinery::quantity::{Format, Quantity};
use apimachinery::{Value, json};

use crate::podautoscaler::metrics::{Reading, Samples};
use crate::podautoscaler::replicas::{
    Answer, Context, by_average, by_utilization, by_value, by_value_per_pod,
};

#[derive(Clone, Debug)]
pub struct Proposal {
    pub replicas: i32,
    /// What events and conditions call the metric.
    pub name: String,
    /// A MetricStatus.
    pub status: Value,
}

/// Why a metric asks for nothing.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub reason: &'static str,
    pub error: String,
    /// With what was tried.
    pub whole_error: String,
}

/// `status_replicas` is how many pods the target says to have.
pub fn propose(
    context: Context<'_>,
    status_replicas: i32,
    metric: &MetricSpec,
    reading: &Result<Reading, String>,
) -> Result<Proposal, Refusal> {
    let (reason, tried, proposal) = match metric {
        MetricSpec { resource: Some(source), .. } => (
            "FailedGetResourceMetric",
            format!("failed to get {} resource metric value", source.name),
            of_resource(context, source, reading),
        ),
        MetricSpec { container_resource: Some(source), .. } => (
            "FailedGetContainerResourceMetric",
            format!("failed to get {} container metric value", source.container),
            of_resource(context, source, reading),
        ),
        MetricSpec { pods: Some(source), .. } => (
            "FailedGetPodsMetric",
            "failed to get pods metric value".to_owned(),
            of_pods(context, source, reading),
        ),
        MetricSpec { object: Some(source), .. } => (
            "FailedGetObjectMetric",
            "failed to get object metric value".to_owned(),
            of_object(context, status_replicas, source, reading),
        ),
        MetricSpec { external: Some(source), .. } => (
            "FailedGetExternalMetric",
            format!("failed to get {} external metric value", source.metric.name),
            external(context, status_replicas, source, reading),
        ),
        unknown => {
            let error = format!("unknown metric source type {:?}", unknown.kind);
            return Err(Refusal { reason: "InvalidMetricSourceType", whole_error: error.clone(), error });
        }
    };
    proposal.map_err(|error| Refusal { reason, whole_error: format!("{tried}: {error}"), error })
}

fn of_resource(
    context: Context<'_>,
    source: &ResourceMetricSource,
    reading: &Result<Reading, String>,
) -> Result<Proposal, String> {
    let ResourceMetricSource { name, container, target } = source;
    let is_of_container = !container.is_empty();
    let (answer, what) = match target {
        MetricTarget { average_value: Some(value), .. } => {
            let answer =
                samples(reading).and_then(|samples| by_average(context, samples, name, value.milli_value()));
            (answer.map_err(|error| format!("failed to get {name} usage: {error}"))?, "resource".to_owned())
        }
        MetricTarget { average_utilization: Some(percent), .. } => {
            let answer = samples(reading)
                .and_then(|samples| by_utilization(context, samples, name, container, *percent))
                .map_err(|error| format!("failed to get {name} utilization: {error}"))?;
            let kind = if is_of_container { "container resource" } else { "resource" };
            (answer, format!("{kind} utilization (percentage of request)"))
        }
        _ => {
            return Err(
                "invalid resource metric source: neither an average utilization target nor an average value \
                        (usage) target was set"
                    .to_owned(),
            );
        }
    };
    let format = if name == "memory" { Format::BinarySi } else { Format::DecimalSi };
    let mut current = json!({"averageValue": Quantity::from_milli(answer.usage, format)});
    if let Some(utilization) = answer.utilization {
        current["averageUtilization"] = utilization.into();
    }
    let status = if is_of_container {
        json!({"type": "ContainerResource",
               "containerResource": {"name": name, "container": container, "current": current}})
    } else {
        json!({"type": "Resource", "resource": {"name": name, "current": current}})
    };
    Ok(Proposal { replicas: answer.replicas, name: format!("{name} {what}"), status })
}

fn of_pods(
    context: Context<'_>,
    source: &CustomMetricSource,
    reading: &Result<Reading, String>,
) -> Result<Proposal, String> {
    let target = source.target.average_value.unwrap_or_default().milli_value();
    let answer = by_average(context, samples(reading)?, "", target)?;
    let current = json!({"averageValue": milli(answer)});
    let status = json!({"type": "Pods", "pods": {"metric": source.metric, "current": current}});
    Ok(Proposal { replicas: answer.replicas, name: format!("pods metric {}", source.metric.name), status })
}

fn of_object(
    context: Context<'_>,
    status_replicas: i32,
    source: &CustomMetricSource,
    reading: &Result<Reading, String>,
) -> Result<Proposal, String> {
    let CustomMetricSource { metric, target, described_object } = source;
    let CrossVersionObjectReference { kind, .. } = described_object;
    let (answer, field, name) = match (target.kind.as_str(), &target.value, &target.average_value) {
        ("Value", Some(target), _) => {
            let answer = by_value(context, value(reading)?, target.milli_value())?;
            (answer, "value", format!("{kind} metric {}", metric.name))
        }
        ("AverageValue", _, Some(target)) => {
            let value = value(reading)
                .map_err(|error| format!("failed to get {} object metric: {error}", metric.name))?;
            let answer = by_value_per_pod(context.tolerances, status_replicas, value, target.milli_value());
            (answer, "averageValue", external_name(source))
        }
        _ => {
            return Err(
                "invalid object metric source: neither a value target nor an average value target was set"
                    .to_owned(),
            );
        }
    };
    let status = json!({"type": "Object", "object": {
        "metric": metric, "describedObject": described_object, "current": {field: milli(answer)},
    }});
    Ok(Proposal { replicas: answer.replicas, name, status })
}

fn external(
    context: Context<'_>,
    status_replicas: i32,
    source: &CustomMetricSource,
    reading: &Result<Reading, String>,
) -> Result<Proposal, String> {
    let CustomMetricSource { metric, target, .. } = source;
    let (answer, field) = match (&target.average_value, &target.value) {
        (Some(target), _) => {
            let value = value(reading)
                .map_err(|error| format!("failed to get {} external metric: {error}", metric.name))?;
            (
                by_value_per_pod(context.tolerances, status_replicas, value, target.milli_value()),
                "averageValue",
            )
        }
        (None, Some(target)) => {
            let answer = value(reading).and_then(|value| by_value(context, value, target.milli_value()));
            (
                answer.map_err(|error| format!("failed to get external metric {}: {error}", metric.name))?,
                "value",
            )
        }
        (None, None) => {
            return Err(
                "invalid external metric source: neither a value target nor an average value target was set"
                    .to_owned(),
            );
        }
    };
    let status =
        json!({"type": "External", "external": {"metric": metric, "current": {field: milli(answer)}}});
    Ok(Proposal { replicas: answer.replicas, name: external_name(source), status })
}

fn external_name(source: &CustomMetricSource) -> String {
    let selector = source.metric.selector.as_ref().map_or("nil".to_owned(), ToString::to_string);
    format!("external metric {}({selector})", source.metric.name)
}

fn milli(answer: Answer) -> Quantity {
    Quantity::from_milli(answer.usage, Format::DecimalSi)
}

fn samples(reading: &Result<Reading, String>) -> Result<&Samples, String> {
    match reading {
        Ok(Reading::Pods(samples)) => Ok(samples),
        Ok(Reading::Value(_)) => Err("the metric is not one of pods".to_owned()),
        Err(error) => Err(error.clone()),
    }
}

fn value(reading: &Result<Reading, String>) -> Result<i64, String> {
    match reading {
        Ok(Reading::Value(value)) => Ok(*value),
        Ok(Reading::Pods(_)) => Err("the metric is one of pods".to_owned()),
        Err(error) => Err(error.clone()),
    }
}
