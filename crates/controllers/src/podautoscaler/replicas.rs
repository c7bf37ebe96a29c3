//! From what pods use to how many there should be (follows upstream's `ReplicaCalculator`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use api::view::core::Pod;
use apimachinery::quantity::Quantity;
use jiff::{SignedDuration, Timestamp};

use super::metrics::Samples;

/// Upstream: `--horizontal-pod-autoscaler-cpu-initialization-period`.
const CPU_INITIALIZATION_PERIOD: SignedDuration = SignedDuration::from_mins(5);
/// Upstream: `--horizontal-pod-autoscaler-initial-readiness-delay`.
const INITIAL_READINESS_DELAY: SignedDuration = SignedDuration::from_secs(30);

/// How far from the target usage may be without anything being done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerances {
    pub down: f64,
    pub up: f64,
}

impl Tolerances {
    fn holds(self, ratio: f64) -> bool {
        (1.0 - self.down) <= ratio && ratio <= (1.0 + self.up)
    }
}

/// What a calculation needs besides the metric.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub pods: &'a [Arc<Pod>],
    pub current_replicas: i32,
    pub tolerances: Tolerances,
    pub now: Timestamp,
}

/// How many pods there should be, and what was measured.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Answer {
    pub replicas: i32,
    /// The average, in thousandths.
    pub usage: i64,
    /// Percent of what is requested, where that was the target.
    pub utilization: Option<i32>,
}

const NO_PODS: &str = "no pods returned by selector while calculating replica count";
const NO_METRICS: &str = "did not receive metrics for targeted pods (pods might be unready)";

/// By usage in percent of the requests.
pub fn by_utilization(
    context: Context<'_>,
    samples: &Samples,
    resource: &str,
    container: &str,
    target: i32,
) -> Result<Answer, String> {
    let requests = || -> Result<BTreeMap<String, i64>, String> {
        let of = |pod: &Arc<Pod>| Ok((pod.metadata.name.clone(), request(pod, resource, container)?));
        context.pods.iter().map(of).collect()
    };
    let fallback = |requests: &BTreeMap<String, i64>, pod: &str| {
        requests.get(pod).copied().unwrap_or(0) * i64::from(target.max(100)) / 100
    };
    calculate(context, samples, resource, &requests, &fallback, &|values, requests| {
        let known = values.iter().filter_map(|(pod, value)| Some((value, requests.get(pod)?)));
        let (mut used, mut requested, mut count) = (0, 0, 0);
        for (value, request) in known {
            used += value;
            requested += request;
            count += 1;
        }
        if requested == 0 {
            return Err("no metrics returned matched known pods".to_owned());
        }
        let utilization = (used * 100 / requested) as i32;
        let ratio = f64::from(utilization) / f64::from(target);
        Ok(Usage { ratio, usage: used / count, utilization: Some(utilization) })
    })
}

/// By usage as such, on average over the pods. `resource` is empty for what is none.
pub fn by_average(
    context: Context<'_>,
    samples: &Samples,
    resource: &str,
    target: i64,
) -> Result<Answer, String> {
    let fallback = |(): &(), _: &str| target;
    calculate(context, samples, resource, &|| Ok(()), &fallback, &|values, ()| {
        let usage = values.values().sum::<i64>() / values.len() as i64;
        Ok(Usage { ratio: usage as f64 / target as f64, usage, utilization: None })
    })
}

/// By a value that all pods bring about together.
pub fn by_value(context: Context<'_>, value: i64, target: i64) -> Result<Answer, String> {
    let ratio = value as f64 / target as f64;
    let answer = |replicas| Answer { replicas, usage: value, utilization: None };
    if context.current_replicas == 0 {
        return Ok(answer(ceil(ratio)));
    }
    if context.tolerances.holds(ratio) {
        return Ok(answer(context.current_replicas));
    }
    if context.pods.is_empty() {
        return Err(format!("unable to calculate ready pods: {NO_PODS}"));
    }
    let is_ready = |pod: &&Arc<Pod>| pod.status.phase == "Running" && pod.is_ready();
    let ready = context.pods.iter().filter(is_ready).count();
    Ok(answer(ceil(ratio * ready as f64)))
}

/// By a value of which each pod is to bring about its part.
pub fn by_value_per_pod(tolerances: Tolerances, status_replicas: i32, value: i64, target: i64) -> Answer {
    let replicas = f64::from(status_replicas);
    let ratio = value as f64 / (target as f64 * replicas);
    let wanted = if tolerances.holds(ratio) { status_replicas } else { ceil(value as f64 / target as f64) };
    // Saturates where nothing runs yet.
    let usage = (value as f64 / replicas).ceil() as i64;
    Answer { replicas: wanted, usage, utilization: None }
}

/// What samples come to against the target.
struct Usage {
    ratio: f64,
    usage: i64,
    utilization: Option<i32>,
}

/// Compares the pods' values with the target.
type UsageOf<'a, R> = &'a dyn Fn(&BTreeMap<String, i64>, &R) -> Result<Usage, String>;

/// The common way: pods without a metric are first left out, then counted in the way that changes least.
fn calculate<R>(
    context: Context<'_>,
    samples: &Samples,
    resource: &str,
    requests: &dyn Fn() -> Result<R, String>,
    fallback: &dyn Fn(&R, &str) -> i64,
    usage_of: UsageOf<'_, R>,
) -> Result<Answer, String> {
    let Context { pods, current_replicas, tolerances, now } = context;
    if pods.is_empty() {
        return Err(NO_PODS.to_owned());
    }
    let groups = group(pods, samples, resource, now);
    let counts = |name: &String| !groups.ignored.contains(name) && !groups.unready.contains(name);
    let counted = samples.iter().filter(|(name, _)| counts(name));
    let mut values: BTreeMap<String, i64> =
        counted.map(|(name, sample)| (name.clone(), sample.value)).collect();
    if values.is_empty() {
        return Err(NO_METRICS.to_owned());
    }
    let requests = requests()?;
    let Usage { ratio, usage, utilization } = usage_of(&values, &requests)?;
    let answer = |replicas| Ok(Answer { replicas, usage, utilization });
    let up_with_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !up_with_unready && groups.missing.is_empty() {
        return answer(if tolerances.holds(ratio) {
            current_replicas
        } else {
            ceil(ratio * groups.ready as f64)
        });
    }
    if ratio < 1.0 {
        let assumed = groups.missing.iter().map(|pod| (pod.clone(), fallback(&requests, pod)));
        values.extend(assumed);
    } else if ratio > 1.0 {
        values.extend(groups.missing.iter().map(|pod| (pod.clone(), 0)));
    }
    if up_with_unready {
        values.extend(groups.unready.iter().map(|pod| (pod.clone(), 0)));
    }
    let again = usage_of(&values, &requests)?.ratio;
    let turns = (ratio < 1.0 && again > 1.0) || (ratio > 1.0 && again < 1.0);
    let replicas = ceil(again * values.len() as f64);
    let contradicts =
        (again < 1.0 && replicas > current_replicas) || (again > 1.0 && replicas < current_replicas);
    answer(if tolerances.holds(again) || turns || contradicts { current_replicas } else { replicas })
}

#[derive(Default)]
struct Groups {
    ready: usize,
    unready: BTreeSet<String>,
    /// Without a metric.
    missing: BTreeSet<String>,
    /// On their way out.
    ignored: BTreeSet<String>,
}

/// Upstream: `groupPods`.
fn group(pods: &[Arc<Pod>], samples: &Samples, resource: &str, now: Timestamp) -> Groups {
    let mut groups = Groups::default();
    for pod in pods {
        let name = &pod.metadata.name;
        let sample = samples.get(name);
        let into = if pod.metadata.is_being_deleted() || pod.status.phase == "Failed" {
            &mut groups.ignored
        } else if pod.status.phase == "Pending" {
            &mut groups.unready
        } else if let Some(sample) = sample {
            if resource != "cpu" || !is_warming_up(pod, sample, now) {
                groups.ready += 1;
                continue;
            }
            &mut groups.unready
        } else {
            &mut groups.missing
        };
        into.insert(name.clone());
    }
    groups
}

/// Whether what a pod's CPUs did says nothing yet: it starts, or was never ready.
fn is_warming_up(pod: &Pod, sample: &super::metrics::Sample, now: Timestamp) -> bool {
    let (Some(ready), Some(started)) = (pod.condition("Ready"), pod.status.start_time) else { return true };
    let after = |at: Timestamp, duration| at.saturating_add(duration).unwrap_or(Timestamp::MAX);
    let changed = ready.last_transition_time.unwrap_or(Timestamp::UNIX_EPOCH);
    let is_unready = ready.status == "False";
    if after(started, CPU_INITIALIZATION_PERIOD) > now {
        is_unready || sample.timestamp < after(changed, sample.window)
    } else {
        is_unready && after(started, INITIAL_READINESS_DELAY) > changed
    }
}

/// What a pod requests of a resource, or one of its containers, in thousandths (upstream: `calculateRequests`).
fn request(pod: &Pod, resource: &str, container: &str) -> Result<i64, String> {
    let milli = |text: &String| text.parse::<Quantity>().map_or(0, |quantity| quantity.milli_value());
    let name = &pod.metadata.name;
    let of_pod = pod.spec.resources.as_ref().and_then(|resources| resources.requests.get(resource));
    if let Some(request) = of_pod.filter(|_| container.is_empty()) {
        return Ok(milli(request) + pod.spec.overhead.get(resource).map_or(0, milli));
    }
    let is_sidecar = |c: &&api::view::core::Container| c.restart_policy.as_deref() == Some("Always");
    let containers = pod.spec.containers.iter().chain(pod.spec.init_containers.iter().filter(is_sidecar));
    let mut meant = containers.filter(|c| container.is_empty() || c.name == container).peekable();
    if meant.peek().is_none() && !container.is_empty() {
        return Err(format!("container {container} not found in Pod {name}"));
    }
    let requests = meant.map(|c| {
        let missing = || format!("missing request for {resource} in container {} of Pod {name}", c.name);
        c.resources.requests.get(resource).map(milli).ok_or_else(missing)
    });
    requests.sum()
}

fn ceil(replicas: f64) -> i32 {
    replicas.ceil() as i32
}
