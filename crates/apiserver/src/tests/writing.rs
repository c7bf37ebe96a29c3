//! Creation, update, patch, apply, dry run.

use apimachinery::codec::Format;
use apimachinery::json;
use futures_util::FutureExt;
use http_body_util::BodyExt;

use super::fixture::{Fixture, config_map, pod};
use crate::event_ttl::TTL;

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

#[tokio::test]
async fn an_object_is_created_read_updated_and_not_created_twice() {
    let api = Fixture::new().await;
    let created = api
        .check(
            &format!("POST {MAPS}"),
            config_map("a"),
            201,
            json!({"metadata": {"namespace": "default"}, "data": {"a": "1"}}),
        )
        .await;
    assert!(created["metadata"]["uid"].is_string() && created["metadata"]["managedFields"].is_array());
    api.check(&format!("GET {MAPS}/a"), json!(null), 200, created.clone()).await;
    api.check(
        &format!("POST {MAPS}"),
        config_map("a"),
        409,
        json!({"reason": "AlreadyExists", "message": "configmaps \"a\" already exists"}),
    )
    .await;
    let mut changed = created.clone();
    changed["data"]["a"] = "2".into();
    let updated =
        api.check(&format!("PUT {MAPS}/a"), changed.clone(), 200, json!({"data": {"a": "2"}})).await;
    assert_ne!(updated["metadata"]["resourceVersion"], created["metadata"]["resourceVersion"]);
    api.check(&format!("PUT {MAPS}/a"), changed.clone(), 409, json!({"reason": "Conflict"})).await;
    for any in ["", "0"] {
        changed["metadata"]["resourceVersion"] = any.into();
        api.check(&format!("PUT {MAPS}/a"), changed.clone(), 200, json!({})).await;
    }
    changed["metadata"]["resourceVersion"] = "x".into();
    let why = "strconv.ParseUint: parsing \"x\": invalid syntax";
    api.check(&format!("PUT {MAPS}/a"), changed, 500, json!({"message": why})).await;
    api.check(&format!("GET {MAPS}/b"), json!(null), 404, json!({"message": "configmaps \"b\" not found"}))
        .await;
}

#[tokio::test]
async fn an_update_that_changes_nothing_writes_nothing() {
    let api = Fixture::new().await;
    let created = api.check(&format!("POST {MAPS}"), config_map("a"), 201, json!({})).await;
    let version = json!({"metadata": {"resourceVersion": created["metadata"]["resourceVersion"]}});
    api.check(&format!("PUT {MAPS}/a"), created, 200, version.clone()).await;
    let merge = format!("PATCH {MAPS}/a\nContent-Type: application/merge-patch+json");
    api.check(&merge, json!({"data": {"a": "1"}}), 200, version).await;
}

#[tokio::test]
async fn a_name_is_generated_when_asked_for() {
    let api = Fixture::new().await;
    let mut object = config_map("");
    object["metadata"] = json!({"generateName": "web-"});
    let made = api.check(&format!("POST {MAPS}"), object, 201, json!({})).await;
    let name = made["metadata"]["name"].as_str().expect("has a name");
    assert!(name.starts_with("web-") && name.len() == 9, "{name}");
    api.check(&format!("POST {MAPS}"), json!({"metadata": {}}), 422, json!({"reason": "Invalid"})).await;
}

#[tokio::test]
async fn the_patches_reach_the_object() {
    let api = Fixture::new().await;
    api.check("POST /api/v1/namespaces/default/pods", pod("p"), 201, json!({"status": {"phase": "Pending"}}))
        .await;
    let patch =
        |kind: &str| format!("PATCH /api/v1/namespaces/default/pods/p\nContent-Type: application/{kind}");
    let labels = json!({"metadata": {"labels": {"x": "y"}}});
    api.check(&patch("merge-patch+json"), labels.clone(), 200, labels).await;
    let image = json!({"spec": {"containers": [{"name": "c", "image": "other"}]}});
    api.check(&patch("strategic-merge-patch+json"), image.clone(), 200, image).await;
    let operations = json!([{"op": "remove", "path": "/metadata/labels/x"}]);
    let patched = api.check(&patch("json-patch+json"), operations, 200, json!({})).await;
    assert!(patched["metadata"]["labels"].get("x").is_none());
    api.check(&patch("unknown"), json!({}), 415, json!({"reason": "UnsupportedMediaType"})).await;
}

#[tokio::test]
async fn apply_creates_owns_and_conflicts() {
    let api = Fixture::new().await;
    let apply = |manager: &str, more: &str| {
        format!("PATCH {MAPS}/a?fieldManager={manager}{more}\nContent-Type: application/apply-patch+yaml")
    };
    api.check(&apply("one", ""), config_map("a"), 201, json!({"data": {"a": "1"}})).await;
    api.check(&apply("one", ""), config_map("a"), 200, json!({"data": {"a": "1"}})).await;
    let mut other = config_map("a");
    other["data"]["a"] = "2".into();
    api.check(&apply("two", ""), other.clone(), 409, json!({"reason": "Conflict"})).await;
    api.check(&apply("two", "&force=true"), other.clone(), 200, json!({"data": {"a": "2"}})).await;
    let nobody = format!("PATCH {MAPS}/a\nContent-Type: application/apply-patch+yaml");
    api.check(&nobody, other, 422, json!({"reason": "Invalid"})).await;
}

#[tokio::test]
async fn a_dry_run_answers_and_leaves_no_trace() {
    let api = Fixture::new().await;
    api.check(&format!("POST {MAPS}?dryRun=All"), config_map("a"), 201, json!({"data": {"a": "1"}})).await;
    api.check(&format!("GET {MAPS}/a"), json!(null), 404, json!({})).await;
    api.check(&format!("POST {MAPS}"), config_map("a"), 201, json!({})).await;
    api.check(&format!("DELETE {MAPS}/a?dryRun=All"), json!(null), 200, json!({"status": "Success"})).await;
    let mut changed = config_map("a");
    changed["data"]["a"] = "2".into();
    api.check(&format!("PUT {MAPS}/a?dryRun=All"), changed, 200, json!({"data": {"a": "2"}})).await;
    api.check(&format!("GET {MAPS}/a"), json!(null), 200, json!({"data": {"a": "1"}})).await;
}

#[tokio::test]
async fn unknown_fields_are_refused_warned_of_or_ignored() {
    let api = Fixture::new().await;
    let mut object = config_map("a");
    object["bogus"] = 1.into();
    let strict = api.send(&format!("POST {MAPS}?fieldValidation=Strict"), object.to_string()).await;
    assert_eq!(strict.code, 400);
    assert!(strict.json()["message"].as_str().expect("a message").contains("unknown field \"bogus\""));
    let warned = api.send(&format!("POST {MAPS}"), object.to_string()).await;
    assert_eq!(warned.code, 201);
    assert_eq!(warned.headers["warning"], "299 - \"unknown field \\\"bogus\\\"\"");
    assert!(warned.json().get("bogus").is_none());
}

#[tokio::test]
async fn bodies_that_do_not_fit_are_refused() {
    let api = Fixture::new().await;
    api.check(&format!("POST {MAPS}"), pod("p"), 400, json!({"reason": "BadRequest"})).await;
    let mut elsewhere = config_map("a");
    elsewhere["metadata"]["namespace"] = "other".into();
    api.check(&format!("POST {MAPS}"), elsewhere, 400, json!({"message": "the namespace of the provided object does not match the namespace sent on the request"})).await;
    api.check(&format!("PUT {MAPS}/b"), config_map("a"), 400, json!({})).await;
    let leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases";
    api.check(
        &format!("PUT {leases}/b"),
        json!({"metadata": {"name": "a"}}),
        400,
        json!({"message": "the name of the object (a) does not match the name on the URL (b)"}),
    )
    .await;
    api.check(&format!("PUT {leases}/a"), json!({"metadata": {"name": "a"}}), 201, json!({"kind": "Lease"}))
        .await;
    let garbage = api.send(&format!("POST {MAPS}"), "{\"kind\":").await;
    assert_eq!(garbage.code, 400);
    let huge = api.send(&format!("POST {MAPS}"), vec![b' '; crate::body::REQUEST_BODY_BYTES_MAX + 1]).await;
    assert_eq!(huge.code, 413);
}

#[tokio::test]
async fn yaml_and_protobuf_are_taken_and_given() {
    let api = Fixture::new().await;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yaml\ndata:\n  a: \"1\"\n";
    let made = api
        .send(&format!("POST {MAPS}\nContent-Type: application/yaml\nAccept: application/yaml"), yaml)
        .await;
    assert_eq!(made.code, 201, "{}", String::from_utf8_lossy(&made.bytes));
    assert!(String::from_utf8_lossy(&made.bytes).contains("name: yaml"));
    let proto = api.send(&format!("GET {MAPS}/yaml\nAccept: application/vnd.kubernetes.protobuf"), "").await;
    assert!(proto.bytes.starts_with(b"k8s\0"));
    api.check(&format!("DELETE {MAPS}/yaml"), json!(null), 200, json!({})).await;
    let again = api
        .send(&format!("POST {MAPS}\nContent-Type: application/vnd.kubernetes.protobuf"), proto.bytes.clone())
        .await;
    assert_eq!(
        again.code, 500,
        "a resourceVersion may not be set on creation, which upstream finds out late"
    );
}

#[tokio::test]
async fn services_get_addresses_and_node_ports() {
    let api = Fixture::new().await;
    let services = "/api/v1/namespaces/default/services";
    api.check(
        &format!("GET {services}/kubernetes"),
        json!(null),
        200,
        json!({"spec": {"clusterIP": "10.96.0.1"}}),
    )
    .await;
    let service = json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 80}], "selector": {"a": "b"}}});
    let made = api.check(&format!("POST {services}"), service, 201, json!({})).await;
    assert!(made["spec"]["clusterIP"].as_str().expect("an address").starts_with("10.96."));
    assert!(made["spec"]["ports"][0]["nodePort"].as_u64().is_some_and(|p| (30000..=32767).contains(&p)));
    let taken =
        json!({"metadata": {"name": "t"}, "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]}});
    let refused = api.check(&format!("POST {services}"), taken, 422, json!({})).await;
    assert!(refused["message"].as_str().expect("a message").contains("provided IP is already allocated"));
}

#[tokio::test]
async fn a_pod_waits_for_the_default_account_of_its_new_namespace() {
    let api = Fixture::new().await;
    api.check("POST /api/v1/namespaces", json!({"metadata": {"name": "new"}}), 201, json!({})).await;
    let pod = api.check(
        "POST /api/v1/namespaces/new/pods",
        pod("p"),
        201,
        json!({"spec": {"serviceAccountName": "default"}}),
    );
    let account = api.check(
        "POST /api/v1/namespaces/new/serviceaccounts",
        json!({"metadata": {"name": "default"}}),
        201,
        json!({}),
    );
    tokio::join!(pod, account);
}

#[tokio::test]
async fn a_service_keeps_its_address_though_its_client_went_away() {
    let api = Fixture::new().await;
    let services = "/api/v1/namespaces/default/services";
    let service = |name: &str, address: u8| json!({"metadata": {"name": name}, "spec": {"clusterIP": format!("10.96.0.{address}"), "ports": [{"port": 80}]}});
    let request = format!("POST {services}");
    // The log may be done before its writer looks again: then there is nobody yet who went away.
    for address in 9.. {
        let first = format!("first-{address}");
        if api.check(&request, service(&first, address), 201, json!({})).now_or_never().is_some() {
            continue;
        }
        let watch = format!("GET {services}?watch=true&fieldSelector=metadata.name%3D{first}");
        api.stream(&watch).await.frame().await.expect("is created").expect("is not broken");
        api.check(&request, service("second", address), 422, json!({"reason": "Invalid"})).await;
        return;
    }
}

#[tokio::test]
async fn an_event_lives_for_an_hour() {
    let api = Fixture::new().await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
        "reason": "Tested", "type": "Normal"});
    let events = "/api/v1/namespaces/default/events";
    api.check(&format!("POST {events}"), event, 201, json!({})).await;
    // Whoever removes it counts from when he heard of it, a moment after it was written.
    while api.send(&format!("GET {events}/e"), "").await.code == 200 {
        tokio::time::pause();
        tokio::time::advance(TTL).await;
        tokio::time::resume();
    }
    api.check(&format!("GET {events}"), json!(null), 200, json!({"items": []})).await;
}

#[tokio::test]
async fn what_could_not_be_read_back_as_json_is_refused_in_protobuf_too() {
    let server = Fixture::new().await;
    let encoded = |levels: usize| {
        let fields = (0..levels).fold(json!({}), |inner, _| json!({"f:a": inner}));
        let mut object = config_map(&format!("deep-{levels}"));
        object["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": fields}]);
        let root = api::schema::type_id("io.k8s.api.core.v1.ConfigMap");
        api::schema().encode(root, Format::Protobuf, &object).expect("encodes")
    };
    let request = format!("POST {MAPS}\nContent-Type: application/vnd.kubernetes.protobuf");
    for (levels, code) in [(100, 201), (126, 400)] {
        let answer = server.send(&request, encoded(levels)).await;
        assert_eq!(answer.code, code, "{levels} levels: {}", String::from_utf8_lossy(&answer.bytes));
    }
    let table = format!("GET {MAPS}\nAccept: application/json;as=Table;v=v1;g=meta.k8s.io");
    server.check(&table, json!(null), 200, json!({"kind": "Table"})).await;
}
