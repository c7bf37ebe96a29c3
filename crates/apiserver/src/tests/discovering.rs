//! Discovery, version, health, OpenAPI, metrics.

use apimachinery::json;

use super::fixture::Fixture;

#[tokio::test]
async fn clients_find_what_is_served() {
    let api = Fixture::new().await;
    let get = async |path: &str, expect| api.check(&format!("GET {path}"), json!(null), 200, expect).await;
    get("/api", json!({"kind": "APIVersions", "versions": ["v1"]})).await;
    get("/apis", json!({"kind": "APIGroupList"})).await;
    get("/apis/apps", json!({"kind": "APIGroup", "name": "apps"})).await;
    get("/api/v1", json!({"kind": "APIResourceList", "groupVersion": "v1"})).await;
    get("/apis/apps/v1", json!({"groupVersion": "apps/v1"})).await;
    get("/version", json!({"major": "1", "minor": "36"})).await;
    get("/openapi/v2", json!({"swagger": "2.0"})).await;
    get("/openapi/v3", json!({})).await;
    get("/openapi/v3/apis/apps/v1", json!({"openapi": "3.0.0"})).await;
    api.check("GET /apis/nothing", json!(null), 404, json!({})).await;
    api.check(
        "GET /apis/apps/v1/nothings",
        json!(null),
        404,
        json!({"message": "the server could not find the requested resource"}),
    )
    .await;
    api.check("GET /nothing", json!(null), 404, json!({})).await;
    api.check("DELETE /api/v1/nodes/n/status", json!(null), 405, json!({})).await;
}

#[tokio::test]
async fn aggregated_discovery_names_its_media_type() {
    let api = Fixture::new().await;
    let accept = "Accept: application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList,application/json";
    for path in ["/api", "/apis"] {
        let answer = api.send(&format!("GET {path}\n{accept}"), "").await;
        assert_eq!(
            answer.headers["content-type"],
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        );
        assert_eq!(answer.json()["kind"], "APIGroupDiscoveryList");
    }
}

#[tokio::test]
async fn health_is_told_as_a_whole_and_in_parts() {
    let api = Fixture::new().await;
    for path in ["/healthz", "/livez", "/readyz", "/readyz/ping"] {
        assert_eq!(api.send(&format!("GET {path}"), "").await.bytes, "ok", "{path}");
    }
    let verbose = api.send("GET /readyz?verbose", "").await;
    assert!(verbose.bytes.ends_with(b"readyz check passed\n"));
    assert!(verbose.bytes.starts_with(b"[+]ping ok\n"));
}

#[tokio::test]
async fn requests_are_counted() {
    let api = Fixture::new().await;
    api.check("GET /api/v1/pods", json!(null), 200, json!({})).await;
    let metrics = api.send("GET /metrics", "").await;
    let text = String::from_utf8_lossy(&metrics.bytes);
    assert!(text.contains("apiserver_request_total{code=\"200\",dry_run=\"\",component=\"apiserver\",group=\"\",resource=\"pods\",scope=\"cluster\",subresource=\"\",verb=\"LIST\",version=\"v1\"} 1"), "{text}");
}

#[tokio::test]
async fn a_second_start_finds_what_the_first_made() {
    let api = Fixture::new().await;
    let before =
        api.check("GET /api/v1/namespaces/default/services/kubernetes", json!(null), 200, json!({})).await;
    let api = api.restart().await;
    api.check("GET /api/v1/namespaces/default/services/kubernetes", json!(null), 200, before).await;
    assert_eq!(api.send("GET /readyz", "").await.bytes, "ok");
}
