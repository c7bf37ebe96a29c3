//! Custom kinds whose versions a webhook converts.

use apimachinery::{Value, json};

use super::fixture::Fixture;
use super::webhook_server::WebhookServer;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const V1: &str = "/apis/example.com/v1/namespaces/default/boxes";
const V2: &str = "/apis/example.com/v2/namespaces/default/boxes";

/// Moves `spec.size` of v1 to `spec.dimensions.size` of v2 and back; refuses what has no size.
fn converted(mut object: Value, to: &str) -> Option<Value> {
    let size = object.pointer("/spec/size").or_else(|| object.pointer("/spec/dimensions/size"))?.clone();
    object["spec"] = match to {
        "example.com/v2" => json!({"dimensions": {"size": size}}),
        _ => json!({"size": size}),
    };
    object["apiVersion"] = to.into();
    Some(object)
}

fn answer(review: &Value) -> Value {
    let request = &review["request"];
    let to = request["desiredAPIVersion"].as_str().expect("a version");
    let objects = request["objects"].as_array().expect("objects");
    let all: Option<Vec<Value>> = objects.iter().map(|object| converted(object.clone(), to)).collect();
    let result = match &all {
        Some(_) => json!({"status": "Success"}),
        None => json!({"status": "Failure", "message": "there is no size"}),
    };
    json!({"kind": "ConversionReview", "apiVersion": "apiextensions.k8s.io/v1",
           "response": {"uid": request["uid"], "result": result, "convertedObjects": all}})
}

/// A webhook that converts boxes.
struct Webhook(WebhookServer);

impl Webhook {
    async fn start() -> Webhook {
        Webhook(WebhookServer::start(|review| Some(answer(review))).await)
    }

    fn definition(&self) -> Value {
        let version = |name: &str, storage: bool, spec: Value| {
            json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
                "properties": {"spec": {"type": "object", "properties": spec}}}}})
        };
        let size = json!({"type": "integer"});
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "boxes.example.com"},
            "spec": {
                "group": "example.com", "scope": "Namespaced",
                "names": {"plural": "boxes", "singular": "box", "kind": "Box", "listKind": "BoxList"},
                "versions": [
                    version("v1", true, json!({"size": size})),
                    version("v2", false, json!({"dimensions": {"type": "object", "properties": {"size": size}}})),
                ],
                "conversion": {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": self.0.client_config()}},
            },
        })
    }
}

fn boxed(version: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("example.com/{version}"), "kind": "Box", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test]
async fn a_webhook_leads_from_version_to_version() {
    let (api, webhook) = (Fixture::new().await, Webhook::start().await);
    api.check(&format!("POST {DEFINITIONS}"), webhook.definition(), 201, json!({})).await;
    api.check(&format!("POST {V1}"), boxed("v1", "a", json!({"size": 1})), 201, json!({})).await;
    assert_eq!(webhook.0.asked(), 0, "the stored version needs no conversion");
    let made = json!({"apiVersion": "example.com/v2", "spec": {"dimensions": {"size": 2}}});
    api.check(&format!("POST {V2}"), boxed("v2", "b", json!({"dimensions": {"size": 2}})), 201, made.clone())
        .await;
    api.check(
        &format!("GET {V1}/b"),
        Value::Null,
        200,
        json!({"apiVersion": "example.com/v1", "spec": {"size": 2}}),
    )
    .await;
    let before = webhook.0.asked();
    let items =
        json!({"items": [{"spec": {"dimensions": {"size": 1}}}, {"spec": {"dimensions": {"size": 2}}}]});
    api.check(&format!("GET {V2}"), Value::Null, 200, items).await;
    assert_eq!(webhook.0.asked(), before + 1, "a list is converted at once");
    let patch = format!("PATCH {V2}/a\nContent-Type: application/merge-patch+json");
    let change = json!({"spec": {"dimensions": {"size": 5}}});
    api.check(
        &patch,
        change,
        200,
        json!({"spec": {"dimensions": {"size": 5}}, "metadata": {"generation": 2}}),
    )
    .await;
    api.check(&format!("GET {V1}/a"), Value::Null, 200, json!({"spec": {"size": 5}})).await;
}

#[tokio::test]
async fn a_webhook_that_fails_is_told_about() {
    let (api, webhook) = (Fixture::new().await, Webhook::start().await);
    api.check(&format!("POST {DEFINITIONS}"), webhook.definition(), 201, json!({})).await;
    api.check(&format!("POST {V1}"), boxed("v1", "a", json!({})), 201, json!({})).await;
    let answer =
        api.check(&format!("GET {V2}/a"), Value::Null, 500, json!({"reason": "InternalError"})).await;
    let message = answer["message"].as_str().expect("a message");
    assert!(
        message.ends_with("conversion webhook for example.com/v1, Kind=Box failed: there is no size"),
        "{message}"
    );
    let mut elsewhere = webhook.definition();
    elsewhere["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"] = Value::Null;
    let patch = format!("PATCH {DEFINITIONS}/boxes.example.com\nContent-Type: application/merge-patch+json");
    api.check(&patch, json!({"spec": {"conversion": elsewhere["spec"]["conversion"]}}), 200, json!({})).await;
    let answer = api.check(&format!("GET {V2}/a"), Value::Null, 500, json!({})).await;
    let message = answer["message"].as_str().expect("a message");
    assert!(message.contains("failed: Post \"https://127.0.0.1:"), "{message}");
}

#[tokio::test]
async fn field_selectors_see_objects_as_the_version_asked_for_shows_them() {
    let (api, webhook) = (Fixture::new().await, Webhook::start().await);
    let mut definition = webhook.definition();
    definition["spec"]["versions"][1]["selectableFields"] = json!([{"jsonPath": ".spec.dimensions.size"}]);
    api.check(&format!("POST {DEFINITIONS}"), definition, 201, json!({})).await;
    for (name, size) in [("a", 1), ("b", 2), ("c", 2)] {
        api.check(&format!("POST {V1}"), boxed("v1", name, json!({"size": size})), 201, json!({})).await;
    }
    let selected = format!("{V2}?fieldSelector=spec.dimensions.size%3D2");
    let list = api.check(&format!("GET {selected}"), Value::Null, 200, json!({})).await;
    let names = |list: &Value| -> Vec<Value> {
        let items = list["items"].as_array().into_iter().flatten();
        items.map(|item| item["metadata"]["name"].clone()).collect()
    };
    assert_eq!(names(&list), ["b", "c"]);
    api.check(&format!("DELETE {selected}"), Value::Null, 200, json!({})).await;
    let left = api.check(&format!("GET {V2}"), Value::Null, 200, json!({})).await;
    assert_eq!(names(&left), ["a"]);
}
