//! Which pod goes first, and what it is told (follows the kubelet's `eviction/helpers.go`). Pure.

use std::cmp::Reverse;

use api::core::pod::resources::{Counted, pod_requests};
use api::view::core::Pod;
use apimachinery::json;
use apimachinery::quantity::{Format, Quantity};

use super::decide::Observations;
use super::threshold::Threshold;
use crate::resources::whole;

/// The priority from which on a pod is needed by the node itself (upstream's `SystemCriticalPriority`).
const CRITICAL_PRIORITY: i32 = 2_000_000_000;

/// What a pod uses of the node, as far as that could be measured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub memory_bytes: i64,
    pub processes: i64,
    pub disk_bytes: i64,
    pub inodes: i64,
    pub containers: Vec<ContainerUsage>,
    /// By name: bytes of the volumes that stand on the node's disk.
    pub volumes: Vec<(String, i64)>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerUsage {
    pub name: String,
    pub memory_bytes: i64,
    /// What it wrote into its own file system and its log.
    pub disk_bytes: i64,
}

/// Pods that the node cannot do without are never evicted (upstream: `IsCriticalPod`).
pub fn is_critical(pod: &Pod) -> bool {
    crate::staticpods::is_static(pod)
        || pod.spec.priority.is_some_and(|priority| priority >= CRITICAL_PRIORITY)
}

/// The pods in the order in which they go. One of which nothing is known goes first.
pub fn rank<P: AsRef<Pod>>(resource: &str, pods: &mut [(P, Option<Usage>)]) {
    pods.sort_by_cached_key(|(pod, usage)| {
        let pod = pod.as_ref();
        let priority = pod.spec.priority.unwrap_or(0);
        let Some(usage) = usage else { return (false, Reverse(true), priority, Reverse(0)) };
        let (used, requested) = match resource {
            "memory" => (usage.memory_bytes, request(pod, "memory")),
            "pids" => (usage.processes, 0),
            "inodes" => (usage.inodes, 0),
            _ => (usage.disk_bytes, request(pod, "ephemeral-storage")),
        };
        // Nobody requests processes or inodes, so nobody exceeds a request of them.
        let exceeds = matches!(resource, "memory" | "ephemeral-storage") && used > requested;
        (true, Reverse(exceeds), priority, Reverse(used.saturating_sub(requested)))
    });
}

fn request(pod: &Pod, name: &str) -> i64 {
    let requests = pod_requests(&json!({"spec": pod.spec}), Counted::Spec);
    requests.get(name).map_or(0, Quantity::value)
}

/// Upstream's words for an eviction because the node is short of something.
pub fn message(
    pod: &Pod,
    usage: Option<&Usage>,
    relieve: &[Threshold],
    observations: &Observations,
) -> Option<String> {
    let resource = relieve.first()?.signal.resource();
    let mut message = format!("The node was low on resource: {resource}. ");
    let told = relieve.iter().filter(|threshold| threshold.signal.resource() == resource);
    if let Some((threshold, observed)) =
        told.filter_map(|threshold| Some((threshold, observations.get(&threshold.signal)?))).next()
    {
        let amount = |units: i64| Quantity::new(units, threshold.signal.format());
        let (wanted, free) = (amount(threshold.amount.of(observed.capacity)), amount(observed.available));
        message += &format!("Threshold quantity: {wanted}, available: {free}. ");
    }
    for container in usage.iter().flat_map(|usage| &usage.containers) {
        message += &container_message(pod, container, resource).unwrap_or_default();
    }
    Some(message)
}

fn container_message(pod: &Pod, used: &ContainerUsage, resource: &str) -> Option<String> {
    let mut specs = pod.spec.containers.iter().chain(&pod.spec.init_containers);
    let spec = specs.find(|spec| spec.name == used.name)?;
    let bytes = match resource {
        "memory" => used.memory_bytes,
        "ephemeral-storage" => used.disk_bytes,
        _ => return None,
    };
    let requested = spec.resources.requests.get(resource).map_or("0", String::as_str);
    (bytes > whole(&spec.resources.requests, resource)).then(|| {
        let used_bytes = Quantity::new(bytes, Format::BinarySi);
        format!(
            "Container {} was using {used_bytes}, request is {requested}, has larger consumption of {resource}. ",
            used.name
        )
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::Value;

    use super::*;
    use crate::eviction::decide::Observation;
    use crate::eviction::threshold::{Amount, Signal};

    fn pod(name: &str, priority: i32, requests: Value) -> Arc<Pod> {
        let containers = json!([{"name": "a", "resources": {"requests": requests}}]);
        let spec = json!({"priority": priority, "containers": containers});
        let pod = json!({"metadata": {"name": name}, "spec": spec});
        Arc::new(apimachinery::from_value(pod).expect("a pod"))
    }

    fn uses(memory_bytes: i64, processes: i64) -> Option<Usage> {
        let container = ContainerUsage { name: "a".into(), memory_bytes, disk_bytes: 0 };
        Some(Usage { memory_bytes, processes, containers: vec![container], ..Usage::default() })
    }

    fn check(resource: &str, mut pods: Vec<(Arc<Pod>, Option<Usage>)>, expect: &[&str]) {
        rank(resource, &mut pods);
        let names: Vec<&str> = pods.iter().map(|(pod, _)| pod.metadata.name.as_str()).collect();
        assert_eq!(names, expect);
    }

    #[test]
    fn who_exceeds_its_request_goes_before_who_does_not_then_the_least_important_then_the_largest() {
        let pods = vec![
            (pod("within", 0, json!({"memory": "1000"})), uses(900, 1)),
            (pod("important", 10, json!({"memory": "10"})), uses(5000, 1)),
            (pod("small", 0, json!({"memory": "10"})), uses(20, 1)),
            (pod("large", 0, json!({})), uses(100, 1)),
            (pod("unknown", 100, json!({})), None),
        ];
        check("memory", pods, &["unknown", "large", "small", "important", "within"]);
    }

    #[test]
    fn processes_are_requested_by_nobody() {
        let pods = vec![
            (pod("few", 0, json!({})), uses(0, 2)),
            (pod("many", 0, json!({})), uses(0, 20)),
            (pod("important", 1, json!({})), uses(0, 200)),
        ];
        check("pids", pods, &["many", "few", "important"]);
    }

    #[test]
    fn what_the_node_runs_for_itself_is_critical() {
        assert!(is_critical(&pod("a", CRITICAL_PRIORITY, json!({}))));
        assert!(!is_critical(&pod("a", CRITICAL_PRIORITY - 1, json!({}))));
        let mut of_file = (*pod("a", 0, json!({}))).clone();
        of_file.metadata.annotations.insert("kubernetes.io/config.source".into(), "file".into());
        assert!(is_critical(&of_file));
    }

    #[test]
    fn the_message_names_the_threshold_and_who_exceeds_what() {
        let threshold = Threshold {
            signal: Signal::MemoryAvailable,
            amount: Amount::Units(100 << 20),
            grace_period: None,
            minimum_reclaim: None,
        };
        let observed = Observation { available: 50 << 20, capacity: 1 << 30 };
        let observations = [(Signal::MemoryAvailable, observed)].into();
        let pod = pod("p", 0, json!({"memory": "1Mi"}));
        let told = message(&pod, uses(2 << 20, 1).as_ref(), &[threshold], &observations);
        let expect = "The node was low on resource: memory. Threshold quantity: 100Mi, available: 50Mi. \
            Container a was using 2Mi, request is 1Mi, has larger consumption of memory. ";
        assert_eq!(told.as_deref(), Some(expect));
    }
}
