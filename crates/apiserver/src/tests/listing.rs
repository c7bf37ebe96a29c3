//! Lists: selectors, pages, revisions, tables.

use apimachinery::json;

use super::fixture::{Fixture, config_map, pod};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn names(list: &apimachinery::Value) -> Vec<String> {
    let items = list["items"].as_array().expect("items");
    items.iter().map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn pages_show_one_revision() {
    let api = Fixture::new().await;
    for name in ["a", "b", "c"] {
        api.check(&format!("POST {MAPS}"), config_map(name), 201, json!({})).await;
    }
    let first = api
        .check(
            &format!("GET {MAPS}?limit=2"),
            json!(null),
            200,
            json!({"kind": "ConfigMapList", "metadata": {"remainingItemCount": 1}}),
        )
        .await;
    assert_eq!(names(&first), ["a", "b"]);
    assert!(first["items"][0].get("kind").is_none(), "items of a list carry no kind");
    api.check(&format!("POST {MAPS}"), config_map("bb"), 201, json!({})).await;
    api.check(&format!("DELETE {MAPS}/c"), json!(null), 200, json!({})).await;
    let token = first["metadata"]["continue"].as_str().expect("a token");
    let second =
        api.check(&format!("GET {MAPS}?limit=2&continue={token}"), json!(null), 200, json!({})).await;
    assert_eq!(names(&second), ["c"]);
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    assert!(second["metadata"].get("continue").is_none());
}

#[tokio::test]
async fn lists_are_counted_with_what_they_looked_at() {
    let api = Fixture::new().await;
    for name in ["a", "b"] {
        api.check("POST /api/v1/namespaces/default/pods", pod(name), 201, json!({})).await;
    }
    api.check("GET /api/v1/pods?labelSelector=app%3Da", json!(null), 200, json!({})).await;
    let page = api.send("GET /metrics", "").await.bytes;
    let page = String::from_utf8_lossy(&page);
    let index = r#"group="",index="",resource="pods""#;
    for line in [
        format!("apiserver_cache_list_total{{{index}}} 1"),
        format!("apiserver_cache_list_fetched_objects_total{{{index}}} 2"),
        r#"apiserver_cache_list_returned_objects_total{group="",resource="pods"} 1"#.to_owned(),
    ] {
        assert!(page.lines().any(|found| found == line), "{line}\nis not in\n{page}");
    }
}

#[tokio::test]
async fn selectors_pick_by_label_and_field() {
    let api = Fixture::new().await;
    for name in ["a", "b"] {
        api.check("POST /api/v1/namespaces/default/pods", pod(name), 201, json!({})).await;
    }
    let check = async |query: &str, expect: &[&str]| {
        let list = api.check(&format!("GET /api/v1/pods?{query}"), json!(null), 200, json!({})).await;
        assert_eq!(names(&list), expect, "{query}");
    };
    check("labelSelector=app%3Da", &["a"]).await;
    check("labelSelector=app%20in%20(a,b)", &["a", "b"]).await;
    check("fieldSelector=metadata.name%3Db", &["b"]).await;
    check("fieldSelector=status.phase!%3DPending", &[]).await;
    check("fieldSelector=spec.nodeName%3D", &["a", "b"]).await;
    let refused =
        api.check("GET /api/v1/pods?fieldSelector=spec.bogus%3Dx", json!(null), 400, json!({})).await;
    assert!(
        refused["message"].as_str().expect("a message").contains("field label not supported: spec.bogus")
    );
}

#[tokio::test]
async fn revisions_are_exact_newer_or_refused() {
    let api = Fixture::new().await;
    let made = api.check(&format!("POST {MAPS}"), config_map("a"), 201, json!({})).await;
    let at = made["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    api.check(&format!("POST {MAPS}"), config_map("b"), 201, json!({})).await;
    let exact = api
        .check(
            &format!("GET {MAPS}?resourceVersion={at}&resourceVersionMatch=Exact"),
            json!(null),
            200,
            json!({}),
        )
        .await;
    assert_eq!(names(&exact), ["a"]);
    let newer = api
        .check(
            &format!("GET {MAPS}?resourceVersion={at}&resourceVersionMatch=NotOlderThan"),
            json!(null),
            200,
            json!({}),
        )
        .await;
    assert_eq!(names(&newer), ["a", "b"]);
    let future = api
        .check(
            &format!("GET {MAPS}?resourceVersion=99999999"),
            json!(null),
            504,
            json!({"reason": "Timeout"}),
        )
        .await;
    assert_eq!(future["details"]["causes"][0]["reason"], "ResourceVersionTooLarge");
    api.check(&format!("GET {MAPS}?resourceVersion=x"), json!(null), 400, json!({})).await;
    let why = "the export parameter, deprecated since v1.14, is no longer supported";
    api.check(&format!("GET {MAPS}/a?export=true"), json!(null), 400, json!({"message": why})).await;
}

#[tokio::test]
async fn tables_and_metadata_are_given_when_asked_for() {
    let api = Fixture::new().await;
    api.check("POST /api/v1/namespaces/default/pods", pod("a"), 201, json!({})).await;
    let table = "GET /api/v1/namespaces/default/pods\nAccept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table =
        api.check(table, json!(null), 200, json!({"kind": "Table", "apiVersion": "meta.k8s.io/v1"})).await;
    assert_eq!(table["rows"][0]["cells"][0], "a");
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    assert_eq!(table["columnDefinitions"][0]["name"], "Name");
    let meta = "GET /api/v1/namespaces/default/pods\nAccept: application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let meta = api.check(meta, json!(null), 200, json!({"kind": "PartialObjectMetadataList"})).await;
    assert_eq!(names(&meta), ["a"]);
    assert!(meta["items"][0].get("spec").is_none());
}

#[tokio::test]
async fn reviews_are_not_shown_as_tables() {
    let api = Fixture::new().await;
    let review = json!({"spec": {"nonResourceAttributes": {"path": "/", "verb": "get"}}});
    let post = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews\nAccept: application/json;as=Table;v=v1;g=meta.k8s.io";
    api.check(post, review.clone(), 406, json!({"reason": "NotAcceptable"})).await;
    api.check(&format!("{post},application/json"), review, 201, json!({"status": {"allowed": true}})).await;
}
