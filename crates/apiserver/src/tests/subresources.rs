//! Status, scale, binding, eviction, tokens, reviews.

use apimachinery::{Value, json};
use auth::UserInfo;

use super::fixture::{Fixture, pod};

const PODS: &str = "/api/v1/namespaces/default/pods";

#[tokio::test]
async fn status_and_object_are_written_apart() {
    let api = Fixture::new().await;
    let mut object = api.check(&format!("POST {PODS}"), pod("p"), 201, json!({})).await;
    object["status"]["phase"] = "Running".into();
    object["metadata"]["labels"]["app"] = "changed".into();
    let ignored = api
        .check(&format!("PUT {PODS}/p"), object.clone(), 200, json!({"status": {"phase": "Pending"}}))
        .await;
    object["metadata"]["resourceVersion"] = ignored["metadata"]["resourceVersion"].clone();
    object["spec"]["containers"][0]["image"] = "other".into();
    api.check(
        &format!("PUT {PODS}/p/status"),
        object,
        200,
        json!({"status": {"phase": "Running"}, "spec": {"containers": [{"image": "busybox"}]}}),
    )
    .await;
}

#[tokio::test]
async fn a_pod_is_bound_once() {
    let api = Fixture::new().await;
    api.check(&format!("POST {PODS}"), pod("p"), 201, json!({})).await;
    let binding = json!({"kind": "Binding", "apiVersion": "v1", "metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n"}});
    api.check(&format!("POST {PODS}/p/binding"), binding.clone(), 201, json!({"status": "Success"})).await;
    api.check(&format!("GET {PODS}/p"), json!(null), 200, json!({"spec": {"nodeName": "n"}})).await;
    api.check(&format!("POST {PODS}/p/binding"), binding, 409, json!({"reason": "Conflict"})).await;
}

#[tokio::test]
async fn an_eviction_deletes() {
    let api = Fixture::new().await;
    api.check(&format!("POST {PODS}"), pod("p"), 201, json!({})).await;
    let eviction = json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "p"}});
    api.check(&format!("POST {PODS}/p/eviction"), eviction, 201, json!({"status": "Success"})).await;
    api.check(&format!("GET {PODS}/p"), json!(null), 404, json!({})).await;
}

#[tokio::test]
async fn an_eviction_needs_the_budgets_consent() {
    let api = Fixture::new().await;
    let budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets";
    let budget = json!({"metadata": {"name": "b"}, "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "p"}}}});
    let mut budget = api.check(&format!("POST {budgets}"), budget, 201, json!({})).await;
    budget["status"] = json!({"observedGeneration": 1, "disruptionsAllowed": 1, "currentHealthy": 2, "desiredHealthy": 1,
        "expectedPods": 2});
    api.check(&format!("PUT {budgets}/b/status"), budget, 200, json!({})).await;
    for name in ["p", "q"] {
        let mut ready = pod(name);
        ready["metadata"]["labels"] = json!({"app": "p"});
        ready["spec"]["nodeName"] = "n".into();
        let mut ready = api.check(&format!("POST {PODS}"), ready, 201, json!({})).await;
        ready["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        api.check(&format!("PUT {PODS}/{name}/status"), ready, 200, json!({})).await;
    }
    let eviction =
        |name: &str| json!({"kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": name}});
    api.check(&format!("POST {PODS}/p/eviction"), eviction("p"), 201, json!({"status": "Success"})).await;
    let evicted = api.check(&format!("GET {PODS}/p"), json!(null), 200, json!({})).await;
    assert!(evicted["metadata"]["deletionTimestamp"].is_string());
    assert_eq!(evicted["status"]["conditions"][1]["reason"], "EvictionByEvictionAPI");
    let status = json!({"status": {"disruptionsAllowed": 0}});
    let budget = api.check(&format!("GET {budgets}/b"), json!(null), 200, status).await;
    assert!(budget["status"]["disruptedPods"]["p"].is_string());
    let refused = json!({"message": "Cannot evict pod as it would violate the pod's disruption budget."});
    api.check(&format!("POST {PODS}/q/eviction"), eviction("q"), 429, refused).await;
    let kept = api.check(&format!("GET {PODS}/q"), json!(null), 200, json!({})).await;
    assert!(kept["metadata"].get("deletionTimestamp").is_none());
}

#[tokio::test]
async fn a_deployment_is_scaled() {
    let api = Fixture::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    api.check(
        &format!("POST {path}"),
        deployment,
        201,
        json!({"spec": {"replicas": 1}, "metadata": {"generation": 1}}),
    )
    .await;
    let mut scale = api
        .check(
            &format!("GET {path}/d/scale"),
            json!(null),
            200,
            json!({"kind": "Scale", "spec": {"replicas": 1}}),
        )
        .await;
    scale["spec"]["replicas"] = 3.into();
    api.check(&format!("PUT {path}/d/scale"), scale, 200, json!({"spec": {"replicas": 3}})).await;
    let merge = format!("PATCH {path}/d/scale\nContent-Type: application/merge-patch+json");
    api.check(&merge, json!({"spec": {"replicas": 4}}), 200, json!({"spec": {"replicas": 4}})).await;
    api.check(
        &format!("GET {path}/d"),
        json!(null),
        200,
        json!({"spec": {"replicas": 4}, "metadata": {"generation": 3}}),
    )
    .await;
}

#[tokio::test]
async fn who_applies_a_scale_takes_the_replicas_over_by_force_only() {
    let api = Fixture::new().await;
    let path = "/apis/apps/v1/namespaces/default/deployments";
    let deployment = json!({"metadata": {"name": "d"}, "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "d"}},
        "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}});
    api.check(&format!("POST {path}?fieldManager=author"), deployment, 201, json!({})).await;
    let apply = |more: &str| {
        format!("PATCH {path}/d/scale?fieldManager=scaler{more}\nContent-Type: application/apply-patch+yaml")
    };
    let scale = json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "d"}, "spec": {"replicas": 3}});
    let conflict =
        "Apply failed with 1 conflict: conflict with \"author\" using autoscaling/v1: .spec.replicas";
    api.check(&apply(""), scale.clone(), 409, json!({"reason": "Conflict", "message": conflict})).await;
    api.check(&apply("&force=true"), scale, 200, json!({"spec": {"replicas": 3}})).await;
    let workload =
        api.check(&format!("GET {path}/d"), json!(null), 200, json!({"spec": {"replicas": 3}})).await;
    let managers = workload["metadata"]["managedFields"].as_array().expect("managers");
    let replicas = |name: &str| {
        let entry = managers.iter().find(|entry| entry["manager"] == name).expect("a manager");
        (
            entry["apiVersion"].clone(),
            entry["operation"].clone(),
            entry["fieldsV1"]["f:spec"].get("f:replicas").is_some(),
        )
    };
    assert_eq!(replicas("author"), (json!("apps/v1"), json!("Update"), false));
    assert_eq!(replicas("scaler"), (json!("apps/v1"), json!("Apply"), true));
    let nobody = format!("PATCH {path}/d/scale\nContent-Type: application/apply-patch+yaml");
    api.check(&nobody, json!({}), 422, json!({"reason": "Invalid"})).await;
    let wrong = format!("PATCH {path}/d/scale\nContent-Type: application/json-patch+json");
    let many = json!([{"op": "replace", "path": "/spec/replicas", "value": "many"}]);
    api.check(&wrong, many, 422, json!({"reason": "Invalid"})).await;
}

#[tokio::test]
async fn a_service_account_token_is_issued_and_reviewed() {
    let api = Fixture::new().await;
    let request = json!({"spec": {"expirationSeconds": 600}});
    let made = api
        .check("POST /api/v1/namespaces/default/serviceaccounts/default/token", request, 201, json!({}))
        .await;
    let review = json!({"spec": {"token": made["status"]["token"]}});
    let user = json!({"username": "system:serviceaccount:default:default"});
    api.check(
        "POST /apis/authentication.k8s.io/v1/tokenreviews",
        review,
        201,
        json!({"status": {"authenticated": true, "user": user}}),
    )
    .await;
    let short = json!({"spec": {"expirationSeconds": 10}});
    api.check("POST /api/v1/namespaces/default/serviceaccounts/default/token", short, 422, json!({})).await;
}

#[tokio::test]
async fn a_token_request_is_of_the_account_in_its_path() {
    let api = Fixture::new().await;
    let account = "/api/v1/namespaces/default/serviceaccounts/default";
    let post = format!("POST {account}/token");
    let uid = api.send(&format!("GET {account}"), "").await.json()["metadata"]["uid"].clone();
    let with = |metadata: Value| json!({"metadata": metadata, "spec": {"audiences": ["a"]}});
    let made = api.check(&post, with(json!({"labels": {"a": "b"}})), 201, json!({})).await;
    let metadata = &made["metadata"];
    assert_eq!((&metadata["name"], &metadata["uid"]), (&json!("default"), &uid));
    assert_eq!(metadata["labels"], json!({"a": "b"}));
    let owned = json!({"f:metadata": {"f:labels": {".": {}, "f:a": {}}},
                       "f:spec": {"f:audiences": {}, "f:expirationSeconds": {}}});
    assert_eq!(metadata["managedFields"][0]["fieldsV1"], owned);
    assert_eq!(metadata["managedFields"][0]["subresource"], "token");

    let name = json!({"message": "TokenRequest.authentication.k8s.io \"default\" is invalid: metadata.name: Invalid value: \"x\": must match the service account name if specified"});
    api.check(&post, with(json!({"name": "x"})), 422, name).await;
    api.check(&post, with(json!({"namespace": "x"})), 400, json!({"reason": "BadRequest"})).await;
    let message = format!(
        "Operation cannot be fulfilled on TokenRequest.authentication.k8s.io \"default\": the UID in the token request (x) does not match the UID of the service account ({})",
        uid.as_str().expect("text")
    );
    api.check(&post, with(json!({"uid": "x"})), 409, json!({"message": message})).await;

    let secret = json!({"metadata": {"name": "s"}});
    api.check("POST /api/v1/namespaces/default/secrets", secret, 201, json!({})).await;
    let mut bound = with(json!({}));
    bound["spec"]["boundObjectRef"] = json!({"apiVersion": "v1", "kind": "Secret", "name": "s", "uid": "x"});
    let refused = api.check(&post, bound, 409, json!({"details": {"kind": "Secret", "name": "s"}})).await;
    assert!(refused["message"].as_str().expect("text").contains("on Secret \"s\": the UID in the bound"));
}

#[tokio::test]
async fn who_may_do_what_is_answered() {
    let api = Fixture::new().await;
    let review =
        json!({"spec": {"resourceAttributes": {"verb": "list", "resource": "pods", "namespace": "default"}}});
    let path = "POST /apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    api.check(path, review.clone(), 201, json!({"status": {"allowed": true}})).await;
    let nobody = api.server.in_process(UserInfo::new("nobody", [""; 0]));
    let answer = api.send_by(&*nobody, path, review.to_string()).await.json();
    assert_eq!(answer["status"]["allowed"], false);
    let refused = api.send_by(&*nobody, "GET /api/v1/namespaces/default/pods", "").await.json();
    assert_eq!(
        refused["message"],
        "pods is forbidden: User \"nobody\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""
    );
    let acting = "GET /api/v1/namespaces/default/pods\nImpersonate-User: nobody";
    api.check(acting, json!(null), 403, json!({})).await;
}

#[tokio::test]
async fn acting_as_somebody_is_never_acting_as_oneself() {
    let api = Fixture::new().await;
    let pods = "GET /api/v1/namespaces/default/pods";
    let named = json!({"message": "pods is forbidden: User \"josé\" cannot list resource \"pods\" in API group \"\" in the namespace \"default\""});
    api.check(&format!("{pods}\nImpersonate-User: josé"), json!(null), 403, named).await;
    api.check(&format!("{pods}\nImpersonate-Extra-Scopes: view"), json!(null), 400, json!({})).await;
    let extra = format!("{pods}\nImpersonate-User: nobody\nImpersonate-Extra-Scopes: view");
    let nobody = api.server.in_process(UserInfo::new("nobody", [""; 0]));
    assert_eq!(api.send_by(&*nobody, &extra, "").await.code, 403);
    let review = "POST /apis/authentication.k8s.io/v1/selfsubjectreviews\nImpersonate-User: jane\nImpersonate-Extra-Example.com%2fScopes: view";
    let seen =
        json!({"status": {"userInfo": {"username": "jane", "extra": {"example.com/scopes": ["view"]}}}});
    api.check(review, json!({}), 201, seen).await;
}

#[tokio::test]
async fn a_role_grants_as_soon_as_it_is_bound() {
    let api = Fixture::new().await;
    let rbac = "/apis/rbac.authorization.k8s.io/v1/namespaces/default";
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}]});
    api.check(&format!("POST {rbac}/roles"), role, 201, json!({})).await;
    let binding = json!({"metadata": {"name": "b"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
        "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]});
    api.check(&format!("POST {rbac}/rolebindings"), binding, 201, json!({})).await;
    let jane = UserInfo::new("jane", [""; 0]);
    api.until_allowed(jane.clone(), "GET /api/v1/namespaces/default/pods").await;
    let jane = api.server.in_process(jane);
    let escalating = json!({"metadata": {"name": "e"}, "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]});
    assert_eq!(api.send_by(&*jane, &format!("POST {rbac}/roles"), escalating.to_string()).await.code, 403);
}

#[tokio::test]
async fn a_path_nobody_serves_makes_no_series_of_its_own() {
    let api = Fixture::new().await;
    let strange = "GET /api/v1/namespaces/default/pods/p/%22strange";
    assert_eq!(api.send(strange, "").await.code, 404);
    let metrics = api.send("GET /metrics", "").await.bytes;
    assert!(!String::from_utf8_lossy(&metrics).contains("strange"));
}
