//! Custom resources, from their definition on.

use apimachinery::{Text, Value, json};

use super::fixture::Fixture;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";

/// A definition of widgets whose version v1 has this schema of its spec.
fn definition(spec: Value) -> Value {
    let schema = json!({"type": "object", "properties": {"spec": spec,
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList", "shortNames": ["wd"], "categories": ["all"]},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema},
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "additionalPrinterColumns": [{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
                "selectableFields": [{"jsonPath": ".spec.color"}],
            }],
        },
    })
}

fn sized() -> Value {
    json!({"type": "object", "properties": {
        "size": {"type": "integer", "minimum": 1, "default": 3},
        "color": {"type": "string", "enum": ["red", "blue"]},
        "replicas": {"type": "integer"},
        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port"],
            "items": {"type": "object", "required": ["port"], "properties": {"port": {"type": "integer"}, "name": {"type": "string"}}}}}})
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

async fn with_widgets() -> Fixture {
    let fixture = Fixture::new().await;
    fixture.check(&format!("POST {DEFINITIONS}"), definition(sized()), 201, json!({})).await;
    fixture
}

#[tokio::test]
async fn a_definition_is_served_in_the_very_next_request() {
    let fixture = Fixture::new().await;
    let made = fixture
        .check(
            &format!("POST {DEFINITIONS}"),
            definition(sized()),
            201,
            json!({"status": {
        "acceptedNames": {"kind": "Widget"}, "storedVersions": ["v1"]}}),
        )
        .await;
    let conditions = made["status"]["conditions"].as_array().expect("has some");
    assert!(conditions.iter().any(|c| c["type"] == "Established" && c["status"] == "True"), "{conditions:?}");
    let made = fixture
        .check(
            &format!("POST {WIDGETS}"),
            widget("a", json!({})),
            201,
            json!({
        "metadata": {"generation": 1, "namespace": "default"}, "spec": {"size": 3}}),
        )
        .await;
    fixture.check(&format!("GET {WIDGETS}/a"), Value::Null, 200, made).await;
    fixture
        .check(
            &format!("GET {WIDGETS}"),
            Value::Null,
            200,
            json!({"kind": "WidgetList", "items": [{"kind": "Widget"}]}),
        )
        .await;
    let groups = fixture
        .check("GET /apis/example.com/v1", Value::Null, 200, json!({"groupVersion": "example.com/v1"}))
        .await;
    let names: Vec<&str> =
        groups["resources"].as_array().expect("a list").iter().filter_map(|r| r["name"].as_str()).collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    let index = fixture.check("GET /openapi/v3", Value::Null, 200, json!({})).await;
    assert!(index["paths"]["apis/example.com/v1"].is_object());
    let document = fixture.check("GET /openapi/v3/apis/example.com/v1", Value::Null, 200, json!({})).await;
    let schema = &document["components"]["schemas"]["com.example.v1.Widget"];
    assert_eq!(schema["properties"]["spec"]["properties"]["size"]["default"], 3);
    let patch = &document["paths"]["/apis/example.com/v1/namespaces/{namespace}/widgets/{name}"]["patch"];
    let accepted: Vec<&str> =
        patch["requestBody"]["content"].as_object().expect("has some").keys().map(Text::as_str).collect();
    assert!(!accepted.iter().any(|ty| ty.contains("strategic")), "{accepted:?}");
    let document = fixture.check("GET /openapi/v2", Value::Null, 200, json!({})).await;
    assert_eq!(
        document["definitions"]["com.example.v1.Widget"]["properties"]["spec"]["properties"]["size"]["type"],
        "integer"
    );
}

#[tokio::test]
async fn what_a_schema_refuses_is_told_in_upstreams_words() {
    let fixture = with_widgets().await;
    let message = |answer: Value| answer["message"].as_str().unwrap_or_default().to_owned();
    let answer = fixture
        .check(
            &format!("POST {WIDGETS}"),
            widget("a", json!({"size": "x"})),
            422,
            json!({"reason": "Invalid"}),
        )
        .await;
    assert_eq!(
        message(answer),
        "Widget.example.com \"a\" is invalid: spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\""
    );
    let answer = fixture
        .check(&format!("POST {WIDGETS}"), widget("a", json!({"color": "pink"})), 422, json!({}))
        .await;
    assert_eq!(
        message(answer),
        "Widget.example.com \"a\" is invalid: spec.color: Unsupported value: \"pink\": supported values: \"red\", \"blue\""
    );
    let ports = json!({"ports": [{"port": 1}, {"port": 1}]});
    let answer = fixture.check(&format!("POST {WIDGETS}"), widget("a", ports), 422, json!({})).await;
    assert_eq!(
        message(answer),
        "Widget.example.com \"a\" is invalid: spec.ports[1]: Duplicate value: {\"port\":1}"
    );
}

#[tokio::test]
async fn rules_of_the_schema_hold_for_objects_and_for_their_changes() {
    let fixture = Fixture::new().await;
    let mut spec = sized();
    spec["x-kubernetes-validations"] = json!([
        {"rule": "self.size >= oldSelf.size", "message": "widgets do not shrink"},
        {"rule": "!has(self.replicas) || self.replicas <= self.size", "reason": "FieldValueForbidden"}]);
    fixture.check(&format!("POST {DEFINITIONS}"), definition(spec), 201, json!({})).await;
    let refused = async |request: &str, spec: Value, why: &str| {
        let answer = fixture.check(request, widget("a", spec), 422, json!({"reason": "Invalid"})).await;
        assert_eq!(answer["message"], format!("Widget.example.com \"a\" is invalid: {why}"));
    };
    let create = format!("POST {WIDGETS}");
    let many = "spec: Forbidden: failed rule: !has(self.replicas) || self.replicas <= self.size";
    refused(&create, json!({"size": 2, "replicas": 3}), many).await;
    let unchecked =
        "spec.size: Invalid value: \"string\": spec.size in body must be of type integer: \"string\"";
    let answer = fixture.check(&create, widget("a", json!({"size": "x"})), 422, json!({})).await;
    let message = answer["message"].as_str().unwrap_or_default();
    assert!(
        message.contains(unchecked) && message.contains("some validation rules were not checked"),
        "{message}"
    );
    fixture.check(&create, widget("a", json!({"size": 4, "replicas": 3})), 201, json!({})).await;
    let patch = format!("PATCH {WIDGETS}/a\nContent-Type: application/merge-patch+json");
    refused(&patch, json!({"size": 3}), "spec: Invalid value: widgets do not shrink").await;
    fixture.check(&patch, widget("a", json!({"size": 5})), 200, json!({"spec": {"size": 5}})).await;
}

#[tokio::test]
async fn unknown_fields_are_pruned_warned_about_or_refused() {
    let fixture = with_widgets().await;
    let body = || widget("a", json!({"sise": 1})).to_string();
    let answer = fixture.send(&format!("POST {WIDGETS}?fieldValidation=Strict"), body()).await;
    assert_eq!(answer.code, 400);
    assert_eq!(
        answer.json()["message"],
        "Widget in version \"v1\" cannot be handled as a Widget: strict decoding error: unknown field \"spec.sise\""
    );
    let answer = fixture.send(&format!("POST {WIDGETS}"), body()).await;
    assert_eq!(answer.code, 201);
    assert_eq!(answer.headers["warning"], "299 - \"unknown field \\\"spec.sise\\\"\"");
    assert_eq!(answer.json()["spec"], json!({"size": 3}));
}

#[tokio::test]
async fn the_status_is_written_on_its_own_and_does_not_count_as_a_generation() {
    let fixture = with_widgets().await;
    let with_status = |status: Value| {
        let mut object = widget("a", json!({"size": 4}));
        object["status"] = status;
        object
    };
    let made = fixture
        .check(&format!("POST {WIDGETS}"), with_status(json!({"x": 1})), 201, json!({"status": null}))
        .await;
    let mut object = made.clone();
    object["status"] = json!({"phase": "Ready"});
    object["spec"]["size"] = 9.into();
    let written = fixture
        .check(
            &format!("PUT {WIDGETS}/a/status"),
            object,
            200,
            json!({"status": {"phase": "Ready"}, "spec": {"size": 4}, "metadata": {"generation": 1}}),
        )
        .await;
    let mut object = written;
    object["spec"]["size"] = 5.into();
    object["status"] = json!({});
    fixture
        .check(
            &format!("PUT {WIDGETS}/a"),
            object.clone(),
            200,
            json!({"status": {"phase": "Ready"}, "metadata": {"generation": 2}}),
        )
        .await;
    object["metadata"]["resourceVersion"] = Value::Null;
    fixture.check(&format!("PUT {WIDGETS}/a"), object, 422, json!({})).await;
}

#[tokio::test]
async fn a_scale_is_read_and_set_where_the_definition_says() {
    let fixture = with_widgets().await;
    fixture.check(&format!("POST {WIDGETS}"), widget("a", json!({"replicas": 2})), 201, json!({})).await;
    let mut scale = fixture
        .check(
            &format!("GET {WIDGETS}/a/scale"),
            Value::Null,
            200,
            json!({"kind": "Scale", "spec": {"replicas": 2}, "status": {"replicas": 0}}),
        )
        .await;
    scale["spec"]["replicas"] = 7.into();
    fixture.check(&format!("PUT {WIDGETS}/a/scale"), scale, 200, json!({"spec": {"replicas": 7}})).await;
    fixture.check(&format!("GET {WIDGETS}/a"), Value::Null, 200, json!({"spec": {"replicas": 7}})).await;
    let apply =
        format!("PATCH {WIDGETS}/a/scale?fieldManager=scaler\nContent-Type: application/apply-patch+yaml");
    let applied = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 5}});
    fixture.check(&apply, applied, 409, json!({"reason": "Conflict"})).await;
}

#[tokio::test]
async fn patches_follow_the_schema_and_strategic_ones_are_refused() {
    let fixture = with_widgets().await;
    let apply = |manager: &str| {
        format!("PATCH {WIDGETS}/a?fieldManager={manager}\nContent-Type: application/apply-patch+yaml")
    };
    fixture
        .check(&apply("one"), widget("a", json!({"ports": [{"port": 1, "name": "x"}]})), 201, json!({}))
        .await;
    fixture
        .check(
            &apply("two"),
            widget("a", json!({"ports": [{"port": 2, "name": "y"}]})),
            200,
            json!({"spec": {"size": 3, "ports": [{"port": 1}, {"port": 2}]}}),
        )
        .await;
    fixture
        .check(
            &apply("two"),
            widget("a", json!({"ports": [{"port": 1, "name": "z"}]})),
            409,
            json!({"reason": "Conflict"}),
        )
        .await;
    let merge = format!("PATCH {WIDGETS}/a\nContent-Type: application/merge-patch+json");
    fixture
        .check(
            &merge,
            json!({"spec": {"size": 8, "unknown": 1}}),
            200,
            json!({"spec": {"size": 8, "unknown": null}}),
        )
        .await;
    let strategic = format!("PATCH {WIDGETS}/a\nContent-Type: application/strategic-merge-patch+json");
    fixture.check(&strategic, json!({}), 415, json!({"reason": "UnsupportedMediaType"})).await;
}

#[tokio::test]
async fn tables_show_the_columns_of_the_definition() {
    let fixture = with_widgets().await;
    fixture.check(&format!("POST {WIDGETS}"), widget("a", json!({"color": "red"})), 201, json!({})).await;
    fixture.check(&format!("POST {WIDGETS}"), widget("b", json!({"color": "blue"})), 201, json!({})).await;
    let table = format!(
        "GET {WIDGETS}?fieldSelector=spec.color=blue\nAccept: application/json;as=Table;v=v1;g=meta.k8s.io"
    );
    fixture
        .check(
            &table,
            Value::Null,
            200,
            json!({"columnDefinitions": [{"name": "Name"}, {"name": "Size"}], "rows": [{"cells": ["b", 3]}]}),
        )
        .await;
    fixture.check(&format!("GET {WIDGETS}?fieldSelector=spec.size=3"), Value::Null, 400, json!({})).await;
    let answer =
        fixture.send(&format!("GET {WIDGETS}/a\nAccept: application/vnd.kubernetes.protobuf"), "").await;
    assert_eq!(answer.code, 406);
    let answer = fixture
        .send(&format!("GET {WIDGETS}/a\nAccept: application/vnd.kubernetes.protobuf,application/json"), "")
        .await;
    assert_eq!(answer.code, 200);
    assert_eq!(answer.headers["content-type"], "application/json");
}

#[tokio::test]
async fn instances_go_before_their_definition_does() {
    let fixture = with_widgets().await;
    let mut held = widget("a", json!({}));
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    fixture.check(&format!("POST {WIDGETS}"), held, 201, json!({})).await;
    let mut watch = fixture.stream(&format!("GET {DEFINITIONS}?watch=true&resourceVersion=0")).await;
    let deleted = fixture
        .check(&format!("DELETE {DEFINITIONS}/widgets.example.com"), Value::Null, 200, json!({}))
        .await;
    assert_eq!(deleted["metadata"]["finalizers"], json!(["customresourcecleanup.apiextensions.k8s.io"]));
    fixture
        .check(&format!("POST {WIDGETS}"), widget("b", json!({})), 405, json!({"reason": "MethodNotAllowed"}))
        .await;
    let release = format!("PATCH {WIDGETS}/a\nContent-Type: application/merge-patch+json");
    fixture.send(&release, r#"{"metadata":{"finalizers":null}}"#).await;
    super::watching::until(&mut watch, |event| event["type"] == "DELETED").await;
    for gone in [WIDGETS, "/apis/example.com/v1"] {
        assert_eq!(fixture.send(&format!("GET {gone}"), "").await.code, 404, "{gone}");
    }
}

#[tokio::test]
async fn names_that_are_taken_are_given_once_they_are_free() {
    let fixture = with_widgets().await;
    let mut other = definition(sized());
    other["metadata"]["name"] = "gadgets.example.com".into();
    other["spec"]["names"] =
        json!({"plural": "gadgets", "singular": "gadget", "kind": "Widget", "listKind": "GadgetList"});
    let made = fixture.check(&format!("POST {DEFINITIONS}"), other, 201, json!({})).await;
    let conditions = made["status"]["conditions"].as_array().expect("has some");
    assert!(
        conditions
            .iter()
            .any(|c| c["reason"] == "KindConflict" && c["message"] == "\"Widget\" is already in use")
    );
    let gadgets = "GET /apis/example.com/v1/namespaces/default/gadgets";
    fixture.check(gadgets, Value::Null, 404, json!({})).await;
    let mut watch = fixture
        .stream(&format!(
            "GET {DEFINITIONS}?watch=true&resourceVersion=0&fieldSelector=metadata.name=gadgets.example.com"
        ))
        .await;
    fixture.check(&format!("DELETE {DEFINITIONS}/widgets.example.com"), Value::Null, 200, json!({})).await;
    super::watching::until(&mut watch, |event| {
        let conditions = event["object"]["status"]["conditions"].as_array();
        conditions.is_some_and(|all| all.iter().any(|c| c["type"] == "Established" && c["status"] == "True"))
    })
    .await;
    fixture.check(gadgets, Value::Null, 200, json!({"kind": "GadgetList"})).await;
}

#[tokio::test]
async fn versions_without_a_webhook_differ_in_name_and_schema_only() {
    let fixture = Fixture::new().await;
    let mut two = definition(sized());
    let mut second = two["spec"]["versions"][0].clone();
    second["name"] = "v2".into();
    second["storage"] = false.into();
    second["deprecated"] = true.into();
    second["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["extra"] =
        json!({"type": "string", "default": "more"});
    two["spec"]["versions"].as_array_mut().expect("a list").push(second);
    fixture.check(&format!("POST {DEFINITIONS}"), two, 201, json!({})).await;
    fixture.check(&format!("POST {WIDGETS}"), widget("a", json!({})), 201, json!({})).await;
    let answer = fixture.send("GET /apis/example.com/v2/namespaces/default/widgets/a", "").await;
    assert_eq!(answer.headers["warning"], "299 - \"example.com/v2 Widget is deprecated\"");
    assert_eq!(
        (&answer.json()["apiVersion"], &answer.json()["spec"]["extra"]),
        (&json!("example.com/v2"), &json!("more"))
    );
    let mut object = answer.json();
    object["spec"]["size"] = 11.into();
    fixture
        .check(
            "PUT /apis/example.com/v2/namespaces/default/widgets/a",
            object,
            200,
            json!({"apiVersion": "example.com/v2"}),
        )
        .await;
    fixture
        .check(
            &format!("GET {WIDGETS}/a"),
            Value::Null,
            200,
            json!({"apiVersion": "example.com/v1", "spec": {"size": 11, "extra": null}}),
        )
        .await;
    let mut watch = fixture.stream("GET /apis/example.com/v2/widgets?watch=true").await;
    let event = super::watching::until(&mut watch, |event| event["type"] == "ADDED").await;
    assert_eq!(event["object"]["apiVersion"], "example.com/v2");
}

#[tokio::test]
async fn a_changed_schema_ends_watches_and_shows_in_what_was_stored_before() {
    let fixture = with_widgets().await;
    fixture.check(&format!("POST {WIDGETS}"), widget("a", json!({"color": "red"})), 201, json!({})).await;
    let mut watch = fixture.stream("GET /apis/example.com/v1/widgets?watch=true").await;
    super::watching::until(&mut watch, |event| event["type"] == "ADDED").await;
    let patch = json!([
        {"op": "remove", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/color"},
        {"op": "remove", "path": "/spec/versions/0/selectableFields"},
        {"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/shape", "value": {"type": "string", "default": "round"}},
    ]);
    let request =
        format!("PATCH {DEFINITIONS}/widgets.example.com\nContent-Type: application/json-patch+json");
    fixture.check(&request, patch, 200, json!({})).await;
    super::watching::ended(&mut watch).await;
    fixture
        .check(
            &format!("GET {WIDGETS}/a"),
            Value::Null,
            200,
            json!({"spec": {"shape": "round", "color": null}}),
        )
        .await;
    fixture
        .check(
            &format!("GET {WIDGETS}"),
            Value::Null,
            200,
            json!({"items": [{"spec": {"shape": "round", "color": null}}]}),
        )
        .await;
}

#[tokio::test]
async fn applied_configurations_are_checked_as_they_were_written() {
    let fixture = with_widgets().await;
    let apply = |validation: &str| {
        format!(
            "PATCH {WIDGETS}/a?fieldManager=me&fieldValidation={validation}\nContent-Type: application/apply-patch+yaml"
        )
    };
    let text =
        |spec: &str| format!("apiVersion: example.com/v1\nkind: Widget\nmetadata:\n  name: a\nspec:\n{spec}");
    let answer = fixture.send(&apply("Strict"), text("  sise: 1\n")).await;
    assert!(
        answer.json()["message"]
            .as_str()
            .unwrap_or_default()
            .ends_with(".spec.sise: field not declared in schema")
    );
    let twice = || text("  size: 1\n  size: 2\n");
    let answer = fixture.send(&apply("Strict"), twice()).await;
    let complaint =
        "error converting YAML to JSON: yaml: unmarshal errors:\n  line 7: key \"size\" already set in map";
    assert_eq!(answer.json()["message"], format!("error strict decoding YAML: {complaint}"));
    let answer = fixture.send(&apply("Ignore"), twice()).await;
    assert_eq!((answer.code, &answer.json()["spec"]["size"]), (201, &json!(2)));
}
