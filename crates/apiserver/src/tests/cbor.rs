//! CBOR in and out, where it is turned on, and that it is not there by default.

use apimachinery::codec::cbor;
use apimachinery::{Value, json};
use http_body_util::BodyExt;

use super::fixture::{Fixture, config_map};
use crate::features::{CBOR, Features};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const HEADERS: &str = "Accept: application/cbor\nContent-Type: application/cbor";

async fn speaking_cbor() -> Fixture {
    let features = Features::parse([format!("{CBOR}=true").as_str()]).expect("is known");
    Fixture::with(|config| config.set_features(features)).await
}

/// Sends a value as CBOR and reads CBOR.
async fn check(api: &Fixture, request: &str, body: &Value, code: u16) -> Value {
    let headers = if request.contains('\n') { request.to_owned() } else { format!("{request}\n{HEADERS}") };
    let answer = api.send(&headers, cbor::encode(body)).await;
    assert_eq!(answer.code, code, "{request}: {}", String::from_utf8_lossy(&answer.bytes));
    assert_eq!(answer.headers["content-type"], "application/cbor");
    cbor::decode(&answer.bytes).expect("is CBOR")
}

#[tokio::test]
async fn objects_are_written_and_read_in_cbor() {
    let api = speaking_cbor().await;
    let made = check(&api, &format!("POST {CONFIG_MAPS}"), &config_map("a"), 201).await;
    let read = api.check(&format!("GET {CONFIG_MAPS}/a"), Value::Null, 200, json!({})).await;
    assert_eq!(made, read);
    let list = api.send(&format!("GET {CONFIG_MAPS}\nAccept: application/cbor"), "").await;
    assert_eq!(cbor::decode(&list.bytes).expect("is CBOR")["items"][0]["data"], json!({"a": "1"}));
    let apply = format!(
        "PATCH {CONFIG_MAPS}/a?fieldManager=m&force=true\nAccept: application/cbor\n\
         Content-Type: application/apply-patch+cbor"
    );
    let mut wanted = config_map("a");
    wanted["data"] = json!({"a": "2"});
    assert_eq!(check(&api, &apply, &wanted, 200).await["data"], json!({"a": "2"}));
    let refused = check(&api, &format!("POST {CONFIG_MAPS}"), &config_map("a"), 409).await;
    assert_eq!(refused["reason"], "AlreadyExists");
    let unknown = json!({"metadata": {"name": "b"}, "dada": {}});
    let request = format!("POST {CONFIG_MAPS}?fieldValidation=Strict");
    assert_eq!(check(&api, &request, &unknown, 400).await["code"], 400);
}

#[tokio::test]
async fn a_watch_in_cbor_is_a_sequence_of_items() {
    let api = speaking_cbor().await;
    api.check(&format!("POST {CONFIG_MAPS}"), config_map("a"), 201, json!({})).await;
    let request = format!("GET {CONFIG_MAPS}?watch=true\nAccept: application/cbor");
    let response = api.open_as_admin(&request).await;
    assert_eq!(response.headers()["content-type"], "application/cbor-seq");
    let frame = response.into_body().frame().await.expect("an event").expect("a frame");
    let event = cbor::decode(&frame.into_data().expect("data")).expect("is one item");
    assert_eq!((&event["type"], &event["object"]["metadata"]["name"]), (&json!("ADDED"), &json!("a")));
}

#[tokio::test]
async fn by_default_cbor_is_refused_as_upstream_does() {
    let api = Fixture::new().await;
    let asked = api.send(&format!("GET {CONFIG_MAPS}\nAccept: application/cbor"), "").await;
    assert_eq!(asked.code, 406);
    let sent = format!("POST {CONFIG_MAPS}\nContent-Type: application/cbor");
    assert_eq!(api.send(&sent, cbor::encode(&config_map("a"))).await.code, 415);
    let applied = format!("PATCH {CONFIG_MAPS}/a?fieldManager=m\nContent-Type: application/apply-patch+cbor");
    assert_eq!(api.send(&applied, cbor::encode(&config_map("a"))).await.code, 415);
}
