//! The objects that the server answers for itself.

use apimachinery::{Value, json};
use http_body_util::BodyExt;

use super::fixture::Fixture;

const API_SERVICES: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const ADDRESSES: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const LEVELS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations";

/// Reads a watch until an event of this type for an object of this name.
async fn await_event(watch: &mut client::Body, event: &str, name: &str) {
    let mut text = String::new();
    while let Some(frame) = watch.frame().await {
        let data = frame.expect("is whole").into_data().expect("is data");
        text.push_str(std::str::from_utf8(&data).expect("is UTF-8"));
        let told = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        if told.into_iter().any(|told| told["type"] == event && told["object"]["metadata"]["name"] == name) {
            return;
        }
    }
    panic!("no {event} of {name} in {text}");
}

#[tokio::test]
async fn every_group_version_has_an_api_service_and_definitions_bring_theirs() {
    let server = Fixture::new().await;
    let available =
        json!({"status": {"conditions": [{"type": "Available", "status": "True", "reason": "Local"}]}});
    server.check(&format!("GET {API_SERVICES}/v1.apps"), Value::Null, 200, available.clone()).await;
    let mut watch = server.stream(&format!("GET {API_SERVICES}?watch=1")).await;
    let definition = json!({"metadata": {"name": "boxes.example.com"}, "spec": {
        "group": "example.com", "scope": "Namespaced", "names": {"plural": "boxes", "kind": "Box"},
        "versions": [{"name": "v1", "served": true, "storage": true,
            "schema": {"openAPIV3Schema": {"type": "object"}}}]}});
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    server.check(&format!("POST {definitions}"), definition, 201, json!({})).await;
    await_event(&mut watch, "ADDED", "v1.example.com").await;
    server.check(&format!("GET {API_SERVICES}/v1.example.com"), Value::Null, 200, available).await;
    server.check(&format!("DELETE {definitions}/boxes.example.com"), Value::Null, 200, json!({})).await;
    await_event(&mut watch, "DELETED", "v1.example.com").await;
}

#[tokio::test]
async fn what_is_mandatory_comes_back() {
    let server = Fixture::new().await;
    let mut watch = server.stream(&format!("GET {LEVELS}?watch=1&resourceVersion=0")).await;
    await_event(&mut watch, "ADDED", "exempt").await;
    server.check(&format!("DELETE {LEVELS}/exempt"), Value::Null, 200, json!({})).await;
    await_event(&mut watch, "DELETED", "exempt").await;
    await_event(&mut watch, "ADDED", "exempt").await;
}

#[tokio::test]
async fn an_address_object_lives_as_long_as_the_service_that_holds_the_address() {
    let server = Fixture::new().await;
    let range = json!({"spec": {"cidrs": ["10.96.0.0/16"]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    server.check("GET /apis/networking.k8s.io/v1/servicecidrs/kubernetes", Value::Null, 200, range).await;
    let parent = json!({"spec": {"parentRef": {"resource": "services", "namespace": "default", "name": "kubernetes"}}});
    server.check(&format!("GET {ADDRESSES}/10.96.0.1"), Value::Null, 200, parent).await;
    let mut watch = server.stream(&format!("GET {ADDRESSES}?watch=1")).await;
    let service =
        json!({"metadata": {"name": "s"}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}});
    server.check("POST /api/v1/namespaces/default/services", service, 201, json!({})).await;
    await_event(&mut watch, "ADDED", "10.96.0.77").await;
    server.check("DELETE /api/v1/namespaces/default/services/s", Value::Null, 200, json!({})).await;
    await_event(&mut watch, "DELETED", "10.96.0.77").await;
}
