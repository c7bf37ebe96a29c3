//! Watches: initial events, changes, selectors, bookmarks, history that is gone.

use apimachinery::{Value, json};
use client::Body;
use http_body_util::BodyExt;

use super::fixture::{Fixture, config_map};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn next(stream: &mut Body) -> Value {
    let frame = stream.frame().await.expect("the watch goes on").expect("is not broken");
    serde_json::from_slice(&frame.into_data().expect("data")).expect("is JSON")
}

/// The first event of which this holds.
pub async fn until(stream: &mut Body, holds: impl Fn(&Value) -> bool) -> Value {
    loop {
        let event = next(stream).await;
        if holds(&event) {
            return event;
        }
    }
}

/// Waits for the watch's end.
pub async fn ended(stream: &mut Body) {
    while stream.frame().await.is_some() {}
}

/// `ADDED a` and the like.
async fn check(stream: &mut Body, expect: &str) -> Value {
    let event = next(stream).await;
    let name = event["object"]["metadata"]["name"].as_str().unwrap_or_default();
    assert_eq!(format!("{} {name}", event["type"].as_str().expect("a type")), expect, "{event}");
    event
}

#[tokio::test]
async fn a_watch_tells_what_is_there_and_what_changes() {
    let api = Fixture::new().await;
    api.check(&format!("POST {MAPS}"), config_map("a"), 201, json!({})).await;
    let mut stream = api.stream(&format!("GET {MAPS}?watch=true")).await;
    check(&mut stream, "ADDED a").await;
    api.check(&format!("POST {MAPS}"), config_map("b"), 201, json!({})).await;
    check(&mut stream, "ADDED b").await;
    let mut changed = config_map("b");
    changed["data"]["a"] = "2".into();
    let updated = api.check(&format!("PUT {MAPS}/b"), changed, 200, json!({})).await;
    let event = check(&mut stream, "MODIFIED b").await;
    assert_eq!(event["object"], updated);
    api.check(&format!("DELETE {MAPS}/b"), json!(null), 200, json!({})).await;
    let event = check(&mut stream, "DELETED b").await;
    assert_ne!(event["object"]["metadata"]["resourceVersion"], updated["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn leaving_a_selection_looks_like_deletion() {
    let api = Fixture::new().await;
    let mut stream = api.stream(&format!("GET {MAPS}?watch=true&labelSelector=in%3Dyes")).await;
    let mut object = config_map("a");
    api.check(&format!("POST {MAPS}"), object.clone(), 201, json!({})).await;
    object["metadata"]["labels"] = json!({"in": "yes"});
    api.check(&format!("PUT {MAPS}/a"), object.clone(), 200, json!({})).await;
    check(&mut stream, "ADDED a").await;
    object["metadata"]["labels"] = json!({"in": "no"});
    let left = api.check(&format!("PUT {MAPS}/a"), object, 200, json!({})).await;
    let event = check(&mut stream, "DELETED a").await;
    assert_eq!(event["object"]["metadata"]["labels"]["in"], "yes");
    assert_eq!(event["object"]["metadata"]["resourceVersion"], left["metadata"]["resourceVersion"]);
}

#[tokio::test]
async fn only_the_first_table_of_a_watch_tells_its_columns() {
    let api = Fixture::new().await;
    for name in ["a", "b"] {
        api.check(&format!("POST {MAPS}"), config_map(name), 201, json!({})).await;
    }
    let accept = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io";
    let mut stream = api.stream(&format!("GET {MAPS}?watch=true\n{accept}")).await;
    let columns = next(&mut stream).await["object"]["columnDefinitions"].clone();
    assert_eq!(columns[0]["name"], "Name");
    api.check(&format!("DELETE {MAPS}/b"), json!(null), 200, json!({})).await;
    for kind in ["ADDED", "DELETED"] {
        let event = next(&mut stream).await;
        assert_eq!((&event["type"], &event["object"]["rows"][0]["cells"][0]), (&json!(kind), &json!("b")));
        assert_eq!(event["object"].get("columnDefinitions"), Some(&Value::Null), "{event}");
    }
}

#[tokio::test]
async fn a_streaming_list_ends_with_a_bookmark() {
    let api = Fixture::new().await;
    api.check(&format!("POST {MAPS}"), config_map("a"), 201, json!({})).await;
    let query =
        "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut stream = api.stream(&format!("GET {MAPS}?{query}")).await;
    check(&mut stream, "ADDED a").await;
    let bookmark = check(&mut stream, "BOOKMARK ").await;
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    api.check(&format!("POST {MAPS}"), config_map("b"), 201, json!({})).await;
    check(&mut stream, "ADDED b").await;
}

#[tokio::test]
async fn a_watch_resumes_after_a_revision() {
    let api = Fixture::new().await;
    let made = api.check(&format!("POST {MAPS}"), config_map("a"), 201, json!({})).await;
    api.check(&format!("POST {MAPS}"), config_map("b"), 201, json!({})).await;
    let version = made["metadata"]["resourceVersion"].as_str().expect("a revision");
    let mut stream = api.stream(&format!("GET {MAPS}?watch=true&resourceVersion={version}")).await;
    check(&mut stream, "ADDED b").await;
}

#[tokio::test]
async fn a_watch_ends_at_its_timeout() {
    let api = Fixture::new().await;
    let version = api.check(&format!("GET {MAPS}"), json!(null), 200, json!({})).await;
    let version = version["metadata"]["resourceVersion"].as_str().expect("a revision").to_owned();
    let mut stream =
        api.stream(&format!("GET {MAPS}?watch=true&timeoutSeconds=5&resourceVersion={version}")).await;
    tokio::time::pause();
    assert!(stream.frame().await.is_none());
}

#[tokio::test]
async fn a_watch_that_cannot_begin_is_refused() {
    let api = Fixture::new().await;
    let error =
        api.check(&format!("GET {MAPS}?watch=true&resourceVersion=x"), json!(null), 500, json!({})).await;
    let message = "resourceVersion: Invalid value: \"x\": strconv.ParseUint: parsing \"x\": invalid syntax";
    assert_eq!(error["message"], message);
    let contradictory = format!("GET {MAPS}?watch=true&sendInitialEvents=true");
    api.check(&contradictory, json!(null), 422, json!({"reason": "Invalid"})).await;
}

#[tokio::test]
async fn frames_are_had_in_protobuf() {
    let api = Fixture::new().await;
    api.check(&format!("POST {MAPS}"), config_map("a"), 201, json!({})).await;
    let accept = "Accept: application/vnd.kubernetes.protobuf;stream=watch";
    let mut stream = api.stream(&format!("GET {MAPS}?watch=true\n{accept}")).await;
    let frame = stream.frame().await.expect("goes on").expect("is not broken").into_data().expect("data");
    let (length, body) = frame.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().expect("four bytes")) as usize, body.len());
    let (event_type, object) = apimachinery::codec::protobuf::parse_watch_event(body).expect("is an event");
    assert_eq!(event_type, "ADDED");
    let object = apimachinery::codec::protobuf::decode_any(api::schema(), object).expect("is an object");
    assert_eq!(object["metadata"]["name"], "a");
    let list = api.send(&format!("GET {MAPS}\nAccept: application/vnd.kubernetes.protobuf"), "").await;
    let list = apimachinery::codec::protobuf::decode_any(api::schema(), &list.bytes).expect("is a list");
    assert_eq!(list["items"][0]["data"]["a"], "1");
}
