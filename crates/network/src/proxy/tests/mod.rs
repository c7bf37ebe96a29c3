//! The proxy's decisions by table, and its rules against the real kernel.

mod conntrack;
mod kernel;
mod planning;

use std::sync::Arc;

use api::view::core::Service;
use api::view::discovery::EndpointSlice;
use apimachinery::meta::NamespacedName;
use apimachinery::{Value, json};

use super::{Changes, Place, ServicePlan, Tables, plan};
use crate::service::service_name;
use crate::testing::ip;
use crate::testing::node::HOST;

/// A Service with one TCP port 80 unless `spec` says otherwise.
fn service(name: &str, spec: Value) -> Arc<Service> {
    let mut merged =
        json!({"type": "ClusterIP", "clusterIP": "10.96.0.10", "ports": [{"port": 80, "protocol": "TCP"}]});
    for (key, value) in spec.as_object().expect("an object") {
        merged[key] = value.clone();
    }
    let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": merged});
    Arc::new(apimachinery::from_value(object).expect("a Service"))
}

/// A slice of a Service with target port 8080; each endpoint is an object such as
/// `{"addresses": ["10.244.0.2"]}`, on node `here` unless it says otherwise.
fn slice(service: &str, protocol: &str, endpoints: &[Value]) -> Arc<EndpointSlice> {
    let endpoints: Vec<Value> = endpoints
        .iter()
        .map(|endpoint| {
            let mut endpoint = endpoint.clone();
            if endpoint.get("nodeName").is_none() {
                endpoint["nodeName"] = json!("here");
            }
            endpoint
        })
        .collect();
    let v6 = endpoints
        .first()
        .is_some_and(|first| first["addresses"][0].as_str().is_some_and(|ip| ip.contains(':')));
    let object = json!({
        "metadata": {"namespace": "default", "name": format!("{service}-{}", if v6 { "v6" } else { "v4" }),
            "labels": {"kubernetes.io/service-name": service}},
        "addressType": if v6 { "IPv6" } else { "IPv4" },
        "ports": [{"name": "", "port": 8080, "protocol": protocol}],
        "endpoints": endpoints,
    });
    Arc::new(apimachinery::from_value(object).expect("an EndpointSlice"))
}

fn endpoint(address: &str) -> Value {
    json!({"addresses": [address]})
}

/// Plans one service into the tables.
fn set(tables: &mut Tables, changes: &mut Changes, service: &Service, slices: &[Arc<EndpointSlice>]) {
    let place = Place { node: "here".into(), zone: "zone-a".into(), addresses: vec![ip(HOST)] };
    tables.set(&service.metadata.namespaced_name(), plan(service, slices, &place), changes);
}

/// Makes the tables hold these services and no others.
fn plan_into(
    tables: &mut Tables,
    changes: &mut Changes,
    services: &[Arc<Service>],
    slices: &[Arc<EndpointSlice>],
) {
    let names: Vec<NamespacedName> = tables.services().cloned().collect();
    for name in
        names.iter().filter(|name| !services.iter().any(|kept| kept.metadata.namespaced_name() == **name))
    {
        tables.set(name, ServicePlan::default(), changes);
    }
    for service in services {
        let name = Some(service.metadata.name.as_str());
        let own: Vec<_> = slices.iter().filter(|slice| service_name(slice) == name).cloned().collect();
        set(tables, changes, service, &own);
    }
}
