//! Slices from Endpoints that people write.

use std::sync::Arc;

use api::resource::{ENDPOINTS, SERVICES};
use api::view::core::{Endpoints, Service};
use api::view::discovery::EndpointSlice;
use apimachinery::{Value, json};

use super::reconcile;
use super::reconcile::ENDPOINTS_PER_SUBSET_MAX;
use crate::plan::Plan;
use crate::testing::Cluster;

fn cluster(selector: Value, labels: Value, ips: &[String]) -> Cluster {
    let mut cluster = Cluster::new();
    let meta = json!({"name": "db", "namespace": "a"});
    cluster.create(SERVICES, json!({"metadata": meta, "spec": {"selector": selector}}));
    let addresses: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    cluster.create(
        ENDPOINTS,
        json!({"metadata": {"name": "db", "namespace": "a", "labels": labels}, "subsets": [
            {"addresses": addresses, "notReadyAddresses": [{"ip": "10.9.9.9", "hostname": "late"}],
                "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]}]}),
    );
    cluster
}

fn decide(cluster: &Cluster) -> Plan {
    let endpoints = cluster.get::<Endpoints>("a", "db");
    let service = cluster.get::<Service>("a", "db");
    reconcile(endpoints.as_deref(), service.as_deref(), &cluster.list::<EndpointSlice>())
}

fn settle(cluster: &mut Cluster) -> Vec<Arc<EndpointSlice>> {
    cluster.apply(&decide(cluster));
    let again = decide(cluster);
    assert!(again.is_empty(), "{again:?}");
    cluster.list()
}

fn ips(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| text.to_string()).collect()
}

#[test]
fn endpoints_of_a_service_without_selector_are_mirrored_by_family() {
    let mut cluster = cluster(json!({}), json!({"team": "x"}), &ips(&["10.1.0.1", "fd00::1"]));
    let slices = settle(&mut cluster);
    let found: Vec<(&str, usize)> =
        slices.iter().map(|s| (s.address_type.as_str(), s.endpoints.len())).collect();
    assert_eq!(found, [("IPv4", 2), ("IPv6", 1)]);
    assert_eq!(slices[0].metadata.labels["kubernetes.io/service-name"], "db");
    assert_eq!(slices[0].metadata.labels["team"], "x");
    assert_eq!(slices[0].ports[0].port, Some(5432));
    let late = &slices[0].endpoints[1];
    assert_eq!((late.conditions.ready, late.hostname.as_deref()), (Some(false), Some("late")));
    cluster.edit(ENDPOINTS, "a", "db", |e| e["subsets"][0]["addresses"] = json!([{"ip": "10.1.0.2"}]));
    let slices = settle(&mut cluster);
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].endpoints[0].addresses, ["10.1.0.2"]);
}

#[test]
fn what_is_not_to_be_mirrored_is_not_and_loses_its_mirror() {
    let one = ips(&["10.1.0.1"]);
    let skipped = json!({"endpointslice.kubernetes.io/skip-mirror": "true"});
    assert!(settle(&mut cluster(json!({}), skipped, &one)).is_empty());
    assert!(settle(&mut cluster(json!({"app": "db"}), json!({}), &one)).is_empty());
    let mut cluster = cluster(json!({}), json!({}), &one);
    assert_eq!(settle(&mut cluster).len(), 1);
    cluster.remove(SERVICES, "a", "db");
    assert!(settle(&mut cluster).is_empty());
}

#[test]
fn invalid_and_too_many_addresses_are_left_out_and_told() {
    let mut many: Vec<String> =
        (0..ENDPOINTS_PER_SUBSET_MAX).map(|n| format!("10.2.{}.{}", n / 250, n % 250)).collect();
    many.push("nonsense".into());
    let mut cluster = cluster(json!({}), json!({}), &many);
    let slices = settle(&mut cluster);
    assert_eq!(slices[0].endpoints.len(), ENDPOINTS_PER_SUBSET_MAX);
    let told: Vec<&str> = cluster.told.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(told, ["InvalidIPAddress", "TooManyAddressesToMirror"]);
}
