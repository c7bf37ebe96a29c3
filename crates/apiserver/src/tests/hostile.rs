//! Requests that mean no good, or nothing at all: each is answered, none harms the server.

use proptest::prelude::*;
use proptest::test_runner::{Config as Cases, TestRunner};

use super::fixture::{Fixture, config_map};

const COLLECTION: &str = "/api/v1/namespaces/default/configmaps";
const OBJECT: &str = "/api/v1/namespaces/default/configmaps/a";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const POLICIES: &str = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";

/// Every way in which a body may be written, and where it goes.
const BODIES: [(&str, &str, &str); 9] = [
    ("POST", COLLECTION, "application/json"),
    ("POST", COLLECTION, "application/yaml"),
    ("POST", COLLECTION, "application/vnd.kubernetes.protobuf"),
    ("POST", COLLECTION, "application/cbor"),
    ("POST", DEFINITIONS, "application/yaml"),
    ("PATCH", OBJECT, "application/json-patch+json"),
    ("PATCH", OBJECT, "application/merge-patch+json"),
    ("PATCH", OBJECT, "application/strategic-merge-patch+json"),
    ("PATCH", OBJECT, "application/apply-patch+yaml"),
];

/// As deep as a body of three megabytes allows it.
const DEEP: usize = 1 << 20;

/// Everything is thrown at one server.
async fn server() -> Fixture {
    let api = Fixture::with(|config| {
        config
            .set_features(crate::features::Features::parse(["CBORServingAndStorage=true"]).expect("is one"));
    })
    .await;
    api.send(&format!("POST {COLLECTION}"), config_map("a").to_string()).await;
    api
}

/// Sends each of the generated requests, and none may be the server's fault.
fn throw<S: Strategy>(cases: u32, what: S, request: impl Fn(S::Value) -> (String, Vec<u8>)) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let api = runtime.block_on(server());
    let mut runner = TestRunner::new(Cases { failure_persistence: None, ..Cases::with_cases(cases) });
    let thrown = runner.run(&what, |value| {
        let (head, body) = request(value);
        let answer = runtime.block_on(api.send(&head, body));
        // A state that is yet to come is waited for in vain.
        let is_answered = answer.code < 500 || answer.code == 504;
        let text = String::from_utf8_lossy(&answer.bytes);
        // Upstream has no better code for a path that leads to nothing it could name, nor for a strategic patch
        // that contradicts its type, with which it gives no reason.
        let is_undetermined = || text.contains("failed to create RequestInfo: unable to determine kind");
        let is_contradicted = || head.contains("strategic-merge-patch") && answer.json()["reason"].is_null();
        prop_assert!(is_answered || is_undetermined() || is_contradicted(), "{head}: {text}");
        Ok(())
    });
    thrown.expect("every request is answered");
    assert_eq!(runtime.block_on(api.send("GET /livez", "")).bytes, "ok");
}

fn body_of((method, path, content_type): (&str, &str, &str), body: Vec<u8>) -> (String, Vec<u8>) {
    (format!("{method} {path}?fieldManager=m\nContent-Type: {content_type}"), body)
}

#[test]
fn any_bytes_are_read_or_refused() {
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    throw(400, (prop::sample::select(BODIES.to_vec()), bytes), |(to, bytes)| body_of(to, bytes));
}

#[test]
fn any_document_is_read_or_refused() {
    let word = prop::sample::select(vec![
        "apiVersion",
        "v1",
        "kind",
        "ConfigMap",
        "metadata",
        "name",
        "a",
        "labels",
        "data",
        "op",
        "path",
        "/metadata",
        "value",
        "add",
        "$patch",
        "replace",
        "finalizers",
        "ownerReferences",
        "managedFields",
        "-1",
    ]);
    let leaf = prop_oneof![
        word.clone().prop_map(apimachinery::Value::from),
        any::<i64>().prop_map(apimachinery::Value::from),
        Just(apimachinery::Value::Null),
    ];
    let document = leaf.prop_recursive(5, 40, 5, move |inner| {
        let pairs = prop::collection::hash_map(word.clone(), inner.clone(), 0..5);
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(apimachinery::Value::from),
            pairs.prop_map(|pairs| pairs
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect::<apimachinery::Value>()),
        ]
    });
    throw(400, (prop::sample::select(BODIES.to_vec()), document), |(to, document)| {
        body_of(to, document.to_string().into_bytes())
    });
}

#[test]
fn any_path_and_query_is_answered() {
    let segment = prop::sample::select(vec![
        "api",
        "apis",
        "v1",
        "apps",
        "pods",
        "namespaces",
        "default",
        "proxy",
        "status",
        "scale",
        "openapi",
        "v2",
        "v3",
        "..",
        "%2e%2e",
        "%ff",
        "debug",
        "healthz",
        "",
        "a",
    ]);
    let path = prop::collection::vec(segment, 0..7);
    let key = prop::sample::select(vec![
        "labelSelector",
        "fieldSelector",
        "limit",
        "continue",
        "resourceVersion",
        "resourceVersionMatch",
        "pretty",
        "timeout",
        "timeoutSeconds",
        "dryRun",
        "fieldValidation",
        "hash",
        "as",
        "propagationPolicy",
    ]);
    let query = prop::collection::vec((key, "[a-z0-9=!,()%. /-]{0,20}"), 0..3);
    throw(400, (path, query), |(path, query)| {
        let pairs: Vec<String> =
            query.iter().map(|(key, value)| format!("{key}={}", value.replace([' ', '%'], "%20"))).collect();
        (format!("GET /{}?{}", path.join("/"), pairs.join("&")), Vec::new())
    });
}

#[test]
fn any_expression_is_checked_or_refused() {
    let token = prop::sample::select(vec![
        "object", ".", "spec", "metadata", "(", ")", "[", "]", "{", "}", "?", ":", "&&", "||", "!", "-",
        "==", "in", "'a'", "1", "1u", "1.5", "has", "all", "exists", "map", ",", "x", "size", "matches",
        "quantity", "\\",
    ]);
    let expression = prop::collection::vec(token, 0..25);
    throw(150, expression, |tokens| {
        let policy = apimachinery::json!({
            "metadata": {"generateName": "p-"},
            "spec": {
                "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]},
                "validations": [{"expression": tokens.concat()}],
            },
        });
        (format!("POST {POLICIES}?dryRun=All"), policy.to_string().into_bytes())
    });
}

#[tokio::test]
async fn what_is_nested_too_deeply_is_refused() {
    let api = server().await;
    for to in BODIES {
        for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
            let half = DEEP / 2;
            let body = format!("{}1{}", open.repeat(half / open.len()), close.repeat(half / open.len()));
            let (head, body) = body_of(to, body.into_bytes());
            let code = api.send(&head, body).await.code;
            assert!((400..500).contains(&code), "{head}: {code}");
        }
        // CBOR: arrays of one element each; for the other forms it is garbage.
        let (head, body) = body_of(to, vec![0x81; DEEP]);
        let code = api.send(&head, body).await.code;
        assert!((400..500).contains(&code), "{head}: {code}");
    }
    assert_eq!(api.send("GET /livez", "").await.bytes, "ok");
}

#[tokio::test]
async fn what_would_grow_without_end_is_refused() {
    let api = server().await;
    let mut bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned();
    for level in 1..20 {
        let below = format!("*a{},", level - 1).repeat(9);
        bomb += &format!("a{level}: &a{level} [{below}]\n");
    }
    for (method, path, content_type) in [BODIES[1], BODIES[8]] {
        let (head, body) = body_of((method, path, content_type), bomb.clone().into_bytes());
        let code = api.send(&head, body).await.code;
        assert!((400..500).contains(&code), "{head}: {code}");
    }
    let copies: Vec<_> =
        (0..40).map(|_| apimachinery::json!({"op": "copy", "from": "/data", "path": "/data/a"})).collect();
    let (head, body) = body_of(BODIES[5], apimachinery::json!(copies).to_string().into_bytes());
    let code = api.send(&head, body).await.code;
    assert!((400..500).contains(&code), "{head}: {code}");
}

#[tokio::test]
async fn a_body_is_taken_up_to_the_limit_and_not_beyond() {
    let api = server().await;
    let limit = crate::body::REQUEST_BODY_BYTES_MAX;
    for (size, expect) in [(limit, 400), (limit + 1, 413)] {
        let body = " ".repeat(size);
        assert_eq!(api.send(&format!("POST {COLLECTION}"), body).await.code, expect, "{size}");
    }
}
