//! Slices from Services and pods.

use std::sync::Arc;

use api::resource::{ENDPOINT_SLICES, PODS, SERVICES};
use api::view::core::{Pod, Service};
use api::view::discovery::EndpointSlice;
use apimachinery::{Value, json};

use super::slices::ENDPOINTS_PER_SLICE_MAX;
use super::{World, reconcile};
use crate::plan::Plan;
use crate::testing::Cluster;

fn service(change: Value) -> Value {
    let mut service = json!({
        "metadata": {"name": "web", "namespace": "a", "uid": "s", "labels": {"team": "x"}},
        "spec": {"selector": {"app": "web"}, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]},
    });
    for (field, value) in change.as_object().expect("fields") {
        service["spec"][field] = value.clone();
    }
    service
}

fn pod(number: usize, port: u16, ready: bool) -> Value {
    let name = format!("p{number:04}");
    json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.1.{}.{}", number / 250, number % 250)}, {"ip": "fd00::1"}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    })
}

fn cluster(service: Value, pods: &[Value]) -> Cluster {
    let mut cluster = Cluster::new();
    cluster.create(SERVICES, service);
    for pod in pods {
        cluster.create(PODS, pod.clone());
    }
    cluster
}

fn decide(cluster: &Cluster) -> Plan {
    let service = cluster.get::<Service>("a", "web").expect("it is there");
    let zones = [("n".to_owned(), "z".to_owned())].into();
    reconcile(&service, &World { pods: cluster.list::<Pod>(), zones, slices: cluster.list() })
}

fn settle(cluster: &mut Cluster) -> Vec<Arc<EndpointSlice>> {
    cluster.apply(&decide(cluster));
    let again = decide(cluster);
    assert!(again.is_empty(), "{again:?}");
    cluster.list()
}

#[test]
fn an_endpoint_says_what_its_pod_is() {
    let mut cluster = cluster(service(json!({})), &[pod(1, 8080, true)]);
    settle(&mut cluster);
    let slices: Vec<Arc<EndpointSlice>> = cluster.list();
    let slice = cluster.value(ENDPOINT_SLICES, "a", &slices[0].metadata.name).expect("it is there");
    assert_eq!(slice["addressType"], "IPv4");
    assert_eq!(
        slice["metadata"]["labels"],
        json!({"team": "x", "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"})
    );
    assert_eq!(slice["metadata"]["ownerReferences"][0]["uid"], "s");
    assert_eq!(slice["ports"], json!([{"name": "http", "port": 8080, "protocol": "TCP"}]));
    assert_eq!(
        slice["endpoints"],
        json!([{"addresses": ["10.1.0.1"], "nodeName": "n", "zone": "z",
        "conditions": {"ready": true, "serving": true, "terminating": false},
        "targetRef": {"kind": "Pod", "namespace": "a", "name": "p0001", "uid": "p0001"}}])
    );
}

#[test]
fn readiness_and_termination_show_in_conditions() {
    let check = |service_change: Value, ready: bool, ending: bool, expect: [bool; 3]| {
        let mut pod = pod(1, 80, ready);
        if ending {
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let slices = settle(&mut cluster(service(service_change), &[pod]));
        let conditions = &slices[0].endpoints[0].conditions;
        let found = [conditions.ready, conditions.serving, conditions.terminating];
        assert_eq!(found, expect.map(Some));
    };
    check(json!({}), true, false, [true, true, false]);
    check(json!({}), false, false, [false, false, false]);
    check(json!({}), true, true, [false, true, true]);
    check(json!({"publishNotReadyAddresses": true}), false, false, [true, false, false]);
}

#[test]
fn a_service_without_endpoints_has_one_empty_slice() {
    let mut ended = pod(1, 80, true);
    ended["status"]["phase"] = "Succeeded".into();
    let slices = settle(&mut cluster(service(json!({})), &[ended]));
    assert_eq!(slices.len(), 1);
    assert!(slices[0].endpoints.is_empty());
    let mut headless = cluster(service(json!({"clusterIP": "None"})), &[]);
    assert!(settle(&mut headless)[0].metadata.labels.contains_key("service.kubernetes.io/headless"));
}

#[test]
fn a_service_without_selector_is_left_alone() {
    let mut unselective = service(json!({}));
    unselective["spec"]["selector"] = json!({});
    assert!(settle(&mut cluster(unselective, &[pod(1, 80, true)])).is_empty());
}

#[test]
fn each_family_and_each_set_of_ports_has_its_own_slices() {
    let families = service(json!({"ipFamilies": ["IPv4", "IPv6"]}));
    let mut cluster = cluster(families, &[pod(1, 80, true), pod(2, 81, true)]);
    let slices = settle(&mut cluster);
    let mut found: Vec<(&str, u16)> =
        slices.iter().map(|s| (s.address_type.as_str(), s.ports[0].port.expect("a port"))).collect();
    found.sort_unstable();
    assert_eq!(found, [("IPv4", 80), ("IPv4", 81), ("IPv6", 80), ("IPv6", 81)]);
    cluster.remove(PODS, "a", "p0002");
    assert_eq!(settle(&mut cluster).len(), 2);
}

#[test]
fn slices_hold_no_more_than_their_limit() {
    let pods: Vec<Value> = (0..=ENDPOINTS_PER_SLICE_MAX).map(|n| pod(n, 80, true)).collect();
    let mut cluster = cluster(service(json!({})), &pods[..ENDPOINTS_PER_SLICE_MAX]);
    assert_eq!(settle(&mut cluster).len(), 1);
    cluster.create(PODS, pods[ENDPOINTS_PER_SLICE_MAX].clone());
    let slices = settle(&mut cluster);
    let mut sizes: Vec<usize> = slices.iter().map(|s| s.endpoints.len()).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, ENDPOINTS_PER_SLICE_MAX]);
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(32))]
    #[test]
    fn after_any_change_each_ready_pod_is_in_exactly_one_slice(
        before in proptest::collection::btree_set(0..250usize, 0..240),
        after in proptest::collection::btree_set(0..250usize, 0..240),
    ) {
        let mut cluster = cluster(service(json!({})), &[]);
        for number in &before {
            cluster.create(PODS, pod(*number, 80, true));
        }
        settle(&mut cluster);
        for number in before.difference(&after) {
            cluster.remove(PODS, "a", &format!("p{number:04}"));
        }
        for number in after.difference(&before) {
            cluster.create(PODS, pod(*number, 80, true));
        }
        let slices = settle(&mut cluster);
        let mut found: Vec<String> = slices.iter().flat_map(|s| &s.endpoints)
            .map(|e| e.target_ref.clone().expect("a target").name).collect();
        found.sort();
        proptest::prop_assert_eq!(found, after.iter().map(|n| format!("p{n:04}")).collect::<Vec<_>>());
        proptest::prop_assert!(slices.iter().all(|s| s.endpoints.len() <= ENDPOINTS_PER_SLICE_MAX));
    }
}
