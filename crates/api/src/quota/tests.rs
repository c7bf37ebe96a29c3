//! What objects use, and what a quota counts.

use apimachinery::json;

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

fn usage(resource: &str, object: &Value) -> Value {
    to_value(&Evaluator::of("", resource).expect("is counted").usage(object, now()))
}

#[test]
fn a_running_pod_is_charged_for_all_it_asks_for_and_an_ended_one_for_being_there() {
    let mut pod = json!({"spec": {
        "overhead": {"cpu": "10m"},
        "containers": [{"name": "a", "resources": {
            "requests": {"cpu": "1", "memory": "1Gi", "hugepages-2Mi": "4Mi", "example.com/gpu": "2"},
            "limits": {"cpu": "2", "example.com/gpu": "2"}}}]}});
    assert_eq!(
        usage("pods", &pod),
        json!({"count/pods": "1", "pods": "1", "cpu": "1010m", "requests.cpu": "1010m", "limits.cpu": "2010m",
            "memory": "1Gi", "requests.memory": "1Gi", "hugepages-2Mi": "4Mi", "requests.hugepages-2Mi": "4Mi",
            "requests.example.com/gpu": "2"})
    );
    pod["status"] = json!({"phase": "Succeeded"});
    assert_eq!(usage("pods", &pod), json!({"count/pods": "1"}));
    pod["status"] = json!({});
    pod["metadata"] = json!({"deletionTimestamp": "2025-12-31T23:59:00Z", "deletionGracePeriodSeconds": 30});
    assert_eq!(usage("pods", &pod), json!({"count/pods": "1"}));
}

#[test]
fn what_a_resize_has_not_given_back_is_still_charged() {
    let pod = json!({"spec": {"containers": [{"name": "a", "resources": {"requests": {"cpu": "1"}}}]},
        "status": {"containerStatuses": [{"name": "a", "resources": {"requests": {"cpu": "3"}}}]}});
    assert_eq!(usage("pods", &pod)["requests.cpu"], "3");
}

#[test]
fn services_are_charged_for_the_ports_they_will_get() {
    let table = [
        (json!({"type": "ClusterIP", "ports": [{}, {}]}), ["0", "0"]),
        (json!({"type": "NodePort", "ports": [{}, {}]}), ["2", "0"]),
        (json!({"type": "LoadBalancer", "ports": [{}, {}]}), ["2", "1"]),
        (
            json!({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": false, "ports": [{"nodePort": 30001}, {}]}),
            ["1", "1"],
        ),
    ];
    for (spec, [ports, balancers]) in table {
        let found = usage("services", &json!({"spec": spec}));
        assert_eq!(found["services.nodeports"], ports, "{spec}");
        assert_eq!(found["services.loadbalancers"], balancers, "{spec}");
    }
}

#[test]
fn volume_claims_are_charged_to_their_class_too() {
    let claim = json!({"spec": {"storageClassName": "gold", "resources": {"requests": {"storage": "10Gi"}}},
        "status": {"allocatedResources": {"storage": "12Gi"}}});
    assert_eq!(
        usage("persistentvolumeclaims", &claim),
        json!({"persistentvolumeclaims": "1", "count/persistentvolumeclaims": "1", "requests.storage": "12Gi",
            "gold.storageclass.storage.k8s.io/persistentvolumeclaims": "1",
            "gold.storageclass.storage.k8s.io/requests.storage": "12Gi"})
    );
}

#[test]
fn devices_are_charged_for_the_worst_case() {
    let claim = json!({"spec": {"devices": {"requests": [
        {"exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 2}},
        {"firstAvailable": [{"deviceClassName": "gpu", "allocationMode": "All"},
                            {"deviceClassName": "tpu", "allocationMode": "ExactCount", "count": 1}]}]}}});
    let found = Evaluator::of("resource.k8s.io", "resourceclaims").expect("is counted").usage(&claim, now());
    assert_eq!(found["gpu.deviceclass.resource.k8s.io/devices"].to_string(), "34");
    assert_eq!(found["tpu.deviceclass.resource.k8s.io/devices"].to_string(), "1");
}

#[test]
fn a_quota_counts_what_its_scopes_and_names_select() {
    let pods: Vec<Arc<Value>> = [
        json!({"spec": {"priorityClassName": "high", "containers": [{"resources": {"requests": {"cpu": "1"}}}]}}),
        json!({"spec": {"activeDeadlineSeconds": 5, "containers": [{}]}}),
        json!({"spec": {"containers": [{}]}}),
    ]
    .map(Arc::new)
    .to_vec();
    let list = |resource: &str| if resource == "pods" { pods.clone() } else { vec![Arc::new(json!({}))] };
    let check = |spec: Value, expect: Value| {
        let quota = json!({"spec": spec});
        assert_eq!(to_value(&calculate_usage(&quota, &list, now())), expect, "{quota}");
    };
    let hard = json!({"pods": "9", "requests.cpu": "9", "count/deployments.apps": "2", "unknown": "1"});
    check(json!({"hard": hard}), json!({"pods": "3", "requests.cpu": "1", "count/deployments.apps": "1"}));
    check(json!({"hard": {"pods": "1"}, "scopes": ["Terminating"]}), json!({"pods": "1"}));
    check(json!({"hard": {"pods": "1"}, "scopes": ["NotTerminating", "BestEffort"]}), json!({"pods": "1"}));
    let class = |operator: &str, values: &[&str]| {
        json!({"hard": {"pods": "1"}, "scopeSelector": {"matchExpressions":
            [{"scopeName": "PriorityClass", "operator": operator, "values": values}]}})
    };
    check(class("In", &["high"]), json!({"pods": "1"}));
    check(class("NotIn", &["high"]), json!({"pods": "2"}));
    check(class("Exists", &[]), json!({"pods": "1"}));
    check(json!({"hard": {"configmaps": "1"}}), json!({"configmaps": "1"}));
}

#[test]
fn containers_must_state_what_an_old_kind_of_quota_counts() {
    let pod = json!({"spec": {"containers": [{"name": "b"}, {"name": "a", "resources": {"requests": {"cpu": "1"}}}]}});
    let required = ["requests.cpu", "limits.memory", "requests.ephemeral-storage"];
    assert_eq!(
        Evaluator::Pods.constraints(&required, &pod),
        Err("must specify limits.memory for: a,b; requests.cpu for: b".to_owned())
    );
    assert_eq!(Evaluator::of("events.k8s.io", "events"), None);
}
