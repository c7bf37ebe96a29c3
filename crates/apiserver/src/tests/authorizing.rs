//! A webhook among those who decide.

use apimachinery::{Value, json};
use auth::UserInfo;
use auth::authorizationconfiguration::AuthorizationConfiguration;

use super::fixture::Fixture;
use super::webhook_server::WebhookServer;
use crate::authorization::{Chain, Step};

/// The webhook, and after it RBAC.
fn chain(server: &WebhookServer, folder: &std::path::Path) -> Chain {
    let kubeconfig = json!({"current-context": "w", "contexts": [{"name": "w", "context": {"cluster": "w", "user": "w"}}],
        "clusters": [{"name": "w", "cluster": {"server": format!("https://{}/authorize", server.address),
            "certificate-authority-data": server.client_config()["caBundle"]}}],
        "users": [{"name": "w", "user": {}}]});
    let path = folder.join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).expect("writes");
    let file = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthorizationConfiguration", "authorizers": [
        {"type": "Webhook", "name": "w", "webhook": {"timeout": "3s", "authorizedTTL": "5m", "unauthorizedTTL": "30s",
            "subjectAccessReviewVersion": "v1", "matchConditionSubjectAccessReviewVersion": "v1",
            "failurePolicy": "Deny", "connectionInfo": {"type": "KubeConfigFile", "kubeConfigFile": path},
            "matchConditions": [{"expression": "request.user == 'jane'"}]}},
        {"type": "RBAC", "name": "rbac"}]});
    let file = AuthorizationConfiguration::parse(&file.to_string()).expect("parses");
    let steps = file.compile().expect("is usable").into_iter().map(Step::try_from);
    Chain::new(steps.collect::<Result<_, _>>().expect("reads its kubeconfig"))
}

// Several threads, as in the process: what admission asks elsewhere holds one of them up.
#[tokio::test(flavor = "multi_thread")]
async fn a_webhook_decides_what_its_conditions_select() {
    let server = WebhookServer::start(|review| {
        let is_secret = review["spec"]["resourceAttributes"]["resource"] == "secrets";
        Some(json!({"status": {"allowed": !is_secret, "denied": is_secret, "reason": "the webhook says so"}}))
    })
    .await;
    let folder = std::env::temp_dir().join(format!("authorizing-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let chain = chain(&server, &folder);
    let api = Fixture::with(|config| config.authorization = chain).await;
    let by = |name: &str| api.server.in_process(UserInfo::new(name, [""; 0]));
    let (jane, bob) = (by("jane"), by("bob"));
    let get = |resource: &str| format!("GET /api/v1/namespaces/default/{resource}");
    for _ in 0..2 {
        assert_eq!(api.send_by(&*jane, &get("configmaps"), "").await.code, 200);
    }
    assert_eq!(server.asked(), 1, "its leave lasts");
    let refused = api.send_by(&*jane, &get("secrets"), "").await;
    assert_eq!(refused.code, 403);
    let message = refused.json()["message"].as_str().expect("text").to_owned();
    assert!(message.ends_with("in the namespace \"default\": the webhook says so"), "{message}");
    assert_eq!(api.send_by(&*bob, &get("configmaps"), "").await.code, 403, "RBAC has no rule for him");
    let role = json!({"metadata": {"name": "r"}, "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]});
    let post = "POST /apis/rbac.authorization.k8s.io/v1/namespaces/default/roles";
    assert_eq!(api.send_by(&*jane, post, role.to_string()).await.code, 201, "it lets her escalate");
    let review = json!({"spec": {"user": "jane", "resourceAttributes": {"verb": "get", "resource": "secrets", "namespace": "default"}}});
    let path = "POST /apis/authorization.k8s.io/v1/subjectaccessreviews";
    let expect = json!({"status": {"allowed": false, "denied": true, "reason": "the webhook says so"}});
    api.check(path, review, 201, expect).await;
    let rules = json!({"spec": {"namespace": "default"}});
    let path = "POST /apis/authorization.k8s.io/v1/selfsubjectrulesreviews";
    let answer = api.send_by(&*jane, path, rules.to_string()).await.json();
    assert_eq!(answer["status"]["incomplete"], Value::Bool(true));
    std::fs::remove_dir_all(&folder).expect("is removed");
}
