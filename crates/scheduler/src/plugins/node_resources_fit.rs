//! NodeResourcesFit: a node must have room for what the pod requests, and the emptier the better
//! (strategy LeastAllocated over CPU and memory).

use crate::devices::Devices;
use crate::extendedresources::is_served_by_devices;
use crate::framework::{Filter, MAX_NODE_SCORE, Rejection, Score};
use crate::nodeinfo::NodeInfo;
use crate::podinfo::PodInfo;
use crate::resource::Resource;
use crate::snapshot::Snapshot;

struct Fit<'a>(&'a PodInfo);

struct Fits<'a> {
    pod: &'a PodInfo,
    devices: &'a Devices,
}

pub fn filter<'a>(pod: &'a PodInfo, snapshot: &'a Snapshot) -> Option<Box<dyn Filter + 'a>> {
    Some(Box::new(Fits { pod, devices: &snapshot.devices }))
}

impl Filter for Fits<'_> {
    fn filter(&self, node: &NodeInfo) -> Result<(), Rejection> {
        let mut rejection = Rejection { reasons: Vec::new(), resolvable: true };
        if node.pods.len() as i64 + 1 > node.allowed_pods {
            rejection.reasons.push("Too many pods".into());
        }
        check_amounts(&self.pod.requests, node, self.devices, &mut rejection);
        if rejection.reasons.is_empty() { Ok(()) } else { Err(rejection) }
    }
}

fn check_amounts(wanted: &Resource, node: &NodeInfo, devices: &Devices, rejection: &mut Rejection) {
    let (capacity, used) = (&node.allocatable, &node.requested);
    let mut check = |name: &str, of: &dyn Fn(&Resource) -> i64| {
        let (wanted, capacity) = (of(wanted), of(capacity));
        if wanted > 0 && wanted > capacity - of(used) {
            rejection.reasons.push(format!("Insufficient {name}").into());
            // Even an empty node would be too small.
            rejection.resolvable &= wanted <= capacity;
        }
    };
    check("cpu", &|resource| resource.milli_cpu);
    check("memory", &|resource| resource.memory);
    check("ephemeral-storage", &|resource| resource.ephemeral_storage);
    // Where devices serve, DynamicResources looks for them.
    for name in wanted.scalar.keys().filter(|name| !is_served_by_devices(name, node, devices)) {
        check(name, &|resource| resource.scalar.get(name).copied().unwrap_or(0));
    }
}

pub fn score<'a>(pod: &'a PodInfo, _: &'a Snapshot, _: &[&'a NodeInfo]) -> Option<Box<dyn Score + 'a>> {
    Some(Box::new(Fit(pod)))
}

impl Score for Fit<'_> {
    fn score(&self, node: &NodeInfo) -> i64 {
        let (pod, used, capacity) = (&self.0.non_zero_requests, &node.non_zero_requested, &node.allocatable);
        let amounts = [
            (used.milli_cpu + pod.milli_cpu, capacity.milli_cpu),
            (used.memory + pod.memory, capacity.memory),
        ];
        let known = amounts.iter().filter(|(_, capacity)| *capacity > 0);
        let (sum, count) =
            known.fold((0, 0), |(sum, count), amount| (sum + least_requested(*amount), count + 1));
        if count == 0 { 0 } else { sum / count }
    }
}

fn least_requested((requested, capacity): (i64, i64)) -> i64 {
    if requested > capacity {
        return 0;
    }
    let score = i128::from(capacity - requested) * i128::from(MAX_NODE_SCORE) / i128::from(capacity);
    score as i64
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apimachinery::{Value, json};

    use crate::testing::{check_filter, check_scores, node_info, pod, pod_info};

    fn node(amounts: Value) -> Value {
        json!({"status": {"allocatable": amounts}})
    }

    fn wants(amounts: Value) -> Value {
        json!({"containers": [{"resources": {"requests": amounts}}]})
    }

    #[test]
    fn a_pod_fits_up_to_the_last_unit() {
        let amounts = json!({"cpu": "1", "memory": "1Ki", "pods": "1", "example.com/gpu": "2"});
        let check =
            |wanted, expect| check_filter(super::filter, wants(wanted), node(amounts.clone()), expect);
        check(amounts.clone(), Ok(()));
        check(json!({"cpu": "1001m"}), Err("Insufficient cpu"));
        check(json!({"memory": "1025"}), Err("Insufficient memory"));
        check(json!({"ephemeral-storage": "1"}), Err("Insufficient ephemeral-storage"));
        check(json!({"example.com/gpu": "3"}), Err("Insufficient example.com/gpu"));
        check_filter(super::filter, json!({}), node(json!({"pods": "0"})), Err("Too many pods"));
    }

    #[test]
    fn a_full_node_is_resolvable_and_a_small_one_is_not() {
        let check = |wanted: &str, resolvable| {
            let mut node = node_info(node(json!({"cpu": "2", "pods": "9"})));
            node.add_pod(pod("a", json!({"cpu": "1"})));
            let (pod, snapshot) = (pod_info(wants(json!({"cpu": wanted}))), Default::default());
            let rejection = super::filter(&pod, &snapshot).unwrap().filter(&node).unwrap_err();
            assert_eq!(rejection.resolvable, resolvable);
        };
        check("2", true);
        check("3", false);
    }

    #[test]
    fn the_emptier_node_is_better() {
        let (small, large) =
            (node(json!({"cpu": "1", "memory": "1Gi"})), node(json!({"cpu": "2", "memory": "1Gi"})));
        let spec = wants(json!({"cpu": "500m", "memory": "512Mi"}));
        check_scores(super::score, spec, &[small, large, node(json!({}))], &[50, 62, 0]);
        let mut info = node_info(node(json!({"cpu": "1"})));
        info.add_pod(Arc::new(pod_info(json!({"containers": [{}]}))));
        assert_eq!(info.non_zero_requested.milli_cpu, 100);
    }

    #[test]
    fn what_devices_serve_need_not_be_the_nodes_own() {
        let class = json!({"metadata": {"name": "k"}, "spec": {"extendedResourceName": "e.com/gpu"}});
        let mut devices = crate::devices::Devices::default();
        devices.apply(&crate::devices::Change::Class(crate::testing::added(&class)));
        let check = |resource: &str, own: &str, expect: bool| {
            let snapshot =
                crate::snapshot::Snapshot { devices: Arc::new(devices.clone()), ..Default::default() };
            let (pod, node) = (
                pod_info(wants(json!({resource: "2"}))),
                node_info(node(json!({"pods": "9", resource: own}))),
            );
            let fits = super::filter(&pod, &snapshot).unwrap().filter(&node).is_ok();
            assert_eq!(fits, expect, "{resource} {own}");
        };
        check("e.com/gpu", "0", true);
        check("e.com/gpu", "1", false);
        check("e.com/none", "0", false);
        check("deviceclass.resource.kubernetes.io/k", "0", true);
    }
}
