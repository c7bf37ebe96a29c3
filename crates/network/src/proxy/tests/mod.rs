//! The proxy's decisions by table, and its rules against the real kernel.

mod kernel;
mod planning;

use std::sync::Arc;

use api::view::core::Service;
use api::view::discovery::EndpointSlice;
use serde_json::{Value, json};

/// A Service with one TCP port 80 unless `spec` says otherwise.
fn service(name: &str, spec: Value) -> Arc<Service> {
    let mut merged =
        json!({"type": "ClusterIP", "clusterIP": "10.96.0.10", "ports": [{"port": 80, "protocol": "TCP"}]});
    for (key, value) in spec.as_object().expect("an object") {
        merged[key] = value.clone();
    }
    let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": merged});
    Arc::new(serde_json::from_value(object).expect("a Service"))
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
    Arc::new(serde_json::from_value(object).expect("an EndpointSlice"))
}

fn endpoint(address: &str) -> Value {
    json!({"addresses": [address]})
}
