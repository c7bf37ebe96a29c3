//! Keys and values as upstream's API server has them.

use apimachinery::json;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;

const RECORDED: &str = include_str!("recorded.txt");

#[test]
fn what_upstream_has_written_reads_the_same_when_it_is_written_again() {
    for line in RECORDED.lines().filter(|line| !line.starts_with('#')) {
        let (path, value) = line.split_once(' ').expect("a key and a value");
        let value = STANDARD.decode(value).expect("is base64");
        let key = EtcdCodec.key(path).unwrap_or_else(|| panic!("{path} is no object"));
        assert_eq!(EtcdCodec.path(&key), path);
        let draft = EtcdCodec.decode(&key, &value).unwrap_or_else(|error| panic!("{path}: {error}"));
        // The order of fields is another one, and upstream keeps definitions in an older version.
        let again = EtcdCodec.encode(&key, &draft).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(again.starts_with(protobuf::MAGIC), value.starts_with(protobuf::MAGIC), "{path}");
        let read = EtcdCodec.decode(&key, &again).unwrap_or_else(|error| panic!("{path}: {error}"));
        let [read, draft] = [read, draft].map(|draft| String::from_utf8(draft.json).expect("is JSON"));
        assert_eq!(read, draft, "{path}");
    }
}

#[test]
fn objects_are_under_upstreams_keys() {
    for (key, path) in [
        (Key::new("pods", "default", "p"), "pods/default/p"),
        (Key::cluster("nodes", "n"), "minions/n"),
        (Key::new("services", "default", "s"), "services/specs/default/s"),
        (Key::new("endpoints", "default", "s"), "services/endpoints/default/s"),
        (Key::new("replicationcontrollers", "default", "r"), "controllers/default/r"),
        (Key::new("ingresses.networking.k8s.io", "default", "i"), "ingress/default/i"),
        (Key::new("deployments.apps", "default", "d"), "deployments/default/d"),
        (Key::new("leases.coordination.k8s.io", "kube-system", "l"), "leases/kube-system/l"),
        (Key::cluster("clusterroles.rbac.authorization.k8s.io", "system:node"), "clusterroles/system:node"),
        (
            Key::cluster("customresourcedefinitions.apiextensions.k8s.io", "foos.example.com"),
            "apiextensions.k8s.io/customresourcedefinitions/foos.example.com",
        ),
        (
            Key::cluster("apiservices.apiregistration.k8s.io", "v1.apps"),
            "apiregistration.k8s.io/apiservices/v1.apps",
        ),
        (Key::new("foos.example.com", "default", "f"), "example.com/foos/default/f"),
        (Key::cluster("bars.example.com", "b"), "example.com/bars/b"),
        (Key::cluster("masterleases", "192.0.2.1"), "masterleases/192.0.2.1"),
    ] {
        assert_eq!(EtcdCodec.path(&key), path);
        assert_eq!(EtcdCodec.key(path), Some(key));
    }
}

#[test]
fn every_stored_kind_has_a_key_of_its_own() {
    for kind in CATALOGUE.iter().filter(|kind| kind.is_stored()) {
        let namespace = if kind.resource.namespaced { "ns" } else { "" };
        let key = Key::new(kind.storage, namespace, "name");
        assert_eq!(EtcdCodec.key(&EtcdCodec.path(&key)), Some(key));
    }
}

#[test]
fn what_is_no_object_has_no_key() {
    for path in [
        "health",
        "ranges/serviceips",
        "pods/p",
        "pods//p",
        "pods/ns/",
        "minions/",
        "minions/a/b",
        "example.com/foos",
        "",
    ] {
        assert_eq!(EtcdCodec.key(path), None, "{path:?}");
    }
}

fn kept(resource: &str, object: &Value) -> (Bytes, Value) {
    let key = Key::new(resource, "default", "a");
    let draft = match ROWS.by_storage.get(resource) {
        Some(row) => draft(row.kind, object),
        None => draft::custom(object),
    };
    let value = EtcdCodec.encode(&key, &draft).expect("encodes");
    let read = EtcdCodec.decode(&key, &value).expect("decodes");
    (value, serde_json::from_slice(&read.json).expect("is JSON"))
}

#[test]
fn kinds_of_upstreams_own_are_protobuf_and_others_json_without_a_revision() {
    let metadata = json!({"name": "a", "namespace": "default", "uid": "u", "resourceVersion": "7"});
    let map = json!({"kind": "ConfigMap", "apiVersion": "v1", "metadata": metadata, "data": {"a": "1"}});
    let (value, read) = kept("configmaps", &map);
    assert!(value.starts_with(b"k8s\0"));
    assert_eq!((&read["data"], &read["metadata"]["uid"]), (&map["data"], &json!("u")));
    let foo =
        json!({"kind": "Foo", "apiVersion": "example.com/v1", "metadata": metadata, "spec": {"n": 1.5}});
    let (value, read) = kept("foos.example.com", &foo);
    let plain: Value = serde_json::from_slice(&value).expect("is JSON");
    assert_eq!(plain["metadata"], json!({"name": "a", "namespace": "default", "uid": "u"}));
    assert_eq!(read["spec"], foo["spec"]);
}

#[test]
fn an_object_in_another_version_is_read_in_the_one_that_is_kept() {
    let old = json!({"kind": "HorizontalPodAutoscaler", "apiVersion": "autoscaling/v1",
        "metadata": {"name": "a", "namespace": "default"},
        "spec": {"maxReplicas": 3, "targetCPUUtilizationPercentage": 50, "scaleTargetRef": {"kind": "D", "name": "d"}}});
    let root = api::schema::type_id("io.k8s.api.autoscaling.v1.HorizontalPodAutoscaler");
    let value = protobuf::encode(api::schema(), root, &old).expect("encodes");
    let key = Key::new("horizontalpodautoscalers.autoscaling", "default", "a");
    let draft = EtcdCodec.decode(&key, &value).expect("decodes");
    let read: Value = serde_json::from_slice(&draft.json).expect("is JSON");
    assert_eq!(read["apiVersion"], "autoscaling/v2");
    assert_eq!(read["spec"]["metrics"][0]["resource"]["target"]["averageUtilization"], 50);
}

#[test]
fn what_is_no_object_of_its_kind_is_refused() {
    let key = Key::new("configmaps", "default", "a");
    let secret = br#"{"kind":"Secret","apiVersion":"v1","metadata":{"name":"a"}}"#;
    for value in [&secret[..], b"k8s\0", b"nonsense", b""] {
        assert!(EtcdCodec.decode(&key, value).is_err(), "{value:?}");
    }
}
