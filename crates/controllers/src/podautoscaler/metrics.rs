//! Reads what pods use from the metrics APIs (follows upstream's `podautoscaler/metrics`). Amounts are in thousandths.

use std::collections::BTreeMap;

use api::view::autoscaling::{CustomMetricSource, MetricIdentifier, MetricSpec, ResourceMetricSource};
use apimachinery::GroupVersion;
use apimachinery::labels::Selector;
use apimachinery::meta::{LabelSelector, ObjectMeta};
use apimachinery::quantity::Quantity;
use apimachinery::time::{parse_duration, parse_time};
use client::Client;
use client::request::escape;
use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::scale;

const RESOURCE_METRICS: &str = "/apis/metrics.k8s.io/v1beta1";
const CUSTOM_METRICS: &str = "/apis/custom.metrics.k8s.io";
const EXTERNAL_METRICS: &str = "/apis/external.metrics.k8s.io/v1beta1";
/// The versions of the custom metrics API, the better one first.
const CUSTOM_VERSIONS: [&str; 2] = ["v1beta2", "v1beta1"];
/// Upstream: `metricServerDefaultMetricWindow`.
const WINDOW_DEFAULT: SignedDuration = SignedDuration::from_mins(1);

/// What one pod used.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    pub value: i64,
    pub timestamp: Timestamp,
    /// The time over which it was measured.
    pub window: SignedDuration,
}

/// By the pods' names.
pub type Samples = BTreeMap<String, Sample>;

/// What a metric says.
#[derive(Clone, Debug, PartialEq)]
pub enum Reading {
    Pods(Samples),
    /// Of an object, or outside of the cluster.
    Value(i64),
}

/// Reads one metric for the pods that `selector` selects; an error is told in upstream's words.
pub async fn read(
    client: &Client,
    namespace: &str,
    selector: &str,
    metric: &MetricSpec,
) -> Result<Reading, String> {
    match (&metric.resource, &metric.container_resource, &metric.pods, &metric.object, &metric.external) {
        (Some(source), ..) | (None, Some(source), ..) => {
            let samples = of_resource(client, namespace, selector, source).await;
            samples.map_err(|error| format!("unable to get metrics for resource {}: {error}", source.name))
        }
        (None, None, Some(source), ..) => {
            let samples = of_pods(client, namespace, selector, &source.metric).await;
            samples.map_err(|error| format!("unable to get metric {}: {error}", source.metric.name))
        }
        (None, None, None, Some(source), _) => {
            let CustomMetricSource { metric, described_object: object, .. } = source;
            let value = of_object(client, namespace, source).await;
            value.map_err(|error| {
                format!(
                    "unable to get metric {}: {error} on {} {namespace}/{}",
                    metric.name, object.kind, object.name
                )
            })
        }
        (None, None, None, None, Some(source)) => {
            let value = external(client, namespace, &source.metric).await;
            value.map_err(|error| {
                let selector = source.metric.selector.as_ref().map_or("nil".to_owned(), ToString::to_string);
                format!(
                    "unable to get external metric {namespace}/{}/{selector}: {error}",
                    source.metric.name
                )
            })
        }
        (None, None, None, None, None) => Err(format!("unknown metric source type {:?}", metric.kind)),
    }
}

#[derive(Deserialize)]
struct List<T> {
    items: Vec<T>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: ObjectMeta,
    timestamp: String,
    window: String,
    #[serde(default)]
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    usage: BTreeMap<String, Quantity>,
}

impl PodMetrics {
    /// What one container used, or all together; nothing if that is not known of each.
    fn usage(&self, source: &ResourceMetricSource) -> Option<i64> {
        let of = |container: &ContainerMetrics| Some(container.usage.get(&source.name)?.milli_value());
        if source.container.is_empty() {
            let all: Option<Vec<i64>> = self.containers.iter().map(of).collect();
            return all.filter(|all| !all.is_empty()).map(|all| all.iter().sum());
        }
        self.containers.iter().find(|container| container.name == source.container).and_then(of)
    }
}

async fn of_resource(
    client: &Client,
    namespace: &str,
    selector: &str,
    source: &ResourceMetricSource,
) -> Result<Reading, String> {
    let path = format!("{RESOURCE_METRICS}/namespaces/{namespace}/pods?labelSelector={}", escape(selector));
    let list: List<PodMetrics> = get(client, &path, "resource").await?;
    if list.items.is_empty() {
        return Err("no metrics returned from resource metrics API".to_owned());
    }
    let sample = |pod: &PodMetrics| {
        let sample = Sample {
            value: pod.usage(source)?,
            timestamp: parse_time(&pod.timestamp)?,
            window: parse_duration(&pod.window)?,
        };
        Some((pod.metadata.name.clone(), sample))
    };
    Ok(Reading::Pods(list.items.iter().filter_map(sample).collect()))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct MetricValue {
    described_object: Described,
    timestamp: String,
    window_seconds: Option<i64>,
    value: Quantity,
}

#[derive(Deserialize)]
struct Described {
    name: String,
}

async fn of_pods(
    client: &Client,
    namespace: &str,
    selector: &str,
    metric: &MetricIdentifier,
) -> Result<Reading, String> {
    let of = format!("namespaces/{namespace}/pods/*/{}", metric.name);
    let list = custom(client, &of, &format!("labelSelector={}&", escape(selector)), metric).await?;
    if list.items.is_empty() {
        return Err("no metrics returned from custom metrics API".to_owned());
    }
    let sample = |item: &MetricValue| {
        let window = item.window_seconds.map_or(WINDOW_DEFAULT, SignedDuration::from_secs);
        let sample =
            Sample { value: item.value.milli_value(), timestamp: parse_time(&item.timestamp)?, window };
        Some((item.described_object.name.clone(), sample))
    };
    Ok(Reading::Pods(list.items.iter().filter_map(sample).collect()))
}

async fn of_object(client: &Client, namespace: &str, source: &CustomMetricSource) -> Result<Reading, String> {
    let (object, name) = (&source.described_object, &source.metric.name);
    let version = GroupVersion::parse(&object.api_version).unwrap_or_default();
    let of = if object.kind == "Namespace" && version.group.is_empty() {
        // An autoscaler sees no other namespace than its own.
        format!("namespaces/{namespace}/metrics/{name}")
    } else {
        let resource = scale::resource_of(client, &version, &object.kind).await.map_err(failed("custom"))?;
        let resource = resource.ok_or_else(|| {
            let (kind, group) = (&object.kind, &version.group);
            format!("unable to fetch metrics from custom metrics API: no matches for kind {kind:?} in group {group:?}")
        })?;
        format!("namespaces/{namespace}/{}/{}/{name}", resource.group_resource(), object.name)
    };
    let list = custom(client, &of, "", &source.metric).await?;
    let value = list.items.first().map(|item| Reading::Value(item.value.milli_value()));
    value.ok_or_else(|| "unable to fetch metrics from custom metrics API: the list is empty".to_owned())
}

/// Asks in the best version that is served.
async fn custom(
    client: &Client,
    of: &str,
    query: &str,
    metric: &MetricIdentifier,
) -> Result<List<MetricValue>, String> {
    let selector = escape(&selector_text(metric)?);
    for version in CUSTOM_VERSIONS {
        let root = format!("{CUSTOM_METRICS}/{version}");
        match client.json::<apimachinery::Value>(Method::GET, &root, None).await {
            Ok(_) => {
                let path = format!("{root}/{of}?{query}metricLabelSelector={selector}");
                return get(client, &path, "custom").await;
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(failed("custom")(error)),
        }
    }
    Err("unable to fetch metrics from custom metrics API: no known available metric versions found"
        .to_owned())
}

#[derive(Deserialize)]
struct ExternalMetricValue {
    value: Quantity,
}

async fn external(client: &Client, namespace: &str, metric: &MetricIdentifier) -> Result<Reading, String> {
    let selector = escape(&selector_text(metric)?);
    let path = format!("{EXTERNAL_METRICS}/namespaces/{namespace}/{}?labelSelector={selector}", metric.name);
    let list: List<ExternalMetricValue> = get(client, &path, "external").await?;
    if list.items.is_empty() {
        return Err("no metrics returned from external metrics API".to_owned());
    }
    let sum = list.items.iter().fold(0_i64, |sum, item| sum.saturating_add(item.value.milli_value()));
    Ok(Reading::Value(sum))
}

fn selector_text(metric: &MetricIdentifier) -> Result<String, String> {
    let Some(selector) = &metric.selector else { return Ok(String::new()) };
    let selector: LabelSelector =
        apimachinery::from_value(selector.clone()).map_err(|error| error.to_string())?;
    Ok(Selector::try_from(&selector).map_err(|error| error.to_string())?.to_string())
}

async fn get<T: DeserializeOwned>(client: &Client, path: &str, api: &'static str) -> Result<T, String> {
    client.json(Method::GET, path, None).await.map_err(failed(api))
}

fn failed(api: &'static str) -> impl Fn(client::Error) -> String {
    move |error| format!("unable to fetch metrics from {api} metrics API: {error}")
}
