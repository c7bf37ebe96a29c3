//! Admission as clients meet it: default plugins, quotas, and webhooks over TLS.

use apimachinery::{Value, json};
use base64::Engine as _;

use super::fixture::Fixture;
use super::webhook_server::WebhookServer;

const REGISTRATION: &str = "/apis/admissionregistration.k8s.io/v1";
const CONFIGMAPS: &str = "/api/v1/namespaces/default/configmaps";

fn allowed(review: &Value, response: Value) -> Value {
    let mut whole = json!({"uid": review["request"]["uid"], "allowed": true});
    for (key, value) in response.as_object().into_iter().flatten() {
        whole[key] = value.clone();
    }
    json!({"kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1", "response": whole})
}

fn patch(operations: Value) -> Value {
    let patch = base64::engine::general_purpose::STANDARD.encode(operations.to_string());
    json!({"patch": patch, "patchType": "JSONPatch"})
}

/// A configuration of one webhook for ConfigMaps.
fn configuration(kind: &str, name: &str, client: Value, with: Value) -> Value {
    let mut hook = json!({"name": format!("{name}.example.com"), "clientConfig": client, "sideEffects": "None",
        "admissionReviewVersions": ["v1"],
        "rules": [{"operations": ["*"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}]});
    for (key, value) in with.as_object().into_iter().flatten() {
        hook[key] = value.clone();
    }
    json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}, "webhooks": [hook]})
}

async fn configure(api: &Fixture, kind: &str, name: &str, client: Value, with: Value) {
    let path = format!("POST {REGISTRATION}/{}s", kind.to_lowercase());
    api.check(&path, configuration(kind, name, client, with), 201, json!({})).await;
}

fn configmap(name: &str, data: Value) -> Value {
    json!({"metadata": {"name": name}, "data": data})
}

#[tokio::test]
async fn a_mutating_webhook_changes_what_is_written_at_once_and_over_one_connection() {
    let api = Fixture::new().await;
    let hook = WebhookServer::start(|review| {
        let mut response = patch(json!([{"op": "add", "path": "/data/hooked", "value": "yes"}]));
        response["warnings"] = json!(["careful"]);
        assert_eq!(review["request"]["userInfo"]["username"], "admin");
        assert_eq!(review["request"]["options"]["kind"], "CreateOptions");
        Some(allowed(review, response))
    })
    .await;
    configure(&api, "MutatingWebhookConfiguration", "change", hook.client_config(), json!({})).await;
    for name in ["a", "b"] {
        let answer =
            api.send(&format!("POST {CONFIGMAPS}"), configmap(name, json!({"x": "y"})).to_string()).await;
        assert_eq!(answer.code, 201, "{}", answer.json());
        assert_eq!(answer.json()["data"], json!({"x": "y", "hooked": "yes"}));
        assert_eq!(answer.headers["warning"], "299 - \"careful\"");
    }
    assert_eq!((hook.asked(), hook.connections()), (2, 1));
    api.check(
        &format!("DELETE {REGISTRATION}/mutatingwebhookconfigurations/change"),
        Value::Null,
        200,
        json!({}),
    )
    .await;
    api.check(&format!("POST {CONFIGMAPS}"), configmap("c", json!({})), 201, json!({"data": null})).await;
    assert_eq!(hook.asked(), 2);
}

#[tokio::test]
async fn a_validating_webhook_refuses_in_its_own_words() {
    let api = Fixture::new().await;
    let hook = WebhookServer::start(|review| {
        let bad =
            review["request"]["object"]["data"]["bad"] == "yes" || review["request"]["operation"] == "DELETE";
        let response = if bad {
            json!({"allowed": false, "status": {"message": "too bad", "code": 403}})
        } else {
            json!({})
        };
        Some(allowed(review, response))
    })
    .await;
    configure(&api, "ValidatingWebhookConfiguration", "refuse", hook.client_config(), json!({})).await;
    let refusal = json!({"code": 403, "message": "admission webhook \"refuse.example.com\" denied the request: too bad"});
    api.check(&format!("POST {CONFIGMAPS}"), configmap("a", json!({"bad": "yes"})), 403, refusal.clone())
        .await;
    api.check(&format!("POST {CONFIGMAPS}"), configmap("a", json!({})), 201, json!({})).await;
    api.check(&format!("DELETE {CONFIGMAPS}/a"), Value::Null, 403, refusal).await;
    let metrics = api.send("GET /metrics", "").await;
    let metrics = String::from_utf8_lossy(&metrics.bytes).into_owned();
    let line = "apiserver_admission_webhook_rejection_count{error_type=\"no_error\",name=\"refuse.example.com\",operation=\"CREATE\",rejection_code=\"403\",type=\"validating\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

#[tokio::test]
async fn the_failure_policy_decides_when_nobody_answers() {
    let api = Fixture::new().await;
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
    let address = closed.local_addr().expect("an address");
    drop(closed);
    let client = json!({"url": format!("https://{address}/hook")});
    configure(
        &api,
        "ValidatingWebhookConfiguration",
        "open",
        client.clone(),
        json!({"failurePolicy": "Ignore"}),
    )
    .await;
    api.check(&format!("POST {CONFIGMAPS}"), configmap("a", json!({})), 201, json!({})).await;
    configure(&api, "ValidatingWebhookConfiguration", "closed", client, json!({"failurePolicy": "Fail"}))
        .await;
    let why = format!(
        "Internal error occurred: failed calling webhook \"closed.example.com\": failed to call webhook: Post \"https://{address}/hook?timeout=10s\": dial tcp {address}: connect: connection refused"
    );
    api.check(&format!("POST {CONFIGMAPS}"), configmap("b", json!({})), 500, json!({"message": why})).await;
}

#[tokio::test]
async fn a_webhook_that_does_not_answer_in_time_or_is_not_trusted_has_failed() {
    let api = Fixture::new().await;
    let hook = WebhookServer::start(|_| None).await;
    configure(
        &api,
        "ValidatingWebhookConfiguration",
        "slow",
        hook.client_config(),
        json!({"timeoutSeconds": 1}),
    )
    .await;
    let why = format!(
        "Internal error occurred: failed calling webhook \"slow.example.com\": failed to call webhook: Post \"https://{}/hook?timeout=1s\": context deadline exceeded",
        hook.address
    );
    api.check(&format!("POST {CONFIGMAPS}"), configmap("a", json!({})), 500, json!({"message": why})).await;
    let other = WebhookServer::start(|_| None).await;
    let mut client = hook.client_config();
    client["caBundle"] = other.client_config()["caBundle"].clone();
    let path = format!(
        "PATCH {REGISTRATION}/validatingwebhookconfigurations/slow\nContent-Type: application/json-patch+json"
    );
    let change = json!([{"op": "replace", "path": "/webhooks/0/clientConfig", "value": client}]);
    api.check(&path, change, 200, json!({})).await;
    let answer = api.check(&format!("POST {CONFIGMAPS}"), configmap("a", json!({})), 500, json!({})).await;
    let message = answer["message"].as_str().expect("a message");
    assert!(message.contains("x509: certificate signed by unknown authority"), "{message}");
}

#[tokio::test]
async fn a_willing_webhook_is_asked_again_when_somebody_changed_the_object_after_it() {
    let api = Fixture::new().await;
    let first = WebhookServer::start(|review| {
        let seen = review["request"]["object"]["data"]["second"] == "yes";
        let response =
            if seen { patch(json!([{"op": "add", "path": "/data/saw", "value": "it"}])) } else { json!({}) };
        Some(allowed(review, response))
    })
    .await;
    let second = WebhookServer::start(|review| {
        Some(allowed(review, patch(json!([{"op": "add", "path": "/data/second", "value": "yes"}]))))
    })
    .await;
    let willing = json!({"reinvocationPolicy": "IfNeeded"});
    configure(&api, "MutatingWebhookConfiguration", "a", first.client_config(), willing).await;
    configure(&api, "MutatingWebhookConfiguration", "b", second.client_config(), json!({})).await;
    let expect = json!({"data": {"x": "y", "second": "yes", "saw": "it"}});
    api.check(&format!("POST {CONFIGMAPS}"), configmap("a", json!({"x": "y"})), 201, expect).await;
    assert_eq!((first.asked(), second.asked()), (2, 1));
}

#[tokio::test]
async fn selectors_and_dry_runs_keep_webhooks_out() {
    let api = Fixture::new().await;
    let hook = WebhookServer::start(|review| Some(allowed(review, json!({"allowed": false})))).await;
    let with = json!({"objectSelector": {"matchLabels": {"guarded": "yes"}}, "sideEffects": "NoneOnDryRun",
        "namespaceSelector": {"matchExpressions": [{"key": "free", "operator": "DoesNotExist"}]}});
    configure(&api, "ValidatingWebhookConfiguration", "some", hook.client_config(), with).await;
    let guarded = json!({"metadata": {"name": "g", "labels": {"guarded": "yes"}}});
    api.check(&format!("POST {CONFIGMAPS}"), configmap("free", json!({})), 201, json!({})).await;
    let refusal =
        json!({"message": "admission webhook \"some.example.com\" denied the request without explanation"});
    api.check(&format!("POST {CONFIGMAPS}?dryRun=All"), guarded.clone(), 400, refusal).await;
    let path = "PATCH /api/v1/namespaces/default\nContent-Type: application/merge-patch+json";
    api.check(path, json!({"metadata": {"labels": {"free": "yes"}}}), 200, json!({})).await;
    api.check(&format!("POST {CONFIGMAPS}"), guarded, 201, json!({})).await;
}

#[tokio::test]
async fn a_quota_counts_what_is_made_and_refuses_what_does_not_fit() {
    let api = Fixture::new().await;
    let quotas = "/api/v1/namespaces/default/resourcequotas";
    let quota = json!({"metadata": {"name": "few"}, "spec": {"hard": {"count/configmaps": "1"}}});
    api.check(&format!("POST {quotas}"), quota, 201, json!({})).await;
    // What the quota controller does when it has counted.
    let counted = json!({"status": {"hard": {"count/configmaps": "1"}, "used": {"count/configmaps": "0"}}});
    let path = format!("PATCH {quotas}/few/status\nContent-Type: application/merge-patch+json");
    api.check(&path, counted, 200, json!({})).await;
    api.check(&format!("POST {CONFIGMAPS}?dryRun=All"), configmap("a", json!({})), 201, json!({})).await;
    api.check(&format!("POST {CONFIGMAPS}"), configmap("a", json!({})), 201, json!({})).await;
    let used = json!({"status": {"used": {"count/configmaps": "1"}}});
    api.check(&format!("GET {quotas}/few"), Value::Null, 200, used).await;
    let why = "configmaps \"b\" is forbidden: exceeded quota: few, requested: count/configmaps=1, used: count/configmaps=1, limited: count/configmaps=1";
    api.check(&format!("POST {CONFIGMAPS}"), configmap("b", json!({})), 403, json!({"message": why})).await;
}

#[tokio::test]
async fn pods_meet_the_standard_and_the_limits_of_their_namespace() {
    let api = Fixture::new().await;
    let path = "PATCH /api/v1/namespaces/default\nContent-Type: application/merge-patch+json";
    let labels = json!({"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"}}});
    api.check(path, labels, 200, json!({})).await;
    let pod = |spec: Value| {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": spec});
        pod["spec"]["containers"] = json!([{"name": "a", "image": "x"}]);
        pod
    };
    let why = "pods \"p\" is forbidden: violates PodSecurity \"baseline:latest\": host namespaces (hostNetwork=true)";
    let pods = "/api/v1/namespaces/default/pods";
    api.check(&format!("POST {pods}"), pod(json!({"hostNetwork": true})), 403, json!({"message": why})).await;
    let limits = json!({"metadata": {"name": "l"}, "spec": {"limits": [{"type": "Container", "defaultRequest": {"cpu": "100m"}}]}});
    api.check("POST /api/v1/namespaces/default/limitranges", limits, 201, json!({})).await;
    let expect = json!({"metadata": {"annotations": {"kubernetes.io/limit-ranger": "LimitRanger plugin set: cpu request for container a"}}});
    api.check(&format!("POST {pods}"), pod(json!({})), 201, expect).await;
}

#[tokio::test]
async fn a_webhook_can_deny_a_connection_to_a_pod() {
    let api = Fixture::new().await;
    let hook = WebhookServer::start(|review| {
        let request = &review["request"];
        assert_eq!(request["operation"], "CONNECT");
        assert_eq!(
            request["object"],
            json!({"kind": "PodAttachOptions", "apiVersion": "v1", "stdin": true, "container": "a"})
        );
        assert_eq!((&request["name"], &request["subResource"]), (&json!("p"), &json!("attach")));
        Some(allowed(review, json!({"allowed": false, "status": {"message": "stay out"}})))
    })
    .await;
    let rules = json!({"rules": [{"operations": ["CONNECT"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods/attach"]}]});
    configure(&api, "ValidatingWebhookConfiguration", "attach", hook.client_config(), rules).await;
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "a", "image": "x"}]}});
    api.check("POST /api/v1/namespaces/default/pods", pod, 201, json!({})).await;
    let why = "admission webhook \"attach.example.com\" denied the request: stay out";
    let path = "POST /api/v1/namespaces/default/pods/p/attach?stdin=true&container=a";
    api.check(path, Value::Null, 400, json!({"message": why})).await;
}
