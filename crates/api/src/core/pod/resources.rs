//! Sums over a pod's containers: what the pod asks for as a whole, and the quality of service that follows
//! (follows `resourcehelper.AggregateContainerRequests` and `qos.ComputePodQOS`).

use std::collections::BTreeMap;

use apimachinery::Value;
use apimachinery::quantity::Quantity;

use crate::columns::items;
use crate::validation::is_huge_page_resource;

pub type ResourceList = BTreeMap<String, Quantity>;

/// What may be asked for at the level of a pod, in place of its containers' sum.
const POD_LEVEL_RESOURCES: [&str; 2] = ["cpu", "memory"];

/// What the containers request together: running ones are added up, init containers run one after another beside
/// the sidecars started before them, and the larger of both counts.
pub fn aggregate_requests(spec: &Value) -> ResourceList {
    aggregate(spec, |container| list(container, "requests"))
}

/// Whose word counts for a container that is being resized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// What the spec says.
    Spec,
    /// The most of what the spec says, what was allocated and what is in force.
    Status,
}

/// What the pod requests as a whole, overhead included (follows `resourcehelper.PodRequests`).
pub fn pod_requests(pod: &Value, counted: Counted) -> ResourceList {
    let mut total = whole(pod, "requests", counted);
    add(&mut total, &amounts(pod.get("spec"), "overhead"));
    total
}

/// What the pod is limited to as a whole (follows `resourcehelper.PodLimits`).
pub fn pod_limits(pod: &Value, counted: Counted) -> ResourceList {
    let mut total = whole(pod, "limits", counted);
    let mut overhead = amounts(pod.get("spec"), "overhead");
    overhead.retain(|name, _| total.get(name).is_some_and(|limit| !limit.is_zero()));
    add(&mut total, &overhead);
    total
}

/// Whether the pod states what it needs itself, instead of leaving it to its containers.
pub fn has_pod_level_resources(pod: &Value) -> bool {
    let resources = pod.get("spec").and_then(|spec| spec.get("resources"));
    ["requests", "limits"]
        .iter()
        .any(|field| amounts(resources, field).keys().any(|name| is_pod_level_resource(name)))
}

fn whole(pod: &Value, field: &str, counted: Counted) -> ResourceList {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let mut total = match counted {
        Counted::Spec => aggregate(spec, |container| list(container, field)),
        Counted::Status => aggregate(spec, |container| effective(pod, container, field)),
    };
    let own = amounts(spec.get("resources"), field);
    total.extend(own.into_iter().filter(|(name, _)| is_pod_level_resource(name)));
    total
}

/// A container's amounts where the kubelet has told what it gave to it.
fn effective(pod: &Value, container: &Value, field: &str) -> ResourceList {
    let name = container.get("name");
    let mut statuses = ["containerStatuses", "initContainerStatuses"]
        .into_iter()
        .flat_map(|statuses| items(pod, &["status", statuses]));
    let status = statuses.find(|status| status.get("name") == name && status.get("resources").is_some());
    let mut most = list(container, field);
    if let Some(status) = status {
        raise(&mut most, &list(status, field));
        if field == "requests" {
            raise(&mut most, &amounts(Some(status), "allocatedResources"));
        }
    }
    most
}

fn is_pod_level_resource(name: &str) -> bool {
    POD_LEVEL_RESOURCES.contains(&name) || is_huge_page_resource(name)
}

fn aggregate(spec: &Value, of: impl Fn(&Value) -> ResourceList) -> ResourceList {
    let mut total = ResourceList::new();
    for container in items(spec, &["containers"]) {
        add(&mut total, &of(container));
    }
    let mut sidecars = ResourceList::new();
    let mut init_peak = ResourceList::new();
    for container in items(spec, &["initContainers"]) {
        let mut requests = of(container);
        if is_sidecar(container) {
            add(&mut total, &requests);
            add(&mut sidecars, &requests);
            requests = sidecars.clone();
        } else {
            add(&mut requests, &sidecars);
        }
        raise(&mut init_peak, &requests);
    }
    raise(&mut total, &init_peak);
    total
}

/// An init container that keeps running beside the others.
pub fn is_sidecar(container: &Value) -> bool {
    container.get("restartPolicy").and_then(Value::as_str) == Some("Always")
}

/// `resources.requests` or `resources.limits` of a container.
pub fn list(container: &Value, field: &str) -> ResourceList {
    amounts(container.get("resources"), field)
}

/// A map of amounts; what is no quantity is left out.
pub fn amounts(resources: Option<&Value>, field: &str) -> ResourceList {
    resources
        .and_then(|r| r.get(field))
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.to_string(), amount.as_str()?.parse().ok()?)))
        .collect()
}

/// Adds `more` to `total`, name by name.
pub fn add(total: &mut ResourceList, more: &ResourceList) {
    for (name, amount) in more {
        match total.get_mut(name) {
            Some(sum) => sum.add(amount),
            None => {
                total.insert(name.clone(), *amount);
            }
        }
    }
}

fn raise(total: &mut ResourceList, floor: &ResourceList) {
    for (name, amount) in floor {
        if total.get(name).is_none_or(|current| current < amount) {
            total.insert(name.clone(), *amount);
        }
    }
}

/// `Guaranteed`, `Burstable` or `BestEffort`.
pub fn qos_class(pod: &Value) -> &'static str {
    let spec = pod.get("spec").unwrap_or(&Value::Null);
    let mut requests = QosAmounts::default();
    let mut limits = QosAmounts::default();
    let mut all_limited = true;
    let mut account = |resources: Option<&Value>| {
        let limited = qos_amounts(resources, "limits");
        all_limited &= limited.iter().all(Option::is_some);
        add_each(&mut limits, limited);
        add_each(&mut requests, qos_amounts(resources, "requests"));
    };
    if let Some(resources) = spec.get("resources").filter(|r| !r.is_null()) {
        account(Some(resources));
    } else {
        for field in ["containers", "initContainers"] {
            for container in items(spec, &[field]) {
                account(container.get("resources"));
            }
        }
    }
    match () {
        () if requests == QosAmounts::default() && limits == QosAmounts::default() => "BestEffort",
        () if all_limited && requests == limits => "Guaranteed",
        () => "Burstable",
    }
}

/// The resources that decide the quality of service.
const QOS_RESOURCES: [&str; 2] = ["cpu", "memory"];

/// Of each of them, if it is there and more than nothing.
type QosAmounts = [Option<Quantity>; QOS_RESOURCES.len()];

fn qos_amounts(resources: Option<&Value>, field: &str) -> QosAmounts {
    let list = resources.and_then(|resources| resources.get(field));
    QOS_RESOURCES.map(|name| {
        let amount: Quantity = list?.get(name)?.as_str()?.parse().ok()?;
        (amount.sign() > 0).then_some(amount)
    })
}

fn add_each(total: &mut QosAmounts, more: QosAmounts) {
    for (total, more) in total.iter_mut().zip(more) {
        match (total, more) {
            (Some(total), Some(more)) => total.add(&more),
            (total @ None, more) => *total = more,
            (Some(_), None) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn the_qos_class_follows_requests_and_limits() {
        let full =
            json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "1000m", "memory": "1Gi"}});
        let table = [
            (json!([{}]), "BestEffort"),
            (json!([{"resources": {"requests": {"cpu": "0"}}}]), "BestEffort"),
            (json!([{"resources": {"requests": {"cpu": "1"}}}]), "Burstable"),
            (json!([{"resources": full}]), "Guaranteed"),
            (json!([{"resources": full}, {}]), "Burstable"),
        ];
        for (containers, expect) in table {
            assert_eq!(qos_class(&json!({"spec": {"containers": containers}})), expect, "{containers}");
        }
    }

    #[test]
    fn init_containers_count_where_they_need_more() {
        let spec = json!({
            "containers": [{"resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
            "initContainers": [
                {"restartPolicy": "Always", "resources": {"requests": {"cpu": "500m"}}},
                {"resources": {"requests": {"cpu": "2"}}}]});
        let total = aggregate_requests(&spec);
        assert_eq!(total["cpu"].to_string(), "2500m");
        assert_eq!(total["memory"].to_string(), "1Gi");
    }
}
