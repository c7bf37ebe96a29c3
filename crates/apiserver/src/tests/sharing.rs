//! Several servers over one etcd.

use std::collections::BTreeSet;

use apimachinery::codec::protobuf;
use apimachinery::{Value, json};
use etcd::proto::RangeRequest;
use etcd::testing::Cluster;

use super::fixture::{Fixture, config_map, pod};
use super::watching::until;

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SERVICES: &str = "/api/v1/namespaces/default/services";

async fn two() -> (Cluster, Fixture, Fixture) {
    let cluster = Cluster::start(1).await;
    // At the same time, as machines that boot together.
    let (one, other) = tokio::join!(
        Fixture::over(cluster.config(), "192.0.2.1:6443"),
        Fixture::over(cluster.config(), "192.0.2.2:6443"),
    );
    (cluster, one, other)
}

#[tokio::test]
async fn what_one_server_has_answered_every_server_knows() {
    let (_cluster, one, other) = two().await;
    for n in 0..10 {
        let (writer, reader) = if n % 2 == 0 { (&one, &other) } else { (&other, &one) };
        let name = format!("a{n}");
        let made = writer.check(&format!("POST {CONFIG_MAPS}"), config_map(&name), 201, json!({})).await;
        let path = format!("{CONFIG_MAPS}/{name}");
        let found = reader.check(&format!("GET {path}"), Value::Null, 200, json!({})).await;
        assert_eq!(found, made);
        let mut changed = found;
        changed["data"] = json!({"b": "2"});
        let changed = reader.check(&format!("PUT {path}"), changed, 200, json!({"data": {"b": "2"}})).await;
        let version = &changed["metadata"]["resourceVersion"];
        let expect = json!({"metadata": {"resourceVersion": version}});
        writer
            .check(
                &format!("GET {CONFIG_MAPS}?fieldSelector=metadata.name={name}"),
                Value::Null,
                200,
                json!({"items": [expect]}),
            )
            .await;
        writer.check(&format!("DELETE {path}"), Value::Null, 200, json!({})).await;
        reader.check(&format!("GET {path}"), Value::Null, 404, json!({})).await;
    }
}

#[tokio::test]
async fn a_write_upon_what_another_server_has_changed_is_a_conflict() {
    let (_cluster, one, other) = two().await;
    let made = one.check(&format!("POST {CONFIG_MAPS}"), config_map("a"), 201, json!({})).await;
    let path = format!("PUT {CONFIG_MAPS}/a");
    let mut first = made.clone();
    first["data"] = json!({"a": "2"});
    other.check(&path, first, 200, json!({})).await;
    let mut second = made;
    second["data"] = json!({"a": "3"});
    one.check(&path, second, 409, json!({"reason": "Conflict"})).await;
}

#[tokio::test]
async fn a_watch_at_one_server_tells_what_is_done_at_another() {
    let (_cluster, one, other) = two().await;
    let list = other.check(&format!("GET {CONFIG_MAPS}"), Value::Null, 200, json!({})).await;
    let from = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let mut stream = other.stream(&format!("GET {CONFIG_MAPS}?watch=1&resourceVersion={from}")).await;
    one.check(&format!("POST {CONFIG_MAPS}"), config_map("a"), 201, json!({})).await;
    one.check(&format!("DELETE {CONFIG_MAPS}/a"), Value::Null, 200, json!({"status": "Success"})).await;
    let mut kinds = Vec::new();
    while kinds.len() < 2 {
        let event = until(&mut stream, |event| event["object"]["metadata"]["name"] == "a").await;
        kinds.push(event["type"].clone());
    }
    assert_eq!(kinds, ["ADDED", "DELETED"]);
}

#[tokio::test]
async fn a_custom_resource_is_served_everywhere_once_its_definition_is_made() {
    let (_cluster, one, other) = two().await;
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "foos.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "foos", "kind": "Foo"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema":
                {"type": "object", "properties": {"spec": {"type": "object", "properties": {"n": {"type": "integer"}}}}}}}]}});
    one.check("POST /apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition, 201, json!({}))
        .await;
    let foos = "/apis/example.com/v1/namespaces/default/foos";
    let foo = json!({"apiVersion": "example.com/v1", "kind": "Foo", "metadata": {"name": "a"}, "spec": {"n": 1, "m": 2}});
    let made = other.check(&format!("POST {foos}"), foo, 201, json!({"spec": {"n": 1, "m": null}})).await;
    assert_eq!(one.check(&format!("GET {foos}/a"), Value::Null, 200, json!({})).await, made);
}

#[tokio::test]
async fn services_get_addresses_and_ports_that_no_other_server_has_given() {
    let (_cluster, one, other) = two().await;
    let mut given = Vec::new();
    for (server, name) in [(&one, "a"), (&other, "b"), (&other, "c"), (&one, "d")] {
        let service =
            json!({"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        let made = server.check(&format!("POST {SERVICES}"), service, 201, json!({})).await;
        let spec = &made["spec"];
        assert!(
            !given.contains(&spec["clusterIP"]) && !given.contains(&spec["ports"][0]["nodePort"]),
            "{given:?}"
        );
        given.extend([spec["clusterIP"].clone(), spec["ports"][0]["nodePort"].clone()]);
    }
    let taken = json!({"metadata": {"name": "e"}, "spec": {"clusterIP": given[0], "ports": [{"port": 80}]}});
    other.check(&format!("POST {SERVICES}"), taken, 422, json!({"reason": "Invalid"})).await;
}

#[tokio::test]
async fn services_made_at_the_same_time_at_several_servers_share_nothing() {
    let (cluster, one, other) = two().await;
    let made = (0..24).map(|n| {
        let server = if n % 2 == 0 { &one } else { &other };
        let service = json!({"metadata": {"name": format!("s{n}")}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}});
        async move { server.check(&format!("POST {SERVICES}"), service, 201, json!({})).await }
    });
    let made = futures_util::future::join_all(made).await;
    let distinct = |field: &str| {
        made.iter()
            .map(|service| service.pointer(field).expect("is given").to_string())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(distinct("/spec/clusterIP").len(), 24);
    let ports = distinct("/spec/ports/0/nodePort");
    assert_eq!(ports.len(), 24);
    let addresses =
        one.check("GET /apis/networking.k8s.io/v1/ipaddresses", Value::Null, 200, json!({})).await;
    assert_eq!(addresses["items"].as_array().map(Vec::len), Some(25), "one each, and the API's own");
    let key = "/registry/ranges/servicenodeports".into();
    let found =
        cluster.client().range(RangeRequest { key, ..RangeRequest::default() }).await.expect("answers");
    let table = protobuf::decode_any(api::schema(), &found.kvs[0].value).expect("is a RangeAllocation");
    assert_eq!((&table["kind"], &table["range"]), (&json!("RangeAllocation"), &json!("30000-32767")));
}

#[tokio::test]
async fn an_address_is_free_for_every_server_once_its_service_is_deleted() {
    let (_cluster, one, other) = two().await;
    let service =
        json!({"metadata": {"name": "a"}, "spec": {"clusterIP": "10.96.0.77", "ports": [{"port": 80}]}});
    for n in 0..6 {
        let (maker, remover) = if n % 2 == 0 { (&one, &other) } else { (&other, &one) };
        maker.check(&format!("POST {SERVICES}"), service.clone(), 201, json!({})).await;
        let mut second = service.clone();
        second["metadata"]["name"] = "b".into();
        remover.check(&format!("POST {SERVICES}"), second, 422, json!({"reason": "Invalid"})).await;
        remover.check(&format!("DELETE {SERVICES}/a"), Value::Null, 200, json!({})).await;
    }
}

#[tokio::test]
async fn the_service_of_the_api_leads_to_every_server() {
    let (_cluster, one, _other) = two().await;
    let path = "/api/v1/namespaces/default/endpoints";
    let list = one.check(&format!("GET {path}"), Value::Null, 200, json!({})).await;
    let from = list["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let both = json!([{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]);
    if list["items"][0]["subsets"][0]["addresses"] == both {
        return;
    }
    let mut stream = one.stream(&format!("GET {path}?watch=1&resourceVersion={from}")).await;
    until(&mut stream, |event| event["object"]["subsets"][0]["addresses"] == both).await;
}

#[tokio::test]
async fn etcd_has_objects_under_upstreams_keys_and_events_for_an_hour() {
    let cluster = Cluster::start(1).await;
    let api = Fixture::over(cluster.config(), "192.0.2.1:6443").await;
    api.check(
        "POST /api/v1/namespaces/default/serviceaccounts",
        json!({"metadata": {"name": "default"}}),
        201,
        json!({}),
    )
    .await;
    api.check("POST /api/v1/namespaces/default/pods", pod("p"), 201, json!({})).await;
    let event = json!({"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}});
    api.check("POST /api/v1/namespaces/default/events", event, 201, json!({})).await;
    let client = cluster.client();
    for (key, start, leased) in [
        ("/registry/pods/default/p", &b"k8s\0"[..], false),
        ("/registry/events/default/e", b"k8s\0", true),
        ("/registry/services/specs/default/kubernetes", b"k8s\0", false),
        ("/registry/masterleases/192.0.2.1", b"k8s\0", true),
        ("/registry/apiregistration.k8s.io/apiservices/v1.", b"{", false),
    ] {
        let range = client.range(RangeRequest { key: key.into(), ..RangeRequest::default() }).await.unwrap();
        let found = range.kvs.first().unwrap_or_else(|| panic!("{key} is not there"));
        assert!(found.value.starts_with(start), "{key}");
        assert_eq!(found.lease != 0, leased, "{key}");
    }
}

#[tokio::test]
async fn a_server_that_starts_later_shows_what_was_written_before_as_it_was() {
    let cluster = Cluster::start(1).await;
    let before = Fixture::over(cluster.config(), "192.0.2.1:6443").await;
    before
        .check(
            "POST /api/v1/namespaces/default/serviceaccounts",
            json!({"metadata": {"name": "default"}}),
            201,
            json!({}),
        )
        .await;
    let made = before.check("POST /api/v1/namespaces/default/pods", pod("p"), 201, json!({})).await;
    let all =
        ["/apis/rbac.authorization.k8s.io/v1/clusterroles", "/apis/scheduling.k8s.io/v1/priorityclasses"];
    let mut lists = Vec::new();
    for path in all {
        lists.push(before.check(&format!("GET {path}"), Value::Null, 200, json!({})).await["items"].clone());
    }
    drop(before);
    let after = Fixture::over(cluster.config(), "192.0.2.1:6443").await;
    assert_eq!(after.check("GET /api/v1/namespaces/default/pods/p", Value::Null, 200, json!({})).await, made);
    for (path, list) in all.into_iter().zip(lists) {
        assert_eq!(
            after.check(&format!("GET {path}"), Value::Null, 200, json!({})).await["items"],
            list,
            "{path}"
        );
    }
}
