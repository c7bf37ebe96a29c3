//! Who owns which field, of kinds that are served in several versions and of what nobody has set.

use apimachinery::{Value, json};

use super::fixture::Fixture;

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const AUTOSCALERS: &str = "namespaces/default/horizontalpodautoscalers";

fn event() -> Value {
    json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": "e", "namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z", "type": "Normal", "action": "a", "reason": "r", "note": "n",
        "reportingController": "example.com/c", "reportingInstance": "i",
        "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}})
}

/// The fields of a manager, and the version they are named in.
fn owned(object: &Value, manager: &str) -> (String, Value) {
    let entries = object["metadata"]["managedFields"].as_array().expect("is owned");
    let entry = entries.iter().find(|entry| entry["manager"] == manager).expect("owns something");
    (entry["apiVersion"].as_str().expect("a version").to_owned(), entry["fieldsV1"].clone())
}

#[tokio::test]
async fn fields_are_named_in_the_version_in_which_they_were_written() {
    let api = Fixture::new().await;
    let apply = |manager: &str| {
        format!("PATCH {EVENTS}/e?fieldManager={manager}\nContent-Type: application/apply-patch+yaml")
    };
    let made = api.check(&apply("one"), event(), 201, json!({"note": "n"})).await;
    let (version, fields) = owned(&made, "one");
    assert_eq!(version, "events.k8s.io/v1");
    assert!(fields["f:note"].is_object() && fields["f:regarding"].is_object(), "{fields:#}");
    let again = api.check(&apply("one"), event(), 200, json!({})).await;
    assert_eq!(again["metadata"]["resourceVersion"], made["metadata"]["resourceVersion"]);
    let core =
        api.check("GET /api/v1/namespaces/default/events/e", json!(null), 200, json!({"message": "n"})).await;
    assert_eq!(core["metadata"]["managedFields"], made["metadata"]["managedFields"]);
}

#[tokio::test]
async fn a_write_in_one_version_takes_fields_owned_in_another() {
    let api = Fixture::new().await;
    let autoscaler = json!({"metadata": {"name": "h"}, "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50,
        "scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}}});
    let post = format!("POST /apis/autoscaling/v1/{AUTOSCALERS}?fieldManager=one");
    let (version, fields) = owned(&api.check(&post, autoscaler, 201, json!({})).await, "one");
    assert_eq!(version, "autoscaling/v1");
    assert!(fields["f:spec"]["f:targetCPUUtilizationPercentage"].is_object(), "{fields:#}");
    let patch = format!(
        "PATCH /apis/autoscaling/v2/{AUTOSCALERS}/h?fieldManager=two\nContent-Type: application/merge-patch+json"
    );
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu",
        "target": {"type": "Utilization", "averageUtilization": 70}}}]);
    let changed = api.check(&patch, json!({"spec": {"metrics": metrics}}), 200, json!({})).await;
    let (version, fields) = owned(&changed, "two");
    assert_eq!((version.as_str(), fields["f:spec"]["f:metrics"].is_object()), ("autoscaling/v2", true));
    let (_, fields) = owned(&changed, "one");
    assert_eq!(fields["f:spec"]["f:targetCPUUtilizationPercentage"], Value::Null, "{fields:#}");
    assert!(fields["f:spec"]["f:maxReplicas"].is_object());
}

#[tokio::test]
async fn a_creator_does_not_own_what_every_object_has() {
    let api = Fixture::new().await;
    let event = json!({"metadata": {"name": "f"}, "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}});
    let made =
        api.check("POST /api/v1/namespaces/default/events?fieldManager=m", event, 201, json!({})).await;
    let (_, fields) = owned(&made, "m");
    assert_eq!(fields, json!({"f:involvedObject": {}, "f:type": {}}));
}

#[tokio::test]
async fn what_a_subresource_resets_is_nobodys() {
    let api = Fixture::new().await;
    let set = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}},
        "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    let made = api
        .check("POST /apis/apps/v1/namespaces/default/daemonsets?fieldManager=m", set, 201, json!({}))
        .await;
    let (_, fields) = owned(&made, "m");
    let annotation = "f:deprecated.daemonset.template.generation";
    assert_eq!(fields["f:metadata"]["f:annotations"], json!({".": {}, annotation: {}}));
    let labels = json!({"metadata": {"labels": {"l": "m"}}, "status": {}});
    let status = "PATCH /apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/catch-all/status?fieldManager=m\n\
                  Content-Type: application/merge-patch+json";
    let unchanged = api.check(status, labels, 200, json!({})).await;
    let entries = unchanged["metadata"]["managedFields"].as_array().expect("is owned");
    assert!(entries.iter().all(|entry| entry["manager"] != "m"), "{entries:#?}");
}
