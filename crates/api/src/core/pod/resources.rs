//! Sums over a pod's containers: what the pod asks for as a whole, and the quality of service that follows
//! (follows `resourcehelper.AggregateContainerRequests` and `qos.ComputePodQOS`).

use std::collections::BTreeMap;

use apimachinery::Value;
use apimachinery::quantity::Quantity;

use crate::columns::items;

type ResourceList = BTreeMap<String, Quantity>;

/// What the containers request together: running ones are added up, init containers run one after another beside
/// the sidecars started before them, and the larger of both counts.
pub fn aggregate_requests(spec: &Value) -> ResourceList {
    let mut total = ResourceList::new();
    for container in items(spec, &["containers"]) {
        add(&mut total, &list(container, "requests"));
    }
    let mut sidecars = ResourceList::new();
    let mut init_peak = ResourceList::new();
    for container in items(spec, &["initContainers"]) {
        let mut requests = list(container, "requests");
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

fn list(container: &Value, field: &str) -> ResourceList {
    amounts(container.get("resources"), field)
}

fn amounts(resources: Option<&Value>, field: &str) -> ResourceList {
    resources
        .and_then(|r| r.get(field))
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, amount)| Some((name.clone(), amount.as_str()?.parse().ok()?)))
        .collect()
}

fn add(total: &mut ResourceList, more: &ResourceList) {
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
    let mut requests = ResourceList::new();
    let mut limits = ResourceList::new();
    let mut all_limited = true;
    let mut account = |resources: Option<&Value>| {
        let limited = computed(amounts(resources, "limits"));
        all_limited &= limited.len() == QOS_RESOURCES.len();
        add(&mut limits, &limited);
        add(&mut requests, &computed(amounts(resources, "requests")));
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
        () if requests.is_empty() && limits.is_empty() => "BestEffort",
        () if all_limited && requests == limits => "Guaranteed",
        () => "Burstable",
    }
}

/// The resources that decide the quality of service.
const QOS_RESOURCES: [&str; 2] = ["cpu", "memory"];

fn computed(list: ResourceList) -> ResourceList {
    list.into_iter().filter(|(name, q)| QOS_RESOURCES.contains(&name.as_str()) && q.sign() > 0).collect()
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
