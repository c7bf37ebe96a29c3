//! The real table under the real codecs. The facts below come from Kubernetes 1.36's OpenAPI and protobuf texts.

use apimachinery::codec::{Error, Format, Strictness, protobuf};
use apimachinery::{Value, json};
use proptest::prelude::*;
use prost_reflect::{self as reflect, DescriptorPool, DynamicMessage, ReflectMessage};

use super::*;

fn decode(kind: &str, format: Format, bytes: &[u8], strictness: Strictness) -> Result<Value, Error> {
    schema().decode(type_id(kind), format, bytes, strictness).map(|decoded| decoded.value)
}

const POD: &str = "io.k8s.api.core.v1.Pod";
const DEPLOYMENT: &str = "io.k8s.api.apps.v1.Deployment";

/// A pod that uses most shapes there are: maps, embedded messages, quantities, times, int-or-strings, bytes, raw JSON.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web", "namespace": "default", "labels": {"app": "web"},
            "creationTimestamp": "2026-01-02T03:04:05Z",
            "managedFields": [{
                "manager": "kubectl", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                "time": "2026-01-02T03:04:05Z", "fieldsV1": {"f:spec": {"f:nodeName": {}}},
            }],
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": false,
            }],
        },
        "spec": {
            "containers": [{
                "name": "web", "image": "nginx", "resources": {"limits": {"cpu": "500m", "memory": "1Gi"}},
                "ports": [{"containerPort": 80, "protocol": "TCP"}],
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 10},
                "readinessProbe": {"tcpSocket": {"port": 80}},
                "env": [{"name": "A", "value": "b"}],
            }],
            "volumes": [
                {"name": "a", "emptyDir": {}},
                {"name": "b", "configMap": {"name": "c", "optional": false, "defaultMode": 420}},
            ],
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"key": "k", "operator": "Exists", "tolerationSeconds": -1}],
        },
        "status": {
            "phase": "Running",
            "containerStatuses": [{
                "name": "web", "ready": false, "restartCount": 0, "image": "nginx", "imageID": "",
                "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}}, "lastState": {},
            }],
        },
    })
}

fn survives_protobuf(kind: &str, object: &Value) {
    let root = type_id(kind);
    let bytes = schema().encode(root, Format::Protobuf, object).expect("encodes");
    let json = serde_json::to_vec(object).expect("encodes");
    assert_eq!(protobuf::from_json(schema(), root, &json).expect("encodes"), bytes);
    assert!(bytes.starts_with(protobuf::MAGIC));
    assert_eq!(&decode(kind, Format::Protobuf, &bytes, Strictness::Strict).expect("decodes"), object);
}

#[test]
fn every_kind_that_travels_has_kind_and_api_version() {
    for (id, ty) in schema().named() {
        let travels = ty.object().is_some_and(|o| !o.gvk.is_empty()) && ty.short_name() != "WatchEvent";
        if travels {
            assert!(schema().field(id, "kind").is_some_and(|f| f.tag == 0), "{} has a kind", ty.name);
        }
    }
}

#[test]
fn the_table_is_small() {
    let rows = schema().types().iter().filter_map(Type::object).map(|o| o.fields.capacity()).sum::<usize>();
    let bytes = rows * size_of::<Field>() + size_of_val(schema().types());
    assert!(bytes < 3 << 20, "{bytes} bytes");
}

/// `Type.field`: required, list type, patch merge key, protobuf tag.
#[test]
fn the_table_states_upstreams_facts() {
    let keys = |keys: &[&'static str]| ListType::Map(keys.iter().map(|k| Text::Borrowed(k)).collect());
    for (type_name, field, required, list_type, merge_key, tag) in [
        ("io.k8s.api.core.v1.PodSpec", "containers", true, Some(keys(&["name"])), Some("name"), 2),
        ("io.k8s.api.core.v1.PodSpec", "schedulingGroup", false, None, None, 43),
        (
            "io.k8s.api.core.v1.Container",
            "ports",
            false,
            Some(keys(&["containerPort", "protocol"])),
            Some("containerPort"),
            6,
        ),
        (
            "io.k8s.api.core.v1.ServiceSpec",
            "ports",
            false,
            Some(keys(&["port", "protocol"])),
            Some("port"),
            1,
        ),
        ("io.k8s.api.core.v1.Container", "command", false, Some(ListType::Atomic), None, 3),
        ("io.k8s.api.apps.v1.DeploymentSpec", "selector", true, None, None, 2),
        ("io.k8s.api.batch.v1.CronJob", "spec", true, None, None, 2),
        (
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
            "finalizers",
            false,
            Some(ListType::Set),
            None,
            14,
        ),
    ] {
        let found = schema().field(type_id(type_name), field).expect("the field exists");
        let found_list = match &schema()[found.ty].kind {
            TypeKind::List(list) => Some(list.list_type.clone()),
            _ => None,
        };
        let found_key = found.patch_merge_key.as_deref();
        assert_eq!(
            (found.required, found_list, found_key, found.tag),
            (required, list_type, merge_key, tag),
            "{type_name}.{field}"
        );
    }
    assert!(schema().field(type_id("io.k8s.api.core.v1.PodSpec"), "workloadRef").is_none());
}

#[test]
fn a_pod_survives_every_format() {
    survives_protobuf(POD, &pod());
    for format in [Format::Json, Format::Yaml] {
        let bytes = schema().encode(type_id(POD), format, &pod()).expect("encodes");
        assert_eq!(decode(POD, format, &bytes, Strictness::Strict).expect("decodes"), pod());
    }
}

#[test]
fn objects_embedded_twice_over_survive_protobuf() {
    survives_protobuf(
        "io.k8s.api.admissionregistration.v1.ValidatingAdmissionPolicy",
        &json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": "p"}, "status": {},
            "spec": {"matchConstraints": {"resourceRules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"],
                "resourceNames": ["x"], "scope": "*",
            }]}},
        }),
    );
    survives_protobuf(
        "io.k8s.api.authentication.v1.TokenReview",
        &json!({
            "apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {"token": "t"},
            "status": {"user": {"username": "u", "extra": {"a": ["b", "c"]}}},
        }),
    );
    survives_protobuf(
        "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        &json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "a.b"},
            "spec": {
                "group": "b", "scope": "Namespaced", "names": {"plural": "a", "kind": "A"},
                "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {"x": {"type": "array", "items": {"type": "integer", "default": 3}}},
                    "additionalProperties": false, "x-kubernetes-preserve-unknown-fields": true,
                }}}],
            },
            "status": {"acceptedNames": {"plural": "", "kind": ""}, "conditions": [], "storedVersions": []},
        })
        .pipe_without(&["/status/conditions", "/status/storedVersions"]),
    );
}

/// Go's protobuf does not tell an empty list from none; samples state lists that JSON alone would keep.
trait Without {
    fn pipe_without(self, pointers: &[&str]) -> Self;
}

impl Without for Value {
    fn pipe_without(mut self, pointers: &[&str]) -> Self {
        for pointer in pointers {
            let (parent, key) = pointer.rsplit_once('/').expect("a pointer has a slash");
            self.pointer_mut(parent).and_then(Value::as_object_mut).expect("is an object").remove(key);
        }
        self
    }
}

#[test]
fn go_zero_values_are_dropped_and_pointers_to_them_kept() {
    let given = br#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"a","labels":{},"creationTimestamp":null},
        "spec":{"replicas":0,"paused":false,"minReadySeconds":0,"selector":{"matchLabels":{}},
        "template":{"spec":{"containers":[],"hostNetwork":false,"nodeName":""}}}}"#;
    let expect = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"replicas": 0, "selector": {}, "template": {"spec": {"containers": []}}},
    });
    assert_eq!(decode(DEPLOYMENT, Format::Json, given, Strictness::Strict).expect("decodes"), expect);
    let given = serde_json::from_slice(given).expect("is JSON");
    let applied = schema().decode_applied(type_id(DEPLOYMENT), given);
    assert_eq!(applied.expect("decodes").value["spec"]["paused"], false);
}

#[test]
fn strict_decoding_names_unknown_and_duplicate_fields() {
    let given =
        br#"{"spec":{"nodeName":"a","nodeName":"b","containers":[{"name":"c","imagee":"x"}],"foo":1}}"#;
    let issues = [
        "duplicate field \"spec.nodeName\"",
        "unknown field \"spec.containers[0].imagee\"",
        "unknown field \"spec.foo\"",
    ];
    let strict = decode(POD, Format::Json, given, Strictness::Strict).expect_err("is strict");
    assert_eq!(strict.to_string(), format!("strict decoding error: {}", issues.join(", ")));
    let warned = schema().decode(type_id(POD), Format::Json, given, Strictness::Warn).expect("decodes");
    assert_eq!(warned.warnings, issues);
    assert_eq!(
        warned.value,
        json!({"apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "b", "containers": [{"name": "c"}]}})
    );
    let yaml = b"spec:\n  nodeName: a\n  nodeName: b\n";
    let warned = schema().decode(type_id(POD), Format::Yaml, yaml, Strictness::Warn).expect("decodes");
    assert_eq!(warned.warnings, ["line 3: key \"nodeName\" already set in map"]);
    assert_eq!(warned.value["spec"]["nodeName"], "b");
}

#[test]
fn a_value_that_does_not_fit_is_refused_in_upstreams_words() {
    for (given, expect) in [
        (
            r#"{"spec":{"containers":"x"}}"#,
            "json: cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container",
        ),
        (
            r#"{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}"#,
            "json: cannot unmarshal string into Go struct field ContainerPort.spec.containers.ports.containerPort of type int32",
        ),
        (
            r#"{"spec":{"priority":1.5}}"#,
            "json: cannot unmarshal number 1.5 into Go struct field PodSpec.spec.priority of type int32",
        ),
        (
            r#"{"metadata":{"labels":{"a":1}}}"#,
            "json: cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string",
        ),
        ("[]", "json: cannot unmarshal array into Go value of type v1.Pod"),
        (
            r#"{"spec":{"volumes":[{"name":"v"},{"secret":{"items":"x"}}]}}"#,
            "json: cannot unmarshal string into Go struct field SecretVolumeSource.spec.volumes.VolumeSource.secret.items of type []v1.KeyToPath",
        ),
        (
            r#"{"spec":{"ephemeralContainers":[{"livenessProbe":{"tcpSocket":[]}}]}}"#,
            "json: cannot unmarshal array into Go struct field Probe.spec.ephemeralContainers.EphemeralContainerCommon.livenessProbe.ProbeHandler.tcpSocket of type v1.TCPSocketAction",
        ),
    ] {
        let error = decode(POD, Format::Json, given.as_bytes(), Strictness::Warn).expect_err(given);
        assert_eq!(error.to_string(), expect);
    }
    let error = decode(POD, Format::Json, b"[]", Strictness::Warn).expect_err("is no pod");
    assert!(
        error
            .to_status("v1", "Pod", "Pod")
            .message
            .starts_with("Pod in version \"v1\" cannot be handled as a Pod: ")
    );
}

#[test]
fn of_several_misfits_the_first_is_told_unless_a_type_refuses_to_read_itself() {
    let volumes = r#""volumes":[{"secret":{"items":{"a":[1]}}},{"name":{}}]"#;
    let items = "json: cannot unmarshal object into Go struct field SecretVolumeSource.spec.volumes.VolumeSource.secret.items of type []v1.KeyToPath";
    for (rest, expect) in [
        (r#""nodeName":1"#, items),
        (r#""priority":"x","overhead":{"cpu":"1"}"#, items),
        (
            r#""overhead":{"cpu":"one"}"#,
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
        (
            r#""containers":[{"ports":[{"containerPort":1.5}],"livenessProbe":{"httpGet":{"port":true}}}]"#,
            "json: cannot unmarshal bool into Go struct field HTTPGetAction.spec.containers.livenessProbe.ProbeHandler.httpGet.port of type int32",
        ),
    ] {
        let given = format!(r#"{{"spec":{{{volumes},{rest}}}}}"#);
        let error = decode(POD, Format::Json, given.as_bytes(), Strictness::Strict).expect_err(&given);
        assert_eq!(error.to_string(), expect);
        let error = decode(POD, Format::Yaml, given.as_bytes(), Strictness::Warn).expect_err(&given);
        assert_eq!(error.to_string(), expect);
    }
    let unended = br#"{"spec":{"nodeName":1}"#;
    let error = decode(POD, Format::Json, unended, Strictness::Warn).expect_err("is no JSON");
    assert!(!error.to_string().contains("nodeName"), "{error}");
}

#[test]
fn what_is_of_a_feature_that_is_off_is_known_and_not_kept() {
    let given = r#"{"spec":{"schedulingGroup":{"podGroupName":"g"},
        "containers":[{"name":"a","lifecycle":{"stopSignal":"SIGTERM"}},{"name":"b","lifecycle":{}}],
        "volumes":[{"name":"v","projected":{"sources":[{"clusterTrustBundle":{"name":"b","path":"p"}}]}}]}}"#;
    let expect = json!({
        "containers": [{"name": "a"}, {"name": "b", "lifecycle": {}}],
        "volumes": [{"name": "v", "projected": {"sources": [{}]}}],
    });
    let strict = decode(POD, Format::Json, given.as_bytes(), Strictness::Strict).expect("is known");
    assert_eq!(strict["spec"], expect);
    let mut pod: Value = serde_json::from_str(given).expect("is JSON");
    pod["metadata"] = json!({"name": "p"});
    let bytes = schema().encode(type_id(POD), Format::Protobuf, &pod).expect("encodes");
    let read = decode(POD, Format::Protobuf, &bytes, Strictness::Strict).expect("decodes");
    assert_eq!(read["spec"].get("schedulingGroup"), None);
    let error = decode(POD, Format::Json, br#"{"spec":{"schedulingGroup":1}}"#, Strictness::Warn);
    assert!(error.is_err(), "what is not kept has its type all the same");
}

#[test]
fn a_schema_or_something_else_is_read_as_upstream_reads_it() {
    let schema = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let read = |given: &str| decode(schema, Format::Json, given.as_bytes(), Strictness::Strict);
    for what in ["1", r#""x""#, "[]"] {
        let error = read(&format!(r#"{{"additionalProperties":{what}}}"#)).expect_err(what);
        assert_eq!(error.to_string(), "boolean or JSON schema expected");
    }
    assert_eq!(read(r#"{"items":1,"dependencies":{"a":true}}"#), Ok(json!({"dependencies": {"a": null}})));
    assert_eq!(read(r#"{"items":[{}]}"#), Ok(json!({"items": [{}]})));
    assert_eq!(read(r#"{"additionalProperties":false}"#), Ok(json!({"additionalProperties": false})));
}

#[test]
fn kinds_are_found_by_group_version_and_kind() {
    for (group, version, kind, expect) in [
        ("", "v1", "Pod", Some(POD)),
        ("apps", "v1", "Deployment", Some(DEPLOYMENT)),
        (
            "meta.k8s.io",
            "v1",
            "PartialObjectMetadata",
            Some("io.k8s.apimachinery.pkg.apis.meta.v1.PartialObjectMetadata"),
        ),
        ("events.k8s.io", "v1", "Event", Some("io.k8s.api.events.v1.Event")),
        ("apps", "v2", "Deployment", None),
    ] {
        let gvk = apimachinery::GroupVersionKind::new(group, version, kind);
        assert_eq!(schema().lookup_gvk(&gvk).map(|id| schema()[id].name.as_ref()), expect, "{gvk}");
    }
}

#[test]
fn yaml_scalars_read_as_in_yaml_1_1() {
    let yaml =
        b"spec:\n  hostNetwork: yes\n  priority: 0x10\n  activeDeadlineSeconds: 010\n  nodeName: \"1\"\n";
    let pod = decode(POD, Format::Yaml, yaml, Strictness::Strict).expect("decodes");
    let expect = json!({"hostNetwork": true, "priority": 16, "activeDeadlineSeconds": 8, "nodeName": "1"});
    assert_eq!(pod["spec"], expect);
    let error = decode(POD, Format::Yaml, b"spec: {nodeName: 1}", Strictness::Warn).expect_err("is a number");
    assert_eq!(
        error.to_string(),
        "json: cannot unmarshal number into Go struct field PodSpec.spec.nodeName of type string"
    );
}

#[test]
fn nesting_has_a_limit_in_every_format() {
    let crd = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps";
    let nested = |depth: usize| (0..depth).fold(json!({"type": "a"}), |inner, _| json!({"not": inner}));
    let root = type_id(crd);
    let deep = nested(apimachinery::codec::DEPTH_MAX + 1);
    assert!(schema().encode(root, Format::Protobuf, &deep).is_err());
    assert!(schema().decode_value(root, deep.clone(), Strictness::Ignore).is_err());
    assert!(
        decode(crd, Format::Json, &serde_json::to_vec(&deep).expect("encodes"), Strictness::Ignore).is_err()
    );
    let fits = nested(apimachinery::codec::DEPTH_MAX - 2);
    assert!(schema().decode_value(root, fits.clone(), Strictness::Ignore).is_ok());
    assert!(
        decode(crd, Format::Json, &serde_json::to_vec(&fits).expect("encodes"), Strictness::Ignore).is_ok()
    );
    assert!(schema().encode(root, Format::Protobuf, &fits).is_ok());
}

#[test]
fn defaults_of_the_table_fill_what_is_absent() {
    let mut pod = json!({"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1}]}]}});
    schema().default(type_id(POD), &mut pod);
    assert_eq!(pod["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
}

#[test]
fn a_watch_frame_holds_its_event() {
    let object = schema().encode(type_id(POD), Format::Protobuf, &pod()).expect("encodes");
    let frame = protobuf::watch_frame_of("ADDED", &object);
    let (length, body) = frame.split_at(4);
    assert_eq!(u32::from_be_bytes(length.try_into().expect("four bytes")) as usize, body.len());
    let (event_type, inner) = protobuf::parse_watch_event(body).expect("parses");
    assert_eq!((event_type.as_str(), inner), ("ADDED", object.as_ref()));
    assert_eq!(protobuf::decode_any(schema(), inner).expect("decodes"), pod());
}

#[test]
fn a_pod_as_go_encodes_it_reads_as_its_json() {
    // A minimal pod as gogo-proto writes it: every plain scalar present, pointers absent.
    let mut message = Vec::new();
    let mut put = |tag: u8, content: &[u8]| {
        message.extend([tag << 3 | 2, content.len() as u8]);
        message.extend(content);
    };
    put(1, b"\x0a\x01a\x12\x00\x1a\x00\x22\x00\x2a\x00\x32\x00\x38\x00\x42\x00");
    put(2, b"\x1a\x00\x32\x00\x42\x00\x4a\x00\x52\x00\x58\x00\x60\x00\x68\x00");
    put(3, b"\x0a\x00\x1a\x00\x22\x00");
    let mut bytes = protobuf::MAGIC.to_vec();
    bytes.extend(b"\x0a\x09\x0a\x02v1\x12\x03Pod\x12");
    bytes.push(message.len() as u8);
    bytes.extend(message);
    let expect =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {}, "status": {}});
    assert_eq!(decode(POD, Format::Protobuf, &bytes, Strictness::Strict).expect("decodes"), expect);
}

/// Any value of type `ty` that Go could have written: no nulls, no omitted empties.
fn arbitrary(ty: TypeId, depth: u32) -> BoxedStrategy<Value> {
    match &schema()[ty].kind {
        TypeKind::Object(object) => {
            let fields = object.fields.iter().filter(|f| f.tag != 0 && !f.off && depth > 0);
            let fields: Vec<_> = fields.map(|f| (f, arbitrary(f.ty, depth - 1))).collect();
            let parts: Vec<_> = fields
                .into_iter()
                .map(|(f, value)| {
                    proptest::option::weighted(0.3, value)
                        .prop_map(move |v| v.map(|v| (f.name.clone().into_owned(), v)))
                })
                .collect();
            parts.prop_map(|parts| Value::Object(parts.into_iter().flatten().collect())).boxed()
        }
        TypeKind::Map(map) => {
            proptest::collection::btree_map("[a-z]{1,4}", arbitrary(map.value, depth), 1..3)
                .prop_map(|map| Value::Object(map.into_iter().collect()))
                .boxed()
        }
        TypeKind::List(list) => {
            proptest::collection::vec(arbitrary(list.item, depth), 1..3).prop_map(Value::Array).boxed()
        }
        TypeKind::Union(union) => arbitrary(union.other, depth),
        TypeKind::Any => Just(json!({"any": [1, "x", null]})).boxed(),
        TypeKind::Scalar(scalar) => arbitrary_scalar(*scalar),
    }
}

fn arbitrary_scalar(scalar: Scalar) -> BoxedStrategy<Value> {
    match scalar {
        Scalar::String => "[a-zé\"]{1,6}".prop_map(Value::from).boxed(),
        Scalar::Bytes => Just(json!("AAEC")).boxed(),
        Scalar::Bool => Just(json!(true)).boxed(),
        Scalar::Int32 => {
            any::<i32>().prop_filter("zero is omitted", |n| *n != 0).prop_map(Value::from).boxed()
        }
        Scalar::Int64 => {
            any::<i64>().prop_filter("zero is omitted", |n| *n != 0).prop_map(Value::from).boxed()
        }
        Scalar::Double => Just(json!(2.5)).boxed(),
        Scalar::Quantity => (1..999_i64).prop_map(|n| Value::from(format!("{n}m"))).boxed(),
        Scalar::IntOrString => {
            prop_oneof![any::<i32>().prop_map(Value::from), "[a-z%]{1,4}".prop_map(Value::from)].boxed()
        }
        Scalar::Time => Just(json!("2026-01-02T03:04:05Z")).boxed(),
        Scalar::MicroTime => Just(json!("1969-01-02T03:04:05.000006Z")).boxed(),
        Scalar::Duration => Just(json!("1m30s")).boxed(),
    }
}

/// A type that travels on its own, and an object of it.
fn any_kind() -> impl Strategy<Value = (TypeId, Value)> {
    let travels = |ty: &Type| ty.object().is_some_and(|o| !o.gvk.is_empty() && o.field("kind").is_some());
    let kinds: Vec<TypeId> = schema().named().filter(|(_, ty)| travels(ty)).map(|(id, _)| id).collect();
    proptest::sample::select(kinds).prop_flat_map(|id| (Just(id), arbitrary(id, 5)))
}

fn with_type_meta(mut object: Value, api_version: &str, kind: &str) -> Value {
    object["apiVersion"] = api_version.into();
    object["kind"] = kind.into();
    object
}

/// The same JSON with every character of its strings written as an escape.
fn escaped(value: &Value) -> String {
    let text = |text: &str| {
        let units: String = text.encode_utf16().map(|unit| format!("\\u{unit:04x}")).collect();
        format!("\"{units}\"")
    };
    match value {
        Value::String(string) => text(string),
        Value::Array(items) => format!("[{}]", items.iter().map(escaped).collect::<Vec<_>>().join(",")),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| format!("{}:{}", text(key), escaped(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
        other => other.to_string(),
    }
}

/// What a text is refused with on its way to protobuf.
fn refusal(kind: &str, text: &[u8]) -> String {
    match protobuf::from_json(schema(), type_id(kind), text) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_protobuf_cannot_carry_is_refused() {
    for (text, expect) in [
        (r#"{"spec":{"nodeName":1}}"#, "proto: cannot encode a number as String at line 1 column 21"),
        (r#"{"spec":{"nodeName":{}}}"#, "proto: cannot encode an object as String at line 1 column 22"),
        (r#"{"spec":{"containers":"x"}}"#, "proto: cannot encode a string as a list at line 1 column 25"),
        (r#"{"metadata":{"labels":[]}}"#, "proto: cannot encode a list as a map at line 1 column 24"),
        (
            r#"{"metadata":true}"#,
            "proto: cannot encode a bool as io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta at line 1 column 16",
        ),
        ("{\n\"spec\": {\"priority\": 1.5}}", "proto: cannot encode a number as Int32 at line 2 column 24"),
        (
            r#"{"metadata":{"creationTimestamp":"yesterday"}}"#,
            "proto: cannot encode a string as io.k8s.apimachinery.pkg.apis.meta.v1.Time at line 1 column 44",
        ),
        ("", "EOF while parsing a value at line 1 column 0"),
        (r#"{"spec":{"nodeName":"a"}"#, "EOF while parsing an object at line 1 column 24"),
        (r#"{"spec":{"nodeName":"a",}}"#, "trailing comma at line 1 column 25"),
        (r#"{"spec":{"nodeName":x}}"#, "expected value at line 1 column 21"),
        (r#"{"spec":{"nodeName":"\ud800"}}"#, "unexpected end of hex escape at line 1 column 28"),
        (r#"{"spec":{"priority":01}}"#, "invalid number at line 1 column 22"),
    ] {
        assert_eq!(refusal(POD, text.as_bytes()), expect, "{text}");
    }
    let secret = r#"{"data":{"a":"Y!=="}}"#;
    assert_eq!(
        refusal("io.k8s.api.core.v1.Secret", secret.as_bytes()),
        "proto: cannot encode what is not base64 as Bytes at line 1 column 19"
    );
    assert!(refusal(POD, b"{\"spec\":{\"nodeName\":\"\xff\"}}").contains("invalid utf-8"));
    let deep = format!("{{\"unknown\":{}", "[".repeat(1 << 20));
    assert_eq!(refusal(POD, deep.as_bytes()), "recursion limit exceeded at line 1 column 138");
}

#[test]
fn what_was_before_an_object_excuses_nothing_in_it() {
    let types = type_id("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.JSONSchemaProps");
    let mut alike = protobuf::Alike::default();
    let mut append =
        |text: &[u8]| protobuf::append_message(schema(), types, text, &mut alike, &mut Vec::new());
    let bad: &[u8] = b"{\"items\":{\"description\":\"\xff, and this is a text that is long enough\"}}";
    assert_eq!([append(bad).is_err(), append(bad).is_err()], [true; 2]);
    // As deep as it may be, and then one level deeper.
    let nested = |levels: usize| {
        format!(
            "{}{{\"items\":{{\"type\":\"object, or so\"}}}}{}",
            "{\"not\":".repeat(levels),
            "}".repeat(levels)
        )
    };
    let deepest = (0..).find(|levels| append(nested(*levels).as_bytes()).is_err()).expect("there is an end");
    assert!(append(nested(deepest - 1).as_bytes()).is_ok());
    assert!(append(nested(deepest).as_bytes()).is_err());
}

/// The field numbers an independent decoder with upstream's own descriptors makes nothing of, bar what 1.36 added.
fn unexplained(pool: &DescriptorPool, message: &DynamicMessage) -> Vec<String> {
    let name = message.descriptor().full_name().to_owned();
    let additions = pool.get_message_by_name(&format!("v1_36.{name}"));
    let is_added = |tag| additions.as_ref().is_some_and(|m| m.get_field(tag).is_some());
    let unknown = message.unknown_fields().map(|f| f.number()).filter(|tag| !is_added(*tag));
    let mut out: Vec<String> = unknown.map(|tag| format!("{name} {tag}")).collect();
    for (_, value) in message.fields() {
        let inner: Vec<&reflect::Value> = match value {
            reflect::Value::List(items) => items.iter().collect(),
            reflect::Value::Map(entries) => entries.values().collect(),
            one => vec![one],
        };
        let messages = inner.into_iter().filter_map(reflect::Value::as_message);
        out.extend(messages.flat_map(|m| unexplained(pool, m)));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn any_pod_survives_protobuf_and_json(object in arbitrary(type_id(POD), 4)) {
        let pod = with_type_meta(object, "v1", "Pod");
        survives_protobuf(POD, &pod);
        let json = serde_json::to_vec(&pod).expect("encodes");
        prop_assert_eq!(decode(POD, Format::Json, &json, Strictness::Strict).expect("decodes"), pod);
    }

    #[test]
    fn an_object_of_any_kind_survives_protobuf((ty, object) in any_kind()) {
        let ty = &schema()[ty];
        let gvk = &ty.object().expect("kinds are objects").gvk[0];
        survives_protobuf(&ty.name, &with_type_meta(object, &gvk.group_version().to_string(), &gvk.kind));
    }

    #[test]
    fn a_text_means_the_same_however_it_is_written((ty, object) in any_kind()) {
        let ty = &schema()[ty];
        let gvk = &ty.object().expect("kinds are objects").gvk[0];
        let object = with_type_meta(object, &gvk.group_version().to_string(), &gvk.kind);
        for text in [serde_json::to_string_pretty(&object).expect("encodes"), escaped(&object)] {
            let bytes = protobuf::from_json(schema(), type_id(&ty.name), text.as_bytes()).expect("encodes");
            prop_assert_eq!(&decode(&ty.name, Format::Protobuf, &bytes, Strictness::Strict).expect("decodes"), &object);
        }
    }

    #[test]
    fn an_object_is_encoded_the_same_whatever_was_before_it(
        pods in proptest::collection::vec(arbitrary(type_id(POD), 4), 2),
        order in proptest::collection::vec((any::<[bool; 4]>(), any::<bool>()), 1..8),
    ) {
        let mut alike = protobuf::Alike::default();
        for (parts, is_broken) in order {
            // Parts of the one and parts of the other.
            let part = |(name, other): (&'static str, bool)| Some((name, pods[usize::from(other)].get(name)?.clone()));
            let names = ["metadata", "spec", "status"].into_iter();
            let pod: Value = names.zip(parts).filter_map(part).collect::<apimachinery::Map>().into();
            let mut text = pod.to_string().into_bytes();
            if is_broken {
                text.truncate(text.len() / 2);
            }
            let (mut alone, mut after) = (Vec::new(), Vec::new());
            let expected = protobuf::append_message(schema(), type_id(POD), &text, &mut protobuf::Alike::default(), &mut alone);
            let encoded = protobuf::append_message(schema(), type_id(POD), &text, &mut alike, &mut after);
            prop_assert_eq!(encoded.map_err(|error| error.to_string()), expected.map_err(|error| error.to_string()));
            prop_assert_eq!(after, alone);
        }
    }

    #[test]
    fn a_broken_text_is_refused_as_what_it_is(
        (ty, object) in any_kind(),
        at: proptest::sample::Index,
        with in proptest::sample::select(&b"\"\\{}[],:-.e0n1 \0\xff"[..]),
        cut: bool,
    ) {
        let mut text = object.to_string().into_bytes();
        let at = at.index(text.len());
        text[at] = with;
        text.truncate(if cut { at + 1 } else { text.len() });
        let is_json = serde_json::from_slice::<Value>(&text).is_ok();
        let refused = refusal(&schema()[ty].name, &text);
        // What comes after the object is nobody's concern.
        let is_object = serde_json::Deserializer::from_slice(&text).into_iter::<serde::de::IgnoredAny>().next();
        prop_assert!(!refused.is_empty() || is_object.is_some_and(|object| object.is_ok()));
        prop_assert!(!is_json || refused.is_empty() || refused.starts_with("proto: cannot encode ") && !refused.ends_with("not JSON"), "{}", refused);
    }

    #[test]
    fn an_independent_decoder_understands_any_kind((ty, object) in any_kind()) {
        static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
            let set: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
            DescriptorPool::decode(set).expect("the build wrote descriptors")
        });
        let name = &schema()[ty].name;
        let name = name.strip_prefix("io.k8s.").expect("all names start so").replace('-', "_");
        let descriptor = POOL.get_message_by_name(&name).or(POOL.get_message_by_name(&format!("v1_36.{name}")));
        let bytes = schema().encode(ty, Format::Protobuf, &object).expect("encodes");
        let raw = protobuf::Envelope::parse(&bytes).expect("has an envelope").raw;
        let message = DynamicMessage::decode(descriptor.expect("is described"), raw).expect("decodes");
        prop_assert_eq!(unexplained(&POOL, &message), Vec::<String>::new());
    }

    #[test]
    fn any_bytes_decode_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let mut enveloped = b"k8s\0\x0a\x09\x0a\x02v1\x12\x03Pod\x12".to_vec();
        enveloped.extend([bytes.len() as u8]);
        enveloped.extend(&bytes);
        for (format, bytes) in [(Format::Json, &bytes), (Format::Yaml, &bytes), (Format::Protobuf, &enveloped)] {
            // Only that this returns is at stake.
            drop(decode(POD, format, bytes, Strictness::Warn));
        }
    }
}
