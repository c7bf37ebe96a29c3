//! Deletion: at once, gracefully, held by finalizers, of collections and namespaces.

use apimachinery::json;

use super::fixture::{Fixture, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn an_object_goes_at_once_with_a_status() {
    let api = Fixture::new().await;
    let made = api.check(&format!("POST {MAPS}"), config_map("a"), 201, json!({})).await;
    let wrong = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": "x"}});
    api.check(&format!("DELETE {MAPS}/a"), wrong, 409, json!({"reason": "Conflict"})).await;
    let details = json!({"name": "a", "kind": "configmaps", "uid": made["metadata"]["uid"]});
    api.check(
        &format!("DELETE {MAPS}/a"),
        json!(null),
        200,
        json!({"kind": "Status", "status": "Success", "details": details}),
    )
    .await;
    api.check(&format!("DELETE {MAPS}/a"), json!(null), 404, json!({})).await;
}

#[tokio::test]
async fn finalizers_hold_an_object_until_the_last_is_gone() {
    let api = Fixture::new().await;
    let mut object = config_map("a");
    object["metadata"]["finalizers"] = json!(["example.com/x"]);
    api.check(&format!("POST {MAPS}"), object, 201, json!({})).await;
    let marked = api.check(&format!("DELETE {MAPS}/a"), json!(null), 200, json!({"kind": "ConfigMap"})).await;
    assert!(marked["metadata"]["deletionTimestamp"].is_string());
    let patch = format!("PATCH {MAPS}/a\nContent-Type: application/merge-patch+json");
    api.check(&patch, json!({"metadata": {"finalizers": null}}), 200, json!({})).await;
    api.check(&format!("GET {MAPS}/a"), json!(null), 404, json!({})).await;
}

#[tokio::test]
async fn a_pod_on_a_node_waits_for_its_kubelet() {
    let api = Fixture::new().await;
    let mut object = pod("p");
    object["spec"]["nodeName"] = "n".into();
    let made = api.check(&format!("POST {PODS}"), object, 201, json!({})).await;
    let marked = api.check(&format!("DELETE {PODS}/p"), json!(null), 200, json!({"kind": "Pod"})).await;
    assert_eq!(marked["metadata"]["deletionGracePeriodSeconds"], 30);
    api.check(
        &format!("DELETE {PODS}/p"),
        json!(null),
        200,
        json!({"metadata": {"deletionGracePeriodSeconds": 30}}),
    )
    .await;
    let confirm = json!({"gracePeriodSeconds": 0, "preconditions": {"uid": made["metadata"]["uid"]}});
    api.check(&format!("DELETE {PODS}/p"), confirm, 200, json!({})).await;
    api.check(&format!("GET {PODS}/p"), json!(null), 404, json!({})).await;
}

#[tokio::test]
async fn a_pod_without_a_node_goes_at_once() {
    let api = Fixture::new().await;
    api.check(&format!("POST {PODS}"), pod("p"), 201, json!({})).await;
    api.check(&format!("DELETE {PODS}/p"), json!(null), 200, json!({"kind": "Pod"})).await;
    api.check(&format!("GET {PODS}/p"), json!(null), 404, json!({})).await;
}

#[tokio::test]
async fn a_collection_is_deleted_as_selected() {
    let api = Fixture::new().await;
    for name in ["a", "b"] {
        let mut object = config_map(name);
        object["metadata"]["labels"] = json!({"app": name});
        api.check(&format!("POST {MAPS}"), object, 201, json!({})).await;
    }
    let deleted =
        api.check(&format!("DELETE {MAPS}?labelSelector=app%3Da"), json!(null), 200, json!({})).await;
    assert_eq!(deleted["items"].as_array().map(Vec::len), Some(1));
    api.check(&format!("GET {MAPS}/a"), json!(null), 404, json!({})).await;
    api.check(&format!("GET {MAPS}/b"), json!(null), 200, json!({})).await;
}

#[tokio::test]
async fn a_namespace_is_finalized_before_it_goes() {
    let api = Fixture::new().await;
    api.check(
        "POST /api/v1/namespaces",
        json!({"metadata": {"name": "team"}}),
        201,
        json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
    )
    .await;
    let mut marked = api
        .check(
            "DELETE /api/v1/namespaces/team",
            json!(null),
            200,
            json!({"status": {"phase": "Terminating"}}),
        )
        .await;
    api.check(
        "POST /api/v1/namespaces/team/configmaps",
        config_map("late"),
        403,
        json!({"reason": "Forbidden"}),
    )
    .await;
    marked["spec"]["finalizers"] = json!([]);
    api.check("PUT /api/v1/namespaces/team/finalize", marked, 200, json!({})).await;
    api.check("GET /api/v1/namespaces/team", json!(null), 404, json!({})).await;
}
