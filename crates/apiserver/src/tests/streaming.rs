//! Long answers over a connection: they are made while they are taken, and nobody's slowness is another's.

use std::sync::Arc;

use apimachinery::{Value, json};
use auth::UserInfo;
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;

use super::fixture::{Fixture, config_map, pod};
use super::serving::Wire;
use crate::body::CHUNK_BYTES;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

/// A server on which everybody may read everything.
async fn open_to_all() -> (Arc<Fixture>, Wire) {
    let api = Arc::new(Fixture::new().await);
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    let role = json!({"metadata": {"name": "readers"}, "rules": [{"apiGroups": [""], "resources": ["*"], "verbs": ["get", "list", "watch"]}]});
    api.check(&format!("POST {rbac}/clusterroles"), role, 201, json!({})).await;
    let binding = json!({
        "metadata": {"name": "readers"},
        "subjects": [{"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:unauthenticated"}],
        "roleRef": {"kind": "ClusterRole", "apiGroup": "rbac.authorization.k8s.io", "name": "readers"},
    });
    api.check(&format!("POST {rbac}/clusterrolebindings"), binding, 201, json!({})).await;
    api.until_allowed(UserInfo::anonymous(), &format!("GET {MAPS}")).await;
    let wire = Wire::serve(api.clone()).await;
    (api, wire)
}

/// The body of an answer over a connection of its own, which lasts as long as its sender.
async fn get(wire: &Wire, path: &str, accept: &str) -> (http1::SendRequest<Empty<Bytes>>, Incoming) {
    let stream = wire.connect("http/1.1").await;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("shakes hands");
    tokio::spawn(connection);
    let request = http::Request::get(path).header("host", "localhost").header("accept", accept);
    let response =
        sender.send_request(request.body(Empty::new()).expect("a request")).await.expect("answers");
    assert_eq!(response.status(), 200, "{path}");
    (sender, response.into_body())
}

async fn next(body: &mut Incoming) -> Bytes {
    body.frame().await.expect("goes on").expect("is not broken").into_data().expect("data")
}

/// The names in the next events, and how many pieces they came in.
async fn names(body: &mut Incoming, count: usize) -> (Vec<String>, usize) {
    let (mut text, mut pieces) = (Vec::new(), 0);
    while text.iter().filter(|byte| **byte == b'\n').count() < count {
        text.extend_from_slice(&next(body).await);
        pieces += 1;
    }
    let events = serde_json::Deserializer::from_slice(&text).into_iter::<Value>();
    let name = |event: Value| event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    (events.map(|event| name(event.expect("is an event"))).collect(), pieces)
}

#[tokio::test]
async fn events_that_are_there_together_are_written_together() {
    let (api, wire) = open_to_all().await;
    let expect: Vec<String> = (10..22).map(|n| format!("map-{n}")).collect();
    for name in &expect {
        api.check(&format!("POST {MAPS}"), config_map(name), 201, json!({})).await;
    }
    let (sender, mut body) = get(&wire, &format!("{MAPS}?watch=true"), "*/*").await;
    let (found, pieces) = names(&mut body, expect.len()).await;
    assert_eq!(found, expect);
    assert!(pieces < expect.len(), "{pieces} pieces");
    drop((sender, body));
    wire.stop().await;
}

#[tokio::test]
async fn a_watcher_that_reads_nothing_keeps_nobody_waiting() {
    let (api, wire) = open_to_all().await;
    let path = format!("{MAPS}?watch=true&resourceVersion=1");
    let stalled = get(&wire, &path, "*/*").await;
    let (sender, mut body) = get(&wire, &path, "*/*").await;
    let large = "x".repeat(256 << 10);
    for n in 0..24 {
        let mut object = config_map(&format!("map-{n}"));
        object["data"]["a"] = large.as_str().into();
        api.check(&format!("POST {MAPS}"), object, 201, json!({})).await;
        let (found, _) = names(&mut body, 1).await;
        assert_eq!(found, [format!("map-{n}")]);
    }
    drop((sender, body, stalled));
    wire.stop().await;
}

/// A list in some form, of more than a chunk, and what it says.
async fn check_list(accept: &str, names_in: impl Fn(&[u8]) -> Vec<String>) {
    let (api, wire) = open_to_all().await;
    let expect: Vec<String> = (100..300).map(|n| format!("pod-{n}")).collect();
    for name in &expect {
        api.check("POST /api/v1/namespaces/default/pods", pod(name), 201, json!({})).await;
    }
    for _ in 0..2 {
        let (sender, body) = get(&wire, "/api/v1/pods", accept).await;
        let bytes = body.collect().await.expect("is whole").to_bytes();
        assert!(bytes.len() > CHUNK_BYTES, "{} bytes", bytes.len());
        assert_eq!(names_in(&bytes), expect, "{accept}");
        drop(sender);
    }
    wire.stop().await;
}

fn named(list: &Value, items: &str, name: &str) -> Vec<String> {
    let items = list[items].as_array().expect("items").iter();
    items.map(|item| item.pointer(name).and_then(Value::as_str).expect("a name").to_owned()).collect()
}

#[tokio::test]
async fn a_list_of_many_pieces_is_one_document_in_every_form() {
    let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).expect("is JSON");
    check_list("application/json", |bytes| named(&parse(bytes), "items", "/metadata/name")).await;
    check_list("application/json;as=Table;v=v1;g=meta.k8s.io", |bytes| {
        named(&parse(bytes), "rows", "/object/metadata/name")
    })
    .await;
    check_list("application/vnd.kubernetes.protobuf", |bytes| {
        let list = apimachinery::codec::protobuf::decode_any(api::schema(), bytes).expect("is a list");
        named(&list, "items", "/metadata/name")
    })
    .await;
}
