//! What objects use, and what a quota counts.

use apimachinery::json;

use super::*;

fn now() -> Timestamp {
    "2026-01-01T00:00:00Z".parse().expect("a time")
}

/// Calls with objects by resource, and all device classes.
fn counting<T>(objects: &Value, classes: &Value, call: impl FnOnce(&Counting) -> T) -> T {
    let all = |found: &Value| found.as_array().into_iter().flatten().cloned().map(Arc::new).collect();
    let list = |resource: &str| all(&objects[resource]);
    call(&Counting { now: now(), list: &list, device_classes: &|| all(classes) })
}

fn usage(resource: &str, object: &Value) -> Value {
    let evaluator = Evaluator::of("", resource).expect("is counted");
    counting(&Value::Null, &Value::Null, |counting| to_value(&evaluator.usage(object, counting)))
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
    let found =
        counting(&Value::Null, &Value::Null, |counting| Evaluator::ResourceClaims.usage(&claim, counting));
    assert_eq!(
        to_value(&found),
        json!({"count/resourceclaims.resource.k8s.io": "1",
            "gpu.deviceclass.resource.k8s.io/devices": "34", "tpu.deviceclass.resource.k8s.io/devices": "1",
            "requests.deviceclass.resource.kubernetes.io/gpu": "34",
            "requests.deviceclass.resource.kubernetes.io/tpu": "1"})
    );
}

#[test]
fn devices_are_charged_as_the_extended_resource_of_their_class_once() {
    let limit = "requests.example.com/gpu";
    let classes = json!([{"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}}]);
    let claim = |name: &str, devices: i64, owner: &Value| {
        json!({"metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"}, "ownerReferences": [owner]},
            "spec": {"devices": {"requests": [{"exactly":
                {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": devices}}]}}})
    };
    let owner =
        |uid: &str| json!({"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true});
    let asks = json!({"requests": {"example.com/gpu": "2"}, "limits": {"example.com/gpu": "2"}});
    let mut pod = json!({"metadata": {"name": "p", "uid": "u"},
        "spec": {"containers": [{"name": "a", "resources": asks}]}});
    let check = |pod: &Value, claims: &[Value], classes: &Value, expect: &str| {
        let objects = json!({"pods": [pod], "resourceclaims.resource.k8s.io": claims});
        let quota = json!({"spec": {"hard": {limit: "9"}}});
        let used = counting(&objects, classes, |counting| calculate_usage(&quota, counting));
        assert_eq!(to_value(&used), json!({limit: expect}), "{objects}");
    };
    let mine = claim("b", 2, &owner("u"));
    check(&pod, &[], &classes, "2");
    check(&pod, std::slice::from_ref(&mine), &classes, "2");
    check(&pod, std::slice::from_ref(&mine), &json!([]), "2");
    // It has more devices than the pod has paid for.
    check(&pod, &[claim("b", 3, &owner("u"))], &classes, "3");
    // Another pod's of the same name, one that came second, and a user's own are paid for as they are.
    check(&pod, &[claim("b", 2, &owner("gone"))], &classes, "4");
    check(&pod, &[mine.clone(), claim("c", 2, &owner("u"))], &classes, "4");
    check(&pod, &[claim("b", 2, &Value::Null)], &classes, "4");
    // Once the pod names its claim, no other is its own.
    pod["status"] = json!({"extendedResourceClaimStatus": {"resourceClaimName": "c"}});
    check(&pod, &[mine], &classes, "4");
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
        let counting = Counting { now: now(), list: &list, device_classes: &Vec::new };
        assert_eq!(to_value(&calculate_usage(&quota, &counting)), expect, "{quota}");
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
