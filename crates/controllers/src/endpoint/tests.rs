//! Endpoints from Services and pods.

use std::sync::Arc;

use api::resource::{ENDPOINTS, SERVICES};
use api::view::core::{Endpoints, Pod, Service};
use apimachinery::{Value, json};

use super::reconcile;
use super::subsets::ADDRESSES_MAX;
use crate::testing::Cluster;

fn cluster() -> Cluster {
    let mut cluster = Cluster::new();
    cluster.create(
        SERVICES,
        json!({
            "metadata": {"name": "web", "namespace": "a", "labels": {"team": "x"}},
            "spec": {"selector": {"app": "web"}, "clusterIP": "10.0.0.1", "ipFamilies": ["IPv4"],
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        }),
    );
    cluster
}

fn pod(number: usize, port: u16, ready: bool) -> Arc<Pod> {
    let name = format!("p{number:04}");
    let value = json!({
        "metadata": {"name": name, "namespace": "a", "uid": name, "labels": {"app": "web"}},
        "spec": {"nodeName": "n", "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": port}]}]},
        "status": {"phase": "Running", "podIPs": [{"ip": format!("10.1.{}.{}", number / 250, number % 250)}],
            "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}]},
    });
    Arc::new(apimachinery::from_value::<Pod>(value).expect("a pod"))
}

fn settle(cluster: &mut Cluster, pods: &[Arc<Pod>]) -> Value {
    let decide = |cluster: &Cluster| {
        let service = cluster.get::<Service>("a", "web").expect("it is there");
        reconcile(&service, pods, cluster.get::<Endpoints>("a", "web").as_deref())
    };
    let plan = decide(cluster);
    cluster.apply(&plan);
    assert!(decide(cluster).is_empty());
    cluster.value(ENDPOINTS, "a", "web").expect("they are made").clone()
}

#[test]
fn addresses_are_grouped_by_ports_and_readiness() {
    let mut cluster = cluster();
    let made = settle(&mut cluster, &[pod(1, 80, true), pod(2, 80, false), pod(3, 81, true)]);
    let ips = |addresses: &Value| -> Vec<String> {
        let addresses = addresses.as_array().cloned().unwrap_or_default();
        addresses.iter().map(|a| a["ip"].as_str().expect("an address").to_owned()).collect()
    };
    let subsets: Vec<(u64, Vec<String>, Vec<String>)> = made["subsets"]
        .as_array()
        .expect("subsets")
        .iter()
        .map(|s| {
            (
                s["ports"][0]["port"].as_u64().expect("a port"),
                ips(&s["addresses"]),
                ips(&s["notReadyAddresses"]),
            )
        })
        .collect();
    let one = |ip: &str| vec![ip.to_owned()];
    assert_eq!(subsets, [(80, one("10.1.0.1"), one("10.1.0.2")), (81, one("10.1.0.3"), Vec::new())]);
    assert_eq!(made["subsets"][0]["addresses"][0]["targetRef"]["name"], "p0001");
    assert_eq!(
        made["metadata"]["labels"],
        json!({"team": "x", "endpoints.kubernetes.io/managed-by": "endpoint-controller"})
    );
}

#[test]
fn past_the_capacity_those_not_ready_are_left_out_first() {
    let mut cluster = cluster();
    let mut pods: Vec<Arc<Pod>> = (0..ADDRESSES_MAX - 1).map(|n| pod(n, 80, true)).collect();
    pods.push(pod(ADDRESSES_MAX, 80, false));
    let made = settle(&mut cluster, &pods);
    assert!(made["metadata"]["annotations"].is_null());
    pods.push(pod(ADDRESSES_MAX + 1, 80, false));
    let made = settle(&mut cluster, &pods);
    assert_eq!(made["metadata"]["annotations"]["endpoints.kubernetes.io/over-capacity"], "truncated");
    let count = |field: &str| made["subsets"][0][field].as_array().expect("addresses").len();
    assert_eq!((count("addresses"), count("notReadyAddresses")), (ADDRESSES_MAX - 1, 1));
    settle(&mut cluster, &pods[..3]);
}

#[test]
fn a_service_without_pods_has_empty_endpoints() {
    let made = settle(&mut cluster(), &[]);
    assert_eq!(made["subsets"], json!([]));
}
